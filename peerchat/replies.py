"""Reads what gateways, auth peers and processors answer to unary methods.

Answers are JSON of any shape, from peers that may be hostile or Node.js workers: what
is missing or of the wrong type gets a harmless value, and all text is made inert.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, Mapping
from dataclasses import dataclass

from .api import (
    AnswerEvent,
    ApiError,
    Closed,
    ClosedReason,
    Embeddings,
    ErrorCode,
    Hop,
    ModelInfo,
    RateLimit,
)
from .sanitize import display_line

HANDLER_ERROR = "[HRPC_ERR]="
"""How a handler that threw answers: a JSON string with this before its message."""

EMAIL_CHARS_MAX = 320
MESSAGE_CHARS_MAX = 500
MODELS_MAX = 200
"""Models of one processor that are read; nobody scrolls through more."""
HOPS_MAX = 100
SECONDS_MAX = 31 * 24 * 3600
NUMBER_MAX = 2**53
"""What JSON's readers agree on."""

_CODES = {
    400: ErrorCode.INVALID_REQUEST,
    401: ErrorCode.UNAUTHORIZED,
    403: ErrorCode.FORBIDDEN,
    404: ErrorCode.MODEL_MISSING,
    409: ErrorCode.CONFLICT,
    429: ErrorCode.RATE_LIMITED,
    503: ErrorCode.BUSY,
    504: ErrorCode.TIMEOUT,
}


@dataclass(frozen=True, slots=True)
class PingReply:
    """What a peer says of itself; unknown figures are None."""

    service: str
    is_healthy: bool
    models: tuple[ModelInfo, ...] = ()
    busy: int | None = None
    slots: int | None = None
    closed: Closed | None = None


def reply_untrusted(reply: object) -> Mapping[str, object]:
    """Give the fields of an answer that went well.

    Raises:
        ApiError: the answer says that it did not, or is no object at all.
    """
    if isinstance(reply, str):
        message = reply.removeprefix(HANDLER_ERROR)
        raise ApiError(ErrorCode.INTERNAL, _said(message), status=502)
    if not isinstance(reply, Mapping):
        raise ApiError(
            ErrorCode.INTERNAL,
            "The gateway answered with something that is no object; ask another one.",
            status=502,
        )
    error = error_in(reply)
    if error is not None:
        raise error
    return reply


def error_in(reply: Mapping[str, object]) -> ApiError | None:
    """The failure that an answer tells of, or None."""
    status = reply.get("status")
    is_bad_status = isinstance(status, int) and status >= 400
    failed = reply.get("success") is False or reply.get("valid") is False
    if not (is_bad_status or failed or reply.get("error")):
        return None
    number = status if isinstance(status, int) and 400 <= status < 600 else 502
    code = _code(reply.get("code"), number)
    limit = rate_limit_of(reply)
    retry_after_s = count_of(reply.get("retryAfter"))
    if code is ErrorCode.RATE_LIMITED and not retry_after_s and limit is not None:
        retry_after_s = limit.reset_s
    return worded(
        ApiError(
            code,
            _said(reply.get("message")),
            status=number,
            retry_after_s=retry_after_s,
            rate_limit=limit,
            request_id=text_of(reply.get("requestId")),
        )
    )


def worded(error: ApiError) -> ApiError:
    """The error with the seconds left in its words, where they are known."""
    seconds = error.retry_after_s
    if error.code is not ErrorCode.RATE_LIMITED or not seconds:
        return error
    if str(seconds) in error.message:
        return error
    message = f"{error.message.rstrip('.')}: try again in {seconds} s."
    return ApiError(
        error.code,
        message,
        status=error.status,
        retry_after_s=seconds,
        rate_limit=error.rate_limit,
        request_id=error.request_id,
    )


def rate_limit_of(reply: Mapping[str, object]) -> RateLimit | None:
    """The ``rateLimitInfo`` of an answer."""
    info = reply.get("rateLimitInfo")
    if not isinstance(info, Mapping):
        return None
    remaining, most = info.get("remainingRequests"), info.get("maxRequests")
    if not (isinstance(remaining, int) and isinstance(most, int)):
        return None
    return RateLimit(
        remaining=max(0, remaining),
        max_requests=max(0, most),
        reset_s=count_of(info.get("nextResetInSeconds")) or 0,
        window_minutes=number_of(info.get("windowDurationMinutes")) or 0.0,
    )


