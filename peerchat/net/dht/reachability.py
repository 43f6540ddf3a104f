"""What others see of us: our public address, whether we are firewalled, persistent.

A node starts ephemeral (it shows no id, so nobody keeps it in a table). Once several
nodes agree on its address and reach its server socket, its id is the hash of that
address and it may become persistent. Source: docs/PROTOCOL.md section 4;
``dht-rpc/index.js`` _updateNetworkState, _checkIfFirewalled.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from peerchat.net.errors import NetError
from peerchat.net.identity import Address

from .addresses import is_loopback
from .io import DhtIo
from .messages import Command, node_id
from .nat_sampler import NatSampler
from .neighbours import Neighbours
from .pending import Response

logger = logging.getLogger(__name__)

CHECKERS = 5
"""Nodes that are asked to reach our server socket."""

REACHED_MIN = 3
"""How many of five must have; with fewer nodes known, one."""

SENDERS_SAMPLED_MAX = 32
"""Hosts whose view of our address a first node takes: the sampler holds half of it."""


class Reachability:
    """Owns the NAT samples; ``io`` holds what follows from them."""

    def __init__(
        self,
        io: DhtIo,
        bootstrap_count: int,
        resolve_bootstrap: Callable[[], Awaitable[Sequence[Address]]],
        on_change: Callable[[], None],
    ) -> None:
        self.nat = NatSampler()
        self.neighbours: Neighbours | None = None
        self._io = io
        self._bootstrap_count = bootstrap_count
        self._resolve_bootstrap = resolve_bootstrap
        self._on_change = on_change
        self._sampled_bootstrap: set[Address] = set()
        self._sampled_hosts: set[str] = set()
        self._is_updating = False

    def sample(self, to: Address) -> None:
        """A node with an id says how it sees us."""
        before = (self.nat.host, self.nat.port)
        self.nat.add(to)
        if before != (self.nat.host, self.nat.port):
            self._on_change()

    def sample_without_id(self, sender: Address, to: Address) -> None:
        """So does one without: believed of as many as there are bootstrap nodes."""
        is_full = len(self._sampled_bootstrap) >= max(1, self._bootstrap_count)
        if not is_full and sender not in self._sampled_bootstrap:
            self._sampled_bootstrap.add(sender)
            self.sample(to)

    def sample_of_first_node(self, sender: Address, to: Address) -> bool:
        """Learn from requests, as nobody else tells the first node of a network.

        One sample per sending host, so that one liar is outvoted by four others; and
        loopback addresses count only until a host from outside writes.

        Returns:
            Whether the address that most agree on is now another one.
        """
        port = self._io.server_socket.address.port
        is_known = sender.host in self._sampled_hosts
        if is_known or len(self._sampled_hosts) >= SENDERS_SAMPLED_MAX:
            return False
        if to.port != port or is_loopback(to.host) > is_loopback(sender.host):
            return False
        if self.nat.host is not None and is_loopback(self.nat.host):
            if is_loopback(to.host):
                return False
            self.nat = NatSampler()
        elif self.nat.host is not None and is_loopback(to.host):
            return False
        self._sampled_hosts.add(sender.host)
        before = (self.nat.host, self.nat.port)
        self.sample(to)
        return self.nat.host is not None and before != (self.nat.host, self.nat.port)

    async def update(self, *, only_firewall: bool) -> bool:
        """Find out whether we are reachable, and become persistent if we are.

        Args:
            only_firewall: find out, but stay ephemeral.

        Returns:
            Whether something was found that a fresh look around is worth.
        """
        if not self._io.is_ephemeral or self._is_updating:
            return False
        if only_firewall and not self._io.is_firewalled:
            return False
        self._is_updating = True
        try:
            return await self._update(only_firewall)
        finally:
            self._is_updating = False

    async def _update(self, only_firewall: bool) -> bool:
        host, port = self.nat.host, self.nat.port
        if host is None or port == 0:
            return False
        nat = self.nat
        if self._io.is_firewalled:
            nat = NatSampler()
            if await self._is_firewalled(nat):
                return False
        self._io.is_firewalled = False
        is_unchanged = (host, port) == (self.nat.host, self.nat.port)
        if self._io.is_closed or not self._io.is_ephemeral or not is_unchanged:
            return False
        if nat.host != host or nat.port == 0:
            return False
        if nat is not self.nat:
            self._sampled_bootstrap.clear()
            self.nat = nat
        self.settle(Address(host, nat.port), is_ephemeral=only_firewall)
        return True

    def settle(self, address: Address, *, is_ephemeral: bool) -> None:
        """Take the id that the address gives."""
        own_id = node_id(address)
        self._io.is_ephemeral = is_ephemeral
        if own_id != self._io.table.id and self.neighbours is not None:
            self.neighbours.replace_table(own_id)
        logger.info(
            "others reach this node at %s%s",
            address,
            "" if is_ephemeral else "; it is persistent now",
        )
        self._on_change()

    async def _is_firewalled(self, nat: NatSampler) -> bool:
        """Have nodes write to our server socket, which never wrote to them."""
        checkers = [entry.address for entry in self._io.table.latest(CHECKERS)]
        if len(checkers) < CHECKERS:
            checkers += await self._resolve_bootstrap()
        port = self._io.server_socket.address.port
        answers = await asyncio.gather(*(self._ask(node, port) for node in checkers))
        reached = 0
        for answer in answers:
            if answer is not None and answer.is_on_server_socket:
                reached += 1
                nat.add(answer.to)
        if reached < (REACHED_MIN if len(checkers) >= CHECKERS else 1):
            return True
        # A port that a router maps to another one is not ours to tell others.
        return nat.host is None or nat.host != self.nat.host or nat.port != port

    async def _ask(self, node: Address, port: int) -> Response | None:
        try:
            return await self._io.request(
                node,
                Command.PING_NAT,
                is_internal=True,
                value=port.to_bytes(2, "little"),
            )
        except NetError:
            return None
