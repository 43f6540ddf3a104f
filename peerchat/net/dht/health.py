"""Whether the network still answers, judged from the share of time-outs.

Pure; fed once a tick (5 s). Source: ``dht-rpc/lib/health.js``; docs/PROTOCOL.md
section 4.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

_WINDOW = 4
"""Ticks that all have to agree before the network counts as degraded or well again."""

_OFFLINE_TICKS = 2
_REQUESTS_MIN = 4
"""Fewer outcomes in a tick say nothing."""

_DEGRADED_SHARE = 0.5


class Health(Enum):
    """How well requests are answered."""

    ONLINE = "online"
    DEGRADED = "degraded"
    """More than half of the requests time out, for 20 s."""
    OFFLINE = "offline"
    """Nothing is answered at all, for 10 s."""


class HealthMonitor:
    """Turns running totals of answers and time-outs into a `Health`."""

    def __init__(self) -> None:
        self.state = Health.ONLINE
        self._last: tuple[int, int] | None = None
        self._ticks_known = 0
        self._offline_ticks = 0
        self._verdicts: deque[bool | None] = deque(maxlen=_WINDOW)

    def update(self, responses: int, timeouts: int) -> Health:
        """Take the totals at this tick; returns the state from now on."""
        before = self._last or (responses, timeouts)
        self._last = responses, timeouts
        self._ticks_known += 1
        answered = responses - before[0]
        lost = timeouts - before[1]
        if self._ticks_known < _WINDOW or answered + lost < _REQUESTS_MIN:
            self._verdicts.append(None)
        else:
            self._judge(answered, lost)
        return self.state

    def _judge(self, answered: int, lost: int) -> None:
        if answered == 0:
            self._verdicts.append(None)
            self._offline_ticks += 1
            if self._offline_ticks >= _OFFLINE_TICKS:
                self.state = Health.OFFLINE
            return
        self._offline_ticks = 0
        self._verdicts.append(lost / (answered + lost) > _DEGRADED_SHARE)
        if self._verdicts.count(True) == _WINDOW:
            self.state = Health.DEGRADED
        elif self._verdicts.count(False) == _WINDOW or self.state is Health.OFFLINE:
            self.state = Health.ONLINE
