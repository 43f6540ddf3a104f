"""Lines of an Ollama answer as events, and Ollama's errors as ours.

A stream may end without ``done``, and an error may come inside a stream with status
200 (ollama/server/routes.go).
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator

import httpx
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

from .base import (
    engine_busy,
    engine_down,
    engine_failed,
    engine_timeout,
    invalid_request,
    model_missing,
    one_line,
)
from .engine_http import HttpRefusal, Silence, is_unreachable

IN_STREAM = -1
"""Stands for the status of an error inside an answer."""

UNREACHABLE = (
    "Ollama does not answer on the processor; start it there with 'ollama serve', "
    "or start the processor with --engine guide."
)


class _Function(msgspec.Struct):
    name: str = ""
    arguments: dict[str, object] | None = None


class _Call(msgspec.Struct):
    function: _Function
    id: str = ""


class _Message(msgspec.Struct):
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[_Call] | None = None


class Line(msgspec.Struct):
    """A line of ``/api/chat`` or ``/api/generate``."""

    message: _Message | None = None
    response: str | None = None
    thinking: str | None = None
    error: str | None = None
    done: bool = False
    done_reason: str | None = None
    load_duration: int | None = None
    prompt_eval_count: int | None = None
    eval_count: int | None = None
    eval_duration: int | None = None


class OllamaAnswer:
    """One answer as it comes; feed it lines until `is_done`."""

    def __init__(self, model: str, began_s: float) -> None:
        self.is_done = False
        self._model = model
        self._began_s = began_s
        self._first_s: float | None = None
        self._has_called = False
        self._last = Line()

    def events(self, data: bytes) -> Iterator[AnswerEvent]:
        """What a line says; raises `ApiError` when it says that it failed."""
        line = msgspec.json.decode(data, type=Line)
        if line.error is not None:
            raise refusal(IN_STREAM, line.error, self._model)
        if self._first_s is None:
            self._first_s = time.monotonic() - self._began_s
        message = line.message or _Message()
        if thinking := message.thinking or line.thinking:
            yield Fragment(thinking, is_thinking=True)
        # The last line is usually empty, and not always.
        if text := message.content or line.response:
            yield Fragment(text)
        if message.tool_calls:
            self._has_called = True
            yield ToolCalls(tuple(_tool_call(call) for call in message.tool_calls))
        self._last = line
        self.is_done = line.done

    def finished(self, request_id: str) -> Finished:
        """The end; the last line was fed."""
        last = self._last
        count, eval_ns = last.eval_count, last.eval_duration
        reason = "length" if last.done_reason == "length" else "stop"
        load_ns = last.load_duration
        usage = Usage(
            model=self._model,
            peer="",
            finish_reason="tool_calls" if self._has_called else reason,
            duration_s=time.monotonic() - self._began_s,
            first_fragment_s=self._first_s,
            prompt_tokens=last.prompt_eval_count,
            answer_tokens=count,
            tokens_per_s=count / eval_ns * 1e9 if count and eval_ns else None,
            load_s=None if load_ns is None else load_ns / 1e9,
        )
        return Finished(usage, request_id)


def _tool_call(call: _Call) -> ToolCall:
    arguments = json.dumps(call.function.arguments or {}, ensure_ascii=False)
    return ToolCall(
        call.id or f"call_{uuid.uuid4().hex[:24]}", call.function.name, arguments
    )


def failure(error: Exception, model: str) -> ApiError:
    """What an exception means for the one who asked."""
    match error:
        case ApiError():
            return error
        case HttpRefusal():
            return refusal(error.status, error_text(error.text), model)
        case Silence():
            return engine_timeout(
                f"Ollama was silent for {error.limit_s:.0f} s and was stopped; ask "
                "again, or look at its log."
            )
        case _ if is_unreachable(error):
            return engine_down(UNREACHABLE)
        case httpx.HTTPError():
            return engine_failed(
                "Ollama closed the connection during the answer; ask again."
            )
        case _:
            return engine_failed(
                f"Ollama sent something unexpected ({type(error).__name__}); "
                "check that OLLAMA_HOST names an Ollama."
            )


def error_text(text: str) -> str:
    """The words of an error body, or the body where it has no such words."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return text
    said = body.get("error") if isinstance(body, dict) else None
    return said if isinstance(said, str) else text


def refusal(status: int, text: str, model: str) -> ApiError:
    """An error that Ollama sent."""
    said = one_line(text)
    match status:
        case 404 if "not found" in said and "page not found" not in said:
            return model_missing(
                f"Ollama has no model {model!r}; choose another, or run "
                f"'ollama pull {model}' on the processor."
            )
        case 400:
            return invalid_request(f"Ollama refused the prompt: {said}")
        case 503:
            return engine_busy("Ollama has too many requests waiting; try again soon.")
        case 403:
            return engine_failed(
                f"Ollama refused this client ({said or 'forbidden'}); check "
                "OLLAMA_HOST and OLLAMA_ORIGINS on the processor."
            )
        case _:
            return engine_failed(f"Ollama failed: {said or f'status {status}'}")
