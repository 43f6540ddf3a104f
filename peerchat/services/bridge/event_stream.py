"""An answer as server-sent events: ``progress``, ``fragment``, then ``done`` or
``error``. The data of each is one JSON object (WHATWG HTML, section 9.2).
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from aiohttp import web

from peerchat.api import (
    AnswerEvent,
    ApiError,
    Embeddings,
    ErrorCode,
    Finished,
    Fragment,
    Progress,
    ToolCalls,
)
from peerchat.failover_answer import FailoverAnswer

from .errors import error_body, rate_limit_body, usage_body

KEEP_ALIVE_S = 15.0
"""A comment this often keeps proxies from closing a stream that waits."""

HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
}


async def send_events(
    request: web.Request, answer: FailoverAnswer, headers: dict[str, str]
) -> tuple[web.StreamResponse, Finished | ApiError]:
    """Stream an answer, and tell how it ended.

    Raises:
        ApiError: it failed before its first event, while a plain answer with a status
            of its own is still possible.
    """
    events = aiter(answer)
    first = await anext(events, None)
    if first is None:
        raise _stopped(answer)
    response = web.StreamResponse(headers={**headers, **HEADERS})
    await response.prepare(request)
    # Writing to a caller that has gone is no error of ours; the answer is closed.
    try:
        async with asyncio.TaskGroup() as group:
            keep_alive = group.create_task(_keep_alive(response))
            end = await _send_all(response, answer, first, events)
            keep_alive.cancel()
        await response.write_eof()
    except* ConnectionError:
        end = _stopped(answer)
    return response, end


async def _send_all(
    response: web.StreamResponse,
    answer: FailoverAnswer,
    first: AnswerEvent,
    events: AsyncIterator[AnswerEvent],
) -> Finished | ApiError:
    event: AnswerEvent | None = first
    try:
        while event is not None:
            await response.write(event_bytes(event, answer.request_id))
            if isinstance(event, Finished):
                return event
            event = await anext(events, None)
        raise _stopped(answer)
    except ApiError as error:
        status = error.status if 400 <= error.status < 600 else 500
        body = error_body(status, error.code.value, error.message)
        body["requestId"] = answer.request_id
        await response.write(_encode("error", body))
        return error


def _stopped(answer: FailoverAnswer) -> ApiError:
    return ApiError(
        ErrorCode.STOPPED,
        "The answer was stopped before its end.",
        status=503,
        request_id=answer.request_id,
    )


async def _keep_alive(response: web.StreamResponse) -> None:
    while True:
        await asyncio.sleep(KEEP_ALIVE_S)
        await response.write(b": waiting\n\n")


def event_bytes(event: AnswerEvent, request_id: str) -> bytes:
    """One event as it goes over the line."""
    match event:
        case Fragment():
            body: dict[str, object] = {"text": event.text}
            if event.is_thinking:
                body["thinking"] = True
            return _encode("fragment", body)
        case Progress():
            return _encode("progress", usage_body(event))
        case ToolCalls():
            calls = [dataclasses.asdict(call) for call in event.calls]
            return _encode("tool_calls", {"calls": calls})
        case Embeddings():
            # Nobody asks for them in this form.
            return b""
        case Finished():
            return _encode(
                "done",
                {
                    "requestId": event.request_id or request_id,
                    "processed_at": now_text(),
                    "usage": usage_body(event.usage),
                    "rateLimitInfo": rate_limit_body(event.rate_limit),
                },
            )


def now_text() -> str:
    """The time as JavaScript's ``toISOString`` writes it."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return now.replace("+00:00", "Z")


def _encode(name: str, body: dict[str, object]) -> bytes:
    # JSON escapes every newline, so the data is one line.
    return f"event: {name}\ndata: {json.dumps(body)}\n\n".encode()
