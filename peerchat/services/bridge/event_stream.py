"""An answer as server-sent events: ``progress``, ``fragment``, then ``done`` or
``error``. The data of each is one JSON object (WHATWG HTML, section 9.2).
"""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime

from peerchat.api import (
    AnswerEvent,
    ApiError,
    Embeddings,
    Finished,
    Fragment,
    Progress,
    ToolCalls,
)

from .errors import error_body, rate_limit_body, usage_body
from .provenance import provenance


class Events:
    """The bridge's own way to write an answer."""

    content_type = "text/event-stream; charset=utf-8"
    keep_alive = b": waiting\n\n"

    def __init__(self, request_id: str) -> None:
        self._request_id = request_id

    def event(self, event: AnswerEvent) -> bytes:
        """One event for the line."""
        return event_bytes(event, self._request_id)

    def error(self, error: ApiError) -> bytes:
        """A failure after the head went out."""
        status = error.status if 400 <= error.status < 600 else 500
        body = error_body(status, error.code.value, error.message)
        body["requestId"] = error.request_id
        if error.is_partial:
            body["partial"] = True
        return _encode("error", body)


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
                    **provenance(event),
                },
            )


def now_text() -> str:
    """The time as JavaScript's ``toISOString`` writes it."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return now.replace("+00:00", "Z")


def _encode(name: str, body: dict[str, object]) -> bytes:
    # JSON escapes every newline, so the data is one line.
    return f"event: {name}\ndata: {json.dumps(body)}\n\n".encode()