def ping_of(reply: Mapping[str, object]) -> PingReply:
    """What a ping answered."""
    engine = text_of(reply.get("engine"))
    listed = reply.get("models")
    models = listed[:MODELS_MAX] if isinstance(listed, list) else []
    told = reply.get("embedders")
    embedders = {
        text_of(one) for one in (told[:MODELS_MAX] if isinstance(told, list) else ())
    }
    return PingReply(
        service=text_of(reply.get("service")),
        is_healthy=reply.get("status") == "healthy",
        models=tuple(
            found for item in models if (found := _model(item, engine, embedders))
        ),
        busy=count_of(reply.get("busy")),
        slots=count_of(reply.get("slots")),
        closed=closed_of(reply.get("closed")),
    )


def closed_of(value: object) -> Closed | None:
    """Why a processor takes nothing new, as a ping or a list of models tells it."""
    if not isinstance(value, Mapping):
        return None
    opens_in_s = number_of(value.get("opensInS"))
    for reason in ClosedReason:
        if reason.value == value.get("reason"):
            return Closed(reason, opens_in_s)
    return Closed(ClosedReason.PAUSED, opens_in_s)


async def embeddings_of(answer: AsyncIterable[AnswerEvent], count: int) -> Embeddings:
    """The vectors of an answer; raises `ApiError` when there are not ``count``."""
    vectors: list[bytes] = []
    model, tokens = "", None
    async for event in answer:
        if isinstance(event, Embeddings):
            vectors += event.vectors
            model, tokens = event.model, event.prompt_tokens
    if len(vectors) != count:
        raise ApiError(
            ErrorCode.ENGINE_FAILED,
            "The processor gave something else than one vector for each text.",
            status=502,
        )
    return Embeddings(model, tuple(vectors), tokens)


def hops_of(reply: Mapping[str, object]) -> list[Hop]:
    """The steps of a request, as ``trace`` tells them."""
    listed = reply.get("hops")
    hops = listed[:HOPS_MAX] if isinstance(listed, list) else []
    return [_hop(item) for item in hops if isinstance(item, Mapping)]


def _hop(item: Mapping[str, object]) -> Hop:
    return Hop(
        text_of(item.get("role"), 32),
        text_of(item.get("peer"), 64),
        text_of(item.get("what"), 64),
        number_of(item.get("atS")) or 0.0,
        text_of(item.get("detail")),
    )


def _model(item: object, engine: str, embedders: set[str]) -> ModelInfo | None:
    if isinstance(item, str):
        item = {"name": item}
    if not isinstance(item, Mapping) or not (name := text_of(item.get("name"))):
        return None
    return ModelInfo(
        name=name,
        engine=text_of(item.get("engine")) or engine,
        context_tokens=count_of(item.get("context_tokens")),
        is_embedder=name in embedders,
    )


def text_of(value: object, limit: int = 200) -> str:
    """A foreign value as a label; empty when it is no text."""
    return display_line(value, limit) if isinstance(value, str) else ""


def number_of(value: object) -> float | None:
    """A foreign value as a figure or Unix time; None when it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= NUMBER_MAX else None  # false for NaN


def whole_of(value: object) -> int | None:
    """A foreign value as bytes or milliseconds; None when it is no whole number."""
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= NUMBER_MAX else None


def count_of(value: object) -> int | None:
    """A foreign value as a count or seconds, rounded up; None when it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not 0 <= value <= SECONDS_MAX:  # also false for NaN
        return None
    return math.ceil(value)


def _said(message: object) -> str:
    said = text_of(message, MESSAGE_CHARS_MAX)
    return said or "The peer failed without saying why; try again."


def _code(code: object, status: int) -> ErrorCode:
    for known in ErrorCode:
        if known.value == code:
            return known
    return _CODES.get(status, ErrorCode.INTERNAL)
