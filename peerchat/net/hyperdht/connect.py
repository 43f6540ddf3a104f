"""Opens a connection to a public key.

Three steps: shake hands through whichever nodes know the server, choose a path by
what both sides said of themselves, and wait for the first frame over it. One Noise
message goes out by two or three ways at once; the first answer counts.
Source: hyperdht/lib/connect.js; docs/PROTOCOL.md sections 5.5 and 5.6.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from typing import Protocol

from peerchat.net.crypto.noise import HandshakeResult
from peerchat.net.crypto.primitives import KeyPair, hash_target
from peerchat.net.dht.addresses import is_loopback
from peerchat.net.dht.node import DhtNode
from peerchat.net.dht.pending import Response
from peerchat.net.driver.connection import Connection
from peerchat.net.driver.endpoint import UdxEndpoint
from peerchat.net.driver.stream import UdxStreamDriver
from peerchat.net.env import DatagramSocket, Env
from peerchat.net.errors import (
    ConnectFailed,
    ConnectionLost,
    DecodeError,
    DhtUnreachable,
    LocalProtocolError,
    NetError,
    PeerNotFound,
    PeerRefused,
    PeerUnreachable,
    RemoteProtocolError,
)
from peerchat.net.identity import Address, PublicKey

from .addresses import first_public, local_addresses, match_address, usable
from .constants import Command, Firewall, HandshakeError, Mode
from .discard import discard_stream
from .handshake import NoiseWrap
from .messages import (
    Handshake,
    NoisePayload,
    UdxInfo,
    decode_handshake_untrusted,
    decode_peer_untrusted,
)
from .server import LOCAL_ADDRESSES_MAX, STREAM_ID_MAX

logger = logging.getLogger(__name__)

WAYS_FOUND = 2
"""Handshakes under way at once through nodes that a search finds."""

WAYS_KNOWN = 3
"""One more when relays are known beforehand, which may be gone."""

WAYS_GIVEN_MAX = 8
"""Relays named beforehand that are tried; records name three, and may be forged."""

WAYS_TRIED_MAX = 32
"""Nodes that may claim to know the server before we stop believing in it."""

HANDSHAKE_TIMEOUT_S = 30.0
"""For the search and the handshakes together: dead relays cost four seconds each."""

OPEN_TIMEOUT_S = 10.0
"""For the first packet of the server, as in hyperdht."""

PASSIVE_WAIT_S = 3.0
"""For a server to come to our open port: twice the time UDX takes to try again."""

LAN_PING_RETRIES = 1
"""An address on our own network answers at once or never."""


class ConnectHost(Protocol):
    """What connecting needs of `HyperDHT`."""

    env: Env
    node: DhtNode
    endpoint: UdxEndpoint

    def make_connection(
        self, stream: UdxStreamDriver, handshake: HandshakeResult
    ) -> Connection: ...


@dataclass(frozen=True, slots=True)
class Route:
    """What one completed handshake says about reaching the server."""

    payload: NoisePayload
    udx: UdxInfo
    way: Address
    """The node that answered: a relay, or the server itself."""
    socket: DatagramSocket
    """Where we shook hands from."""
    server_address: Address
    """The server as its relay sees it."""
    client_address: Address
    """We as the relay sees us."""
    is_relayed: bool


@dataclass(frozen=True, slots=True)
class Path:
    """From which socket to which address packets should go."""

    socket: DatagramSocket
    address: Address


class Connector:
    """One attempt to connect; call `connect` once."""

    def __init__(
        self,
        host: ConnectHost,
        public_key: PublicKey,
        key_pair: KeyPair,
        ways: Iterable[Address],
    ) -> None:
        self.ways_used: list[Address] = []
        """Nodes that said they know the server, in the order they were tried."""
        self._host = host
        self._node = host.node
        self._public_key = public_key
        self._target = hash_target(public_key)
        self._noise = NoiseWrap(key_pair, host.env.random, public_key)
        self._message = b""
        named = usable(Address(*way) for way in ways)
        self._known = list(dict.fromkeys(named))[:WAYS_GIVEN_MAX]
        self._queue: asyncio.Queue[Address | None] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self._found = 0
        self._route: Route | None = None
        self._refusal: ConnectFailed | None = None
        self._is_open = False
        self._stream = host.endpoint.create_stream(firewall=self._first_packet)
        self._heard_from: Path | None = None
        self._heard = asyncio.Event()

    async def connect(self) -> tuple[Connection, Route]:
        """Returns the connection and how it was reached.

        Raises:
            PeerNotFound: no DHT node knows the server, or none answers.
            PeerRefused: the server declined.
            PeerUnreachable: it is known, but the handshake or the stream got nowhere.
        """
        try:
            route = await self._shake_hands()
            path = await self._choose_path(route)
            return await self._open(route, path), route
        finally:
            if not self._stream.is_connected:
                discard_stream(self._stream)

    def _first_packet(self, socket: DatagramSocket, source: Address) -> bool:
        """The server's own packets show the path before we have chosen one."""
        if self._stream.is_connected:
            return True
        if self._heard_from is None:
            self._heard_from = Path(socket, source)
            self._heard.set()
        return False

    # Handshake

    async def _shake_hands(self) -> Route:
        self._prepare()
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
                async with asyncio.TaskGroup() as group:
                    self._start(group, self._search())
                    for _ in range(WAYS_KNOWN if self._known else WAYS_FOUND):
                        self._start(group, self._try_ways())
        except TimeoutError:
            logger.debug("handshake with %s timed out", self._public_key.hex())
        if self._refusal is not None:
            raise self._refusal
        if self._route is None:
            raise self._nothing_found()
        return self._route

    def _prepare(self) -> None:
        node = self._node
        public = node.public_address
        self._is_open = public is not None
        local = local_addresses(node.address)[:LOCAL_ADDRESSES_MAX]
        payload = NoisePayload(
            firewall=Firewall.UNKNOWN if public is None else Firewall.OPEN,
            addresses4=(*([] if public is None else [public]), *local),
            udx=UdxInfo(self._stream.id),
            secret_stream=1,
        )
        try:
            noise = self._noise.send(payload)
        except RemoteProtocolError as error:
            raise PeerNotFound(f"not a public key: {self._public_key.hex()}") from error
        self._message = Handshake(Mode.FROM_CLIENT, noise).encode()

    def _start(
        self, group: asyncio.TaskGroup, work: Coroutine[None, None, None]
    ) -> None:
        self._tasks.append(group.create_task(work))

    def _stop(self) -> None:
        """Enough is known; whatever is still under way ends."""
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()

    async def _search(self) -> None:
        """Queue the known ways, then every node that a search finds to know one."""
        queued = dict.fromkeys(self._known)
        for way in queued:
            self._queue.put_nowait(way)
        query = self._node.query(
            Command.FIND_PEER, self._target, nodes=self._known, retries=3
        )
        try:
            async with query:
                async for reply in query:
                    way = reply.from_address
                    if not self._knows_server(reply):
                        continue
                    self._found += 1
                    if way not in queued:
                        queued[way] = None
                        self._queue.put_nowait(way)
                    if len(queued) >= WAYS_TRIED_MAX:
                        break
        except DhtUnreachable as error:
            if not queued:
                self._refusal = PeerNotFound(f"no DHT node answers: {error}")
        self._queue.put_nowait(None)

    def _knows_server(self, reply: Response) -> bool:
        try:
            record = decode_peer_untrusted(reply.value or b"")
        except DecodeError:
            return False
        return record.public_key == self._public_key

    async def _try_ways(self) -> None:
        while (way := await self._queue.get()) is not None:
            self.ways_used.append(way)
            try:
                await self._try(way)
            except ConnectFailed as error:
                self._refusal = error
                self._stop()
                return
            except NetError as error:
                logger.debug("no handshake through %s: %s", way, error)
            if self._route is not None:
                self._stop()
                return
        self._queue.put_nowait(None)

    async def _try(self, way: Address) -> None:
        """Shake hands through one node; sets the route if that comes to an end."""
        socket = self._node.socket
        response = await self._node.request(
            way,
            Command.PEER_HANDSHAKE,
            target=self._target,
            value=self._message,
            socket=socket,
        )
        if response.value is None or self._route is not None:
            return
        reply = decode_handshake_untrusted(response.value)
        if reply.mode is not Mode.REPLY:
            return
        payload = self._noise.receive_untrusted(reply.noise)
        self._route = Route(
            payload,
            self._check(payload),
            way,
            socket,
            reply.peer_address or way,
            response.to,
            reply.peer_address is not None,
        )

    def _check(self, payload: NoisePayload) -> UdxInfo:
        """What the server says, which its key proves, is the last word."""
        peer = self._public_key.hex()
        if payload.version != 1:
            raise PeerRefused(f"{peer} speaks version {payload.version}, not 1")
        if payload.error == HandshakeError.TRY_LATER:
            raise PeerRefused(f"{peer} is busy, try later")
        if payload.error != HandshakeError.NONE:
            raise PeerRefused(f"{peer} refused the connection ({payload.error})")
        if payload.udx is None or payload.udx.id > STREAM_ID_MAX:
            raise PeerRefused(f"{peer} offers no stream")
        return payload.udx

    def _nothing_found(self) -> ConnectFailed:
        peer = self._public_key.hex()
        if not self._found:
            return PeerNotFound(f"no DHT node knows {peer}; is it running?")
        count = len(self.ways_used)
        return PeerUnreachable(f"{peer} does not answer through any of {count} nodes")

    # Path

    async def _choose_path(self, route: Route) -> Path:
        """Where to send, in the order of hyperdht's connect.js."""
        node, payload = self._node, route.payload
        if self._heard_from is not None:
            return self._heard_from
        if not route.is_relayed:
            return Path(route.socket, route.way)
        is_punchable = payload.holepunch is not None and payload.holepunch.relays
        if payload.firewall == Firewall.OPEN or not is_punchable:
            return Path(node.socket, self._open_address(route))
        return (
            await self._wait_for_server()
            or await self._try_lan(route)
            or Path(route.socket, route.server_address)
        )

    def _open_address(self, route: Route) -> Address:
        """Of a server that everybody reaches."""
        seen = route.server_address
        if is_loopback(seen.host) and not is_loopback(route.client_address.host):
            # Relay and server share a machine that is not ours.
            seen = self._lan_address(route) or seen
        return first_public(route.payload.addresses4, seen)

    def _lan_address(self, route: Route) -> Address | None:
        named = usable(route.payload.addresses4)
        own = local_addresses(self._node.address)
        # Without a likely one: a loopback address is the least likely to be right.
        named.sort(key=lambda address: is_loopback(address.host))
        return match_address(own, named) or next(iter(named), None)

    async def _wait_for_server(self) -> Path | None:
        """If we said that we are open, the server should be the one to connect."""
        if self._is_open:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PASSIVE_WAIT_S):
                    await self._heard.wait()
        return self._heard_from

    async def _try_lan(self, route: Route) -> Path | None:
        """Behind one public address, the other side may be on our own network."""
        if route.client_address.host != route.server_address.host:
            return None
        address = self._lan_address(route)
        if address is None:
            return None
        try:
            await self._node.ping(address, retries=LAN_PING_RETRIES)
        except NetError:
            return None
        return self._heard_from or Path(self._node.server_socket, address)

    # Stream

    async def _open(self, route: Route, path: Path) -> Connection:
        try:
            self._stream.connect(path.socket, route.udx.id, path.address)
        except LocalProtocolError as error:
            raise self._unreachable(str(error)) from error
        connection = self._host.make_connection(self._stream, self._noise.result())
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                await connection.wait_opened()
        except (ConnectionLost, TimeoutError) as error:
            connection.destroy()
            reason = str(error) or f"{path.address} did not answer"
            raise self._unreachable(reason) from error
        except BaseException:
            connection.destroy()
            raise
        return connection

    def _unreachable(self, reason: str) -> PeerUnreachable:
        return PeerUnreachable(f"no packet gets to {self._public_key.hex()}: {reason}")
