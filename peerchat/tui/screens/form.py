"""What every form is: fields, a line of words, buttons, one slow call at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import ClassVar, Generic, TypeVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Button, Input

from peerchat.api import ApiError
from peerchat.sanitize import display_line
from peerchat.tui.widgets.inert import Inert
from peerchat.tui.wording import Tone, Words, failure_words

ResultT = TypeVar("ResultT")
CallT = TypeVar("CallT")

ADVICE_CHARS_MAX = 300
"""Of what a peer says of a refusal; more would push the buttons out of sight."""


class FormScreen(ModalScreen[ResultT | None], Generic[ResultT]):
    """A dialog with fields; dismissed with a result, or with None by Esc.

    A subclass gives its fields and buttons, and answers `submitted`, which Enter in the
    last field and the first button come to.
    """

    CSS_PATH = "form.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Back", show=False),
        Binding("left", "app.focus_previous", show=False),
        Binding("right", "app.focus_next", show=False),
    ]
    TITLE_WORDS = ""
    SUBTITLE_WORDS = "Esc: back"

    def __init__(self) -> None:
        super().__init__()
        self._note = Inert("", classes="note")
        self._is_busy = False

    def fields(self) -> Iterable[Widget]:
        """What stands above the line of words, in order."""
        return ()

    def buttons(self) -> Iterable[Button]:
        """The first is what Enter does."""
        return ()

    def hint(self) -> Words | None:
        """What the line says while nothing has happened."""
        return None

    def submitted(self) -> None:
        """Do what the form is for."""

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog form", can_focus=False) as dialog:
            dialog.border_title = self.TITLE_WORDS
            dialog.border_subtitle = self.SUBTITLE_WORDS
            yield from self.fields()
            yield self._note
            with Horizontal(classes="buttons"):
                yield from self.buttons()

    def on_mount(self) -> None:
        self.say(self.hint())

    def action_leave(self) -> None:
        """Close without a result."""
        self.dismiss(None)

    @on(Input.Submitted)
    def _enter(self) -> None:
        self.submitted()

    @on(Button.Pressed, "#submit")
    def _press(self) -> None:
        self.submitted()

    @on(Button.Pressed, "#leave")
    def _go_back(self) -> None:
        self.action_leave()

    def say(self, words: Words | None) -> None:
        """Show a headline and a line of advice; None hides both."""
        note = self._note
        note.display = words is not None
        if words is None:
            return
        note.set_classes(f"note -{words.tone.value}")
        title, advice = (
            display_line(words.title),
            display_line(words.advice, ADVICE_CHARS_MAX),
        )
        is_both = bool(title and advice)
        note.update(Content.assemble((title, "bold"), "\n" if is_both else "", advice))

    def complain(self, title: str, advice: str, at: Widget) -> None:
        """Say what is wrong with a field, and go there."""
        self.say(Words(title, advice))
        self.set_focus(at)

    def attempt(
        self,
        doing: str,
        call: Callable[[], Awaitable[CallT]],
        done: Callable[[CallT], None],
        *,
        outlives: bool = False,
    ) -> None:
        """Make a slow call; keys go on working. A second one meanwhile is ignored.

        Args:
            outlives: goes on when the form is left, because half of it is worse than
                all of it or nothing.
        """
        if self._is_busy:
            return
        self._set_busy(is_busy=True)
        self.say(Words(doing, "", Tone.INFO))
        owner = self.app if outlives else self
        owner.run_worker(self._attempt(call, done), group="form", exit_on_error=False)

    async def _attempt(
        self, call: Callable[[], Awaitable[CallT]], done: Callable[[CallT], None]
    ) -> None:
        try:
            result = await call()
        except ApiError as error:
            self._set_busy(is_busy=False)
            if self.is_attached:
                self.refused(error)
            else:
                words = self.words_of(error)
                line = display_line(f"{words.title}. {words.advice}", 400)
                self.app.notify(line, severity="error", markup=False)
        else:
            self._set_busy(is_busy=False)
            if self.is_attached:
                done(result)

    def words_of(self, error: ApiError) -> Words:
        """What a refusal means here."""
        return failure_words(error)

    def refused(self, error: ApiError) -> None:
        """Show why it did not work; everything typed stays."""
        self.say(self.words_of(error))

    def _set_busy(self, *, is_busy: bool) -> None:
        self._is_busy = is_busy
        if self.is_attached:
            self.query_one(".buttons").set_class(is_busy, "-busy")
