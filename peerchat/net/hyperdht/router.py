"""Passes handshakes and holepunch messages between clients, relays and servers.

Every node is a relay: it remembers who announced a key through it and sends messages
for that key on, with the tid they came with, so that the answer finds its way back.
What is for a server of this node goes to the server. Nothing is opened or decrypted
here, and a message becomes at most one message of about the same size.
Source: hyperdht/lib/router.js; docs/PROTOCOL.md section 5.4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from peerchat.net.dht.addresses import is_worth_asking
from peerchat.net.dht.request import IncomingRequest
from peerchat.net.env import Clock
from peerchat.net.errors import DecodeError
from peerchat.net.identity import Address, Target

from .cache import ExpiringCache
from .constants import NOISE_BYTES_MAX, Mode
from .messages import (
    Handshake,
    Holepunch,
    decode_handshake_untrusted,
    decode_holepunch_untrusted,
)

SERVERS_MAX = 1024
"""Servers of one node; each keeps pinging three others every three seconds."""

ASKED_MAX = 8192
"""Messages whose answers are awaited; one costs about 200 bytes."""

ASKED_AGE_S = 30.0
"""Longer than a client tries: 4 tries a second apart, and the server's own time."""


@dataclass(frozen=True, slots=True)
class Forward:
    """Who announced its own key through this node."""

    relay: Address
    """Where the announcement came from: where messages for the server go."""
    record: bytes
    """Its encoded peer record, for lookups."""


class HandshakeReceiver(Protocol):
    """A server of this node."""

    record: bytes

    def receive_handshake(
        self,
        noise: bytes,
        peer_address: Address | None,
        request: IncomingRequest,
        answer: Callable[[bytes], None],
    ) -> None:
        """Take a Noise message; ``peer_address`` is None when no relay was between.

        Call ``answer`` with the reply, now or later, or never.
        """


@dataclass(slots=True)
class RouterCounters:
    """What the router did so far."""

    relayed: int = 0
    returned: int = 0
    """Answers of servers that were handed back to clients."""
    served: int = 0
    no_route: int = 0
    malformed: int = 0


