"""`HyperDHT`: find topics and peers, announce, connect, accept.

Joins a dht-rpc node, a UDX endpoint on the same sockets, the router that relays for
others, and the stores of a persistent node.
Source: hyperdht/index.js; docs/PROTOCOL.md section 5.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from peerchat.net.crypto.noise import HandshakeResult
from peerchat.net.crypto.primitives import SEED_BYTES, KeyPair, hash_target
from peerchat.net.dht.addresses import is_worth_asking
from peerchat.net.dht.node import DhtNode
from peerchat.net.dht.pending import Response
from peerchat.net.dht.request import IncomingRequest
from peerchat.net.dht.table import K
from peerchat.net.driver.connection import Connection
from peerchat.net.driver.endpoint import UdxEndpoint
from peerchat.net.driver.stream import UdxStreamDriver
from peerchat.net.env import Env
from peerchat.net.errors import (
    ConnectFailed,
    DecodeError,
    DhtUnreachable,
    LocalProtocolError,
    NetError,
)
from peerchat.net.identity import Address, PublicKey, Target

from .addresses import ANY_HOST, LOOPBACK
from .cache import ExpiringCache
from .connect import Connector, Route
from .constants import PEERS_MAX, RELAY_ADDRESSES_MAX, Command
from .firewall import FirewallHook
from .messages import (
    Announce,
    LookupReply,
    PeerRecord,
    decode_lookup_reply_untrusted,
    decode_peer_untrusted,
)
from .mutable import MutableRecord
from .persistent import Persistent
from .records import announce_at, unannounce_at
from .router import Router
from .server import Server
from .statistics import HyperDhtStatistics
from .storage import MutablePutResult, Storage

logger = logging.getLogger(__name__)

LOOKUP_RESULT_MAX = 1024
"""Peers of one topic; more than anyone connects to, and 0.3 MB at most."""

RELAYS_REMEMBERED_MAX = 512
"""Servers whose relays are known from the last connection (hyperdht/index.js)."""


class HyperDHT:
    """One node; ``async with`` or `start` and `close`.

    Args:
        env: clock, chance and sockets; `peerchat.net.system_env()` for real ones.
        bootstrap: ``[ip@]host:port`` or (host, port) of nodes to join through; none
            makes this the first node of a network of its own.
        host: where to bind.
        port: of the server socket; 0 for any.
        ephemeral: True never stores for others; False does so as soon as it is known
            to be reachable; None after 20 stable minutes.
        firewalled: False claims to be reachable from outside; otherwise other nodes
            are asked to find out.
        key_pair: identity of connections that name no other; drawn when left out.
        public_host: see `DhtNode`; for the first node of a network.
        nodes: addresses known from an earlier run.
    """

    def __init__(
        self,
        env: Env,
        *,
        bootstrap: Iterable[str | tuple[str, int]] = (),
        host: str = ANY_HOST,
        port: int = 0,
        ephemeral: bool | None = None,
        firewalled: bool | None = None,
        key_pair: KeyPair | None = None,
        public_host: str | None = None,
        nodes: Iterable[tuple[str, int]] = (),
    ) -> None:
        bootstrap = tuple(bootstrap)
        self.env = env
        self.is_first = not bootstrap
        """Whether it began a network rather than joined one."""
        self.endpoint = UdxEndpoint(env)
        self.router = Router(env.clock)
        self.default_key_pair = key_pair or KeyPair.generate(
            env.random.token_bytes(SEED_BYTES)
        )
        self._persistent = Persistent(env, self.router)
        self._servers: set[Server] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._relays: ExpiringCache[PublicKey, tuple[Address, ...]] = ExpiringCache(
            RELAYS_REMEMBERED_MAX
        )
        self._connects = 0
        self._connects_failed = 0
        self._closed_servers = _ServerTotals()
        self._is_closed = False
        self._last_public_address: Address | None = None
        self.node = DhtNode(
            env,
            bootstrap=bootstrap,
            host=host,
            port=port,
            ephemeral=ephemeral,
            firewalled=firewalled,
            public_host=public_host,
            nodes=tuple(nodes),
            datagrams=self.endpoint,
            on_request=self._receive_request,
            on_network_update=self._network_updated,
        )
        self._storage = Storage(env.clock, self.node, is_first=self.is_first)

    @classmethod
    def bootstrapper(cls, env: Env, host: str, port: int) -> HyperDHT:
        """The first node of a network: persistent, and reachable at ``host:port``."""
        return cls(
            env,
            host=LOOPBACK if host == LOOPBACK else ANY_HOST,
            port=port,
            ephemeral=False,
            firewalled=False,
            public_host=host,
        )

    # Life

    async def start(self) -> None:
        """Bind and join.

        Raises:
            DhtUnreachable: there are bootstrap nodes and none answers; it is closed
                then.
            OSError: the port is taken.
        """
        await self.node.start()

    async def close(self) -> None:
        """Withdraw the servers, end every connection, leave the DHT; idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        await asyncio.gather(*(server.close() for server in list(self._servers)))
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.endpoint.close()
        await self.node.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def address(self) -> Address:
        """The local address of the server socket."""
        return self.node.address

    @property
    def is_ephemeral(self) -> bool:
        return self.node.is_ephemeral

    @property
    def is_firewalled(self) -> bool:
        return self.node.is_firewalled

    def statistics(self) -> HyperDhtStatistics:
        """A frozen picture of now."""
        totals = replace(self._closed_servers)
        for server in self._servers:
            totals.add(server)
        router, stores = self.router.counters, self._persistent.counters
        return HyperDhtStatistics(
            dht=self.node.statistics(),
            udx=self.endpoint.totals(),
            streams=self.endpoint.stream_count,
            servers=len(self._servers),
            connects=self._connects,
            connects_failed=self._connects_failed,
            handshakes=totals.handshakes,
            handshakes_limited=totals.limited,
            handshakes_refused=totals.refused,
            accepted=totals.accepted,
            relayed=router.relayed,
            returned=router.returned,
            records=self._persistent.record_count,
            values=len(self._storage.store),
            forwards=len(self.router),
            lookups=stores.lookups,
            announces=stores.announces,
        )

    # Topics and peers

    async def lookup(self, target: Target) -> list[PeerRecord]:
        """Everyone found under a topic, each once.

        Raises:
            DhtUnreachable: no DHT node answers.
        """
        found: dict[PublicKey, PeerRecord] = {}
        own = self._persistent.local_records(target)
        _collect(found, (decode_peer_untrusted(record) for record in own))
        async with self.node.query(Command.LOOKUP, target) as query:
            async for reply in query:
                _collect(found, _lookup_reply(reply).peers)
        return list(found.values())

    async def announce(
        self,
        target: Target,
        key_pair: KeyPair,
        relay_addresses: Iterable[Address] = (),
    ) -> int:
        """Store a record under a topic; do so again within 10 minutes.

        Returns:
            How many nodes stored it: 20 in a large network, this one included if it
            is one of them.

        Raises:
            DhtUnreachable: there is no node to store it.
            NetError: none of the nodes took it.
        """
        peer = PeerRecord(key_pair.public_key, tuple(relay_addresses))

        async def commit(reply: Response) -> None:
            await announce_at(self.node, reply, target, key_pair, Announce(peer))

        query = self.node.query(Command.LOOKUP, target, commit=commit)
        is_storing = self.is_first or not self.is_ephemeral
        try:
            await query.finished()
        except NetError:
            if not is_storing:
                raise
        if not is_storing or len(query.closest_replies) >= K:
            return query.committed
        # Every node there is stores it, and this is one, or will be with the next.
        self._persistent.add(target, peer)
        return query.committed + 1

    async def unannounce(self, target: Target, key_pair: KeyPair) -> None:
        """Have every node that lists the key under a topic forget it.

        Raises:
            DhtUnreachable: no DHT node answers; this one has forgotten it.
        """
        self._persistent.remove(target, key_pair.public_key)
        async with self.node.query(Command.LOOKUP, target) as query:
            listing = [
                reply async for reply in query if _may_list(reply, key_pair.public_key)
            ]
        await asyncio.gather(
            *(self._unannounce_at(reply, target, key_pair) for reply in listing)
        )

    async def _unannounce_at(
        self, reply: Response, target: Target, key_pair: KeyPair
    ) -> None:
        try:
            await unannounce_at(self.node, reply, target, key_pair)
        except NetError as error:
            logger.debug("%s still lists us: %s", reply.from_address, error)

    async def find_peer(self, public_key: PublicKey) -> PeerRecord | None:
        """Where a server can be shaken hands with; None when nobody knows it.

        Raises:
            DhtUnreachable: no DHT node answers.
        """
        target = hash_target(public_key)
        if self.router.record_of(target) is not None:
            return PeerRecord(public_key, self._known_ways(public_key))
        async with self.node.query(Command.FIND_PEER, target) as query:
            async for reply in query:
                try:
                    record = decode_peer_untrusted(reply.value or b"")
                except DecodeError:
                    continue
                if record.public_key == public_key:
                    relays = record.relay_addresses or (reply.from_address,)
                    return PeerRecord(public_key, relays)
        return None

    # Records

    async def immutable_put(self, value: bytes) -> Target:
        """Store a value under its hash; see `Storage.immutable_put`."""
        return await self._storage.immutable_put(value)

    async def immutable_get(self, target: Target) -> bytes | None:
        """The value that hashes to ``target``; see `Storage.immutable_get`."""
        return await self._storage.immutable_get(target)

    async def mutable_put(
        self, key_pair: KeyPair, value: bytes, seq: int = 0
    ) -> MutablePutResult:
        """Store a version under our key; see `Storage.mutable_put`."""
        return await self._storage.mutable_put(key_pair, value, seq)

    async def mutable_put_signed(
        self, public_key: PublicKey, record: MutableRecord
    ) -> MutablePutResult:
        """Store what another signed again; see `Storage.mutable_put_signed`."""
        return await self._storage.mutable_put_signed(public_key, record)

    async def mutable_get(
        self, public_key: PublicKey, seq: int = 0, latest: bool = True
    ) -> MutableRecord | None:
        """What a key's holder stored; see `Storage.mutable_get`."""
        return await self._storage.mutable_get(public_key, seq, latest)

    # Connections

    async def connect(
        self,
        public_key: PublicKey,
        *,
        key_pair: KeyPair | None = None,
        relay_addresses: Iterable[Address] = (),
    ) -> Connection:
        """Open an encrypted connection to whoever holds the secret key.

        Args:
            public_key: the server's.
            key_pair: who we are; `default_key_pair` when left out.
            relay_addresses: nodes to try first, from a record or an address.

        Raises:
            ConnectFailed: one of its subclasses says why; within 60 s.
        """
        if self._is_closed:
            raise ConnectFailed("the DHT node is closed")
        self._connects += 1
        ways = tuple(relay_addresses) or self._known_ways(public_key)
        key_pair = key_pair or self.default_key_pair
        try:
            connector = Connector(self, public_key, key_pair, ways)
            connection, route = await connector.connect()
        except (DhtUnreachable, LocalProtocolError) as error:
            self._connects_failed += 1
            raise ConnectFailed(str(error)) from error
        except ConnectFailed:
            self._connects_failed += 1
            raise
        self._remember_relays(public_key, route, connector.ways_used)
        return connection

    def create_server(
        self,
        on_connection: Callable[[Connection], None],
        *,
        firewall: FirewallHook | None = None,
    ) -> Server:
        """A server; `Server.listen` makes it reachable.

        Args:
            on_connection: called with each connection, its first frame proven.
            firewall: called with the client's key and payload, before it is let in;
                True, at once or awaited, keeps it out.
        """
        server = Server(self, on_connection, firewall, self._server_closed)
        self._servers.add(server)
        return server

    def make_connection(
        self, stream: UdxStreamDriver, handshake: HandshakeResult
    ) -> Connection:
        """A connection over a stream of ours that is connected."""
        return Connection(
            stream, handshake, clock=self.env.clock, random=self.env.random
        )

    def spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run in the background until `close`; failures are logged."""

        async def run() -> None:
            try:
                await work
            except Exception:
                logger.exception("background work of HyperDHT failed")

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _known_ways(self, public_key: PublicKey) -> tuple[Address, ...]:
        """Nodes that can pass a handshake on, as far as we know without asking."""
        target = hash_target(public_key)
        if self.router.has_server(target):
            host, port = self.address
            return (Address(LOOPBACK if host == ANY_HOST else host, port),)
        relay = self.router.relay_of(target)
        if relay is not None:
            return (relay,)
        return self._relays.get(public_key, self.env.clock.now()) or ()

    def _remember_relays(
        self, public_key: PublicKey, route: Route, ways_used: Iterable[Address]
    ) -> None:
        """Next time, try these first: the server's own word, or what worked now."""
        named = [
            address
            for address in route.payload.relay_addresses
            if is_worth_asking(address, route.server_address)
        ]
        relays = tuple(named or ways_used)[:RELAY_ADDRESSES_MAX]
        self._relays.set(public_key, relays, self.env.clock.now())

    def _server_closed(self, server: Server) -> None:
        self._servers.discard(server)
        self._closed_servers.add(server)

    def _network_updated(self) -> None:
        """Announce servers anew once others reach us elsewhere than before."""
        public_address = self.node.public_address
        if public_address == self._last_public_address:
            return
        self._last_public_address = public_address
        for server in self._servers:
            server.refresh()

    # Requests of others

    def _receive_request(self, request: IncomingRequest) -> bool:
        """Deal with a request; False when this node does not know the command."""
        match request.command:
            case Command.PEER_HANDSHAKE:
                self.router.receive_handshake(request)
                return True
            case Command.PEER_HOLEPUNCH:
                self.router.receive_holepunch(request)
                return True
        node_id = self.node.id
        if node_id is None:
            return False
        match request.command:
            case Command.FIND_PEER:
                self._persistent.receive_find_peer(request)
            case Command.LOOKUP:
                self._persistent.receive_lookup(request)
            case Command.ANNOUNCE:
                self._persistent.receive_announce(request, node_id)
            case Command.UNANNOUNCE:
                self._persistent.receive_unannounce(request, node_id)
            case _:
                return self._storage.store.receive(request)
        return True


