"""The chat as data: turns, the queue of prompts, the history for the next prompt.

Knows nothing of widgets and of the node, so that what is sent and what is kept can
be tested without either.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field

from peerchat.api import Message, Progress, Usage
from peerchat.sanitize import StreamSanitizer

from .wording import Words

TURNS_MAX = 1_000
"""Turns kept in memory: a long day of chatting; the oldest are dropped past it."""

QUEUE_MAX = 20
"""Prompts that wait at once: more than anybody oversees, few enough to send."""

HISTORY_TURNS_MAX = 20
"""Turns sent as context: small models forget more than this anyway."""

HISTORY_CHARS_MAX = 24_000
"""About 6,000 tokens, what fits the context that engines give by default."""

ANSWER_CHARS_MAX = 256 * 1024
"""Where an answer is stopped: far past any model's answer, short of harm."""


class TurnState(enum.StrEnum):
    """Where a turn stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(eq=False, slots=True)
class Turn:
    """One prompt and what came of it."""

    number: int
    prompt: str
    model: str | None = None
    state: TurnState = TurnState.QUEUED
    text: str = ""
    """The answer so far: Markdown source, made inert."""
    thinking: str = ""
    progress: Progress | None = None
    usage: Usage | None = None
    problem: Words | None = None
    started_s: float = 0.0
    ended_s: float = 0.0
    fragments: int = 0
    is_continued: bool = False
    """Somebody else went on with what one peer had begun."""
    _text_in: StreamSanitizer = field(default_factory=StreamSanitizer, repr=False)
    _thinking_in: StreamSanitizer = field(default_factory=StreamSanitizer, repr=False)

    @property
    def is_over(self) -> bool:
        return self.state not in (TurnState.QUEUED, TurnState.RUNNING)

    @property
    def has_arrived(self) -> bool:
        """Something of an answer came, thinking included."""
        return bool(self.text or self.thinking)

    @property
    def is_too_long(self) -> bool:
        return len(self.text) + len(self.thinking) > ANSWER_CHARS_MAX

    def add(self, text: str, *, is_thinking: bool) -> None:
        """Take the next fragment; escape sequences split over two are caught too."""
        self.fragments += 1
        if is_thinking:
            self.thinking += self._thinking_in.feed(text)
        else:
            self.text += self._text_in.feed(text)

    def begin(self, now: float) -> None:
        self.state = TurnState.RUNNING
        self.started_s = now

    def end(self, state: TurnState, now: float) -> None:
        """Close the turn; what the sanitizer held back is given out."""
        self.text += self._text_in.finish()
        self.thinking += self._thinking_in.finish()
        self.state = state
        self.ended_s = now

    def requeue(self) -> None:
        """Make it wait again, as if it had never been sent."""
        self.state = TurnState.QUEUED
        self.progress = None
        self.is_continued = False
        self.problem = None


class Conversation:
    """All turns in order; those that wait form the queue."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self._next_number = 1
        self._context_from = 0

    def add(self, prompt: str, model: str | None) -> Turn | None:
        """Queue a prompt; None when `QUEUE_MAX` wait already."""
        if len(self.queue) >= QUEUE_MAX:
            return None
        turn = Turn(self._next_number, prompt, model)
        self._next_number += 1
        self.turns.append(turn)
        del self.turns[:-TURNS_MAX]
        return turn

    @property
    def queue(self) -> list[Turn]:
        return [turn for turn in self.turns if turn.state is TurnState.QUEUED]

    @property
    def last(self) -> Turn | None:
        return self.turns[-1] if self.turns else None

    def remove(self, turn: Turn) -> None:
        """Take a turn out, as when nothing of it arrived and its prompt is restored."""
        self.turns.remove(turn)

    def clear(self) -> None:
        """Forget what is over; what waits or runs stays."""
        self.turns = [turn for turn in self.turns if not turn.is_over]

    def mark(self) -> int:
        """Where the conversation is now, for `forget_before`."""
        return self._next_number

    def forget_before(self, mark: int) -> None:
        """What was said before stays to be read, and is not sent along any more."""
        self._context_from = max(mark, self._context_from)

    def last_failed(self) -> Turn | None:
        """The newest turn that failed."""
        turns = reversed(self.turns)
        return next((turn for turn in turns if turn.state is TurnState.FAILED), None)

    def last_answer(self) -> str:
        """The Markdown source of the newest answer; empty without one."""
        return next((turn.text for turn in reversed(self.turns) if turn.text), "")

    def history(self, before: Turn) -> tuple[Message, ...]:
        """What was said before a turn, oldest first, within the two limits."""
        messages: list[Message] = []
        room = HISTORY_CHARS_MAX
        for turn in self._answered_before(before):
            room -= len(turn.prompt) + len(turn.text)
            if room < 0 or len(messages) >= 2 * HISTORY_TURNS_MAX:
                break
            messages.append(Message("assistant", turn.text))
            messages.append(Message("user", turn.prompt))
        return tuple(reversed(messages))

    def _answered_before(self, before: Turn) -> Iterator[Turn]:
        for turn in reversed(self.turns):
            is_usable = turn.state in (TurnState.DONE, TurnState.STOPPED)
            if turn.number < self._context_from:
                return
            if turn.number < before.number and is_usable and turn.text:
                yield turn
