"""Who is at the other end of a connection of a private swarm, before anything else.

Both ends make a `Gate` as soon as a connection is there. It says its hello on the
channel ``peerchat/trust`` and hears the peer's; a peer that is not admitted loses the
connection without an answer. What is asked of a peer is `Trust`'s to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakKeyDictionary

from peerchat.api import Role
from peerchat.net.driver.connection import Connection
from peerchat.net.errors import ConnectionLost, PeerRefused
from peerchat.net.identity import PublicKey
from peerchat.trust.certificate import Chain
from peerchat.trust.errors import RefusalReason, TrustRefused
from peerchat.trust.hello import PROTOCOL

DECISION_TIMEOUT_S = 10.0
"""A hello is the first message of a peer; one that takes longer has none."""


class NotAdmitted(PeerRefused):
    """The peer is not who it must be, or does not take us for who we must be."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who a peer has proven to be."""

    key: PublicKey
    """Of its end of the connection."""
    peer: PublicKey
    """Its name in the swarm."""
    name: str
    """Harmless to show."""
    roles: frozenset[str]
    purpose: str = ""
    """What the certificate has ``key`` for; empty for a granted key."""
    chain: Chain | None = None
    """None: the swarm record grants the key, as for Node.js workers."""

    def serves(self, role: Role) -> bool:
        """Whether the role may be asked of the peer under this key."""
        is_its_key = self.chain is None or self.purpose == role.value
        return is_its_key and role.value in self.roles

    def may_ask(self, role: Role) -> bool:
        """Whether the peer may ask more of the role than whether it is there.

        Anybody may ask gateways, which check accounts and count prompts; what stands
        behind them does neither, and is for gateways alone.
        """
        return role is Role.GATEWAY or Role.GATEWAY.value in self.roles


class Admitting(Protocol):
    """What a gate needs of `Trust`."""

    def hello(self, connection: Connection) -> bytes: ...

    def admit(self, connection: Connection, hello: bytes | None) -> Credentials: ...

    def check_again(self, credentials: Credentials) -> None: ...

    def note_refusal(
        self, key: PublicKey, error: TrustRefused, role: Role | None
    ) -> None: ...

    def refresh_soon(self) -> None: ...

    def add_gate(self, gate: Gate) -> None: ...

    def remove_gate(self, gate: Gate) -> None: ...


class Gates:
    """The gates of all open connections of one side.

    Args:
        trust: says who is admitted.
        role: what this end serves; None when it is the asking one.
    """

    def __init__(self, trust: Admitting, role: Role | None = None) -> None:
        self._trust = trust
        self._role = role
        self._gates: WeakKeyDictionary[Connection, Gate] = WeakKeyDictionary()

    def __len__(self) -> int:
        return len(self._gates)

    def open(
        self,
        connection: Connection,
        on_admitted: Callable[[Credentials], None] | None = None,
    ) -> None:
        """Make the gate of a new connection, before anything of it is handled."""
        self._gates[connection] = Gate(
            self._trust, connection, role=self._role, on_admitted=on_admitted
        )

    async def admitted(
        self, connection: Connection, role: Role | None = None
    ) -> Credentials:
        """Wait for the decision; see `Gate.admitted`."""
        return await self._gates[connection].admitted(role)

    def is_admitted(self, connection: Connection, role: Role) -> bool:
        """Whether the peer has shown by now that it is what `admitted` asks for."""
        gate = self._gates.get(connection)
        return gate is not None and gate.is_admitted(role)


class Gate:
    """Decides once over one connection, and again whenever the swarm record changes.

    Args:
        trust: says who is admitted.
        connection: new; nothing of the peer has been handled yet.
        role: what this end serves; None when it is the asking one.
        on_admitted: called once, in the turn of the decision.
    """

    def __init__(
        self,
        trust: Admitting,
        connection: Connection,
        *,
        role: Role | None = None,
        on_admitted: Callable[[Credentials], None] | None = None,
    ) -> None:
        self.credentials: Credentials | None = None
        """Set once the peer is admitted."""
        self._trust = trust
        self._role = role
        self._key = connection.remote_public_key
        self._connection: Connection | None = connection
        """None once it is closed: a gate must not keep it alive."""
        self._on_admitted = on_admitted
        self._refusal: TrustRefused | None = None
        self._is_decided = asyncio.Event()
        clock = connection.clock
        self._timer = clock.call_at(clock.now() + DECISION_TIMEOUT_S, self._time_out)
        channel = connection.mux.create_channel(
            PROTOCOL, on_open=self._decide, on_close=self._channel_closed
        )
        trust.add_gate(self)
        connection.add_close_callback(self._connection_closed)
        if channel is not None:
            channel.open(trust.hello(connection))

    async def admitted(self, role: Role | None = None) -> Credentials:
        """Wait for the decision.

        Args:
            role: what the peer must be.

        Raises:
            NotAdmitted: it is not, or the connection closed before.
        """
        await self._is_decided.wait()
        credentials = self.credentials
        if self._refusal is not None:
            raise NotAdmitted(self._refusal.message)
        if credentials is None:
            raise NotAdmitted("the peer closed the connection before it said who it is")
        if role is not None and not credentials.serves(role):
            error = TrustRefused(RefusalReason.WRONG_ROLE)
            self._trust.note_refusal(credentials.key, error, self._role)
            raise NotAdmitted(f"The peer is not certified as {role.value}.")
        return credentials

    def is_admitted(self, role: Role) -> bool:
        """Whether `admitted` would return at once."""
        credentials = self.credentials if self._refusal is None else None
        return credentials is not None and credentials.serves(role)

    def check_again(self) -> None:
        """Cut the connection if what admitted the peer holds no longer."""
        if self.credentials is None or self._refusal is not None:
            return
        try:
            self._trust.check_again(self.credentials)
        except TrustRefused as error:
            self._refuse(error)

    def _decide(self, hello: bytes | None) -> None:
        if self._is_decided.is_set() or self._connection is None:
            return
        try:
            credentials = self._trust.admit(self._connection, hello)
        except TrustRefused as error:
            self._refuse(error)
            return
        self.credentials = credentials
        self._settle()
        tell, self._on_admitted = self._on_admitted, None
        if tell is not None:
            tell(credentials)

    def _refuse(self, error: TrustRefused) -> None:
        self._refusal = error
        self._trust.note_refusal(self._key, error, self._role)
        self._settle()
        if self._connection is not None:
            self._connection.destroy(ConnectionLost("not admitted"))

    def _channel_closed(self, _is_remote: bool) -> None:
        """The peer rejected the channel, as one does that does not know it."""
        if self._connection is not None and not self._connection.is_closed:
            self._decide(None)

    def _connection_closed(self) -> None:
        self._trust.remove_gate(self)
        self._connection = self._on_admitted = None
        if self._is_decided.is_set():
            return
        self._settle()
        if self._role is None:
            # It went away, or does not admit us; perhaps it knows something newer.
            self._trust.refresh_soon()
            return
        error = TrustRefused(RefusalReason.NO_PROOF)
        self._trust.note_refusal(self._key, error, self._role)

    def _time_out(self) -> None:
        if not self._is_decided.is_set():
            self._refuse(TrustRefused(RefusalReason.NO_PROOF))

    def _settle(self) -> None:
        self._timer.cancel()
        self._is_decided.set()
