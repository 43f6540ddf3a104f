"""The calling side of @hyperswarm/rpc: one connection per public key, kept a while.

Source: docs/PROTOCOL.md section 10; npm @hyperswarm/rpc 3.5.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from peerchat.net.crypto.primitives import KeyPair
from peerchat.net.driver.connection import Connection
from peerchat.net.env import Timer
from peerchat.net.errors import ConnectFailed, ConnectionLost, RequestTimeout, RpcClosed
from peerchat.net.identity import PublicKey

from .capability import Capability, capability_now
from .dialling import dial
from .session import Handler, RpcSession

LINGER_S = 10.0
"""@hyperswarm/rpc's POOL_LINGER."""


class DiallingDht(Protocol):
    """The part of a HyperDHT that a client needs."""

    async def connect(
        self, public_key: PublicKey, *, key_pair: KeyPair | None = None
    ) -> Connection: ...


@dataclass(slots=True)
class _Entry:
    """A public key's place in the pool."""

    connecting: asyncio.Task[RpcSession]
    users: int = 0
    """Callers between asking for the session and having used it."""
    linger: Timer | None = None
    idle_since_s: float = 0.0


class RpcClient:
    """Calls methods of any public key.

    Requests to one key share a connection, and one attempt to make it. A connection
    that nobody used or held for ``linger_s`` is closed.

    Args:
        dht: connects; a `HyperDHT` or the in-memory one of the tests.
        key_pair: who this side is; the DHT's own key pair when left out.
        capability: a secret that both sides must prove to know; a callable gives the
            one for the next connection.
        linger_s: how long an unused connection is kept.
        on_connection: called with each new connection before any of its messages is
            handled, as for `RpcServer`.
    """

    def __init__(
        self,
        dht: DiallingDht,
        *,
        key_pair: KeyPair | None = None,
        capability: Capability = None,
        linger_s: float = LINGER_S,
        on_connection: Callable[[Connection], None] | None = None,
    ) -> None:
        self._dht = dht
        self._key_pair = key_pair
        self._capability = capability
        self._linger_s = linger_s
        self._on_connection = on_connection
        self._handlers: dict[str, Handler] = {}
        self._pool: dict[PublicKey, _Entry] = {}
        self._renewals: dict[PublicKey, asyncio.Task[None]] = {}
        self._is_closed = False

    def respond(self, method: str, handler: Handler) -> None:
        """Answer requests that servers make over this client's connections."""
        self._handlers[method] = handler

    async def request(
        self,
        public_key: PublicKey,
        method: str,
        value: bytes | None,
        *,
        timeout_s: float,
    ) -> bytes | None:
        """Call a method; connecting counts towards ``timeout_s``.

        Raises:
            ConnectFailed: the peer cannot be reached.
            RpcRemoteError, RpcClosed, RequestTimeout: as `RpcSession.request`.
        """
        entry = self._pool.get(public_key)
        if entry is not None:
            session = self._live_session(entry)
            if session is not None:
                entry.users += 1
                try:
                    return await session.request(method, value, timeout_s=timeout_s)
                finally:
                    self._unuse(public_key, entry)
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                session = await self.session(public_key, hold=True)
        except TimeoutError as error:
            raise RequestTimeout("no connection in time") from error
        try:
            left_s = max(deadline_s - loop.time(), 0.0)
            return await session.request(method, value, timeout_s=left_s)
        finally:
            session.release()

    def live_session(self, public_key: PublicKey) -> RpcSession | None:
        """The pooled session, if it is connected now; `session` connects."""
        entry = self._pool.get(public_key)
        return None if entry is None else self._live_session(entry)

    async def session(self, public_key: PublicKey, *, hold: bool = False) -> RpcSession:
        """The pooled session with a peer, connected; `ConnectFailed` when it can't be.

        Args:
            public_key: whose.
            hold: take one `RpcSession.hold` for the caller, who must `release` it.
        """
        if self._is_closed:
            raise RpcClosed("the client is closed")
        entry = self._pool.get(public_key)
        if entry is not None and self._is_dead(entry):
            self._forget(public_key, entry)
            entry = None
        if entry is None:
            entry = self._begin(public_key)
        entry.users += 1
        try:
            # One caller's cancellation must not end the attempt for the others.
            session = await asyncio.shield(entry.connecting)
        except asyncio.CancelledError:
            if entry.connecting.cancelled():
                raise RpcClosed("the client was closed") from None
            raise
        else:
            if hold:
                session.hold()
            return session
        finally:
            self._unuse(public_key, entry)

    async def renew(self, public_key: PublicKey) -> None:
        """Replace a connection that seems dead; until a new one stands it is kept.

        What runs over it ends then as with a lost peer. It stays if the peer is heard
        over it meanwhile. Connects if there is none.

        Raises:
            ConnectFailed: the peer cannot be reached; all is as it was.
            RpcClosed: the client was closed.
        """
        task = self._renewals.get(public_key)
        if task is None:
            work = self._renew(public_key)
            task = asyncio.get_running_loop().create_task(work)
            self._renewals[public_key] = task
            task.add_done_callback(lambda done: self._renewed(public_key, done))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise RpcClosed("the client was closed") from None
            raise

    async def _renew(self, public_key: PublicKey) -> None:
        old = self._pool.get(public_key)
        session = None if old is None else self._live_session(old)
        if old is None or session is None:
            await self.session(public_key)
            return
        connection = session.connection
        heard = connection.times_heard
        task = asyncio.get_running_loop().create_task(self._connect(public_key))
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            task.cancel()
            raise
        new = task.result()
        is_alive = connection.times_heard > heard and not connection.is_closed
        if is_alive or self._pool.get(public_key) not in (old, None):
            new.connection.destroy()
            return
        self._forget(public_key, old)
        self._pool[public_key] = _Entry(task)
        self._linger_maybe(public_key)
        connection.destroy()

    def _renewed(self, public_key: PublicKey, task: asyncio.Task[None]) -> None:
        self._renewals.pop(public_key, None)
        if not task.cancelled():
            task.exception()  # whoever waited has it

    async def close(self) -> None:
        """Close every connection; pending requests fail with `RpcClosed`."""
        self._is_closed = True
        renewals = list(self._renewals.values())
        for renewal in renewals:
            renewal.cancel()
        await asyncio.gather(*renewals, return_exceptions=True)
        tasks = [entry.connecting for entry in self._pool.values()]
        for public_key, entry in list(self._pool.items()):
            self._forget(public_key, entry)
            entry.connecting.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        sessions = [result for result in results if isinstance(result, RpcSession)]
        for session in sessions:
            session.close()
            session.connection.destroy()
        await asyncio.gather(*(session.wait_closed() for session in sessions))

    async def _connect(self, public_key: PublicKey) -> RpcSession:
        try:
            return await dial(
                lambda: self._attempt(public_key),
                lambda unwanted: unwanted.connection.destroy(),
            )
        except (ConnectionLost, RpcClosed) as error:
            raise ConnectFailed(f"the connection closed at once: {error}") from error

    async def _attempt(self, public_key: PublicKey) -> RpcSession:
        """Connect, and take the connection in hand before anything arrives over it."""
        connection = await self._dht.connect(public_key, key_pair=self._key_pair)
        if self._on_connection is not None:
            self._on_connection(connection)
        return RpcSession(
            connection,
            public_key,
            handlers=self._handlers,
            capability=capability_now(self._capability),
            on_idle=lambda _: self._linger_maybe(public_key),
            on_close=lambda _: self._drop(public_key),
        )

    def _begin(self, public_key: PublicKey) -> _Entry:
        task = asyncio.get_running_loop().create_task(self._connect(public_key))
        entry = self._pool[public_key] = _Entry(task)

        def connected(task: asyncio.Task[RpcSession]) -> None:
            if self._is_dead(entry):
                self._forget(public_key, entry)
            else:
                self._linger_maybe(public_key)

        task.add_done_callback(connected)
        return entry

    def _live_session(self, entry: _Entry) -> RpcSession | None:
        task = entry.connecting
        if not task.done() or task.cancelled() or task.exception() is not None:
            return None
        session = task.result()
        # A destroyed connection tells its session a turn later.
        is_dead = session.is_closed or session.connection.is_closed
        return None if is_dead else session

    def _is_dead(self, entry: _Entry) -> bool:
        return entry.connecting.done() and self._live_session(entry) is None

    def _unuse(self, public_key: PublicKey, entry: _Entry) -> None:
        entry.users -= 1
        if not entry.users:
            self._linger_maybe(public_key)

    def _linger_maybe(self, public_key: PublicKey) -> None:
        """Start the clock on a connection that nobody uses now.

        The timer is left alone by later use; it looks again when it fires.
        """
        entry = self._pool.get(public_key)
        if entry is None or entry.users:
            return
        session = self._live_session(entry)
        if session is not None and session.is_idle:
            clock = session.connection.clock
            entry.idle_since_s = clock.now()
            if entry.linger is None:
                entry.linger = clock.call_at(
                    entry.idle_since_s + self._linger_s,
                    lambda: self._linger_over(public_key, entry),
                )

    def _linger_over(self, public_key: PublicKey, entry: _Entry) -> None:
        entry.linger = None
        session = self._live_session(entry)
        if session is None or entry.users or not session.is_idle:
            return
        clock = session.connection.clock
        if clock.now() < entry.idle_since_s + self._linger_s:
            entry.linger = clock.call_at(
                entry.idle_since_s + self._linger_s,
                lambda: self._linger_over(public_key, entry),
            )
            return
        self._forget(public_key, entry)
        session.close()

    def _drop(self, public_key: PublicKey) -> None:
        entry = self._pool.get(public_key)
        if entry is not None and self._is_dead(entry):
            self._forget(public_key, entry)

    def _forget(self, public_key: PublicKey, entry: _Entry) -> None:
        if entry.linger is not None:
            entry.linger.cancel()
            entry.linger = None
        if self._pool.get(public_key) is entry:
            del self._pool[public_key]
