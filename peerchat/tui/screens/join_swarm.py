"""Join a private swarm by an invite."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from textual import events, on, work
from textual.widget import Widget
from textual.widgets import Button, Input

from peerchat.api import ApiError, InvitePreview, SwarmView
from peerchat.tui.swarm_wording import (
    INVITE_START,
    preview_words,
    swarm_failure_words,
)
from peerchat.tui.widgets.field import Field
from peerchat.tui.wording import Tone, Words

from .form import FormScreen

INVITE_CHARS_MAX = 4096
"""Invites have about 400; more than this is something else."""

INVITE_CHARS_MIN = 40
"""Shorter is still being typed, and not worth a complaint."""


class InviteField(Field):
    """Takes an invite as mail programs break it: white space inside does not matter."""

    def _on_paste(self, event: events.Paste) -> None:
        event.stop()
        event.prevent_default()
        self.replace("".join(event.text.split()), *self.selection)


class JoinSwarmScreen(FormScreen[SwarmView]):
    """Dismissed with the swarm, in which this home is already.

    Args:
        read: tells what an invite says of itself.
    """

    TITLE_WORDS = "Join a private swarm"

    def __init__(
        self,
        read: Callable[[str], Awaitable[InvitePreview]],
        join: Callable[[str], Awaitable[SwarmView]],
        line: str = "",
    ) -> None:
        super().__init__()
        self._read = read
        self._join = join
        self._line = InviteField(
            "Invite",
            f"paste it here: {INVITE_START}…",
            id="invite",
            value="".join(line.split()),
            max_length=INVITE_CHARS_MAX,
        )

    def fields(self) -> Iterable[Widget]:
        return (self._line,)

    def buttons(self) -> Iterable[Button]:
        yield Button("Join", id="submit", variant="primary")
        yield Button("Back", id="leave")

    def hint(self) -> Words | None:
        advice = "An admin of the swarm makes it with /invite or peerchat swarm invite."
        return Words("", advice, Tone.INFO)

    def add(self, more: str) -> None:
        """Take another piece of a line that came in several."""
        self._line.value += "".join(more.split())
        self._line.action_end()

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        if len(event.value) >= INVITE_CHARS_MIN:
            self._preview(event.value)
        elif not self._is_busy:
            self.say(self.hint())

    @work(exclusive=True, group="preview", exit_on_error=False)
    async def _preview(self, line: str) -> None:
        """Show what the line says of itself; it may still be half typed."""
        try:
            words = preview_words(await self._read(line))
        except ApiError as error:
            words = Words("No invite yet", error.message, Tone.WARNING)
        if not self._is_busy:
            self.say(words)

    def submitted(self) -> None:
        line = "".join(self._line.value.split())
        if not line:
            self.complain("The invite is missing", "Paste it above", self._line)
            return
        self.attempt(
            "Joining: asking the one who invited…",
            lambda: self._join(line),
            self._done,
            outlives=True,
        )

    def _done(self, view: SwarmView) -> None:
        self._line.value = ""
        self.dismiss(view)

    def words_of(self, error: ApiError) -> Words:
        return swarm_failure_words(error)
