"""The messages of the ``peerchat/stream`` channel as bytes (PROTOCOL.md section 12).

Every message is a compact-encoding uint, the number of the request on this channel,
and a body: a MessagePack array whose later fields may be missing, and where fields
that come after the known ones are ignored, so that both sides can grow. No I/O here.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Mapping
from typing import Annotated, TypeVar

import msgspec

from peerchat.api import (
    ApiError,
    ErrorCode,
    Finished,
    Fragment,
    Message,
    Progress,
    PromptRequest,
    RateLimit,
    Usage,
)
from peerchat.net.encoding import Reader, Writer
from peerchat.net.errors import DecodeError
from peerchat.sanitize import display_line

PROTOCOL = "peerchat/stream"
"""Name of the Protomux channel; its id is the public key of the serving peer."""

VERSION = 1

CREDIT_INITIAL_BYTES = 64 * 1024
"""What a server may send of an answer before the first grant: several seconds of any
model's output, little enough that thousands of answers fit in memory."""

CREDIT_MAX_BYTES = 16 * 1024 * 1024
"""Grants add up to this at most; a peer cannot make the counter grow without end."""

FRAGMENT_CHARS_MAX = 4 * 1024
"""Longer fragments are cut: even four-byte characters stay far below the credit."""

FRAGMENT_BYTES_MAX = 32 * 1024
"""Longest message, other than a request, that is taken from a peer."""

REQUESTS_MAX = 64
"""Running requests on one connection; a gateway spreads more over more processors."""

REQUEST_OVERHEAD_BYTES = 64 * 1024
"""Room in a request for token, model, options and framing."""

HISTORY_SHARE = 3
"""A request may hold this many times the longest prompt in history."""

ANSWER_BYTES_MAX = 16 * 1024 * 1024
"""Longest answer taken from a peer: far above any model's, below a memory problem."""

RETRY_AFTER_S_MAX = 24 * 3600


class MessageType(enum.IntEnum):
    """Type of a message within the channel; unknown ones are ignored."""

    REQUEST = 0
    FRAGMENT = 1
    PROGRESS = 2
    END = 3
    ERROR = 4
    CANCEL = 5
    CREDIT = 6


