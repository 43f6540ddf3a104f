"""Bootstrap nodes: from ``[ip@]host:port`` to addresses that can be asked.

Source: docs/PROTOCOL.md section 4; ``dht-rpc/index.js`` _resolveBootstrapNodes.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence

from peerchat.net.env import Clock
from peerchat.net.errors import NetError
from peerchat.net.identity import Address

from .addresses import BootstrapNode, is_ipv4

logger = logging.getLogger(__name__)

Resolve = Callable[[str], Awaitable[str]]
"""Gives the IPv4 address of a host name; raises OSError."""

KEPT_S = 300.0
"""How long resolved addresses are used again, so that queries need not wait."""

KEPT_INCOMPLETE_S = 15.0
"""The same when some could not be resolved: not every query should wait for those."""


async def resolve_ipv4(host: str) -> str:
    """Ask the operating system; raises OSError when it knows no IPv4 address."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(
        host, None, family=socket.AF_INET, type=socket.SOCK_DGRAM
    )
    return str(found[0][4][0])


class BootstrapResolver:
    """Resolves the nodes in turn, and remembers the outcome for 5 minutes."""

    def __init__(
        self,
        nodes: Sequence[BootstrapNode],
        clock: Clock,
        ping: Callable[[Address], Awaitable[object]],
        resolve: Resolve = resolve_ipv4,
    ) -> None:
        self.nodes = tuple(nodes)
        self._clock = clock
        self._ping = ping
        self._resolve = resolve
        self._kept: list[Address] = []
        self._kept_until_s = float("-inf")

    async def addresses(self) -> list[Address]:
        """Those that could be resolved."""
        if self._clock.now() >= self._kept_until_s:
            found = [await self._address_of(node) for node in self.nodes]
            self._kept = [address for address in found if address is not None]
            self._kept_until_s = self._clock.now() + self._kept_s()
        return self._kept

    def _kept_s(self) -> float:
        if len(self._kept) == len(self.nodes):
            return KEPT_S
        return KEPT_INCOMPLETE_S if self._kept else 0.0

    def forget(self) -> None:
        """Resolve anew next time, as after a change of network."""
        self._kept_until_s = float("-inf")

    async def _address_of(self, node: BootstrapNode) -> Address | None:
        if node.suggested_ip is not None:
            suggested = Address(node.suggested_ip, node.port)
            try:
                await self._ping(suggested)
            except NetError:
                logger.debug("bootstrap node %s: no answer from the IP", node)
            else:
                return suggested
        if is_ipv4(node.host):
            return Address(node.host, node.port)
        try:
            return Address(await self._resolve(node.host), node.port)
        except OSError as error:
            logger.warning("bootstrap node %s cannot be resolved: %s", node, error)
            return None
