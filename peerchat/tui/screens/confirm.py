"""Asks before something that cannot be undone is done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from textual.widget import Widget
from textual.widgets import Button

from peerchat.api import ApiError, ErrorCode
from peerchat.tui.swarm_wording import swarm_failure_words
from peerchat.tui.widgets.field import Field
from peerchat.tui.widgets.inert import Inert
from peerchat.tui.wording import Tone, Words

from .form import FormScreen


class ConfirmScreen(FormScreen[bool]):
    """Dismissed with True once it is done.

    Args:
        call: does it, with the root key's passphrase; that is asked for only when
            ``UNAUTHORIZED`` says that it is needed.
    """

    def __init__(
        self,
        title: str,
        text: str,
        button: str,
        call: Callable[[str], Awaitable[None]],
        *,
        takes_passphrase: bool = False,
    ) -> None:
        super().__init__()
        self.TITLE_WORDS = title
        self._text = text
        self._call = call
        self._takes_passphrase = takes_passphrase
        self._passphrase = Field(
            "Passphrase of the root key", id="passphrase", is_secret=True
        )
        self._do = Button(button, id="submit", variant="error")
        self._leave = Button("Back", id="leave")

    AUTO_FOCUS = "#leave"

    def fields(self) -> Iterable[Widget]:
        self._passphrase.display = False
        return (Inert(self._text, classes="text"), self._passphrase)

    def buttons(self) -> Iterable[Button]:
        return (self._do, self._leave)

    def submitted(self) -> None:
        self.attempt("One moment…", self._act, self._done)

    async def _act(self) -> None:
        await self._call(self._passphrase.value)

    def _done(self, nothing: None) -> None:
        self.dismiss(True)

    def words_of(self, error: ApiError) -> Words:
        return swarm_failure_words(error)

    def refused(self, error: ApiError) -> None:
        if not (self._takes_passphrase and error.code is ErrorCode.UNAUTHORIZED):
            super().refused(error)
            return
        is_first = not self._passphrase.display
        self._passphrase.display = True
        self._passphrase.value = ""
        self.set_focus(self._passphrase)
        if is_first:
            self.say(
                Words("", "The root key is locked: type its passphrase", Tone.INFO)
            )
        else:
            self.say(Words("The passphrase does not fit", "Type it once more"))
