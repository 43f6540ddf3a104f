"""Signs of life on ``peerchat/stream`` while answers run (docs/PROTOCOL.md section 12).

A connection notices after 13 s that its peer vanished without a word. That is too long
to compute for somebody who is gone, and too long to wait for who will say no more.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

BEAT_S = 0.25
"""While answers run, the serving side says something at least so often: mostly it does
anyway, and a reader finds another gateway within a second."""

ASKING_BEATS = 2
"""The asking side says something every second time: a gateway has many of them."""

LOST_BEATS = 3
"""An asking side that missed so many looks for another peer."""

GONE_BEATS = 8
"""A serving side that missed so many computes no more: what is lost on the way is
repeated within one or two of them."""

SILENT_RTTS = 8
"""Over a long path the repetition takes longer."""


class Pulse:
    """One end of a channel: says that it is there, and counts the peer's silence.

    Silence is counted in own beats, so that an end that was held up itself, as in a
    suspended machine, does not take that for the peer's silence.

    Args:
        beats: that may be missed.
        says_every: own beats between two that are sent.
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
        *,
        beats: int,
        says_every: int = 1,
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
        self._beats = beats
        self._says_every = says_every
        self._missed = 0
        self._unsaid = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_silent(self) -> bool:
        """The peer should have been heard, and was not."""
        path_s = SILENT_RTTS * (self._rtt_s() or 0)
        most = max(self._beats, math.ceil(path_s / BEAT_S))
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
        self._unsaid = 0 if self.has_sent else self._unsaid + 1
        if self._unsaid >= self._says_every:
            self._beat()
            self._unsaid = 0
        self._missed = 0 if self.has_heard else self._missed + 1
        self.has_sent = self.has_heard = False
        self._arm()
        if self.is_silent:
            self._on_silent()
