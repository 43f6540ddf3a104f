"""Accepts connections to one public key.

A Noise message comes in through the router, from a client or from a relay. It is
answered once per message, however often and by however many ways it comes; the UDX
stream of the answer is registered before the answer leaves. The stream is bound to
where its first packet comes from, or at once when that is known already.
Source: hyperdht/lib/server.js; docs/PROTOCOL.md section 5.5.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Protocol

from peerchat.net.crypto.noise import HandshakeResult
from peerchat.net.crypto.primitives import KeyPair, hash_target
from peerchat.net.dht.addresses import is_worth_asking
from peerchat.net.dht.node import DhtNode
from peerchat.net.dht.request import IncomingRequest
from peerchat.net.driver.connection import Connection
from peerchat.net.driver.endpoint import UdxEndpoint
from peerchat.net.driver.stream import UdxStreamDriver
from peerchat.net.env import DatagramSocket, Env, Timer
from peerchat.net.errors import (
    ConnectionLost,
    LocalProtocolError,
    NetError,
    RemoteProtocolError,
)
from peerchat.net.identity import Address, PublicKey, Target

from .addresses import local_addresses, match_address, usable
from .announcer import Announcer
from .constants import Firewall, HandshakeError
from .discard import discard_stream
from .firewall import FirewallHook, ask_firewall
from .handshake import NoiseWrap
from .limits import RateLimiter
from .messages import HolepunchInfo, NoisePayload, PeerRecord, UdxInfo
from .router import Router

logger = logging.getLogger(__name__)

ACCEPT_TIMEOUT_S = 10.0
"""How long an answered client may take to send its first packet."""

ANSWER_KEPT_S = 10.0
"""How long a repeated message gets the same answer."""

HANDSHAKES_MAX = 4096
"""Messages remembered at once: ten seconds of the rate below."""

WAITING_MAX = 8
"""Ways by which one message may come while its answer is made; clients use three."""

HANDSHAKES_PER_S = 50.0
HANDSHAKES_BURST = 200.0
"""From one client host. A handshake costs about 0.4 ms of processor time, so a flood
from one address takes 2 % of a core; a household or test machine behind one address
seldom opens 200 connections at once."""

RELAYED_PER_S = 250.0
RELAYED_BURST = 500.0
"""Through one relay, which may make client addresses up: 10 % of a core."""

LOCAL_ADDRESSES_MAX = 8
"""Interfaces named to a client, so that the answer fits its datagram."""

STREAM_ID_MAX = 0xFFFFFFFF


class ServerHost(Protocol):
    """What a server needs of `HyperDHT`."""

    env: Env
    node: DhtNode
    endpoint: UdxEndpoint
    router: Router
    is_first: bool

    def spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]: ...

    def make_connection(
        self, stream: UdxStreamDriver, handshake: HandshakeResult
    ) -> Connection: ...


@dataclass(slots=True)
class ServerCounters:
    """What a server did so far."""

    handshakes: int = 0
    repeated: int = 0
    malformed: int = 0
    limited: int = 0
    refused: int = 0
    accepted: int = 0
    abandoned: int = 0
    """Answered clients of which no packet came."""


@dataclass(slots=True, eq=False)
class _Handshake:
    """One Noise message, its answer, and the stream that waits for the client."""

    waiting: list[Callable[[bytes], None]]
    reply: bytes | None = None
    stream: UdxStreamDriver | None = None
    result: HandshakeResult | None = None
    remote: UdxInfo | None = None
    is_bound: bool = False
    """The stream is a connection now, and no more of this handshake."""
    timers: list[Timer] = field(default_factory=list)


class Server:
    """Made by `HyperDHT.create_server`; call `listen` once, and `close`."""

    def __init__(
        self,
        host: ServerHost,
        on_connection: Callable[[Connection], None],
        firewall: FirewallHook | None,
        on_closed: Callable[[Server], None],
    ) -> None:
        self.counters = ServerCounters()
        self.record = b""
        """The peer record that this node itself answers lookups with."""
        self._host = host
        self._on_connection = on_connection
        self._firewall = firewall
        self._on_closed = on_closed
        self._key_pair: KeyPair | None = None
        self._target: Target | None = None
        self._announcer: Announcer | None = None
        self._announcing: asyncio.Task[None] | None = None
        self._handshakes: dict[bytes, _Handshake] = {}
        self._by_client = RateLimiter(HANDSHAKES_PER_S, HANDSHAKES_BURST)
        self._by_relay = RateLimiter(RELAYED_PER_S, RELAYED_BURST)
        self._is_closed = False

    @property
    def public_key(self) -> PublicKey:
        """Whom clients connect to; raises LocalProtocolError before `listen`."""
        if self._key_pair is None:
            raise LocalProtocolError("the server does not listen yet")
        return self._key_pair.public_key

    @property
    def relay_addresses(self) -> tuple[Address, ...]:
        """Where clients may shake hands without a search."""
        return self._announcer.relay_addresses if self._announcer else ()

    async def listen(self, key_pair: KeyPair) -> None:
        """Accept connections to this key; returns when it is announced.

        Raises:
            DhtUnreachable: no DHT node took the announcement.
            LocalProtocolError: it listens already, or another server of this node
                has the key.
        """
        if self._key_pair is not None or self._is_closed:
            raise LocalProtocolError("a server listens only once")
        target = hash_target(key_pair.public_key)
        self.record = PeerRecord(key_pair.public_key).encode()
        if not self._host.router.add_server(target, self):
            raise LocalProtocolError("another server of this node has the key pair")
        self._key_pair = key_pair
        self._target = target
        env, node = self._host.env, self._host.node
        self._announcer = Announcer(
            env.clock, node, key_pair, target, is_first=self._host.is_first
        )
        try:
            await self._announcer.start()
        except BaseException:
            await self.close()
            raise
        await self._stay_announced(self._announcer)

    async def _stay_announced(self, announcer: Announcer) -> None:
        if self._is_closed:
            # It was closed meanwhile, when there was nothing to withdraw yet.
            await announcer.stop()
        else:
            self._announcing = self._host.spawn(announcer.run())

    async def close(self) -> None:
        """Take no more connections and withdraw the announcement; idempotent.

        Connections that are open stay so.
        """
        if self._is_closed:
            return
        self._is_closed = True
        if self._target is not None:
            self._host.router.remove_server(self._target)
        for noise in list(self._handshakes):
            self._forget(noise)
        if self._announcing is not None:
            self._announcing.cancel()
            await asyncio.gather(self._announcing, return_exceptions=True)
        if self._announcer is not None:
            await self._announcer.stop()
        self._on_closed(self)

    def refresh(self) -> None:
        """Announce again soon: the network has changed."""
        if self._announcer is not None:
            self._announcer.refresh()

    # Handshakes

    def receive_handshake(
        self,
        noise: bytes,
        peer_address: Address | None,
        request: IncomingRequest,
        answer: Callable[[bytes], None],
    ) -> None:
        """Answer a Noise message; see `router.HandshakeReceiver`."""
        known = self._handshakes.get(noise)
        if known is not None:
            self.counters.repeated += 1
            if known.reply is not None:
                answer(known.reply)
            elif len(known.waiting) < WAITING_MAX:
                known.waiting.append(answer)
            return
        if self._is_closed or not self._may_compute(peer_address, request):
            self.counters.limited += 1
            return
        self.counters.handshakes += 1
        state = self._handshakes[noise] = _Handshake([answer])
        self._later(state, ANSWER_KEPT_S, lambda: self._forget(noise))
        self._read(noise, state, peer_address, request)

    def _may_compute(
        self, peer_address: Address | None, request: IncomingRequest
    ) -> bool:
        now = self._host.env.clock.now()
        client = peer_address or request.from_address
        return (
            len(self._handshakes) < HANDSHAKES_MAX
            and self._by_client.allow(client.host, now)
            and (
                peer_address is None
                or self._by_relay.allow(request.from_address.host, now)
            )
        )

    def _read(
        self,
        noise: bytes,
        state: _Handshake,
        peer_address: Address | None,
        request: IncomingRequest,
    ) -> None:
        assert self._key_pair is not None
        handshake = NoiseWrap(self._key_pair, self._host.env.random)
        try:
            payload = handshake.receive_untrusted(noise)
            client_key = handshake.remote_public_key
        except RemoteProtocolError as error:
            # The state stays, so that repeating rubbish costs us nothing.
            self.counters.malformed += 1
            logger.debug("handshake of %s: %s", request.from_address, error)
            return

        def go_on(is_refused: bool) -> None:
            if not self._is_closed:
                self._answer(
                    state, handshake, payload, is_refused, peer_address, request
                )

        ask_firewall(self._firewall, client_key, payload, go_on, self._host.spawn)

    def _answer(
        self,
        state: _Handshake,
        handshake: NoiseWrap,
        payload: NoisePayload,
        is_refused: bool,
        peer_address: Address | None,
        request: IncomingRequest,
    ) -> None:
        error = _error_for(payload, is_refused)
        if error is HandshakeError.NONE:
            try:
                self._prepare_stream(state, payload)
            except LocalProtocolError:
                logger.warning("no more connections: too many streams are open")
                error = HandshakeError.TRY_LATER
        try:
            reply = handshake.send(self._payload(state, error))
        except NetError as problem:
            logger.debug("handshake of %s: %s", request.from_address, problem)
            self._abandon(state)
            return
        state.reply = reply
        state.result = handshake.result()
        if error is not HandshakeError.NONE:
            self.counters.refused += 1
        waiting, state.waiting = state.waiting, []
        for answer in waiting:
            answer(reply)
        if error is HandshakeError.NONE:
            self._reach_out(state, payload, peer_address, request)

    def _prepare_stream(self, state: _Handshake, payload: NoisePayload) -> None:
        def first_packet(socket: DatagramSocket, source: Address) -> bool:
            if not state.is_bound:
                self._bind(state, socket, source)
                return False
            return True

        state.remote = payload.udx
        state.stream = self._host.endpoint.create_stream(firewall=first_packet)
        self._later(state, ACCEPT_TIMEOUT_S, lambda: self._abandon(state))

    def _payload(self, state: _Handshake, error: HandshakeError) -> NoisePayload:
        node = self._host.node
        announcer = self._announcer
        public = node.public_address
        local = local_addresses(node.address)[:LOCAL_ADDRESSES_MAX]
        return NoisePayload(
            error=error,
            firewall=Firewall.UNKNOWN if public is None else Firewall.OPEN,
            # Named although we do not punch: clients of the reference try addresses
            # of the local network only for servers that claim to.
            holepunch=HolepunchInfo(0, announcer.relays)
            if public is None and announcer is not None
            else None,
            addresses4=(*([] if public is None else [public]), *local),
            udx=UdxInfo(state.stream.id if state.stream is not None else 0),
            secret_stream=1,
            relay_addresses=self.relay_addresses,
        )

    def _reach_out(
        self,
        state: _Handshake,
        payload: NoisePayload,
        peer_address: Address | None,
        request: IncomingRequest,
    ) -> None:
        """Connect to a client whose address is known to be good, else wait for it."""
        if peer_address is None:
            self._bind(state, request.socket, request.from_address)
            return
        is_seen_rightly = is_worth_asking(peer_address, request.from_address)
        if payload.firewall == Firewall.OPEN:
            # A relay on the client's own machine sees it on the loopback address.
            own = local_addresses(self._host.node.address)
            address = (
                peer_address
                if is_seen_rightly
                else match_address(own, usable(payload.addresses4))
            )
            if address is not None:
                self._bind(state, self._host.node.socket, address)
        elif is_seen_rightly:
            # The client writes to where this request arrived. One byte the other way
            # lets its packets through a stateful firewall in front of us; as in
            # hyperdht, everybody ignores datagrams of one byte.
            request.socket.send(b"\0", peer_address)

    # Streams

    def _bind(
        self, state: _Handshake, socket: DatagramSocket, address: Address
    ) -> None:
        """Connect the stream and hand the connection over once the client is there."""
        stream, result, remote = state.stream, state.result, state.remote
        if stream is None or result is None or remote is None or stream.is_closed:
            return
        state.stream, state.is_bound = None, True
        stream.connect(socket, remote.id, address)
        connection = self._host.make_connection(stream, result)
        self._host.spawn(self._hand_over(connection))

    async def _hand_over(self, connection: Connection) -> None:
        """Wait for the client's first frame: its handshake might be a replay."""
        try:
            async with asyncio.timeout(ACCEPT_TIMEOUT_S):
                await connection.wait_opened()
        except (ConnectionLost, TimeoutError):
            self.counters.abandoned += 1
            connection.destroy()
            return
        if self._is_closed:
            connection.destroy()
            return
        self.counters.accepted += 1
        try:
            self._on_connection(connection)
        except Exception:
            logger.exception("the handler of a connection failed; closing it")
            connection.destroy()

    def _abandon(self, state: _Handshake) -> None:
        """Give up on a client of which nothing came."""
        if state.stream is not None and not state.stream.is_connected:
            self.counters.abandoned += 1
            discard_stream(state.stream)
            state.stream = None

    def _forget(self, noise: bytes) -> None:
        state = self._handshakes.pop(noise, None)
        if state is None:
            return
        for timer in state.timers:
            timer.cancel()
        self._abandon(state)

    def _later(
        self, state: _Handshake, delay_s: float, callback: Callable[[], None]
    ) -> None:
        clock = self._host.env.clock
        state.timers.append(clock.call_at(clock.now() + delay_s, callback))


def _error_for(payload: NoisePayload, is_refused: bool) -> HandshakeError:
    if is_refused:
        return HandshakeError.ABORTED
    if payload.version != 1:
        return HandshakeError.VERSION_MISMATCH
    if payload.udx is None or payload.udx.id > STREAM_ID_MAX:
        return HandshakeError.ABORTED
    return HandshakeError.NONE
