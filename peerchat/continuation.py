"""What was passed on of an answer, so that somebody else can go on with it.

The next one is given what was said as the beginning of its own answer. One that says
the beginning again is cut there. Gateways use it when they lose a processor, clients
when they lose a gateway. No I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from .api import (
    AnswerEvent,
    ApiError,
    Embeddings,
    Fragment,
    Progress,
    PromptRequest,
    ToolCalls,
    Usage,
)
from .settings import PROMPT_BYTES_MAX

LENGTH_OPTIONS = frozenset({"num_predict", "max_tokens", "max_completion_tokens"})
"""Names of the most tokens that an answer may have."""

REPEAT_CHARS_MIN = 8
"""A shorter beginning may well come again by itself: "ha ha ha"."""


class RepeatCutter:
    """Takes a repeated beginning off a text that comes in pieces.

    Args:
        beginning: what was said already.
    """

    def __init__(self, beginning: str) -> None:
        self._beginning = beginning
        self._held: list[str] = []
        self._matched = 0
        self._is_decided = len(beginning) < REPEAT_CHARS_MIN

    def feed(self, text: str) -> str:
        """What may be shown now."""
        if self._is_decided:
            return text
        wanted = self._beginning[self._matched : self._matched + len(text)]
        if text.startswith(wanted) and wanted:
            self._matched += len(wanted)
            self._held.append(text)
            if self._matched < len(self._beginning):
                return ""
            self._is_decided = True
            self._held.clear()
            return text[len(wanted) :]
        self._is_decided = True
        return self.finish() + text

    def finish(self) -> str:
        """What was held back, and was no repetition after all."""
        held, self._held = "".join(self._held), []
        return held


class Said:
    """The part of an answer that the asker has."""

    def __init__(self, request: PromptRequest) -> None:
        self.has_any = False
        """Something of the answer itself went out."""
        self.request = request
        self.model = request.model
        """That answers: whoever goes on must have it."""
        self.continued = 0
        self.earlier = 0
        """Fragments of the processors before the present one."""
        self._fragments = 0
        self._text = [request.prefix]
        self._thinking = [request.prefix_thinking]
        self._vectors = 0
        self._has_calls = False
        self._cutters = {False: RepeatCutter(""), True: RepeatCutter("")}

    @property
    def can_continue(self) -> bool:
        """Whether somebody else can go on: not after function calls, which the asker
        may have carried out, and not with more than a request may hold."""
        chars = sum(map(len, self._text)) + sum(map(len, self._thinking))
        return not self._has_calls and chars <= PROMPT_BYTES_MAX // 4

    def rest(self, deadline_s: float | None) -> PromptRequest:
        """The request for what is still missing; what comes next is checked against
        what was said."""
        self.continued += self.has_any
        text, thinking = "".join(self._text), "".join(self._thinking)
        self._text, self._thinking = [text], [thinking]
        self.earlier = self._fragments
        self._cutters = {False: RepeatCutter(text), True: RepeatCutter(thinking)}
        return replace(
            self.request,
            options=self._options_left(),
            model=self.model,
            prefix=text,
            prefix_thinking=thinking,
            inputs=self.request.inputs[self._vectors :],
            deadline_s=deadline_s,
        )

    def _options_left(self) -> Mapping[str, object]:
        """What is left of the tokens that were asked for: a fragment has one or more.

        At least one, as an engine takes none for no limit.
        """
        return {
            name: max(1, value - self._fragments)
            if name in LENGTH_OPTIONS and type(value) is int and value > 0
            else value
            for name, value in self.request.options.items()
        }

    def passed(self, event: AnswerEvent) -> AnswerEvent | None:
        """The event as it goes out, noted; None when it says nothing new."""
        match event:
            case Fragment():
                return self._fragment(event)
            case ToolCalls():
                self.has_any = self._has_calls = True
            case Embeddings():
                self.has_any = True
                self._vectors += len(event.vectors)
            case Progress(state="serving", model=model) if self.model is None:
                self.model = model or None
        return event

    def held_back(self) -> list[Fragment]:
        """At the end: what the cutters kept."""
        found = []
        for is_thinking in (True, False):
            if text := self._cutters[is_thinking].finish():
                self._note(text, is_thinking)
                found.append(Fragment(text, is_thinking))
        return found

    def whole(self, usage: Usage, duration_s: float, first_s: float | None) -> Usage:
        """What the whole answer cost: the last one knows of its own part only.

        A fragment of the earlier ones is counted as a token.
        """
        if not self.continued:
            return usage
        tokens = usage.answer_tokens
        return replace(
            usage,
            continued=usage.continued + self.continued,
            duration_s=duration_s,
            first_fragment_s=first_s,
            answer_tokens=None if tokens is None else tokens + self.earlier,
        )

    def _fragment(self, event: Fragment) -> Fragment | None:
        text = self._cutters[event.is_thinking].feed(event.text)
        if not text:
            return None
        self._note(text, event.is_thinking)
        return event if text == event.text else Fragment(text, event.is_thinking)

    def _note(self, text: str, is_thinking: bool) -> None:
        self.has_any = True
        self._fragments += 1
        (self._thinking if is_thinking else self._text).append(text)


def broke_off(error: ApiError) -> ApiError:
    """The failure of an answer of which a part came."""
    if error.is_partial:
        return error
    message = error.message.rstrip(".")
    return ApiError(
        error.code,
        f"The answer breaks off here, and nobody could go on with it: {message}.",
        status=error.status,
        retry_after_s=error.retry_after_s,
        rate_limit=error.rate_limit,
        request_id=error.request_id,
        is_partial=True,
    )