@dataclass(slots=True)
class _ServerTotals:
    """Counters of servers, added up."""

    handshakes: int = 0
    limited: int = 0
    refused: int = 0
    accepted: int = 0

    def add(self, server: Server) -> None:
        counters = server.counters
        self.handshakes += counters.handshakes
        self.limited += counters.limited
        self.refused += counters.refused
        self.accepted += counters.accepted


def _collect(found: dict[PublicKey, PeerRecord], peers: Iterable[PeerRecord]) -> None:
    """Keep one record of each key, the one that names relays if there is one."""
    for peer in peers:
        known = found.get(peer.public_key)
        if known is None:
            is_wanted = len(found) < LOOKUP_RESULT_MAX
        else:
            is_wanted = not known.relay_addresses
        if is_wanted:
            found[peer.public_key] = peer


def _lookup_reply(reply: Response) -> LookupReply:
    """What a node lists; nothing when it says so, or says it wrongly."""
    try:
        return decode_lookup_reply_untrusted(reply.value or b"\0")
    except DecodeError:
        return LookupReply(())


def _may_list(reply: Response, public_key: PublicKey) -> bool:
    """Whether the node lists the key, or too many to tell."""
    if reply.id is None or reply.token is None:
        return False
    peers = _lookup_reply(reply).peers
    return len(peers) >= PEERS_MAX or any(p.public_key == public_key for p in peers)
