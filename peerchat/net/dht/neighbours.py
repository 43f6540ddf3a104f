"""Keeps the routing table true: takes nodes in, pings the old, drops the dead.

Time is counted in ticks of 5 s. Source: docs/PROTOCOL.md section 4;
``dht-rpc/index.js`` _addNodeFromNetwork, _onfullrow, _check, _pingSome.
"""

from __future__ import annotations

from collections.abc import Callable

from peerchat.net.errors import DhtUnreachable, NetError
from peerchat.net.identity import Address, NodeId

from .io import DhtIo
from .messages import Command, node_id
from .pending import Response
from .table import Entry, Table

RECENT_TICKS = 12
"""Heard from within a minute."""

OLD_TICKS = 360
"""Known for half an hour."""

REPINGS_MAX = 3
"""Full rows that are being tested at once."""

CHECKS_MAX = 10
"""Checks that down hints may cause at once: others must not have us flood anyone."""


class Neighbours:
    """The routing table's keeper; the table itself is ``io.table``."""

    def __init__(self, io: DhtIo, tick: int, sample: Callable[[Address], None]) -> None:
        """Args: sample: is told our own address as a node saw it."""
        self.tick = tick
        self.can_test_full_rows = False
        """Set once bootstrapped: before, all entries are equally new."""
        self._io = io
        self._sample = sample
        self._repinging = 0
        self._checks = 0

    @property
    def table(self) -> Table:
        return self._io.table

    def add(self, address: Address) -> None:
        """Take in a node that is known from before, or from a bootstrap list."""
        self._add(Entry(node_id(address), address))

    def heard_from(
        self, sender_id: NodeId, address: Address, to: Address, can_sample: bool
    ) -> None:
        """A node with a proven id sent us something."""
        known = self.table.get(sender_id)
        if known is None:
            self._add(Entry(sender_id, address, to if can_sample else None))
            return
        age = self.tick - known.sampled
        if can_sample and (known.sampled == 0 or age >= OLD_TICKS):
            known.to = to
            known.sampled = self.tick
            self._sample(to)
        known.pinged = known.seen = self.tick
        self.table.touch(known)

    def timed_out(self, sender_id: NodeId) -> None:
        """A node did not answer any try of a request."""
        known = self.table.get(sender_id)
        if known is not None:
            self.table.remove(known)

    def down_hint(self, address: Address) -> None:
        """Somebody says that the node is gone: ask it, if we know it."""
        known = self.table.get(node_id(address))
        if known is None or self._checks >= CHECKS_MAX:
            return
        if known.pinged < self.tick or known.down_hints == 0:
            known.down_hints += 1
            self._check(known)

    def ping_some(self) -> None:
        """Check on those not heard from for longest."""
        count = 3 if self._io.in_flight > 2 else 5
        oldest = self.table.oldest(count)
        if oldest and self.tick - oldest[0].pinged < RECENT_TICKS:
            oldest = oldest[:2]
        for entry in oldest:
            if entry.pinged != self.tick:
                self._check(entry)

    def replace_table(self, own_id: NodeId) -> None:
        """Sort all nodes into a table around another id of ours."""
        entries = self.table.oldest(len(self.table))
        self._io.table = Table(own_id)
        for entry in entries:
            self.table.add(entry)

    def _add(self, entry: Entry) -> None:
        if entry.id == self.table.id or self.table.get(entry.id) is not None:
            return
        entry.added = entry.pinged = entry.seen = self.tick
        if not self.table.add(entry):
            self._test_full_row(entry)
            return
        if entry.to is not None and entry.sampled == 0:
            entry.sampled = self.tick
            self._sample(entry.to)

    def _test_full_row(self, newcomer: Entry) -> None:
        """Long-lived nodes stay; one that does not answer gives way (Kademlia 4.1)."""
        if not self.can_test_full_rows or self._repinging >= REPINGS_MAX:
            return
        row = [e for e in self.table.row_of(newcomer) if e.pinged != self.tick]
        if not row:
            return
        oldest = min(row, key=lambda entry: (entry.pinged, entry.added))
        is_recent = self.tick - oldest.pinged < RECENT_TICKS
        if is_recent and self.tick - oldest.added > OLD_TICKS:
            return
        self._reping_and_swap(newcomer, oldest)

    def _reping_and_swap(self, newcomer: Entry, oldest: Entry) -> None:
        def on_response(response: Response) -> None:
            self._repinging -= 1
            if response.id != oldest.id:
                swap()

        def on_error(_: NetError) -> None:
            self._repinging -= 1
            swap()

        def swap() -> None:
            self.table.remove(oldest)
            self._add(newcomer)

        if self._ping(oldest, on_response, on_error):
            self._repinging += 1

    def _check(self, entry: Entry) -> None:
        def on_response(response: Response) -> None:
            self._checks -= 1
            # Alive, but ephemeral now or somebody else.
            if response.id != entry.id:
                self.table.remove(entry)

        def on_error(_: NetError) -> None:
            self._checks -= 1
            self.table.remove(entry)

        if self._ping(entry, on_response, on_error):
            self._checks += 1

    def _ping(
        self,
        entry: Entry,
        on_response: Callable[[Response], None],
        on_error: Callable[[NetError], None],
    ) -> bool:
        entry.pinged = self.tick
        try:
            self._io.start_request(
                entry.address,
                Command.PING,
                is_internal=True,
                on_response=on_response,
                on_error=on_error,
            )
        except DhtUnreachable:
            return False
        return True