class Router:
    """Routes of one node; `receive_handshake` and `receive_holepunch` take requests."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._forwards: ExpiringCache[Target, Forward] = ExpiringCache()
        self._servers: dict[Target, HandshakeReceiver] = {}
        self._asked: ExpiringCache[tuple[int, Address], bool] = ExpiringCache(
            ASKED_MAX, ASKED_AGE_S
        )
        self.counters = RouterCounters()

    def __len__(self) -> int:
        return len(self._forwards)

    def add_server(self, target: Target, server: HandshakeReceiver) -> bool:
        """Take messages for this target to ``server``; False when one is there."""
        if target in self._servers or len(self._servers) >= SERVERS_MAX:
            return False
        self._servers[target] = server
        self._forwards.delete(target)
        return True

    def remove_server(self, target: Target) -> None:
        self._servers.pop(target, None)

    def has_server(self, target: Target) -> bool:
        return target in self._servers

    def set_forward(self, target: Target, forward: Forward) -> None:
        """Remember a route; a server of this node itself goes first."""
        if target not in self._servers:
            self._forwards.set(target, forward, self._clock.now())

    def remove_forward(self, target: Target) -> None:
        self._forwards.delete(target)

    def relay_of(self, target: Target) -> Address | None:
        """Where messages for the target go from here."""
        forward = self._forwards.get(target, self._clock.now())
        return forward.relay if forward else None

    def record_of(self, target: Target) -> bytes | None:
        """The encoded record of whoever is reached through this node."""
        server = self._servers.get(target)
        if server is not None:
            return server.record
        forward = self._forwards.get(target, self._clock.now())
        return forward.record if forward else None

    def receive_handshake(self, request: IncomingRequest) -> None:
        """Answer, serve or pass on a PEER_HANDSHAKE request."""
        try:
            message = decode_handshake_untrusted(request.value or b"")
        except DecodeError:
            self.counters.malformed += 1
            return
        if not 0 < len(message.noise) <= NOISE_BYTES_MAX or request.target is None:
            self.counters.malformed += 1
            return
        server = self._servers.get(request.target)
        if message.mode is Mode.FROM_SERVER:
            self._return_to_client(request, message)
        elif server is not None:
            self._serve(request, message, server)
        else:
            self._pass_on(request, message, request.target)

    def _serve(
        self, request: IncomingRequest, message: Handshake, server: HandshakeReceiver
    ) -> None:
        """The message reached the server; its reply goes back the same way."""
        if message.mode is Mode.FROM_CLIENT:
            peer_address, back = None, None
        elif message.mode is Mode.FROM_RELAY:
            peer_address, back = message.peer_address, request.from_address
        else:
            peer_address = message.peer_address
            back = _named(request, message.relay_address)
        is_routed = message.mode is not Mode.FROM_CLIENT
        if message.mode is Mode.REPLY or (
            is_routed and (peer_address is None or back is None)
        ):
            self.counters.malformed += 1
            return

        def answer(noise: bytes) -> None:
            if back is None:
                reply = Handshake(Mode.REPLY, noise)
                request.reply(reply.encode(), closer_nodes=False, token=False)
            else:
                reply = Handshake(Mode.FROM_SERVER, noise, peer_address)
                request.relay(reply.encode(), back)

        self.counters.served += 1
        server.receive_handshake(message.noise, peer_address, request, answer)

    def _pass_on(
        self, request: IncomingRequest, message: Handshake, target: Target
    ) -> None:
        """From a client or another relay towards the server."""
        relay = self.relay_of(target)
        if message.mode is Mode.FROM_CLIENT:
            to = _named(request, message.relay_address) or relay
            if to is None:
                self.counters.no_route += 1
                request.reply(None, token=False)
                return
            onward = Handshake(Mode.FROM_RELAY, message.noise, request.from_address)
        elif message.mode is Mode.FROM_RELAY and relay is not None:
            to = relay
            onward = Handshake(
                Mode.FROM_SECOND_RELAY,
                message.noise,
                message.peer_address,
                request.from_address,
            )
        else:
            self.counters.no_route += 1
            return
        self._relay(request, onward.encode(), to)

    def _return_to_client(self, request: IncomingRequest, message: Handshake) -> None:
        """The server's answer comes back here; the client asked with this tid."""
        client = message.peer_address
        if client is None or not self._has_asked(request.tid, client):
            self.counters.malformed += 1
            return
        reply = Handshake(Mode.REPLY, message.noise, request.from_address)
        self.counters.returned += 1
        request.reply(reply.encode(), closer_nodes=False, token=False, to=client)

    def receive_holepunch(self, request: IncomingRequest) -> None:
        """Pass on a PEER_HOLEPUNCH request, so that others punch with our help.

        Servers of this node do not punch: messages to them are dropped.
        """
        try:
            message = decode_holepunch_untrusted(request.value or b"")
        except DecodeError:
            self.counters.malformed += 1
            return
        if request.target is None:
            self.counters.malformed += 1
        elif message.mode is Mode.FROM_CLIENT:
            to = _named(request, message.peer_address)
            to = to or self.relay_of(request.target)
            if to is None or request.target in self._servers:
                self.counters.no_route += 1
                return
            onward = Holepunch(
                Mode.FROM_RELAY, message.id, message.payload, request.from_address
            )
            self._relay(request, onward.encode(), to)
        elif message.mode is Mode.FROM_SERVER and message.peer_address:
            if not self._has_asked(request.tid, message.peer_address):
                self.counters.malformed += 1
                return
            reply = Holepunch(
                Mode.REPLY, message.id, message.payload, request.from_address
            )
            self.counters.returned += 1
            request.reply(
                reply.encode(),
                closer_nodes=False,
                token=False,
                to=message.peer_address,
            )

    def _relay(self, request: IncomingRequest, value: bytes, to: Address) -> None:
        self.counters.relayed += 1
        asked = (request.tid, request.from_address)
        self._asked.set(asked, True, self._clock.now())
        request.relay(value, to)

    def _has_asked(self, tid: int, client: Address) -> bool:
        """Whether an answer is awaited there; else we would be used to reflect."""
        return self._asked.get((tid, client), self._clock.now()) is not None


def _named(request: IncomingRequest, address: Address | None) -> Address | None:
    """An address that the sender chose, if it may choose that one."""
    if address is None or not is_worth_asking(address, request.from_address):
        return None
    return address
