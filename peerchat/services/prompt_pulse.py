"""Signs of life on ``peerchat/stream`` while answers run (docs/PROTOCOL.md section 12).

A connection notices after 13 s that its peer vanished without a word. That is too long
to compute for somebody who is gone, and too long to wait for who will say no more.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

BEAT_S = 0.5
"""While answers run, each side says something at least so often."""

SILENT_BEATS = 4
"""So many in a row that did not come: lost packets are repeated within two of them."""

SILENT_RTTS = 8
"""Over a long path the repetition takes longer."""


class Pulse:
    """One end of a channel: says that it is there, and counts the peer's silence.

    Silence is counted in own beats, so that an end that was held up itself, as in a
    suspended machine, does not take that for the peer's silence.

    Args:
        is_needed: whether any answer runs; without one nothing is said.
        beat: sends one.
        rtt_s: of the path, as far as it is known.
        on_silent: called at each beat from the one on that makes the peer silent.
    """

    def __init__(
        self,
        is_needed: Callable[[], bool],
        beat: Callable[[], None],
        rtt_s: Callable[[], float | None],
        on_silent: Callable[[], None] = lambda: None,
    ) -> None:
        self.peer_beats = False
        """It is of a version that says when it is there."""
        self.has_sent = False
        """Something else was: no beat is needed."""
        self.has_heard = False
        self._is_needed = is_needed
        self._beat = beat
        self._rtt_s = rtt_s
        self._on_silent = on_silent
        self._missed = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_silent(self) -> bool:
        """The peer should have been heard, and was not."""
        most = max(SILENT_BEATS, math.ceil(SILENT_RTTS * (self._rtt_s() or 0) / BEAT_S))
        return self.peer_beats and self._missed >= most

    def begin(self) -> None:
        """An answer runs from now on; idempotent."""
        if self._timer is None:
            self._missed = 0
            self.has_heard = True
            self._arm()

    def _arm(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(BEAT_S, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if not self._is_needed():
            self._missed = 0
            return
        if not self.has_sent:
            self._beat()
        self._missed = 0 if self.has_heard else self._missed + 1
        self.has_sent = self.has_heard = False
        self._arm()
        if self.is_silent:
            self._on_silent()
