"""An event loop whose clock jumps: hours of network time in seconds of real time.

`VirtualLoop` is asyncio's own loop with a selector that never waits. Whenever nothing
is ready, time moves to the next timer, so `asyncio.sleep`, timeouts and `call_later`
work unchanged and every run with the same seed takes the same path.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class SimulationStalled(RuntimeError):
    """Nothing is ready and no timer is pending: the coroutine waits for ever."""


class _JumpSelector(selectors.BaseSelector):
    """Knows no sockets; waiting advances the virtual clock instead."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._keys: dict[object, selectors.SelectorKey] = {}

    def register(
        self, fileobj: Any, events: int, data: Any = None
    ) -> selectors.SelectorKey:
        key = selectors.SelectorKey(fileobj, 0, events, data)
        self._keys[fileobj] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def select(
        self, timeout: float | None = None
    ) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise SimulationStalled("nothing is ready and no timer is pending")
        if timeout > 0:
            self.now_s += timeout
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop in virtual time; real sockets and threads do not work on it."""

    def __init__(self) -> None:
        self._jump = _JumpSelector()
        super().__init__(self._jump)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._jump.now_s


def run_virtual(
    main: Callable[[], Coroutine[Any, Any, T]], *, debug: bool = False
) -> T:
    """Run ``main`` to its end in virtual time; cancels what it leaves behind."""
    with asyncio.Runner(debug=debug, loop_factory=VirtualLoop) as runner:
        return runner.run(main())
