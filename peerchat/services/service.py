"""One role of this process as others see it: methods, prompts, an announcement.

Made by `Swarm.serve`. The announcement is renewed until `Service.withdraw`; after that
nobody new finds the role, and what runs may finish. In a private swarm each connection
has a `Gate`, and no handler runs before it lets the peer in.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from peerchat.api import ApiError, ErrorCode, Role
from peerchat.net.crypto.primitives import KeyPair
from peerchat.net.driver.connection import Connection
from peerchat.net.errors import NetError
from peerchat.net.identity import PublicKey, Target
from peerchat.net.rpc.server import RpcServer
from peerchat.net.rpc.session import Handler, RpcSession
from peerchat.settings import PROMPT_BYTES_MAX
from peerchat.trust.errors import RefusalReason, TrustRefused

from .dht_face import Dht
from .gate import Credentials, Gates, NotAdmitted
from .messages import encode, thrown
from .prompt_stream import PromptHandler, PromptStreamServer
from .tasks import Tasks

if TYPE_CHECKING:
    from .trust import Trust

logger = logging.getLogger(__name__)

Method = Callable[[bytes, str], Awaitable[object]]
"""Takes a request's bytes and the caller's public key (hex), gives a JSON value."""

RENEW_S = 4 * 60.0
RENEW_JITTER_S = 30.0
"""Nodes forget after 13 minutes at the soonest; this outlives two lost rounds, and
finds its way back soon when the node that knew us was restarted."""

PING = "ping"
"""The one method that every member may call of every role."""

BETWEEN_GATEWAYS = frozenset({"limitAdmit", "limitStatus", "limitTakeBack"})
"""Methods of gateways that no other member may call."""

RENEW_RETRY_S = 5.0
RENEW_RETRY_MAX_S = 60.0

WITHDRAW_TIMEOUT_S = 4.0
"""Withdrawing is a courtesy to those who look us up; closing must not hang on it."""


class Service:
    """A role that listens and is announced."""

    def __init__(
        self,
        dht: Dht,
        role: Role,
        key_pair: KeyPair,
        topic: Target,
        methods: Mapping[str, Method],
        prompts: PromptHandler | None,
        prompt_bytes_max: int = PROMPT_BYTES_MAX,
        trust: Trust | None = None,
        attach: Callable[[Connection], None] | None = None,
        attach_members: Callable[[Connection], None] | None = None,
    ) -> None:
        self.role = role
        self.public_key: PublicKey = key_pair.public_key
        self._dht = dht
        self._key_pair = key_pair
        self._topic = topic
        self._prompts = (
            None
            if prompts is None
            else PromptStreamServer(prompts, prompt_bytes_max=prompt_bytes_max)
        )
        self._attach_more = attach
        self._attach_members = attach_members
        self._trust = trust
        self._gates = Gates(trust, role) if trust else None
        self._server = RpcServer(
            dht,
            on_connection=self._connected,
            capability=trust.capability if trust else None,
            firewall=self._is_refused if trust else None,
        )
        for name, method in methods.items():
            self._server.respond(name, self._handler(name, method))
        self._tasks = Tasks()
        self._is_draining = False
        self._is_announced = False
        self._left: list[Target] = []
        """Topics that it is still announced under, and shall not be."""
        self._has_moved = asyncio.Event()
        self._is_closed = False
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def active(self) -> int:
        """Prompts and calls being worked on."""
        return self._calls + (self._prompts.active if self._prompts else 0)

    @property
    def connections(self) -> int:
        """Peers connected to this role."""
        return len(self._server.sessions)

    async def start(self) -> None:
        """Listen, and announce; returns once peers can find the role.

        Raises:
            NetError: it could not be announced.
        """
        await self._server.listen(self._key_pair)
        await self._dht.announce(self._topic, self._key_pair)
        self._is_announced = True
        self._tasks.start(self._renew())

    def move(self, topic: Target) -> None:
        """Be announced under another topic from now on; connections stay."""
        if topic != self._topic:
            self._left.append(self._topic)
            self._topic = topic
            self._has_moved.set()

    async def withdraw(self) -> None:
        """Take the announcement back; idempotent, never raises."""
        if not self._is_announced:
            return
        self._is_announced = False
        await self._tasks.close()
        self._left.append(self._topic)
        await self._leave()

    async def drain(self, timeout_s: float) -> None:
        """Take nothing new and wait for what runs, at most so long."""
        self._is_draining = True
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                if self._prompts is not None:
                    await self._prompts.drain(timeout_s)
                await self._idle.wait()

    async def close(self) -> None:
        """Withdraw, cut off what runs, close every connection; idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        self._is_draining = True
        await self.withdraw()
        await self._tasks.close()
        if self._prompts is not None:
            await self._prompts.close()
        await self._server.close()

    def _connected(self, connection: Connection) -> None:
        if self._gates is None:
            self._attach(connection)
            self._attach_for_members(connection)
            return

        def admitted(credentials: Credentials) -> None:
            if credentials.may_ask(self.role):
                self._attach(connection)
            self._attach_for_members(connection)

        self._gates.open(connection, admitted)

    def _attach(self, connection: Connection) -> None:
        if self._prompts is not None:
            self._prompts.attach(connection)
        if self._attach_more is not None:
            self._attach_more(connection)

    def _attach_for_members(self, connection: Connection) -> None:
        if self._attach_members is not None:
            self._attach_members(connection)

    def _is_refused(self, key: PublicKey, _payload: object) -> bool:
        """Asked before a handshake is answered."""
        if self._trust is None or not self._trust.is_revoked_key(key):
            return False
        error = TrustRefused(RefusalReason.REVOKED)
        self._trust.note_refusal(key, error, self.role)
        return True

    async def _check_caller(self, connection: Connection, name: str) -> None:
        """Wait until the gate is open; raises ApiError for what is not the caller's."""
        if self._gates is None:
            return
        credentials = await self._gates.admitted(connection)
        if name in BETWEEN_GATEWAYS and not credentials.may_ask(Role.PROCESSOR):
            raise ApiError(
                ErrorCode.FORBIDDEN, f"Only gateways may call {name}.", status=403
            )
        if name != PING and not credentials.may_ask(self.role):
            raise ApiError(
                ErrorCode.FORBIDDEN,
                f"Only gateways may call {name} of the role {self.role.value}.",
                status=403,
            )

    def _handler(self, name: str, method: Method) -> Handler:
        async def handle(body: bytes, session: RpcSession) -> bytes:
            self._calls += 1
            self._idle.clear()
            try:
                await self._check_caller(session.connection, name)
                if self._is_draining:
                    raise stopping()
                return encode(await method(body, session.remote_public_key.hex()))
            except (ApiError, NotAdmitted) as error:
                return thrown(error)
            except Exception as error:
                logger.exception("%s: method %s failed", self.role, name)
                return thrown(error)
            finally:
                self._calls -= 1
                if self._calls == 0:
                    self._idle.set()

        return handle

    async def _renew(self) -> None:
        retry_s = RENEW_RETRY_S
        wait_s = _renewal_s()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._has_moved.wait()
            self._has_moved.clear()
            try:
                await self._dht.announce(self._topic, self._key_pair)
            except NetError as error:
                logger.warning("%s could not be announced again: %s", self.role, error)
                wait_s = retry_s
                retry_s = min(retry_s * 2, RENEW_RETRY_MAX_S)
            else:
                wait_s, retry_s = _renewal_s(), RENEW_RETRY_S
                await self._leave()

    async def _leave(self) -> None:
        left, self._left = self._left, []
        for topic in left:
            with suppress(NetError, TimeoutError):
                async with asyncio.timeout(WITHDRAW_TIMEOUT_S):
                    await self._dht.unannounce(topic, self._key_pair)


def _renewal_s() -> float:
    return RENEW_S + random.uniform(0, RENEW_JITTER_S)


def stopping() -> ApiError:
    """This peer shuts down; another one may do."""
    return ApiError(
        ErrorCode.STOPPED,
        "This peer is shutting down; ask another one.",
        status=503,
        retry_after_s=1,
    )
