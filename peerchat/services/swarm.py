"""Topics and peers: who serves a role, calls to them, and the roles of this process.

A swarm stands on a DHT. What a lookup found is kept for five minutes at most; a peer
that fails is dropped at once, and comes last for a while when it is found again: nodes
of the DHT list a dead peer for up to twenty minutes.

In a private swarm topics come from its secret, and a peer is asked nothing before its
certificate says that it has the role.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from peerchat.api import ApiError, ErrorCode, PromptRequest, Role
from peerchat.net.crypto.primitives import hash_target
from peerchat.net.driver.connection import Connection
from peerchat.net.errors import (
    ConnectFailed,
    DhtUnreachable,
    NetError,
    RequestTimeout,
    RpcRemoteError,
)
from peerchat.net.identity import PublicKey, Target
from peerchat.net.rpc.session import RpcSession
from peerchat.sanitize import display_line
from peerchat.settings import PROMPT_BYTES_MAX

from .dht_face import Dht
from .gate import Credentials, NotAdmitted
from .identity import Identity
from .messages import encode
from .peer_sessions import PeerSessions
from .prompt_stream import PromptHandler, PromptStreamClient
from .proving import Proving
from .service import Method, Service
from .swarm_answer import SwarmAnswer

if TYPE_CHECKING:
    from .trust import Trust

logger = logging.getLogger(__name__)

FOUND_KEPT_S = 5 * 60.0
"""The contract's limit for the result of a lookup."""

FOUND_MAX = 256
"""Peers of one role that are remembered; nobody asks more of them than a few."""

REFRESH_GAP_S = 5.0
"""Nobody found: the swarm record is read for it no more often than this."""

MOVING_S = 8.0
"""After a rotation: those who are told of it look at the record within 5 s, and are
found under the new topic then."""

MOVING_POLL_S = 0.5

FAILED_KEPT_S = 60.0
FAILED_MAX = 1024
"""Peers that failed lately; as many as lookups of all roles can give."""


@dataclass(slots=True)
class _Found:
    """Who serves a role."""

    keys: list[PublicKey]
    until_s: float


