"""The swarms of this home: go into one, or back to solo."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence

from textual import on
from textual.widgets import Button

from peerchat.api import NodeState, Swarms
from peerchat.tui.swarm_wording import swarm_row
from peerchat.tui.wording import Tone, Words

from .listing import ListingScreen, Row


class SwarmsScreen(ListingScreen[str, str]):
    """Dismissed with the id of the action that goes on: ``create``, ``invite``, …

    Args:
        use: goes into a swarm; empty: solo.
    """

    TITLE_WORDS = "Your swarms"
    SUBTITLE_WORDS = "Enter: go in   Esc: back"

    def __init__(
        self,
        swarms: Swarms,
        state: NodeState,
        use: Callable[[str], Awaitable[None]],
    ) -> None:
        super().__init__()
        self._swarms = swarms
        self._state = state
        self._use = use

    def buttons(self) -> Iterable[Button]:
        yield Button("Create", id="create")
        yield Button("Join", id="join")
        if self._state.is_swarm_admin:
            yield Button("Invite", id="invite")
            yield Button("Members", id="members")

    def hint(self) -> Words | None:
        if len(self._rows) > 1:
            return None
        return Words(
            "", "No private swarm yet: create one, or join by invite.", Tone.INFO
        )

    async def load(self) -> Sequence[Row[str]]:
        is_solo = self._state.mode == "solo"
        note = "all on this machine, nothing leaves it"
        rows = [Row("solo", note, "", is_marked=is_solo)]
        for view in await self._swarms.swarms():
            is_here = view.is_current and self._state.mode == "private"
            rows.append(Row(view.name, swarm_row(view), view.name, is_marked=is_here))
        return rows

    def chosen(self, value: str) -> None:
        if any(row.is_marked and row.value == value for row in self._rows):
            self.dismiss(None)
            return
        doing = f"Going into {value}…" if value else "Going solo…"
        self.attempt(doing, lambda: self._use(value), self._gone, outlives=True)

    def _gone(self, nothing: None) -> None:
        self.dismiss(None)

    @on(Button.Pressed)
    def _go_on(self, event: Button.Pressed) -> None:
        event.stop()
        if event.button.id and not self._is_busy:
            self.dismiss(event.button.id)
