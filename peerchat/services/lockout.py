"""Slows down whoever guesses passwords: per account, and per peer that asks.

An attempt counts as failed until it is known to be right, so that many at once gain
nothing. Kept in memory: a restart forgives, which a guesser cannot cause.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from peerchat.api import ApiError, ErrorCode

DELAY_MAX_S = 15 * 60.0
"""Longer would let anybody shut an account's owner out for good."""

FORGET_S = 3600.0
"""After so long without an attempt the count starts anew."""

ENTRIES_MAX = 20_000
"""Names that are remembered, some 4 MB; the oldest go first. Whoever wants to push one
out has to make as many attempts, each a bcrypt hash or a connection."""


@dataclass(slots=True)
class _Entry:
    attempts: int = 0
    newest_s: float = 0.0
    locked_until_s: float = 0.0


class Lockout:
    """Counts failures by name; after the first free ones the delay doubles.

    Args:
        free: failures in a row without a delay.
        now_s: monotonic clock.
    """

    def __init__(
        self, free: int = 5, *, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._free = free
        self._now_s = now_s
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def begin(self, name: str) -> None:
        """An attempt begins; raises `ApiError` (429) while the name is locked."""
        now_s = self._now_s()
        entry = self._entries.setdefault(name, _Entry())
        if now_s - entry.newest_s > FORGET_S:
            entry.attempts = 0
        wait_s = math.ceil(entry.locked_until_s - now_s)
        if wait_s > 0:
            raise ApiError(
                ErrorCode.RATE_LIMITED,
                f"Too many failed attempts; try again in {wait_s} s",
                status=429,
                retry_after_s=wait_s,
            )
        entry.attempts += 1
        entry.newest_s = now_s
        over = entry.attempts - self._free
        if over >= 0:
            entry.locked_until_s = now_s + min(2.0 ** min(over, 20), DELAY_MAX_S)
        self._entries.move_to_end(name)
        while len(self._entries) > ENTRIES_MAX:
            self._entries.popitem(last=False)

    def succeed(self, name: str) -> None:
        """The attempt was right: forget the name."""
        self._entries.pop(name, None)

    def forgive(self, name: str) -> None:
        """The attempt was not judged: take it back."""
        entry = self._entries.get(name)
        if entry is not None:
            entry.attempts -= 1
            entry.locked_until_s = 0.0
