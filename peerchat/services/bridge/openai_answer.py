"""Answers in OpenAI's shapes: whole, or as chunks of server-sent events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from peerchat.api import (
    AnswerEvent,
    ApiError,
    Finished,
    Fragment,
    Progress,
    ToolCall,
    ToolCalls,
    Usage,
)

from .api_errors import openai_error_body
from .provenance import provenance
from .whole import WholeAnswer

DONE = b"data: [DONE]\n\n"


@dataclass(slots=True)
class Shape:
    """What all pieces of one answer have in common."""

    request_id: str
    model: str
    created: int
    is_chat: bool = True
    has_usage: bool = False
    """A last chunk tells what the answer cost."""
    echo: str = ""
    """Of a completion: stands before the answer."""
    prefix: str = ""
    """Of a chat: the beginning of the answer, which the caller gave."""
    calls: int = field(default=0, init=False)
    _has_begun: bool = field(default=False, init=False)

    content_type = "text/event-stream; charset=utf-8"
    keep_alive = b": waiting\n\n"

    @property
    def identifier(self) -> str:
        """Unique, as the request's is."""
        return f"{'chatcmpl' if self.is_chat else 'cmpl'}-{self.request_id}"

    # As a stream

    def event(self, event: AnswerEvent) -> bytes:
        """One event for the line; empty for what a client need not know."""
        match event:
            case Progress():
                return comment(event)
            case Fragment():
                return self._begin() + self._piece(event)
            case ToolCalls():
                return self._begin() + self._calls(event.calls)
            case Finished():
                return self._begin() + self._end(event)
            case _:
                return b""

    def error(self, error: ApiError) -> bytes:
        """A failure after the head went out: clients raise it."""
        return _line(openai_error_body(error))

    def _begin(self) -> bytes:
        if self._has_begun:
            return b""
        self._has_begun = True
        if not self.is_chat:
            return self._chunk({"text": self.echo}) if self.echo else b""
        return self._chunk({"delta": {"role": "assistant", "content": ""}})

    def _piece(self, event: Fragment) -> bytes:
        if not self.is_chat:
            return b"" if event.is_thinking else self._chunk({"text": event.text})
        name = "reasoning_content" if event.is_thinking else "content"
        return self._chunk({"delta": {name: event.text}})

    def _calls(self, calls: Sequence[ToolCall]) -> bytes:
        if not self.is_chat:
            return b""
        first, self.calls = self.calls, self.calls + len(calls)
        shown = [
            {"index": first + number, **_call(call)}
            for number, call in enumerate(calls)
        ]
        return self._chunk({"delta": {"tool_calls": shown}})

    def _end(self, end: Finished) -> bytes:
        rest: dict[str, object] = {"delta": {}} if self.is_chat else {"text": ""}
        reason = finish_reason(end.usage, has_calls=self.calls > 0)
        last = _line(self._piece_body(rest, reason) | self._provenance(end))
        if self.has_usage:
            body = self._head() | {"choices": [], "usage": usage_body(end.usage)}
            last += _line(body)
        return last + DONE

    def _chunk(self, part: dict[str, object]) -> bytes:
        return _line(self._piece_body(part))

    def _piece_body(
        self, part: dict[str, object], reason: str | None = None
    ) -> dict[str, object]:
        choice = {"index": 0, **part, "logprobs": None, "finish_reason": reason}
        body = self._head() | {"choices": [choice]}
        if self.has_usage:
            body["usage"] = None
        return body

    def _provenance(self, end: Finished) -> dict[str, object]:
        starts_at = len(self.prefix) - len(self.echo)
        return provenance(end, starts_at=starts_at)

    def _head(self, suffix: str = ".chunk") -> dict[str, object]:
        kind = f"chat.completion{suffix}" if self.is_chat else "text_completion"
        return {
            "id": self.identifier,
            "object": kind,
            "created": self.created,
            "model": self.model,
        }

    # As a whole

    def whole(self, answer: WholeAnswer) -> dict[str, object]:
        """The answer in one object."""
        usage = answer.end.usage
        reason = finish_reason(usage, has_calls=bool(answer.calls))
        part: dict[str, object] = {"text": self.echo + answer.text}
        if self.is_chat:
            part = {"message": _message(answer)}
        choice = {"index": 0, **part, "logprobs": None, "finish_reason": reason}
        return self._head("") | {
            "choices": [choice],
            "usage": usage_body(usage),
            **self._provenance(answer.end),
        }


def comment(event: Progress) -> bytes:
    """A place in the queue as a comment, which clients skip."""
    if event.state == "loading":
        return b": loading the model\n\n"
    if event.state != "queued" or event.position is None:
        return b""
    about = f", about {event.estimate_s:.0f} s" if event.estimate_s is not None else ""
    return f": queued {event.position}{about}\n\n".encode()


def usage_body(usage: Usage) -> dict[str, object]:
    """What an answer cost; what nobody counted is 0."""
    prompt, answer = usage.prompt_tokens or 0, usage.answer_tokens or 0
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answer,
        "total_tokens": prompt + answer,
    }


def finish_reason(usage: Usage, *, has_calls: bool) -> str:
    """Why the answer ended, in OpenAI's words."""
    if has_calls:
        return "tool_calls"
    return "length" if usage.finish_reason == "length" else "stop"


def _message(answer: WholeAnswer) -> dict[str, object]:
    message: dict[str, object] = {
        "role": "assistant",
        "content": answer.text if answer.text or not answer.calls else None,
        "refusal": None,
    }
    if answer.thinking:
        message["reasoning_content"] = answer.thinking
    if answer.calls:
        message["tool_calls"] = [_call(call) for call in answer.calls]
    return message


def _call(call: ToolCall) -> dict[str, object]:
    return {
        "id": call.call_id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }


def _line(body: dict[str, object]) -> bytes:
    # JSON escapes every newline, so the data is one line.
    return b"data: " + msgspec.json.encode(body) + b"\n\n"
