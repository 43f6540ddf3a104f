"""The node's newest state, and those who want to hear of it.

Set on the node's thread, read and listened to from any.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import threading
from collections.abc import Callable
from contextlib import suppress

from peerchat.api import NodeState
from peerchat.settings import Settings

logger = logging.getLogger(__name__)

PUSH_S = 0.1
"""States are told no more often than this, but for a new phase, which is told at once:
ten a second look alive, and more would only keep the app's thread busy."""

_OF_THE_SWARM = (
    *("mode", "swarm", "is_swarm_admin", "problem", "account", "peers", "models"),
    *("roles", "engine", "rate_limit", "dht_nodes", "bootstrap"),
)


class HostState:
    """Replaced as a whole at every change.

    Args:
        loop: the node's.
        state: the first one.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, state: NodeState) -> None:
        self.now = state
        self._loop = loop
        self._listeners: list[Callable[[NodeState], None]] = []
        self._lock = threading.Lock()
        self._push: asyncio.TimerHandle | None = None

    def subscribe(self, listener: Callable[[NodeState], None]) -> Callable[[], None]:
        """Hear of every new state, on the node's thread; returns the undo."""
        with self._lock:
            self._listeners.append(listener)

        def undo() -> None:
            with self._lock, suppress(ValueError):
                self._listeners.remove(listener)

        return undo

    def set(self, **changes: object) -> None:
        """Replace parts of the state; tell soon."""
        before = self.now
        self.now = dataclasses.replace(before, **changes)  # type: ignore[arg-type]
        if self.now.phase is not before.phase:
            self._tell()
        elif self._push is None and self.now != before:
            self._push = self._loop.call_later(PUSH_S, self._tell)

    def set_now(self, **changes: object) -> None:
        """Replace parts of the state; tell at once."""
        self.now = dataclasses.replace(self.now, **changes)  # type: ignore[arg-type]
        self._tell()

    def move(self, settings: Settings, **changes: object) -> None:
        """Forget what was known of a swarm: another one is gone into."""
        before = first_state(settings)
        forgotten = {name: getattr(before, name) for name in _OF_THE_SWARM}
        self.set_now(**{**forgotten, **changes})

    def close(self) -> None:
        """Tell nothing more by itself."""
        if self._push is not None:
            self._push.cancel()

    def _tell(self) -> None:
        if self._push is not None:
            self._push.cancel()
            self._push = None
        with self._lock:
            listeners = tuple(self._listeners)
        for listener in listeners:
            try:
                listener(self.now)
            except Exception:
                logger.exception("a listener of the node's state failed")


def first_state(settings: Settings) -> NodeState:
    """What is known before anything runs."""
    return NodeState(mode=settings.mode, swarm=settings.swarm)
