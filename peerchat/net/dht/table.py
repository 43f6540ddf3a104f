"""The routing table: which nodes we know, by distance from our own id and by age.

Pure; time is a tick number that `node` advances every 5 s. Source: docs/PROTOCOL.md
section 4; npm kademlia-routing-table 1.0.6 and time-ordered-set 2.0.1. Unlike the
former, `closest` is exact: nodes beyond the target's own row come before farther rows.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from peerchat.net.identity import KEY_BYTES, Address, NodeId

K = 20
"""Nodes in a row, in a response, and at the end of a query."""

ROWS = KEY_BYTES * 8


def key_of(name: bytes) -> int:
    """An id or target as a number; distance is the exclusive or of two of them."""
    return int.from_bytes(name, "big")


@dataclass(slots=True, eq=False)
class Entry:
    """A known node; the numbers but ``key`` are ticks."""

    id: NodeId
    address: Address
    to: Address | None = None
    """Our own address as this node saw it."""
    sampled: int = 0
    """When ``to`` was last given to the NAT sampler; 0: never."""
    added: int = 0
    pinged: int = 0
    """When we last tried to reach it."""
    seen: int = 0
    """When we last heard from it."""
    down_hints: int = 0
    key: int = field(init=False)

    def __post_init__(self) -> None:
        self.key = key_of(self.id)


class Table:
    """At most 256 rows of 20 entries; row n holds ids that share n bits with ours."""

    def __init__(self, own_id: NodeId) -> None:
        self.id = own_id
        self._key = key_of(own_id)
        self._rows: dict[int, list[Entry]] = {}
        self._by_age: OrderedDict[NodeId, Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_age)

    def __contains__(self, entry: Entry) -> bool:
        return self._by_age.get(entry.id) is entry

    def get(self, node_id: NodeId) -> Entry | None:
        return self._by_age.get(node_id)

    def add(self, entry: Entry) -> bool:
        """Take the entry in as the latest; False when its row is full or it is us."""
        if entry.id == self.id:
            return False
        row = self._rows.setdefault(self._row_index(entry.key), [])
        if entry.id in self._by_age:
            row[:] = [other for other in row if other.id != entry.id]
        elif len(row) >= K:
            return False
        row.append(entry)
        self._by_age[entry.id] = entry
        self._by_age.move_to_end(entry.id)
        return True

    def remove(self, entry: Entry) -> bool:
        """Forget the entry; False when it was not, or no more, known."""
        if entry not in self:
            return False
        del self._by_age[entry.id]
        index = self._row_index(entry.key)
        self._rows[index].remove(entry)
        if not self._rows[index]:
            del self._rows[index]
        return True

    def touch(self, entry: Entry) -> None:
        """Make the entry the latest one heard from."""
        self._by_age.move_to_end(entry.id)

    def row_of(self, entry: Entry) -> list[Entry]:
        """The entries that compete for one row with this one."""
        return list(self._rows.get(self._row_index(entry.key), ()))

    def closest(self, target: bytes, count: int = K) -> list[Entry]:
        """The known entries closest to the target, closest first."""
        key = key_of(target)
        found: list[Entry] = []
        for group in self._groups_by_distance(self._row_index(key)):
            found += sorted(group, key=lambda entry: entry.key ^ key)
            if len(found) >= count:
                break
        return found[:count]

    def oldest(self, count: int) -> list[Entry]:
        """Those not heard from for longest, oldest first."""
        return list(islice(self._by_age.values(), count))

    def latest(self, count: int) -> list[Entry]:
        """Those heard from last, latest first."""
        return list(islice(reversed(self._by_age.values()), count))

    def at(self, index: int) -> Entry:
        """The entry at a place in order of age, for a random choice."""
        return next(islice(self._by_age.values(), index, None))

    def _groups_by_distance(self, row: int) -> Iterator[list[Entry]]:
        """Rows so that all of one group are closer to the target than the next."""
        yield self._rows.get(row, [])
        # Ids beyond the target's row differ from it first at the same bit.
        yield [e for i, entries in self._rows.items() if i > row for e in entries]
        for index in range(row - 1, -1, -1):
            if index in self._rows:
                yield self._rows[index]

    def _row_index(self, key: int) -> int:
        return min(ROWS - (key ^ self._key).bit_length(), ROWS - 1)
