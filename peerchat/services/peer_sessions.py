"""Connections of this process to peers that serve: pooled, and admitted at both ends.

In a private swarm nothing is said to a peer, not even the name of a method, before its
certificate gave it the role that is asked of it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING

from peerchat.api import Role
from peerchat.net.crypto.primitives import KeyPair
from peerchat.net.errors import (
    ConnectFailed,
    NetError,
    RequestTimeout,
    RpcRemoteError,
)
from peerchat.net.identity import PublicKey
from peerchat.net.rpc.client import RpcClient
from peerchat.net.rpc.session import RpcSession

from .dht_face import Dht
from .gate import Credentials, Gates
from .prompt_stream import PromptStreamClient

if TYPE_CHECKING:
    from .trust import Trust

CONNECT_TIMEOUT_S = 15.0
"""To shake hands and open; a peer that needs longer is as good as gone."""

ALIVE_S = 1.0
"""A peer whose connection is open says within this time that it is there."""

PROVEN_MAX = 1024
"""Peers remembered as trusted; more of one role are found in no swarm."""


class PeerSessions:
    """The asking side.

    Args:
        dht: connects.
        key_pair: who this side is.
        trust: of a private swarm; None asks whoever answers.
    """

    def __init__(self, dht: Dht, key_pair: KeyPair, trust: Trust | None) -> None:
        self._trust = trust
        self._gates = Gates(trust) if trust else None
        self._rpc = RpcClient(
            dht,
            key_pair=key_pair,
            capability=trust.capability if trust else None,
            on_connection=None if self._gates is None else self._gates.open,
        )
        self._streams: dict[RpcSession, PromptStreamClient] = {}
        self._proven: OrderedDict[PublicKey, None] = OrderedDict()

    def is_proven(self, key: PublicKey) -> bool:
        """Whether the peer has shown a good certificate lately."""
        return key in self._proven

    async def request(
        self, key: PublicKey, method: str, value: bytes, timeout_s: float, role: Role
    ) -> bytes | None:
        """Call a method; raises NetError as `RpcClient.request`, and NotAdmitted."""
        if self._trust is None:
            return await self._rpc.request(key, method, value, timeout_s=timeout_s)
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                session = await self._admitted(key, role)
        except TimeoutError as error:
            raise RequestTimeout("no connection in time") from error
        try:
            left_s = max(deadline_s - loop.time(), 0.0)
            return await session.request(method, value, timeout_s=left_s)
        finally:
            session.release()

    async def session(self, key: PublicKey, role: Role) -> RpcSession:
        """A held session; raises NetError, soon."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                return await self._admitted(key, role)
        except TimeoutError:
            raise ConnectFailed(f"{key.hex()} did not open in time") from None

    def is_connected(self, key: PublicKey) -> bool:
        """Whether a connection is open; whose peer may be dead all the same."""
        return self._rpc.live_session(key) is not None

    async def reach(self, key: PublicKey, role: Role) -> None:
        """Return once the peer said something, over a connection that works.

        One that is open and silent is replaced as soon as the peer takes another: the
        old one may be forgotten at its other end, as after a sleep or a new network.

        Raises:
            NetError: the peer cannot be reached, soon.
        """
        if self.is_connected(key):
            try:
                await self.request(key, "ping", b"{}", ALIVE_S, role)
            except RpcRemoteError:
                return  # it says something
            except NetError:
                await self._renew(key)
            else:
                return
        await self.prove(key, role)

    async def _renew(self, key: PublicKey) -> None:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._rpc.renew(key)
        except TimeoutError:
            raise ConnectFailed(f"{key.hex()} did not open in time") from None

    async def prove(self, key: PublicKey, role: Role) -> None:
        """Return once the peer showed that it has the role; raises NetError, soon."""
        await self.credentials(key, role)

    async def credentials(self, key: PublicKey, role: Role) -> Credentials | None:
        """Who has the role under the key; None where nobody proves that, in an open
        swarm. Raises NetError, soon."""
        session = await self.session(key, role)
        try:
            if self._gates is None:
                return None
            return await self._gates.admitted(session.connection, role)
        finally:
            session.release()

    def stream_of(self, session: RpcSession) -> PromptStreamClient:
        """The asking end of ``peerchat/stream`` on a connection."""
        stream = self._streams.get(session)
        if stream is None:
            stream = self._streams[session] = PromptStreamClient(session)
            session.connection.add_close_callback(lambda: self._forget(session))
        return stream

    def open_stream(self, key: PublicKey, role: Role) -> PromptStreamClient | None:
        """The asking end to an admitted peer, where it is open already."""
        session = self._rpc.live_session(key)
        stream = None if session is None else self._streams.get(session)
        if session is None or stream is None or not stream.is_open:
            return None
        if self._gates and not self._gates.is_admitted(session.connection, role):
            return None
        return stream

    async def close(self) -> None:
        """Close every connection."""
        await self._rpc.close()

    async def _admitted(self, key: PublicKey, role: Role) -> RpcSession:
        session = await self._rpc.session(key, hold=True)
        if self._gates is not None:
            try:
                await self._gates.admitted(session.connection, role)
            except BaseException:
                session.release()
                raise
            self._note_proven(key)
        return session

    def _forget(self, session: RpcSession) -> None:
        self._streams.pop(session, None)

    def _note_proven(self, key: PublicKey) -> None:
        self._proven[key] = None
        self._proven.move_to_end(key)
        while len(self._proven) > PROVEN_MAX:
            self._proven.popitem(last=False)
