"""Stores that forget: two generations, bounded by age and by number.

Entries enter the young generation; when two thirds of the age have passed, or the
young one is full, it becomes the old one and the former old one is dropped. An entry
so lives between 2/3 and 4/3 of the age, or less under pressure, and no store ever
holds more than twice its size. Nothing here reads a clock: callers pass ``now``.
Source: npm xache 1.3.0, record-cache 1.2.0; docs/PROTOCOL.md section 5.3. Unlike in
xache, reading lengthens a life only where that is asked for: a forward to a dead server
should not live on because people keep asking for it.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from peerchat.net.env import Random

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

STORE_SIZE_MAX = 65_536
"""Entries in a generation (hyperdht/index.js): about 20 MB when both are full."""

STORE_AGE_S = 20 * 60.0
"""Announcers renew after 5 minutes, so three may be lost before a record is."""


class _Generations:
    """When the young generation grows old."""

    __slots__ = ("_is_started", "_rotated_at", "_span_s", "size_max")

    def __init__(self, size_max: int, age_s: float) -> None:
        self.size_max = size_max
        self._span_s = age_s * 2 / 3
        self._rotated_at = 0.0
        self._is_started = False

    def due(self, now: float) -> int:
        """How many rotations (0, 1 or 2) the time that has passed asks for."""
        if not self._is_started:
            self._is_started = True
            self._rotated_at = now
        spans = int((now - self._rotated_at) / self._span_s)
        self._rotated_at += spans * self._span_s
        return min(spans, 2)

    def restart(self, now: float) -> None:
        self._rotated_at = now


class ExpiringCache(Generic[K, V]):
    """A mapping whose entries expire.

    Args:
        size_max: of one generation.
        age_s: about how long an entry lives.
        is_renewed_by_reading: what is read moves to the young generation, as in xache.
    """

    def __init__(
        self,
        size_max: int = STORE_SIZE_MAX,
        age_s: float = STORE_AGE_S,
        *,
        is_renewed_by_reading: bool = False,
    ) -> None:
        self._is_renewed_by_reading = is_renewed_by_reading
        self._generations = _Generations(size_max, age_s)
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, key: K, now: float) -> V | None:
        self._expire(now)
        value = self._young.get(key)
        if value is not None:
            return value
        value = self._old.get(key)
        if value is not None and self._is_renewed_by_reading:
            self.set(key, value, now)
        return value

    def set(self, key: K, value: V, now: float) -> None:
        """Store, or replace and renew."""
        self._expire(now)
        self._old.pop(key, None)
        self._young[key] = value
        if len(self._young) >= self._generations.size_max:
            self._rotate()
            self._generations.restart(now)

    def delete(self, key: K) -> None:
        self._young.pop(key, None)
        self._old.pop(key, None)

    def _expire(self, now: float) -> None:
        for _ in range(self._generations.due(now)):
            self._rotate()

    def _rotate(self) -> None:
        self._old, self._young = self._young, {}


class _RecordSet:
    """The records of one topic, in an order that can be drawn from by index."""

    __slots__ = ("_index", "items")

    def __init__(self) -> None:
        self.items: list[tuple[bytes, bytes]] = []
        self._index: dict[bytes, int] = {}

    def set(self, key: bytes, value: bytes) -> bool:
        """Store or replace; True when the key is new."""
        index = self._index.get(key)
        if index is not None:
            self.items[index] = (key, value)
            return False
        self._index[key] = len(self.items)
        self.items.append((key, value))
        return True

    def remove(self, key: bytes) -> bool:
        index = self._index.pop(key, None)
        if index is None:
            return False
        last = self.items.pop()
        if index < len(self.items):
            self.items[index] = last
            self._index[last[0]] = index
        return True


class _Store:
    """One generation of records."""

    __slots__ = ("size", "topics")

    def __init__(self) -> None:
        self.topics: dict[bytes, _RecordSet] = {}
        self.size = 0

    def set(self, topic: bytes, key: bytes, value: bytes) -> None:
        self.size += self.topics.setdefault(topic, _RecordSet()).set(key, value)

    def remove(self, topic: bytes, key: bytes) -> None:
        records = self.topics.get(topic)
        if records is None or not records.remove(key):
            return
        self.size -= 1
        if not records.items:
            del self.topics[topic]

    def items(self, topic: bytes) -> list[tuple[bytes, bytes]]:
        records = self.topics.get(topic)
        return records.items if records else []


class RecordCache:
    """Records by topic and by key; a topic gives a fair sample of its records."""

    def __init__(
        self, size_max: int = STORE_SIZE_MAX, age_s: float = STORE_AGE_S
    ) -> None:
        self._generations = _Generations(size_max, age_s)
        self._young = _Store()
        self._old = _Store()

    def __len__(self) -> int:
        return self._young.size + self._old.size

    def add(self, topic: bytes, key: bytes, value: bytes, now: float) -> None:
        """Store, or replace and renew, one record."""
        self._expire(now)
        self._old.remove(topic, key)
        self._young.set(topic, key, value)
        if self._young.size > self._generations.size_max:
            self._rotate()
            self._generations.restart(now)

    def remove(self, topic: bytes, key: bytes) -> None:
        self._young.remove(topic, key)
        self._old.remove(topic, key)

    def sample(
        self, topic: bytes, count: int, now: float, chance: Random
    ) -> list[bytes]:
        """Up to ``count`` different records, each equally likely."""
        self._expire(now)
        young, old = self._young.items(topic), self._old.items(topic)
        total = len(young) + len(old)
        if total <= count:
            return [value for _, value in (*young, *old)]
        return [
            young[index][1] if index < len(young) else old[index - len(young)][1]
            for index in _sample_indexes(total, count, chance)
        ]

    def _expire(self, now: float) -> None:
        for _ in range(self._generations.due(now)):
            self._rotate()

    def _rotate(self) -> None:
        self._old, self._young = self._young, _Store()


def _sample_indexes(total: int, count: int, chance: Random) -> list[int]:
    """Floyd's sampling: ``count`` different indexes with ``count`` draws."""
    chosen: dict[int, None] = {}
    for upper in range(total - count, total):
        index = chance.randbelow(upper + 1)
        chosen[upper if index in chosen else index] = None
    return list(chosen)
