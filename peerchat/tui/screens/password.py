"""Change the password of the account that is logged in."""

from __future__ import annotations

from collections.abc import Iterable

from textual.widget import Widget
from textual.widgets import Button

from peerchat.api import ApiError, ErrorCode, Node
from peerchat.tui.widgets.field import Field
from peerchat.tui.wording import Tone, Words, failure_words

from .form import FormScreen
from .login import PASSWORD_CHARS_MIN


class PasswordScreen(FormScreen[bool]):
    """Dismissed with True when the password is another one."""

    TITLE_WORDS = "Change password"

    def __init__(self, node: Node) -> None:
        super().__init__()
        self._node = node
        self._old = Field("Password now", id="old", is_secret=True)
        self._new = Field(
            "New password", "8 characters or more", id="new", is_secret=True
        )
        self._again = Field("New password, again", id="again", is_secret=True)

    def fields(self) -> Iterable[Widget]:
        return (self._old, self._new, self._again)

    def buttons(self) -> Iterable[Button]:
        yield Button("Change", id="submit", variant="primary")
        yield Button("Back", id="leave")

    def hint(self) -> Words | None:
        return Words("", "Your sessions on other machines end with it.", Tone.INFO)

    def submitted(self) -> None:
        old, new = self._old.value, self._new.value
        if not old:
            self.complain("The password now is missing", "Type it above", self._old)
        elif len(new) < PASSWORD_CHARS_MIN:
            advice = "Take 8 characters or more"
            self.complain("The new password is too short", advice, self._new)
        elif new != self._again.value:
            self._again.value = ""
            advice = "Type the new one again"
            self.complain("The two new passwords differ", advice, self._again)
        else:
            self.attempt("Changing it…", lambda: self._change(old, new), self._done)

    async def _change(self, old: str, new: str) -> None:
        await self._node.change_password(old, new)

    def _done(self, nothing: None) -> None:
        self.dismiss(True)

    def words_of(self, error: ApiError) -> Words:
        if error.code is ErrorCode.UNAUTHORIZED:
            return Words("That is not the password now", "Type it once more")
        return failure_words(error)

    def refused(self, error: ApiError) -> None:
        super().refused(error)
        if error.code is ErrorCode.UNAUTHORIZED:
            self._old.value = ""
            self.set_focus(self._old)
