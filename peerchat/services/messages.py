"""The JSON messages of the unary methods: docs/PROTOCOL.md section 11.

Field names are those of the Node.js workers, which mix two styles. Requests are checked
while they are decoded; what does not fit is an `ApiError` with status 400. Answers are
structs here and JSON bytes on the wire. No I/O.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal, TypeVar

import msgspec

from peerchat.api import ApiError, ErrorCode, RateLimit

ENVELOPE_MESSAGE = (
    "Invalid request format: expected { data: {...}, meta: { key: '...' } }"
)
UNAUTHORIZED_MESSAGE = "Unauthorized: Invalid or expired token"
RATE_LIMITED_MESSAGE = "Rate limit exceeded"
EXISTS_MESSAGE = "User already exists"
CREDENTIALS_MESSAGE = "Invalid credentials"
THROWN_PREFIX = "[HRPC_ERR]="
"""How a handler of the Node.js workers tells that it threw: a JSON string."""

BODY_BYTES_MAX = 8 * 1024 * 1024
"""Longest request that is decoded: the longest prompt with every byte escaped, and
room besides."""

ANSWER_BYTES_MAX = 12 * 1024 * 1024
"""Longest text of a unary answer: with its JSON it still fits one frame."""

EMAIL_CHARS_MAX = 254
"""RFC 5321 section 4.5.3.1.3, less the brackets."""

PASSWORD_CHARS_MAX = 1024
"""More is no password, only work for the hash."""

TokenText = Annotated[str, msgspec.Meta(max_length=8192)]
OptionValue = None | bool | int | float | str | list[str]


class Meta(msgspec.Struct, frozen=True):
    """What goes with a request; the token is missing before login."""

    key: TokenText | None = None


class Envelope(msgspec.Struct, frozen=True):
    """What a gateway's methods take; ``data`` is decoded by the method."""

    data: dict[str, object]
    meta: Meta

    @property
    def token(self) -> str:
        return self.meta.key or ""


class Credentials(msgspec.Struct, frozen=True):
    """Whom to register or log in."""

    email: str
    password: str

    def __repr__(self) -> str:
        return f"Credentials(email={self.email!r})"


class PromptData(msgspec.Struct, frozen=True, omit_defaults=True):
    """A prompt by the unary methods."""

    prompt: str
    model: Annotated[str, msgspec.Meta(max_length=256)] | None = None
    options: Annotated[dict[str, OptionValue], msgspec.Meta(max_length=32)] = {}


class RateLimitInfo(msgspec.Struct, frozen=True, rename="camel"):
    """A user's allowance."""

    remaining_requests: int
    max_requests: int
    next_reset_in_seconds: int
    window_duration_minutes: float

    @classmethod
    def of(cls, limit: RateLimit) -> RateLimitInfo:
        minutes = limit.window_minutes
        # JavaScript has one kind of number, and writes a whole one without a point.
        return cls(
            limit.remaining,
            limit.max_requests,
            limit.reset_s,
            int(minutes) if minutes.is_integer() else minutes,
        )


class PingReply(msgspec.Struct, frozen=True):
    """A role that can answer; the fields after ``service`` are ours."""

    status: str
    timestamp: int
    service: str


class RegisterReply(msgspec.Struct, frozen=True):
    """An account was made."""

    email: str
    message: str = "User registered successfully"
    success: Literal[True] = True
    status: Literal[201] = 201


class PendingReply(msgspec.Struct, frozen=True):
    """An account was made, and waits for an admin."""

    email: str
    message: str = "Registered; an admin has to approve the account first"
    success: Literal[True] = True
    status: Literal[202] = 202


