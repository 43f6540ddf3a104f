"""The pieces of an answer in OpenAI's form as events.

They come as JSON on lines from a server, and as dictionaries from llama.cpp in this
process. Thinking is in ``reasoning_content`` (llama.cpp, DeepSeek) or ``reasoning``
(vLLM, OpenRouter). The figures come after the finish reason, if they come.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

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

from .base import (
    engine_busy,
    engine_failed,
    invalid_request,
    model_missing,
    one_line,
)
from .signs import Signs

CALLS_MAX = 64
ARGUMENTS_CHARS_MAX = 256 * 1024


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _CallPart(msgspec.Struct):
    index: int = 0
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_CallPart] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Timings(msgspec.Struct):
    predicted_per_second: float | None = None


class Piece(msgspec.Struct):
    """One object of the stream."""

    choices: list[_Choice] = []
    usage: _Usage | None = None
    timings: _Timings | None = None
    error: object = None


@dataclass
class _Call:
    call_id: str = ""
    name: str = ""
    arguments: str = ""


class OpenAiAnswer:
    """One answer as it comes."""

    def __init__(self, model: str, began_s: float, who: str) -> None:
        self.has_ended = False
        """The finish reason came: only figures may follow."""
        self._model = model
        self._who = who
        self._began_s = began_s
        self._first_s: float | None = None
        self._reason = ""
        self._usage = _Usage()
        self._timings = _Timings()
        self._calls: dict[int, _Call] = {}
        self._has_called = False
        self._signs = Signs()

    def events(self, piece: Piece) -> Iterator[AnswerEvent]:
        """What a piece says; raises `ApiError` when it says that it failed."""
        if piece.error is not None:
            raise refusal(0, piece.error, self._model, self._who)
        self._usage = piece.usage or self._usage
        self._timings = piece.timings or self._timings
        for choice in piece.choices[:1]:
            delta = choice.delta or _Delta()
            if thinking := delta.reasoning_content or delta.reasoning:
                self._note_first()
                yield Fragment(thinking, is_thinking=True)
            if text := delta.content or choice.text:
                self._note_first()
                yield Fragment(text)
            for part in delta.tool_calls or ():
                self._add_call(part)
                if self._signs.is_due():
                    yield Progress("serving", model=self._model)
            if choice.finish_reason:
                self._reason = choice.finish_reason
                self.has_ended = True
                yield from self._finished_calls()

    def finished(self, request_id: str) -> Finished:
        """The end; raises ENGINE_FAILED when the answer has none."""
        if not self.has_ended:
            raise engine_failed(
                f"{self._who} ended the answer before it was complete; ask again."
            )
        duration_s = time.monotonic() - self._began_s
        count = self._usage.completion_tokens
        speed = self._timings.predicted_per_second
        if speed is None and count and self._first_s is not None:
            spent_s = duration_s - self._first_s
            speed = count / spent_s if spent_s > 0 else None
        reason = "length" if self._reason == "length" else "stop"
        usage = Usage(
            model=self._model,
            peer="",
            finish_reason="tool_calls" if self._has_called else reason,
            duration_s=duration_s,
            first_fragment_s=self._first_s,
            prompt_tokens=self._usage.prompt_tokens,
            answer_tokens=count,
            tokens_per_s=speed,
        )
        return Finished(usage, request_id)

    def _note_first(self) -> None:
        if self._first_s is None:
            self._first_s = time.monotonic() - self._began_s

    def _add_call(self, part: _CallPart) -> None:
        self._note_first()
        call = self._calls.setdefault(part.index, _Call())
        function = part.function or _Function()
        call.call_id = call.call_id or part.id or ""
        # The name comes whole in the first part, the arguments in many.
        call.name = call.name or function.name or ""
        call.arguments += function.arguments or ""
        if len(self._calls) > CALLS_MAX or len(call.arguments) > ARGUMENTS_CHARS_MAX:
            raise engine_failed("The model wrote function calls that are too long.")

    def _finished_calls(self) -> Iterator[ToolCalls]:
        calls = [call for _, call in sorted(self._calls.items()) if call.name]
        self._calls.clear()
        if calls:
            self._has_called = True
            yield ToolCalls(
                tuple(
                    ToolCall(
                        call.call_id or f"call_{uuid.uuid4().hex[:24]}",
                        call.name,
                        call.arguments or "{}",
                    )
                    for call in calls
                )
            )


def refusal(status: int, said: object, model: str, who: str) -> ApiError:
    """An error that the engine told; status 0 where only the error itself has one."""
    text, code = _words(said)
    status = status or code
    match status:
        case 400 | 413 | 422:
            return invalid_request(f"{who} refused the prompt: {text}")
        case 401 | 403:
            return engine_failed(
                f"{who} refused this client ({text}); set PEERCHAT_ENGINE_KEY on the "
                "processor to its key."
            )
        case 404 if model:
            return model_missing(
                f"{who} has no model {model!r} ({text}); choose another."
            )
        case 429 | 503:
            return engine_busy(f"{who} takes no prompt just now ({text}); try again.")
        case _:
            return engine_failed(f"{who} failed: {text or f'status {status}'}")


def _words(said: object) -> tuple[str, int]:
    """Text and code of an error: ``{"error": {"message", "code"}}``, or less."""
    if isinstance(said, str):
        try:
            parsed = json.loads(said)
        except (ValueError, RecursionError):
            return one_line(said), 0
        return _words(parsed) if isinstance(parsed, dict) else (one_line(said), 0)
    if not isinstance(said, dict):
        return "", 0
    if isinstance(said.get("error"), dict | str):
        return _words(said["error"])
    text = said.get("message") or said.get("detail") or ""
    code = said.get("code")
    return one_line(str(text)), code if isinstance(code, int) else 0