class Swarm:
    """Everything a client or a role needs of its swarm.

    Args:
        dht: started by the caller, and closed by the caller after this.
        identity: its key pairs are those of the roles and of this client.
        preferred: roles' keys to try first, such as those of this home.
        trust: of a private swarm; None in an open one, and solo.
    """

    def __init__(
        self,
        dht: Dht,
        identity: Identity,
        *,
        preferred: Mapping[Role, PublicKey] | None = None,
        prompt_bytes_max: int = PROMPT_BYTES_MAX,
        trust: Trust | None = None,
    ) -> None:
        self.identity = identity
        self.trust = trust
        self._dht = dht
        self._preferred = dict(preferred or {})
        self._prompt_bytes_max = prompt_bytes_max
        self._sessions = PeerSessions(dht, identity.key_pair("client"), trust)
        self._proving = Proving(self._sessions.prove, self.drop)
        self._found: dict[Role, _Found] = {}
        self._looked_at: dict[Role, Target] = {}
        """Topics of the newest look-ups."""
        self._lookups: dict[Role, asyncio.Task[list[PublicKey]]] = {}
        self._failed: OrderedDict[PublicKey, float] = OrderedDict()
        self._services: dict[Role, Service] = {}
        self._secret = trust.membership.secret if trust else b""
        self._moving_until_s = float("-inf")
        self._for_members: dict[Role, Callable[[Connection], None]] = {}
        if trust is not None:
            trust.subscribe(self._trust_changed)

    @property
    def services(self) -> Sequence[Service]:
        """The roles that this process serves now."""
        return tuple(self._services.values())

    @property
    def public_key(self) -> PublicKey:
        """Who this process is as a client."""
        return self.identity.key_pair("client").public_key

    def is_self(self, key: PublicKey) -> bool:
        """Whether a role of this process listens under the key."""
        return any(service.public_key == key for service in self._services.values())

    # Serving

    async def serve(
        self,
        role: Role,
        methods: Mapping[str, Method],
        prompts: PromptHandler | None = None,
        attach: Callable[[Connection], None] | None = None,
    ) -> Service:
        """Listen and announce; returns once others can find the role.

        The caller closes the service. ``attach`` is called with each connection whose
        peer may ask the role, for channels beside methods and prompts.

        Raises:
            NetError: it cannot be announced.
            ApiError: the certificate of this peer does not grant the role.
        """
        if self.trust is not None and role.value not in self.trust.roles:
            raise not_granted(role)
        service = Service(
            self._dht,
            role,
            self.identity.role_key_pair(role),
            self._topic(role),
            methods,
            prompts,
            self._prompt_bytes_max,
            self.trust,
            attach,
            self._for_members.get(role),
        )
        try:
            await service.start()
        except BaseException:
            await service.close()
            raise
        self._services[role] = service
        self._found.pop(role, None)
        return service

    def attach_members(self, role: Role, attach: Callable[[Connection], None]) -> None:
        """Call it with each connection to the role whose peer is admitted, be it one
        that may ask the role or not; to be said before `serve`."""
        self._for_members[role] = attach

    async def withdraw(self) -> None:
        """Take back every announcement; the roles go on for who knows them."""
        async with asyncio.TaskGroup() as group:
            for service in self._services.values():
                group.create_task(service.withdraw())

    async def drain(self, timeout_s: float) -> None:
        """Take nothing new, and wait for what runs, at most so long."""
        async with asyncio.TaskGroup() as group:
            for service in self._services.values():
                group.create_task(service.drain(timeout_s))

    # Finding

    async def find(
        self, role: Role, *, max_age_s: float = FOUND_KEPT_S
    ) -> list[PublicKey]:
        """The peers of a role: own and preferred first, those that failed last.

        Args:
            role: which.
            max_age_s: an older look-up is made anew.

        Raises:
            DhtUnreachable: no DHT node answers.
            ApiError: this peer is not in the private swarm any more.
        """
        now_s = asyncio.get_running_loop().time()
        found = self._found.get(role)
        is_old = found is None or found.until_s - FOUND_KEPT_S + max_age_s <= now_s
        if found is None or is_old or not found.keys:
            keys = await self._look_up(role)
        else:
            keys = found.keys
        self._forget_failures(now_s)
        if self.trust is not None:
            keys = await self._trusted(self.trust, role, keys)
            await self._prove(role, keys)
        return sorted(keys, key=lambda key: self._rank(role, key))

    def drop(self, role: Role, key: PublicKey) -> None:
        """Forget a peer that failed, until a new lookup gives it."""
        found = self._found.get(role)
        if found is not None and key in found.keys:
            found.keys.remove(key)
        self._failed[key] = asyncio.get_running_loop().time()
        self._failed.move_to_end(key)
        while len(self._failed) > FAILED_MAX:
            self._failed.popitem(last=False)

    async def _trusted(
        self, trust: Trust, role: Role, keys: list[PublicKey]
    ) -> list[PublicKey]:
        """Leave out who was revoked.

        Nobody found, or nobody who lets this peer in, may mean a new secret or that
        this home was removed.
        """
        if all(key in self._failed for key in keys):
            await trust.refresh(if_older_s=REFRESH_GAP_S)
            # The secret may also have come while the look-up was under way.
            if self._looked_at.get(role) != self._topic(role):
                keys = await self._look_up(role)
            clock = asyncio.get_running_loop().time
            while not keys and not trust.problem and clock() < self._moving_until_s:
                await asyncio.sleep(MOVING_POLL_S)
                keys = await self._look_up(role)
        if problem := trust.problem:
            raise ApiError(ErrorCode.FORBIDDEN, problem, status=403)
        return [key for key in keys if not trust.is_revoked_key(key)]

    async def _look_up(self, role: Role) -> list[PublicKey]:
        """One lookup for all who want it now."""
        task = self._lookups.get(role)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._lookup(role))
            self._lookups[role] = task
            task.add_done_callback(lambda done: self._looked_up(role, done))
        return await asyncio.shield(task)

    def _looked_up(self, role: Role, task: asyncio.Task[list[PublicKey]]) -> None:
        self._lookups.pop(role, None)
        if not task.cancelled():
            task.exception()  # whoever waited has it

    async def _lookup(self, role: Role) -> list[PublicKey]:
        topic = self._topic(role)
        records = await self._dht.lookup(topic)
        self._looked_at[role] = topic
        keys = list(dict.fromkeys(record.public_key for record in records))
        random.shuffle(keys)
        del keys[FOUND_MAX:]
        until_s = asyncio.get_running_loop().time() + FOUND_KEPT_S
        if topic == self._topic(role):  # a new secret may have come meanwhile
            self._found[role] = _Found(keys, until_s)
        return keys

    def is_proven(self, key: PublicKey) -> bool:
        """Whether the peer is known to be of the swarm; in an open one anybody is."""
        is_known = self.is_self(key) or self._sessions.is_proven(key)
        return self.trust is None or is_known

    async def _prove(self, role: Role, keys: Sequence[PublicKey]) -> None:
        """Look at the peers that are not known; return once there is one to ask."""

        def is_good(key: PublicKey) -> bool:
            return self.is_proven(key) and key not in self._failed

        if len(keys) > 1:
            unknown = (key for key in keys if not self.is_proven(key))
            self._proving.look_at(role, (k for k in unknown if k not in self._failed))
            await self._proving.wait_for_one(keys, is_good)

    def _rank(self, role: Role, key: PublicKey) -> tuple[bool, bool, bool]:
        is_near = self.is_self(key) or self._preferred.get(role) == key
        return key in self._failed, not is_near, not self._sessions.is_proven(key)

    def _forget_failures(self, now_s: float) -> None:
        while self._failed:
            key, at_s = next(iter(self._failed.items()))
            if now_s - at_s < FAILED_KEPT_S:
                return
            del self._failed[key]

    # Calling

    async def request(
        self,
        key: PublicKey,
        method: str,
        body: object,
        timeout_s: float,
        *,
        role: Role = Role.GATEWAY,
    ) -> object:
        """Call a unary method with a JSON body; gives what its JSON says.

        Args:
            key: whose.
            method: its name.
            body: becomes JSON.
            timeout_s: for everything, connecting included.
            role: what the peer must be in a private swarm to be told anything.

        Raises:
            NetError: the peer cannot be reached (`ConnectFailed`), was lost, or did
                not answer in time.
            ApiError: it refused the method, or answered with something else.
        """
        try:
            answer = await self._sessions.request(
                key, method, encode(body), timeout_s, role
            )
        except RpcRemoteError as error:
            raise ApiError(
                ErrorCode.INTERNAL,
                f"The peer refused {method}: {display_line(str(error))}",
                status=502,
            ) from error
        except NetError:
            self._note_failure(key)
            raise
        self._failed.pop(key, None)
        try:
            decoded: object = msgspec.json.decode(answer or b"null")
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise ApiError(
                ErrorCode.INTERNAL,
                f"The peer's answer to {method} is no JSON; ask another one.",
                status=502,
            ) from error
        return decoded

    def ask(
        self,
        key: PublicKey,
        request: PromptRequest,
        token: str = "",
        *,
        role: Role = Role.GATEWAY,
        user: str = "",
    ) -> SwarmAnswer:
        """Begin an answer; every failure is an `ApiError` of its iteration.

        A peer that does not know ``peerchat/stream`` is asked by the unary method of
        its role.

        Args:
            token: of the user, for a gateway.
            role: what the peer is.
            user: tells a gateway's users apart, for a processor.
        """
        return SwarmAnswer(self, key, request, token, role, user)

    def is_connected(self, key: PublicKey) -> bool:
        """Whether a connection is open, to a peer that did not fail since; which may be
        dead all the same."""
        return key not in self._failed and self._sessions.is_connected(key)

    async def reach(self, key: PublicKey, *, role: Role = Role.GATEWAY) -> None:
        """Return once the peer said that it is there; what is open and dead is renewed.

        Raises:
            NetError: the peer cannot be reached, or is not what it must be.
        """
        try:
            await self._sessions.reach(key, role)
        except NetError:
            self._note_failure(key)
            raise
        self._failed.pop(key, None)

    async def session(self, key: PublicKey, *, role: Role = Role.GATEWAY) -> RpcSession:
        """A held connection to a peer that has the role; `release` it.

        Raises:
            NetError: the peer cannot be reached, or is not what it must be.
        """
        try:
            return await self._sessions.session(key, role)
        except NetError:
            self._note_failure(key)
            raise

    async def credentials(self, key: PublicKey, role: Role) -> Credentials | None:
        """Who has the role under the key; in an open swarm None: somebody is there.

        Raises:
            NetError: the peer cannot be reached, or is not what it must be.
        """
        return await self._sessions.credentials(key, role)

    def stream_of(self, session: RpcSession) -> PromptStreamClient:
        """The asking end of ``peerchat/stream`` on a connection."""
        return self._sessions.stream_of(session)

    def open_stream(self, key: PublicKey, role: Role) -> PromptStreamClient | None:
        """The asking end to a peer that has the role, where it is open already."""
        return self._sessions.open_stream(key, role)

    async def close(self) -> None:
        """Close every service and connection; leaves the DHT to its owner."""
        for service in list(self._services.values()):
            await service.close()
        self._services.clear()
        lookups = list(self._lookups.values())
        for task in lookups:
            task.cancel()
        await asyncio.gather(*lookups, return_exceptions=True)
        await self._proving.close()
        await self._sessions.close()

    def _trust_changed(self) -> None:
        """Secret or record changed: roles move, and look-ups are made anew.

        Who refused this peer for what it knew may take it for what it knows now.
        """
        self._found.clear()
        self._failed.clear()
        assert self.trust is not None
        if self.trust.membership.secret != self._secret:
            self._secret = self.trust.membership.secret
            now_s = asyncio.get_running_loop().time()
            self._moving_until_s = now_s + MOVING_S
        for role, service in self._services.items():
            service.move(self._topic(role))

    def _topic(self, role: Role) -> Target:
        return self.trust.topic(role) if self.trust else topic_of(role)

    def _note_failure(self, key: PublicKey) -> None:
        for role in Role:
            found = self._found.get(role)
            if found is not None and key in found.keys:
                self.drop(role, key)


