"""Make a private swarm."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable

from textual.widget import Widget
from textual.widgets import Button

from peerchat.api import ApiError, SwarmView
from peerchat.tui.swarm_wording import swarm_failure_words
from peerchat.tui.widgets.field import Field
from peerchat.tui.wording import Tone, Words

from .form import FormScreen

NAME_CHARS_MAX = 32

_NAME = re.compile(r"[a-z0-9-]{1,32}")


class CreateSwarmScreen(FormScreen[SwarmView]):
    """Dismissed with the new swarm, in which this home is already."""

    TITLE_WORDS = "Create a private swarm"

    def __init__(
        self, create: Callable[[str, str], Awaitable[SwarmView]], name: str = ""
    ) -> None:
        super().__init__()
        self._create = create
        self._swarm_name = Field(
            "Name",
            "letters, digits, hyphens",
            id="name",
            value=name,
            max_length=NAME_CHARS_MAX,
        )
        self._passphrase = Field(
            "Passphrase for its root key",
            "may stay empty",
            id="passphrase",
            is_secret=True,
        )
        self._again = Field("Passphrase, again", id="again", is_secret=True)

    def fields(self) -> Iterable[Widget]:
        return (self._swarm_name, self._passphrase, self._again)

    def buttons(self) -> Iterable[Button]:
        yield Button("Create", id="submit", variant="primary")
        yield Button("Back", id="leave")

    def hint(self) -> Words | None:
        advice = (
            "Only peers that you invite can reach it. The root key revokes them; "
            "with a passphrase, a stolen disk cannot."
        )
        return Words("", advice, Tone.INFO)

    def submitted(self) -> None:
        name = self._swarm_name.value.strip().lower().replace(" ", "-")
        if not _NAME.fullmatch(name):
            advice = "Take 1 to 32 letters, digits and hyphens"
            self.complain("This cannot be a name", advice, self._swarm_name)
        elif self._passphrase.value != self._again.value:
            is_typed = bool(self._again.value)
            self._again.value = ""
            title = "The two passphrases differ" if is_typed else "Once more, please"
            self.complain(title, "Type the passphrase again", self._again)
        else:
            passphrase = self._passphrase.value
            self.attempt(
                "Making the swarm…",
                lambda: self._create(name, passphrase),
                self._done,
                outlives=True,
            )

    def _done(self, view: SwarmView) -> None:
        self.dismiss(view)

    def words_of(self, error: ApiError) -> Words:
        return swarm_failure_words(error)
