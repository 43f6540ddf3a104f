"""How long who waits at a gateway will wait, as far as answers so far tell.

The waiting are put into the slots in their order, each for as long as its model takes
on average, and what runs already ends when it has run for so long. No clock, no I/O.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Mapping, Sequence

from peerchat.model_names import short_name
from peerchat.net.identity import PublicKey

from .dispatch_queue import QUEUE_MAX

DURATION_GUESS_S = 10.0
"""Of an answer, until one was measured."""

MODELS_KEPT = 64
"""Of which the duration is known; others take as long as all do."""

OVERDUE_SHARE = 0.1
"""What runs longer than usual is given so much of its time again."""

WEIGHT = 1 / 8
"""Of the newest answer in a mean."""


class Durations:
    """How long a slot is held, on average, by model."""

    def __init__(self) -> None:
        self._means_s: dict[str, float] = {}
        self._all_s = DURATION_GUESS_S

    def measure(self, model: str | None, duration_s: float) -> None:
        """A slot was held for so long."""
        duration_s = max(0.0, duration_s)
        name = short_name(model or "")
        known_s = self._means_s.pop(name, duration_s)
        self._means_s[name] = known_s + (duration_s - known_s) * WEIGHT
        self._all_s += (duration_s - self._all_s) * WEIGHT
        while len(self._means_s) > MODELS_KEPT:
            self._means_s.pop(next(iter(self._means_s)))

    def mean_s(self, model: str | None) -> float:
        """Of the model; of all of them, if it is not known."""
        return self._means_s.get(short_name(model or ""), self._all_s)

    def left_s(self, model: str | None, held_s: float) -> float:
        """Until a slot comes free that was held for so long already."""
        return max(self.mean_s(model) - held_s, held_s * OVERDUE_SHARE)


class Forecast:
    """When slots come free; each `begin` takes one.

    Args:
        slots: by processor, in how many seconds each slot in use comes free, and how
            many are free now.
    """

    def __init__(self, slots: Mapping[PublicKey, tuple[Sequence[float], int]]) -> None:
        self._slots = {
            # More than can wait are not needed, whatever a processor tells.
            key: sorted([*[0.0] * min(free, QUEUE_MAX), *taken])[:QUEUE_MAX]
            for key, (taken, free) in slots.items()
        }

    def begin(self, keys: Collection[PublicKey], duration_s: float) -> float | None:
        """In how many seconds a request begins; None if nobody can take it.

        Args:
            keys: of the processors that may serve it.
            duration_s: it holds the slot for so long then.
        """
        heaps = [heap for key in keys if (heap := self._slots.get(key))]
        if not heaps:
            return None
        soonest = min(heaps, key=lambda heap: heap[0])
        begins_s = soonest[0]
        heapq.heapreplace(soonest, begins_s + duration_s)
        return begins_s


def taken_slots(ours_s: Iterable[float], occupied: int, others_s: float) -> list[float]:
    """When the slots of a processor that are in use come free.

    Args:
        ours_s: of those that we use.
        occupied: slots in use, by anybody.
        others_s: what others' answers take there.
    """
    ours = list(ours_s)
    return [*ours, *[others_s] * min(max(0, occupied - len(ours)), QUEUE_MAX)]