def topic_of(role: Role) -> Target:
    """Where a role of an open swarm is announced."""
    return hash_target(role.value.encode())


def not_granted(role: Role) -> ApiError:
    """This peer may not serve the role in its private swarm."""
    return ApiError(
        ErrorCode.FORBIDDEN,
        f"This home is not certified as {role.value}: ask an admin of the swarm to "
        f"grant it (peerchat swarm grant), or for an invite with --role {role.value}.",
        status=403,
    )


def api_error_of(error: NetError, whom: str = "The peer") -> ApiError:
    """A failure of the network for those who know only `ApiError`."""
    if isinstance(error, DhtUnreachable):
        return ApiError(
            ErrorCode.DHT_UNREACHABLE,
            "No DHT node answers: check the network and --bootstrap HOST:PORT.",
            status=503,
            retry_after_s=10,
        )
    if isinstance(error, RequestTimeout):
        return ApiError(
            ErrorCode.TIMEOUT, f"{whom} did not answer in time; try again.", status=504
        )
    if isinstance(error, NotAdmitted):
        return ApiError(
            ErrorCode.PEER_LOST, f"{whom} is not trusted: {error}", status=502
        )
    if isinstance(error, ConnectFailed):
        return ApiError(
            ErrorCode.PEER_LOST, f"{whom} cannot be reached; try again.", status=502
        )
    if isinstance(error, RpcRemoteError):
        said = display_line(str(error))
        return ApiError(ErrorCode.INTERNAL, f"{whom} failed: {said}", status=502)
    return ApiError(
        ErrorCode.PEER_LOST,
        f"The connection to {whom[0].lower()}{whom[1:]} was lost; ask again.",
        status=502,
    )
