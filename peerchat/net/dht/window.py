"""How many requests may be under way: a guard against flooding our own uplink.

Pure. Source: ``dht-rpc/lib/io.js`` CongestionWindow; docs/PROTOCOL.md section 4.
"""

from __future__ import annotations

WINDOW_MAX = 80
"""Requests sent in one slot of 750 ms; twice that over all four slots."""

_SLOTS = 4


class CongestionWindow:
    """Counts sends in a ring of four slots; an answer frees one of the present slot."""

    __slots__ = ("_index", "_maximum", "_slots", "_total")

    def __init__(self, maximum: int = WINDOW_MAX) -> None:
        self._maximum = maximum
        self._slots = [0] * _SLOTS
        self._index = 0
        self._total = 0

    @property
    def is_full(self) -> bool:
        return (
            self._total >= 2 * self._maximum
            or self._slots[self._index] >= self._maximum
        )

    @property
    def in_flight(self) -> int:
        return self._total

    def sent(self) -> None:
        self._total += 1
        self._slots[self._index] += 1

    def received(self) -> None:
        if self._slots[self._index] > 0:
            self._slots[self._index] -= 1
            self._total -= 1

    def drain(self) -> None:
        """Go on to the next slot; what was sent four slots ago no longer counts."""
        self._index = (self._index + 1) % _SLOTS
        self._total -= self._slots[self._index]
        self._slots[self._index] = 0
