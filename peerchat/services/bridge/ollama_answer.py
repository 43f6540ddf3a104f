"""Answers in Ollama's shapes: whole, or one JSON object a line.

As in Ollama's own, figures that are zero or unknown are left out, all times are whole
nanoseconds, and nothing is sent while a request waits.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from peerchat.api import (
    AnswerEvent,
    ApiError,
    Finished,
    Fragment,
    ToolCall,
    ToolCalls,
    Usage,
)

from .api_errors import ollama_error_body
from .ollama_models import time_text
from .provenance import provenance
from .whole import WholeAnswer

NS = 1_000_000_000


@dataclass(slots=True)
class Shape:
    """What all pieces of one answer have in common."""

    model: str
    began_s: float
    """Of `time.monotonic`, when the request came."""
    is_chat: bool = True
    prefix: str = ""
    """The beginning of the answer, which the caller gave."""

    content_type = "application/x-ndjson"
    keep_alive = b""

    # As a stream

    def event(self, event: AnswerEvent) -> bytes:
        """One event for the line; empty for what a client does not expect."""
        match event:
            case Fragment():
                return _line(self._piece(event))
            case ToolCalls():
                return _line(self._said("", calls=event.calls)) if self.is_chat else b""
            case Finished():
                return _line(self._end(self._said(""), event))
            case _:
                return b""

    def error(self, error: ApiError) -> bytes:
        """A failure after the head went out."""
        return _line(ollama_error_body(error, self.model))

    # As a whole

    def whole(self, answer: WholeAnswer) -> dict[str, object]:
        """The answer in one object."""
        said = self._said(answer.text, answer.thinking, answer.calls)
        return self._end(said, answer.end)

    def loaded(self, reason: str) -> dict[str, object]:
        """What a request without a prompt gets."""
        return self._said("") | {"done": True, "done_reason": reason}

    def _piece(self, event: Fragment) -> dict[str, object]:
        if event.is_thinking:
            return self._said("", event.text)
        return self._said(event.text)

    def _said(
        self, text: str, thinking: str = "", calls: Sequence[ToolCall] = ()
    ) -> dict[str, object]:
        head: dict[str, object] = {"model": self.model, "created_at": now_text()}
        thought = {"thinking": thinking} if thinking else {}
        if not self.is_chat:
            return head | {"response": text, **thought, "done": False}
        message: dict[str, object] = {"role": "assistant", "content": text, **thought}
        if calls:
            message["tool_calls"] = [_call(n, call) for n, call in enumerate(calls)]
        return head | {"message": message, "done": False}

    def _end(self, said: dict[str, object], end: Finished) -> dict[str, object]:
        reason = "length" if end.usage.finish_reason == "length" else "stop"
        total_s = time.monotonic() - self.began_s
        return {
            **said,
            "done": True,
            "done_reason": reason,
            **figures(end.usage, total_s),
            **provenance(end, starts_at=len(self.prefix)),
        }


def figures(usage: Usage, total_s: float) -> dict[str, int]:
    """What an answer cost; a processor tells less than Ollama, and the rest follows."""
    load_s, answer_tokens = usage.load_s or 0.0, usage.answer_tokens or 0
    first_s = usage.first_fragment_s or 0.0
    answer_s = max(0.0, usage.duration_s - first_s)
    if usage.tokens_per_s:
        answer_s = answer_tokens / usage.tokens_per_s
    found = {
        "total_duration": round(total_s * NS),
        "load_duration": round(load_s * NS),
        "prompt_eval_count": usage.prompt_tokens or 0,
        "prompt_eval_duration": round(max(0.0, first_s - load_s) * NS),
        "eval_count": answer_tokens,
        "eval_duration": round(answer_s * NS),
    }
    return {name: value for name, value in found.items() if value > 0}


def now_text() -> str:
    """The time as Go writes it."""
    return time_text(datetime.now(UTC))


def _call(number: int, call: ToolCall) -> dict[str, object]:
    function = {
        "index": number,
        "name": call.name,
        "arguments": arguments_of(call.arguments),
    }
    return {"id": call.call_id, "function": function}


def arguments_of(text: str) -> dict[str, object]:
    """The arguments of a call as an object; what is none counts as empty."""
    try:
        value: object = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _line(body: dict[str, object]) -> bytes:
    return msgspec.json.encode(body) + b"\n"