class LoginReply(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The password was right; a gateway adds the allowance."""

    success: bool
    status: int
    email: str
    key: str
    rate_limit_info: RateLimitInfo | None = msgspec.field(
        default=None, name="rateLimitInfo"
    )


class VerifyReply(msgspec.Struct, frozen=True, kw_only=True):
    """The token is valid."""

    success: Literal[True] = True
    status: Literal[200] = 200
    valid: Literal[True] = True
    email: str
    rate_limit_info: RateLimitInfo = msgspec.field(name="rateLimitInfo")


class Refusal(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Anything that was not done, with the reason."""

    success: bool
    status: int
    message: str
    valid: bool | None = None
    retry_after: int | None = msgspec.field(default=None, name="retryAfter")


class LimitReply(msgspec.Struct, frozen=True, kw_only=True):
    """The user's allowance is used up."""

    status: Literal[429] = 429
    message: str = RATE_LIMITED_MESSAGE
    retry_after: int = msgspec.field(name="retryAfter")
    rate_limit_info: RateLimitInfo = msgspec.field(name="rateLimitInfo")


class PromptReply(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer from a gateway."""

    prompt: str
    response: str
    processed_at: str
    request_id: str = msgspec.field(name="requestId")
    rate_limit_info: RateLimitInfo = msgspec.field(name="rateLimitInfo")


class PromptFailure(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """No answer, and why; the allowance comes from gateways."""

    error: bool
    message: str
    request_id: str = msgspec.field(name="requestId")
    rate_limit_info: RateLimitInfo | None = msgspec.field(
        default=None, name="rateLimitInfo"
    )


class ProcessedReply(msgspec.Struct, frozen=True):
    """What a processor answers to ``processRequest``, ours or a Node.js one."""

    response: str
    model: str = ""
    request_id: str = msgspec.field(default="", name="requestId")


_encoder = msgspec.json.Encoder()
_Decoded = TypeVar("_Decoded")


def encode(value: object) -> bytes:
    """A message as JSON bytes."""
    return _encoder.encode(value)


def decode_untrusted(body: bytes, kind: type[_Decoded], message: str = "") -> _Decoded:
    """A message of the given kind.

    Args:
        body: JSON from a peer; empty reads as ``{}``, as the Node.js workers send it.
        kind: what it must be.
        message: the whole text of the refusal; without it, what is wrong is told.

    Raises:
        ApiError: INVALID_REQUEST, status 400.
    """
    if len(body) > BODY_BYTES_MAX:
        raise invalid(f"The request is longer than {BODY_BYTES_MAX} bytes")
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise invalid(message or f"Invalid request: {error}") from None


def decode_envelope_untrusted(body: bytes) -> Envelope:
    """What a gateway's method got; 400 with the contract's words otherwise."""
    return decode_untrusted(body, Envelope, ENVELOPE_MESSAGE)


def convert_untrusted(
    data: Mapping[str, object], kind: type[_Decoded], message: str = ""
) -> _Decoded:
    """The ``data`` of an envelope as the method wants it; raises `ApiError` (400)."""
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise invalid(message or f"Invalid request: {error}") from None


def check_credentials(data: Credentials) -> None:
    """Refuse what cannot be an account; lengths only."""
    if not data.email.strip() or not data.password:
        raise invalid("Email and password are required")
    if len(data.email) > EMAIL_CHARS_MAX:
        raise invalid(f"The email is longer than {EMAIL_CHARS_MAX} characters")
    if len(data.password) > PASSWORD_CHARS_MAX:
        raise invalid(f"The password is longer than {PASSWORD_CHARS_MAX} characters")


def check_prompt(prompt: str, prompt_bytes_max: int) -> None:
    """Refuse an empty or over-long prompt; raises `ApiError` (400)."""
    if not prompt.strip():
        raise invalid("The prompt is empty; write something.")
    if len(prompt.encode("utf-8", "replace")) > prompt_bytes_max:
        raise invalid(
            f"The prompt is longer than {prompt_bytes_max} bytes; shorten it."
        )


def refusal_of(error: ApiError, *, is_verify: bool = False) -> Refusal:
    """An error as the account methods answer it."""
    return Refusal(
        success=False,
        status=error.status,
        message=error.message,
        valid=False if is_verify else None,
        retry_after=error.retry_after_s,
    )


def limit_reply_of(error: ApiError) -> LimitReply:
    """The answer for a user without allowance; ``error`` must carry it."""
    assert error.rate_limit is not None
    return LimitReply(
        retry_after=error.retry_after_s or math.ceil(error.rate_limit.reset_s),
        rate_limit_info=RateLimitInfo.of(error.rate_limit),
    )


def thrown(error: Exception) -> bytes:
    """What a handler that failed answers."""
    message = error.message if isinstance(error, ApiError) else _own_failure(error)
    return encode(THROWN_PREFIX + message)


def _own_failure(error: Exception) -> str:
    """Nothing of the inside leaves the peer but the kind of failure."""
    return f"Internal error ({type(error).__name__}); the log of this peer says why"


def thrown_message(value: object) -> str | None:
    """The message when an answer says that the handler threw, else None."""
    if isinstance(value, str) and value.startswith(THROWN_PREFIX):
        return value.removeprefix(THROWN_PREFIX)
    return None


def invalid(message: str) -> ApiError:
    """A request that is wrong in itself."""
    return ApiError(ErrorCode.INVALID_REQUEST, message, status=400)
