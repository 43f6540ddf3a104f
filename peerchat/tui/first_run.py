"""Whether the first choice, solo or a private swarm, was made in this home."""

from __future__ import annotations

import logging
from pathlib import Path

from peerchat.api import NodeState

_log = logging.getLogger(__name__)

MARK_NAME = "app-first-run"


class FirstRun:
    """Offers the choice until it is made, once for a home.

    Args:
        folder: where the mark is kept; None remembers for as long as the app runs.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._path = folder / MARK_NAME if folder else None
        self._is_made = self._path is not None and self._path.exists()

    def is_due(self, state: NodeState) -> bool:
        """Nothing was chosen, and nothing else decided it."""
        return not self._is_made and state.mode == "solo"

    def choose(self) -> None:
        """The choice is made, in whatever way; never fails."""
        if self._is_made:
            return
        self._is_made = True
        if self._path is not None:
            try:
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._path.touch(mode=0o600)
            except OSError as error:
                _log.warning("The first choice is asked again next time: %s", error)
