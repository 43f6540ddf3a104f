"""Parts of an Ollama answer as events, and Ollama's errors as ours.

A stream may end without ``done``; an error inside a stream has the status -1 in the
package, as Ollama sent 200 before it.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Sequence

import httpx
import ollama

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
from .engine_http import Silence, is_unreachable
from .ollama_client import Call, ChatPart, Part

UNREACHABLE = (
    "Ollama does not answer on the processor; start it there with 'ollama serve', "
    "or start the processor with --engine guide."
)


class OllamaAnswer:
    """One answer as it comes; feed it parts until `is_done`."""

    def __init__(self, model: str, began_s: float) -> None:
        self.is_done = False
        self._model = model
        self._began_s = began_s
        self._first_s: float | None = None
        self._has_called = False
        self._last: Part = ollama.GenerateResponse()

    def events(self, part: Part) -> Iterator[AnswerEvent]:
        """What a part says."""
        if self._first_s is None:
            self._first_s = time.monotonic() - self._began_s
        thinking, text, calls = _said(part)
        if thinking:
            yield Fragment(thinking, is_thinking=True)
        # The last part is usually empty, and not always.
        if text:
            yield Fragment(text)
        if calls:
            self._has_called = True
            yield ToolCalls(tuple(_tool_call(call) for call in calls))
        self._last = part
        self.is_done = bool(part.done)

    def finished(self, request_id: str) -> Finished:
        """The end; the last part was fed."""
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


def _said(part: Part) -> tuple[str | None, str | None, Sequence[Call]]:
    """Thinking, text and calls."""
    if isinstance(part, ChatPart):
        message = part.message
        return message.thinking, message.content, message.tool_calls or ()
    return part.thinking, part.response, ()


def _tool_call(call: Call) -> ToolCall:
    function = call.function
    arguments = json.dumps(dict(function.arguments), ensure_ascii=False)
    return ToolCall(
        call.id or f"call_{uuid.uuid4().hex[:24]}", function.name, arguments
    )


def failure(error: Exception, model: str) -> ApiError:
    """What an exception means for the one who asked."""
    match error:
        case ApiError():
            return error
        case ollama.ResponseError():
            return refusal(error.status_code, error.error, model)
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
