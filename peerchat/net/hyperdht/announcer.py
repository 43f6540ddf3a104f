"""Keeps one server findable: at the three nodes closest to the hash of its key.

Those nodes become its relays. They are pinged every three seconds, which also keeps
NATs open; about every five minutes, or when too few answer, the closest nodes are
looked for anew and the dropped ones told to forget.
Source: hyperdht/lib/announcer.js; docs/PROTOCOL.md section 5.7.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable

from peerchat.net.crypto.primitives import KeyPair
from peerchat.net.dht.node import DhtNode
from peerchat.net.dht.pending import Response
from peerchat.net.env import Clock
from peerchat.net.errors import DhtUnreachable, NetError
from peerchat.net.identity import Address, Target

from .constants import K_ANNOUNCE, RELAY_ADDRESSES_MAX, Command
from .messages import Announce, PeerRecord, RelayInfo
from .records import announce_at, withdraw_from

logger = logging.getLogger(__name__)

PING_INTERVAL_S = 3.0
PING_ROUNDS = 100
"""Rounds until the announcement is renewed: about 5 minutes."""

GENERATIONS = 3
"""Sets of relays remembered: handshakes may still come through the former ones."""

FIRST_TRIES = 3
"""Rounds before `start` gives up; a lone lost packet must not stop a server."""


class Announcer:
    """Call `start`, then `run` until cancelled, then `stop`.

    Args:
        clock: paces the pings.
        node: asks the others.
        key_pair: the server's.
        target: the hash of its key.
        is_first: this node began the network: having no other to announce at is then
            no error, because whoever joins does so through this one.
    """

    def __init__(
        self,
        clock: Clock,
        node: DhtNode,
        key_pair: KeyPair,
        target: Target,
        *,
        is_first: bool,
    ) -> None:
        self.relays: tuple[RelayInfo, ...] = ()
        """Current relays, with our address as each of them sees it."""
        self.relay_addresses: tuple[Address, ...] = ()
        """Where clients may try next time without a search."""
        self._clock = clock
        self._node = node
        self._key_pair = key_pair
        self._target = target
        self._is_first = is_first
        self._generations: list[set[Address]] = [set() for _ in range(GENERATIONS)]
        self._closest: list[Address] = []
        self._refresh = asyncio.Event()

    def is_relay(self, address: Address) -> bool:
        """Whether the server announced itself there lately."""
        return any(address in relays for relays in self._generations)

    def refresh(self) -> None:
        """Announce again soon, as after a change of network."""
        self._refresh.set()

    async def start(self) -> None:
        """Announce for the first time.

        Raises:
            DhtUnreachable: no node took the announcement.
        """
        for attempt in range(FIRST_TRIES):
            if attempt:
                await self._clock.sleep(1.0)
            await self._update()
            if self.relays or self._is_first or not self._node.is_ephemeral:
                return
        raise DhtUnreachable("no DHT node took the announcement of the server")

    async def run(self) -> None:
        """Keep announced; never returns."""
        while True:
            try:
                await self._ping_rounds()
                await self._update()
            except NetError as error:
                logger.info("announcing again soon: %s", error)
                await self._clock.sleep(PING_INTERVAL_S)

    async def stop(self) -> None:
        """Withdraw from the current relays; takes at most a few seconds."""
        await self._withdraw(self._generations[-1])
        self.relays = ()
        self.relay_addresses = ()

    async def _ping_rounds(self) -> None:
        for _ in range(PING_ROUNDS):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PING_INTERVAL_S):
                    await self._refresh.wait()
                self._refresh.clear()
                return
            relays = self._generations[-1]
            active = await self._count_active(relays)
            if active < min(len(relays), K_ANNOUNCE) or not relays:
                return

    async def _count_active(self, relays: Iterable[Address]) -> int:
        outcomes = await asyncio.gather(
            *(self._node.ping(relay) for relay in relays), return_exceptions=True
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, NetError):
                raise outcome
        return sum(not isinstance(outcome, BaseException) for outcome in outcomes)

    async def _update(self) -> None:
        """Find the closest nodes, announce there, withdraw from dropped ones."""
        query = self._node.query(Command.FIND_PEER, self._target, nodes=self._closest)
        try:
            replies = await query.finished()
        except DhtUnreachable as error:
            logger.info("the server cannot be announced now: %s", error)
            return
        fresh: dict[Address, RelayInfo] = {}
        # One after the other would take three round trips; the order of relays is
        # the order of distance all the same.
        outcomes = await asyncio.gather(
            *(self._commit(reply) for reply in replies[:K_ANNOUNCE])
        )
        for reply, is_stored in zip(replies, outcomes, strict=False):
            if is_stored:
                fresh[reply.from_address] = RelayInfo(reply.from_address, reply.to)
        if not fresh:
            return
        self._generations = [*self._generations[1:], set(fresh)]
        self._closest = query.closest_nodes
        self.relays = tuple(fresh.values())
        own = self._node.public_address
        known = [own] if own is not None else []
        self.relay_addresses = (*known, *fresh)[:RELAY_ADDRESSES_MAX]
        await self._withdraw(self._generations[-2] - self._generations[-1])

    async def _commit(self, reply: Response) -> bool:
        item = Announce(PeerRecord(self._key_pair.public_key))
        try:
            await announce_at(self._node, reply, self._target, self._key_pair, item)
        except NetError as error:
            logger.debug("%s took no announcement: %s", reply.from_address, error)
            return False
        return True

    async def _withdraw(self, relays: Iterable[Address]) -> None:
        await asyncio.gather(*(self._withdraw_one(relay) for relay in relays))

    async def _withdraw_one(self, relay: Address) -> None:
        with contextlib.suppress(NetError):
            await withdraw_from(self._node, relay, self._target, self._key_pair)
