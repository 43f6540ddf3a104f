"""How often one source may ask for work that costs much: a token bucket per key."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

SIGNED_PER_S = 200.0
SIGNED_BURST = 1000.0
"""Announcements from one host. Checking a signature costs about 0.1 ms of processor
time: a flood takes 2 % of a core, and a host of hundreds of servers is not held up."""

SOURCES_MAX = 4096
"""Buckets kept; the longest unused goes first, and with it at most one full burst."""


class RateLimiter:
    """Allows ``burst`` at once and ``per_s`` in the long run, for each key."""

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def allow(self, key: Hashable, now: float) -> bool:
        """Take one token of the key's bucket; False when it is empty."""
        tokens, at = self._buckets.pop(key, (self._burst, now))
        tokens = min(self._burst, tokens + (now - at) * self._per_s)
        is_allowed = tokens >= 1
        self._buckets[key] = (tokens - is_allowed, now)
        if len(self._buckets) > SOURCES_MAX:
            self._buckets.popitem(last=False)
        return is_allowed
