"""Sets of integers held as sorted, disjoint, half-open ranges."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator


class RangeSet:
    """Integers as ranges ``[start, stop)``; what touches is merged."""

    __slots__ = ("_starts", "_stops")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []

    def __len__(self) -> int:
        """The number of ranges, not of integers."""
        return len(self._starts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self._starts, self._stops, strict=True))

    def __contains__(self, number: int) -> bool:
        index = bisect_right(self._starts, number) - 1
        return index >= 0 and number < self._stops[index]

    def add(self, start: int, stop: int) -> None:
        """Take in ``[start, stop)``; an empty range changes nothing."""
        if start >= stop:
            return
        # Ranges from `first` up to `last` overlap or touch the new one.
        first = bisect_left(self._stops, start)
        last = bisect_right(self._starts, stop)
        if first < last:
            start = min(start, self._starts[first])
            stop = max(stop, self._stops[last - 1])
        self._starts[first:last] = [start]
        self._stops[first:last] = [stop]

    def missing(self, start: int, stop: int) -> list[tuple[int, int]]:
        """The parts of ``[start, stop)`` that are not in the set, ascending."""
        gaps: list[tuple[int, int]] = []
        index = bisect_right(self._stops, start)
        while start < stop and index < len(self._starts):
            if self._starts[index] >= stop:
                break
            if self._starts[index] > start:
                gaps.append((start, self._starts[index]))
            start = self._stops[index]
            index += 1
        if start < stop:
            gaps.append((start, stop))
        return gaps

    def remove_below(self, bound: int) -> None:
        """Drop every integer smaller than ``bound``."""
        index = bisect_right(self._stops, bound)
        if index:
            del self._starts[:index], self._stops[:index]
        if self._starts and self._starts[0] < bound:
            self._starts[0] = bound
