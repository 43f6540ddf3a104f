"""Events of an answer as bodies of ``peerchat/stream``, and back (PROTOCOL.md 12).

What comes from a peer is made harmless here, but for the text of fragments, which
`prompt_client` makes inert as a stream.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from peerchat.api import (
    ApiError,
    Embeddings,
    ErrorCode,
    Finished,
    Fragment,
    Hop,
    Progress,
    RateLimit,
    ToolCall,
    ToolCalls,
    Usage,
)
from peerchat.net.errors import DecodeError
from peerchat.sanitize import display_line, display_text

from .prompt_bodies import (
    HOPS_MAX,
    RECEIPT_BYTES_MAX,
    TOOL_CALLS_MAX,
    EmbeddingsBody,
    EndBody,
    ErrorBody,
    FragmentBody,
    HopBody,
    ProgressBody,
    RateLimitBody,
    ToolCallBody,
    ToolCallsBody,
)
from .prompt_requests import tool_call_body
from .prompt_wire import DATA_BYTES_MAX, figure, key_text, well_formed

RETRY_AFTER_S_MAX = 24 * 3600
_PROGRESS_STATES = frozenset({"queued", "loading", "serving", "retrying"})
_FINISH_REASONS = frozenset({"stop", "length", "tool_calls", "cancelled"})
_PATHS = frozenset({"direct", "relayed", "self"})
_CALL_ROOM_BYTES = 1024
"""Of a message beside the arguments of a call: id, name (three bytes a character at
most of what `well_formed` leaves) and framing."""


def progress_body(event: Progress) -> ProgressBody:
    """A progress event for the wire."""
    return ProgressBody(
        event.state,
        event.position,
        event.peer[:256],
        well_formed(event.model)[:256],
        event.estimate_s,
        well_formed(event.reason)[:256],
    )


def progress_of(body: ProgressBody) -> Progress:
    """A progress event, its words made harmless."""
    return Progress(
        state=body.state if body.state in _PROGRESS_STATES else "serving",
        position=body.position,
        peer=key_text(body.peer),
        model=display_line(body.model),
        estimate_s=figure(body.estimate_s),
        reason=display_line(body.reason),
    )


def fragment_body(event: Fragment) -> FragmentBody:
    """A fragment for the wire."""
    return FragmentBody(well_formed(event.text), event.is_thinking)


def tool_calls_bodies(event: ToolCalls) -> Iterator[ToolCallsBody]:
    """One body for each call, so that none is longer than a message may be.

    Raises:
        ApiError: a call's arguments are longer than that.
    """
    for call in event.calls:
        size = len(call.arguments.encode("utf-8", "replace"))
        if size > DATA_BYTES_MAX - 2 * _CALL_ROOM_BYTES:
            raise ApiError(
                ErrorCode.ENGINE_FAILED,
                "The model wrote a function call that is too long.",
                status=502,
            )
        yield ToolCallsBody([tool_call_body(call)])


def tool_calls_of(body: ToolCallsBody) -> ToolCalls:
    """Function calls; their JSON means the same and has nothing live in it."""
    return ToolCalls(tuple(_tool_call_of(call) for call in body.calls[:TOOL_CALLS_MAX]))


def _tool_call_of(call: ToolCallBody) -> ToolCall:
    return ToolCall(
        display_line(call.call_id, 128),
        display_line(call.name, 128),
        inert_json(call.arguments),
    )


def inert_json(text: str) -> str:
    """JSON text that is fit to show: escapes stand for what would not be."""
    if display_text(text) == text:
        return text
    try:
        return json.dumps(json.loads(text))
    except (ValueError, RecursionError):
        return display_text(text)


def embeddings_bodies(event: Embeddings) -> Iterator[EmbeddingsBody]:
    """As many vectors in each body as fit in a message."""
    model = well_formed(event.model)[:256]
    lot: list[bytes] = []
    room = DATA_BYTES_MAX - 2 * _CALL_ROOM_BYTES
    size = 0
    for vector in event.vectors:
        if lot and size + len(vector) + 8 > room:
            yield EmbeddingsBody(model, lot)
            lot, size = [], 0
        lot.append(vector)
        size += len(vector) + 8
    yield EmbeddingsBody(model, lot, event.prompt_tokens)


def embeddings_of(body: EmbeddingsBody) -> Embeddings:
    """Vectors; raises `DecodeError` for bytes that are no floats."""
    if any(len(vector) % 4 for vector in body.vectors):
        raise DecodeError("a vector that is not of float32")
    return Embeddings(display_line(body.model), tuple(body.vectors), body.prompt_tokens)


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
        continued=usage.continued,
        is_partial=usage.is_partial,
        queue_s=usage.queue_s,
        load_s=usage.load_s,
        path=usage.path,
        receipt=event.receipt[:RECEIPT_BYTES_MAX],
        hops=[_hop_body(hop) for hop in event.hops[:HOPS_MAX]],
    )


def end_of(body: EndBody) -> Finished:
    """The end of an answer, figures that cannot be dropped."""
    reason = body.finish_reason
    return Finished(
        usage=Usage(
            model=display_line(body.model),
            peer=key_text(body.peer),
            finish_reason=reason if reason in _FINISH_REASONS else "stop",
            duration_s=figure(body.duration_s) or 0.0,
            first_fragment_s=figure(body.first_fragment_s),
            prompt_tokens=body.prompt_tokens,
            answer_tokens=body.answer_tokens,
            tokens_per_s=figure(body.tokens_per_s),
            continued=body.continued,
            is_partial=body.is_partial,
            queue_s=figure(body.queue_s),
            load_s=figure(body.load_s),
            path=body.path if body.path in _PATHS else "",
        ),
        request_id=display_line(body.request_id, 128),
        rate_limit=_rate_limit_of(body.rate_limit),
        receipt=body.receipt,
        hops=tuple(_hop_of(hop) for hop in body.hops),
    )


def _hop_body(hop: Hop) -> HopBody:
    return HopBody(
        hop.role[:32],
        hop.peer[:64],
        well_formed(hop.what)[:64],
        hop.at_s,
        well_formed(hop.detail)[:200],
    )


def _hop_of(body: HopBody) -> Hop:
    return Hop(
        display_line(body.role, 32),
        key_text(body.peer),
        display_line(body.what, 64),
        figure(body.at_s) or 0.0,
        display_line(body.detail, 200),
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
        is_partial=error.is_partial,
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
        is_partial=body.is_partial,
    )


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
        window_minutes=figure(body.window_minutes) or 0.0,
    )
