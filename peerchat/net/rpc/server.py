"""The serving side of @hyperswarm/rpc: methods under a public key.

Source: docs/PROTOCOL.md section 10; npm @hyperswarm/rpc 3.5.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Protocol

from peerchat.net.crypto.primitives import KeyPair
from peerchat.net.driver.connection import Connection
from peerchat.net.errors import LocalProtocolError, RpcClosed
from peerchat.net.hyperdht.firewall import FirewallHook
from peerchat.net.identity import PublicKey

from .capability import Capability, capability_now
from .session import VALUE_BYTES_MAX, Handler, RpcSession

logger = logging.getLogger(__name__)

SESSIONS_MAX = 4096
"""Connections a server keeps; each costs some 30 KB and a port's worth of timers."""


class ListeningServer(Protocol):
    """What ``create_server`` of a DHT gives."""

    async def listen(self, key_pair: KeyPair) -> None: ...

    async def close(self) -> None: ...


class ServingDht(Protocol):
    """The part of a HyperDHT that a server needs."""

    def create_server(
        self,
        on_connection: Callable[[Connection], None],
        *,
        firewall: FirewallHook | None = None,
    ) -> ListeningServer: ...


class RpcServer:
    """Answers requests of whoever connects.

    Args:
        dht: makes the server; a `HyperDHT` or the in-memory one of the tests.
        capability: a secret that peers must prove to know before they are answered;
            a callable gives the one for the next connection.
        firewall: asked with a client's key before it is let in; True keeps it out.
        on_connection: called with each connection before any of its messages is
            handled, so that other channels can be paired on its `mux`.
        value_bytes_max: of a request's value.
    """

    def __init__(
        self,
        dht: ServingDht,
        *,
        capability: Capability = None,
        firewall: FirewallHook | None = None,
        on_connection: Callable[[Connection], None] | None = None,
        value_bytes_max: int = VALUE_BYTES_MAX,
    ) -> None:
        self._capability = capability
        self._on_connection = on_connection
        self._value_bytes_max = value_bytes_max
        self._handlers: dict[str, Handler] = {}
        self._sessions: set[RpcSession] = set()
        self._public_key: PublicKey | None = None
        self._is_closed = False
        self._server = dht.create_server(self._accept, firewall=firewall)

    @property
    def public_key(self) -> PublicKey:
        """The name it is found under; only after `listen` was called."""
        if self._public_key is None:
            raise LocalProtocolError("listen first: the server has no key yet")
        return self._public_key

    @property
    def sessions(self) -> Collection[RpcSession]:
        """The open ones."""
        return self._sessions

    def respond(self, method: str, handler: Handler) -> None:
        """Answer ``method`` with ``handler`` from now on, in every session.

        What the handler raises reaches the peer as its message; the handler is
        cancelled when the connection closes.
        """
        self._handlers[method] = handler

    def unrespond(self, method: str) -> None:
        """Answer ``method`` as unknown again."""
        self._handlers.pop(method, None)

    async def listen(self, key_pair: KeyPair) -> None:
        """Serve under a key pair; returns once peers can find it."""
        self._public_key = key_pair.public_key
        await self._server.listen(key_pair)

    async def close(self) -> None:
        """Withdraw, close every session and wait for its handlers to end."""
        self._is_closed = True
        await self._server.close()
        sessions = list(self._sessions)
        for session in sessions:
            session.close()
            session.connection.destroy()
        await asyncio.gather(*(session.wait_closed() for session in sessions))

    def _accept(self, connection: Connection) -> None:
        if self._is_closed or len(self._sessions) >= SESSIONS_MAX:
            logger.warning("refused a connection: too many, or closing")
            connection.destroy()
            return
        if self._on_connection is not None:
            self._on_connection(connection)
        try:
            session = RpcSession(
                connection,
                connection.public_key,
                handlers=self._handlers,
                capability=capability_now(self._capability),
                on_close=self._sessions.discard,
                value_bytes_max=self._value_bytes_max,
            )
        except RpcClosed:
            return  # the hook did not want it
        self._sessions.add(session)