class _Body(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A MessagePack array, read by position."""


ShortText = Annotated[str, msgspec.Meta(max_length=256)]
TokenText = Annotated[str, msgspec.Meta(max_length=8192)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
OptionValue = None | bool | int | float | str | list[str]


class TurnBody(_Body, frozen=True):
    """One message of the history."""

    role: ShortText
    content: str


class RequestBody(_Body, frozen=True):
    """A prompt; ``user`` tells users of one gateway apart and names nobody."""

    prompt: str
    request_id: ShortText
    token: TokenText = ""
    user: ShortText = ""
    model: ShortText | None = None
    history: Annotated[list[TurnBody], msgspec.Meta(max_length=1000)] = []
    options: Annotated[dict[ShortText, OptionValue], msgspec.Meta(max_length=32)] = {}


class FragmentBody(_Body, frozen=True):
    """The next piece of text; the size of its message is taken from the credit."""

    text: str
    is_thinking: bool = False


class ProgressBody(_Body, frozen=True):
    """Where the request stands."""

    state: ShortText
    position: Count | None = None
    peer: ShortText = ""
    model: ShortText = ""


class RateLimitBody(_Body, frozen=True):
    """A user's allowance."""

    remaining: Count
    max_requests: Count
    reset_s: Count
    window_minutes: float


class EndBody(_Body, frozen=True):
    """The answer is complete."""

    request_id: ShortText
    model: ShortText
    peer: ShortText
    finish_reason: ShortText
    duration_s: float
    first_fragment_s: float | None = None
    prompt_tokens: Count | None = None
    answer_tokens: Count | None = None
    tokens_per_s: float | None = None
    rate_limit: RateLimitBody | None = None


class ErrorBody(_Body, frozen=True):
    """The request failed; nothing follows."""

    code: ShortText
    status: Count
    message: Annotated[str, msgspec.Meta(max_length=4096)]
    retry_after_s: Count | None = None
    rate_limit: RateLimitBody | None = None
    request_id: ShortText = ""


class CreditBody(_Body, frozen=True):
    """The receiver consumed so many bytes; the sender may send as many more."""

    granted_bytes: Count


_encoder = msgspec.msgpack.Encoder()
_Decoded = TypeVar("_Decoded", bound=_Body)
_PROGRESS_STATES = frozenset({"queued", "loading", "serving", "retrying"})
_FINISH_REASONS = frozenset({"stop", "length", "cancelled"})
_KEY = re.compile("[0-9a-f]{64}")
_SURROGATE = re.compile("[\ud800-\udfff]")


def encode_handshake() -> bytes:
    """What each side says when it opens the channel."""
    return Writer().uint(VERSION).getvalue()


def decode_handshake_untrusted(data: bytes) -> int:
    """The peer's version, at least 1; later fields are ignored."""
    version = Reader(data).uint()
    if version < 1:
        raise DecodeError("version 0 of peerchat/stream")
    return version


def encode(number: int, body: _Body | None = None) -> bytes:
    """One message; without a body for CANCEL."""
    head = Writer().uint(number).getvalue()
    return head if body is None else head + _encoder.encode(body)


def decode_number_untrusted(payload: bytes) -> tuple[int, bytes]:
    """The request's number and the rest of the message."""
    reader = Reader(payload)
    return reader.uint(), reader.raw()


def decode_body_untrusted(data: bytes, kind: type[_Decoded]) -> _Decoded:
    """A body of the given kind, or `DecodeError` with the reason."""
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise DecodeError(str(error)) from None


def request_body(request: PromptRequest, token: str, user: str) -> RequestBody:
    """A request for the wire.

    Raises:
        ApiError: an option is not of a kind that the wire has.
    """
    return RequestBody(
        prompt=well_formed(request.prompt),
        request_id=request.request_id[:256],
        token=token,
        user=user[:256],
        model=request.model,
        history=[
            TurnBody(turn.role, well_formed(turn.content)) for turn in request.history
        ],
        options=_wire_options(request.options),
    )


def _wire_options(options: Mapping[str, object]) -> dict[str, OptionValue]:
    try:
        return msgspec.convert(dict(options), dict[str, OptionValue])
    except msgspec.ValidationError as error:
        raise ApiError(
            ErrorCode.INVALID_REQUEST, f"Option not understood: {error}", status=400
        ) from None


def request_of(body: RequestBody) -> PromptRequest:
    """A request as the services use it."""
    return PromptRequest(
        prompt=body.prompt,
        request_id=display_line(body.request_id, 128),
        model=body.model,
        history=tuple(Message(turn.role, turn.content) for turn in body.history),
        options=body.options,
    )


def progress_body(event: Progress) -> ProgressBody:
    """A progress event for the wire."""
    return ProgressBody(
        event.state, event.position, event.peer[:256], well_formed(event.model)[:256]
    )


def progress_of(body: ProgressBody) -> Progress:
    """A progress event, its words made harmless."""
    return Progress(
        state=body.state if body.state in _PROGRESS_STATES else "serving",
        position=body.position,
        peer=_key(body.peer),
        model=display_line(body.model),
    )


def fragment_body(event: Fragment) -> FragmentBody:
    """A fragment for the wire."""
    return FragmentBody(well_formed(event.text), event.is_thinking)


def end_body(event: Finished) -> EndBody:
    """The end of an answer for the wire."""
    usage = event.usage
    return EndBody(
        request_id=event.request_id[:256],
        model=well_formed(usage.model)[:256],
        peer=usage.peer,
        finish_reason=usage.finish_reason,
        duration_s=usage.duration_s,
        first_fragment_s=usage.first_fragment_s,
        prompt_tokens=usage.prompt_tokens,
        answer_tokens=usage.answer_tokens,
        tokens_per_s=usage.tokens_per_s,
        rate_limit=_rate_limit_body(event.rate_limit),
    )


def end_of(body: EndBody) -> Finished:
    """The end of an answer, figures that cannot be dropped."""
    reason = body.finish_reason
    return Finished(
        usage=Usage(
            model=display_line(body.model),
            peer=_key(body.peer),
            finish_reason=reason if reason in _FINISH_REASONS else "stop",
            duration_s=_figure(body.duration_s) or 0.0,
            first_fragment_s=_figure(body.first_fragment_s),
            prompt_tokens=body.prompt_tokens,
            answer_tokens=body.answer_tokens,
            tokens_per_s=_figure(body.tokens_per_s),
        ),
        request_id=display_line(body.request_id, 128),
        rate_limit=_rate_limit_of(body.rate_limit),
    )


def error_body(error: ApiError) -> ErrorBody:
    """A failure for the wire."""
    return ErrorBody(
        code=error.code.value,
        status=error.status,
        message=well_formed(error.message)[:4096],
        retry_after_s=error.retry_after_s,
        rate_limit=_rate_limit_body(error.rate_limit),
        request_id=error.request_id[:256],
    )


def error_of(body: ErrorBody) -> ApiError:
    """A peer's failure; a code of a later version reads as INTERNAL."""
    known = body.code in ErrorCode.__members__.values()
    retry_after_s = body.retry_after_s
    return ApiError(
        ErrorCode(body.code) if known else ErrorCode.INTERNAL,
        display_line(body.message, 500) or "The peer failed without a reason.",
        status=body.status if 400 <= body.status <= 599 else 500,
        retry_after_s=(
            None if retry_after_s is None else min(retry_after_s, RETRY_AFTER_S_MAX)
        ),
        rate_limit=_rate_limit_of(body.rate_limit),
        request_id=display_line(body.request_id, 128),
    )


def well_formed(text: str) -> str:
    """Text that UTF-8 can carry; half surrogate pairs become U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return _SURROGATE.sub("\ufffd", text)
    return text


def _rate_limit_body(limit: RateLimit | None) -> RateLimitBody | None:
    if limit is None:
        return None
    return RateLimitBody(
        limit.remaining, limit.max_requests, limit.reset_s, limit.window_minutes
    )


def _rate_limit_of(body: RateLimitBody | None) -> RateLimit | None:
    if body is None:
        return None
    return RateLimit(
        remaining=body.remaining,
        max_requests=body.max_requests,
        reset_s=body.reset_s,
        window_minutes=_figure(body.window_minutes) or 0.0,
    )


def _figure(value: float | None) -> float | None:
    """A finite figure that is not negative, or None."""
    if value is None or not math.isfinite(value) or value < 0:
        return None
    return value


def _key(text: str) -> str:
    return text if _KEY.fullmatch(text) else ""
