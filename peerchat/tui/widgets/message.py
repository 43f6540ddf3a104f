"""One turn on the screen: the prompt, the thinking, the answer, its usage line."""

from __future__ import annotations

from textual import events
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content

from peerchat.sanitize import display_line
from peerchat.tui.conversation import Turn, TurnState
from peerchat.tui.wording import count

from .inert import Inert
from .streaming import StreamingMarkdown
from .usage import UsageLine

THINKING_LINES_SHOWN = 3
"""Of thinking that goes on, the last lines; all of it behind a click or Ctrl+T."""

THINKING_CHARS_SHOWN_MAX = 16_000
"""Of unfolded thinking, the end: it is shown plain and wrapped anew at every tick."""


ADVICE_CHARS_MAX = 600
"""Of what a peer says of a failure; the rest is in the log."""


class Thinking(Inert):
    """What the model said to itself: dim, folded to one line when it is over."""

    def __init__(self) -> None:
        super().__init__(classes="thinking")
        self._is_open = False
        self._turn: Turn | None = None

    def show_turn(self, turn: Turn) -> None:
        self._turn = turn
        self.display = bool(turn.thinking.strip())
        if self.display:
            self.update(self._content(turn))

    def toggle(self) -> None:
        """Fold or unfold."""
        self._is_open = not self._is_open
        if self._turn is not None:
            self.show_turn(self._turn)

    def on_click(self, event: events.Click) -> None:
        event.stop()
        self.toggle()

    def _content(self, turn: Turn) -> Content:
        is_going_on = turn.state is TurnState.RUNNING and not turn.text
        words = count(len(turn.thinking.split()), "word")
        head = f"{'▾' if self._is_open else '▸'} thinking · {words}"
        text = turn.thinking.strip("\n")[-THINKING_CHARS_SHOWN_MAX:]
        if not self._is_open:
            text = ""
            if is_going_on:
                lines = turn.thinking.strip().splitlines()
                text = "\n".join(line[-400:] for line in lines[-THINKING_LINES_SHOWN:])
        return Content.assemble(
            (head, "dim"), (f"\n{text}" if text else "", "dim italic")
        )


class Problem(Inert):
    """Why there is no answer, and what to do."""

    def show_turn(self, turn: Turn) -> None:
        self.display = turn.problem is not None
        if turn.problem is not None:
            self.set_classes(f"problem -{turn.problem.tone.value}")
            advice = display_line(turn.problem.advice, ADVICE_CHARS_MAX)
            self.update(
                Content.assemble(
                    (display_line(turn.problem.title), "bold"),
                    f"\n{advice}" if advice else "",
                )
            )


class TurnView(Vertical):
    """Shows one turn of the conversation; made anew from it at any time."""

    def __init__(self, turn: Turn) -> None:
        super().__init__(classes="turn")
        self.turn = turn
        self._prompt = Inert(turn.prompt, classes="prompt-text")
        self._thinking = Thinking()
        self._markdown = StreamingMarkdown()
        self._problem = Problem(classes="problem")
        self._usage = UsageLine(classes="usage")
        self._is_settled = False

    def compose(self) -> ComposeResult:
        yield self._prompt
        yield self._thinking
        yield self._markdown
        yield self._problem
        yield self._usage

    async def refresh_turn(self, now: float, *, is_animated: bool) -> None:
        """Bring the view up to the turn; costs nothing once the turn is shown whole."""
        if self._is_settled:
            return
        turn = self.turn
        is_over = turn.is_over
        self.set_class(turn.state is TurnState.QUEUED, "-queued")
        self._thinking.show_turn(turn)
        self._problem.show_turn(turn)
        self._usage.show_turn(turn, now, is_animated=is_animated)
        self._usage.display = turn.state is not TurnState.FAILED or bool(turn.usage)
        await self._markdown.advance(turn.text, is_final=is_over)
        if is_over and not self._markdown.is_behind:
            self._is_settled = True
            await self._markdown.settle()

    @property
    def is_settled(self) -> bool:
        """The turn is over and shown to its last character."""
        return self._is_settled

    def toggle_thinking(self) -> None:
        self._thinking.toggle()
