"""The panels beside the chat: shown when there is room, or on demand."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Vertical

from peerchat.api import NodeState

from .metrics import History, MetricsPanel
from .peers import PeersPanel

WIDE_COLUMNS = 100
"""From here on the panels are shown unless they were switched off."""


class Sidebar(Vertical):
    """Draws a panel only while it can be seen."""

    def __init__(self) -> None:
        super().__init__(id="sidebar")
        self.history = History()
        self._peers, self._metrics = PeersPanel(id="peers"), MetricsPanel()
        self._wanted: dict[str, bool | None] = {"peers": None, "metrics": None}
        """What the user decided; None: as there is room."""
        self._state = NodeState()

    def compose(self) -> ComposeResult:
        yield self._peers
        yield self._metrics

    @property
    def shows_peers(self) -> bool:
        return self._shown("peers")

    def show_state(self, state: NodeState) -> None:
        """Draw a new state on what is seen."""
        self._state = state
        self._peers.display = self._shown("peers")
        self._metrics.display = self._shown("metrics")
        self.display = self._peers.display or self._metrics.display
        if self._peers.display:
            self._peers.show_state(state)
        self._show_metrics()

    def toggle(self, panel: str) -> None:
        """Show a panel that is hidden, hide one that is shown."""
        self._wanted[panel] = not self._shown(panel)
        self.show_state(self._state)

    def sample(self, *, is_answering: bool) -> None:
        """Take one second of figures."""
        self.history.add(self._state, is_answering=is_answering)
        self._show_metrics()

    def _show_metrics(self) -> None:
        if self._metrics.display:
            self._metrics.show_state(self._state, self.history)

    def _shown(self, panel: str) -> bool:
        wanted = self._wanted[panel]
        return self.app.size.width >= WIDE_COLUMNS if wanted is None else wanted
