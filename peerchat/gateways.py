"""Calls to a swarm's gateways that survive the loss of one; holds no session.

Every call tries the gateway that answered last, then the others; one that does not
answer is dropped. The bridge uses this with the token of each of its callers, and
`peerchat.client.Client` with its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Protocol

from .account_replies import ManagedAccounts, managed_of
from .api import (
    Account,
    AnswerEvent,
    ApiError,
    Embeddings,
    ErrorCode,
    Hop,
    Message,
    ModelInfo,
    PeerView,
    PromptRequest,
    RateLimit,
    Role,
)
from .continuation import Said, broke_off
from .failover_answer import Attempt, FailoverAnswer, GatewayAnswer
from .gateway_tries import LOOK_AGE_S, Tries, account_away, was_lately
from .gateway_watch import GatewayWatch
from .key_replies import ManagedKey, keys_of
from .model_replies import models_of
from .net.errors import ConnectFailed, DhtUnreachable, NetError
from .net.identity import PublicKey
from .reaching import reached
from .replies import (
    EMAIL_CHARS_MAX,
    PingReply,
    embeddings_of,
    hops_of,
    ping_of,
    rate_limit_of,
    reply_untrusted,
    text_of,
    worded,
)

ACCOUNT_TIMEOUT_S = 30.0
"""bcrypt on a busy machine, behind two hops."""
VERIFY_TIMEOUT_S = 15.0
PING_TIMEOUT_S = 3.0
PEERS_MAX = 64
"""Peers of one role that are pinged for a list: more than a panel can show."""
PINGS_AT_ONCE = 8
TOKEN_CHARS_MAX = 8 * 1024
"""A longer token is none; ours have some 200 characters."""

NOT_THERE = frozenset(
    {
        ErrorCode.MODEL_MISSING,
        ErrorCode.NO_PROCESSOR,
        ErrorCode.BUSY,
        ErrorCode.UNAUTHORIZED,
    }
)
"""Failures to go on that another gateway may not have."""

PASSWORD_METHODS = frozenset({"register", "login", "changePassword"})
"""Refused for the password, which is not tried elsewhere."""

STATUS_PENDING = 202
"""Of a registration that an admin has to approve."""

LISTED_ROLES = (Role.GATEWAY, Role.AUTH, Role.PROCESSOR)
"""A bridge is found by HTTP alone."""


Models = tuple[ModelInfo, ...]


class Swarm(Protocol):
    """What is needed of `peerchat.services.swarm.Swarm`."""

    async def find(self, role: Role, *, max_age_s: float = ...) -> Sequence[PublicKey]:
        """The peers of a role, best first, by a look-up that is no older; raises
        DhtUnreachable."""

    def drop(self, role: Role, key: PublicKey) -> None:
        """Take a peer that failed out of what `find` gives."""

    def is_connected(self, key: PublicKey) -> bool:
        """Whether a connection to the peer is open, and it was not dropped since."""

    async def reach(self, key: PublicKey) -> None:
        """Return once a gateway says that it is there; raises NetError or ApiError."""

    async def request(
        self,
        key: PublicKey,
        method: str,
        body: object,
        timeout_s: float,
        *,
        role: Role = Role.GATEWAY,
    ) -> object:
        """Call a unary method of a role that the peer must have.

        Raises NetError, or ApiError with ``PEER_LOST``.
        """

    def ask(self, key: PublicKey, request: PromptRequest, token: str) -> GatewayAnswer:
        """Begin an answer; every failure is raised by its iteration."""

    def is_self(self, key: PublicKey) -> bool:
        """Whether a role of this process listens under the key."""


@dataclass(frozen=True, slots=True)
class Login:
    """What a gateway gives for a right password."""

    account: Account
    token: str = field(repr=False)
    rate_limit: RateLimit | None = None


@dataclass(frozen=True, slots=True)
class Verified:
    """Whose a token is, and what is left of the limit."""

    account: Account
    rate_limit: RateLimit | None = None


class Gateways:
    """A swarm's gateways as one that does not fail."""

    def __init__(self, swarm: Swarm) -> None:
        self.on_gateway_change: Callable[[], None] = lambda: None
        """Called when an answer goes to another gateway."""
        self._swarm = swarm
        self._last_good: PublicKey | None = None
        self._met_s = float("-inf")
        """When a gateway was there last."""
        self._lost_s = float("-inf")
        """When one that had been there was lost."""
        self._answers: set[FailoverAnswer] = set()
        self._watch = GatewayWatch(
            self._answers, lambda: self._find(Role.GATEWAY), swarm.reach
        )

    async def register(self, email: str, password: str, code: str = "") -> Account:
        """Make an account; raises `ApiError` with ``CONFLICT`` if it exists."""
        data = {"email": email, "password": password}
        if code:
            data["code"] = code
        reply = await self._call("register", data, "", ACCOUNT_TIMEOUT_S, is_once=True)
        known = text_of(reply.get("email"), EMAIL_CHARS_MAX) or email
        return Account(known, is_pending=reply.get("status") == STATUS_PENDING)

    async def login(self, email: str, password: str) -> Login:
        """Get a token; raises `ApiError` with ``UNAUTHORIZED`` for a wrong password."""
        data = {"email": email, "password": password}
        reply = await self._call("login", data, "", ACCOUNT_TIMEOUT_S)
        token = _token_of(reply)
        account = Account(text_of(reply.get("email"), EMAIL_CHARS_MAX) or email)
        return Login(account, token, rate_limit_of(reply))

    async def change_password(self, token: str, old: str, new: str) -> str:
        """Set a new password, which ends every session; gives a new token.

        Raises `ApiError` with ``UNAUTHORIZED`` for a wrong old password or token.
        """
        data = {"old": old, "new": new}
        timeout_s = ACCOUNT_TIMEOUT_S
        reply = await self._call("changePassword", data, token, timeout_s, is_once=True)
        return _token_of(reply)

    async def logout_everywhere(self, token: str) -> None:
        """End every session of the account, this one too."""
        timeout_s = ACCOUNT_TIMEOUT_S
        await self._call("logoutEverywhere", {}, token, timeout_s, is_once=True)

    async def manage_accounts(
        self,
        token: str,
        action: str,
        email: str = "",
        *,
        limit: int | None = None,
        password: str = "",
        expires_s: int | None = None,
        after: str = "",
    ) -> ManagedAccounts:
        """Do an admin's action; `Client.manage_accounts` says which there are."""
        fields = {
            "email": email,
            "limit": limit,
            "password": password,
            "expiresS": expires_s,
            "after": after,
        }
        given = {key: value for key, value in fields.items() if value not in (None, "")}
        reply = await self._call(
            "manageAccounts",
            {"action": action, **given},
            token,
            ACCOUNT_TIMEOUT_S,
            is_once=action != "list",
        )
        return managed_of(reply)

    async def manage_keys(
        self, token: str, action: str, *, name: str = "", key_id: str = ""
    ) -> list[ManagedKey]:
        """Make, list or end the account's API keys.

        Args:
            token: of a session; a key cannot make others.
            action: ``create`` (with a name), ``list`` or ``revoke`` (with an id).
            name: what the key is for.
            key_id: of the key to end.
        """
        data = {"action": action, "name": name, "keyId": key_id}
        is_once = action != "list"
        timeout_s = ACCOUNT_TIMEOUT_S
        reply = await self._call("manageKeys", data, token, timeout_s, is_once=is_once)
        return keys_of(reply)

    async def verify(self, token: str) -> Verified:
        """Ask whose a token is; raises `ApiError` with ``UNAUTHORIZED``."""
        reply = await self._call("verifySession", {}, token, VERIFY_TIMEOUT_S)
        email = text_of(reply.get("email"), EMAIL_CHARS_MAX)
        return Verified(Account(email), rate_limit_of(reply))

    async def trace(self, token: str, request_id: str) -> list[Hop]:
        """The steps of one of the user's last requests.

        Every gateway is asked: only the one that took the request knows it.

        Raises:
            ApiError: none knows it.
        """
        body = {"data": {"requestId": request_id}, "meta": {"key": token}}
        failure, tries = no_gateway(), Tries()
        async with aclosing(self._candidates(tries)) as keys:
            async for key in keys:
                try:
                    reply = await self._swarm.request(
                        key, "trace", body, VERIFY_TIMEOUT_S
                    )
                    return hops_of(reply_untrusted(reply))
                except ApiError as error:
                    failure = error
                    tries.refused(key)
                except NetError:
                    self._lost(key)
        raise failure

    def ask(
        self,
        prompt: str,
        token: str,
        *,
        model: str | None = None,
        history: Sequence[Message] = (),
        options: Mapping[str, object] | None = None,
        request_id: str = "",
        images: Sequence[bytes] = (),
        tools: Sequence[Mapping[str, object]] = (),
        response_format: Mapping[str, object] | str | None = None,
        prefix: str = "",
        is_raw: bool = False,
        suffix: str = "",
        deadline_s: float | None = None,
        on_event: Callable[[AnswerEvent], None] | None = None,
    ) -> FailoverAnswer:
        """Begin an answer; failures are raised by its iteration.

        What the fields mean stands at `api.PromptRequest`. ``on_event`` hears of every
        event before the reader does. Close what is not read to its end: ``async with
        gateways.ask(…) as answer``.
        """
        request = PromptRequest(
            prompt=prompt,
            request_id=request_id or uuid.uuid4().hex,
            model=model,
            history=tuple(history),
            options=dict(options or {}),
            images=tuple(images),
            tools=tuple(tools),
            response_format=response_format,
            prefix=prefix,
            is_raw=is_raw,
            suffix=suffix,
            deadline_s=deadline_s,
        )
        return self._begin(request, token, on_event)

    async def embed(
        self,
        inputs: Sequence[str],
        token: str,
        *,
        model: str | None = None,
        dimensions: int | None = None,
        request_id: str = "",
    ) -> Embeddings:
        """Make a vector of each text; raises `ApiError`."""
        request = PromptRequest(
            prompt="",
            request_id=request_id or uuid.uuid4().hex,
            model=model,
            inputs=tuple(inputs),
            dimensions=dimensions,
        )
        async with self._begin(request, token) as answer:
            return await embeddings_of(answer, len(inputs))

    def _begin(
        self,
        request: PromptRequest,
        token: str,
        on_event: Callable[[AnswerEvent], None] | None = None,
    ) -> FailoverAnswer:
        said = Said(request)
        hops = self._hops(said, token)
        answer = FailoverAnswer(said, hops, self._answers.discard, on_event)
        self._answers.add(answer)
        self._watch.begin()
        return answer

    async def peers(self) -> list[PeerView]:
        """Look every role up and ping who is found; in order of role and time."""
        found = [await self._look_up(role) for role in LISTED_ROLES]
        return [view for looked in found for view, _ in looked]

    async def models(self) -> list[ModelInfo]:
        """The models that the swarm's processors tell of, by name.

        A gateway knows most of them; where none does, or it is of an earlier version,
        the processors are asked for their names.
        """
        with contextlib.suppress(ApiError):
            reply = await self._attempts("models", {}, PING_TIMEOUT_S)
            if found := models_of(reply):
                return found
        return await self._models_of_processors()

    async def _models_of_processors(self) -> list[ModelInfo]:
        merged: dict[str, ModelInfo] = {}
        for view, models in await self._look_up(Role.PROCESSOR):
            for model in models:
                known = merged.setdefault(model.name, replace(model, peers=()))
                merged[model.name] = replace(known, peers=(*known.peers, view.key))
        return [merged[name] for name in sorted(merged)]

    async def ping(self) -> PingReply:
        """Ask any gateway whether it is well; raises `ApiError` when none is."""
        reply = await self._attempts("ping", {}, PING_TIMEOUT_S)
        return ping_of(reply)

    async def close(self) -> None:
        """Stop every running answer."""
        for answer in list(self._answers):
            await answer.aclose()
        await self._watch.close()

    async def _call(
        self,
        method: str,
        data: object,
        token: str,
        timeout_s: float,
        *,
        is_once: bool = False,
    ) -> Mapping[str, object]:
        body = {"data": data, "meta": {"key": token}}
        return await self._attempts(method, body, timeout_s, is_once=is_once)

    async def _attempts(
        self, method: str, body: object, timeout_s: float, *, is_once: bool = False
    ) -> Mapping[str, object]:
        tries = Tries()
        async with aclosing(self._candidates(tries)) as keys:
            async for key in keys:
                try:
                    reply = await self._swarm.request(key, method, body, timeout_s)
                except (NetError, ApiError) as error:
                    self._gave_up(key, error)
                    if is_once and not isinstance(error, ConnectFailed):
                        # It may have been done; a second one must not do it again.
                        raise _maybe_done(method) from error
                    continue
                try:
                    fields = reply_untrusted(reply)
                except ApiError as error:
                    is_password = method in PASSWORD_METHODS
                    if not is_password and tries.may_go_on(key, error):
                        continue
                    self._last_good = key
                    raise
                self._last_good = key
                return fields
        raise self._nobody(tries)

    async def _hops(
        self, said: Said, token: str
    ) -> AsyncGenerator[Attempt, ApiError | None]:
        """Give an answer of one gateway after the other, until one is not lost.

        What was said goes on at the next one, under the same request id, so that it
        counts once.
        """
        clock = asyncio.get_running_loop().time
        deadline_s = said.request.deadline_s
        end_s = None if deadline_s is None else clock() + deadline_s
        failure: ApiError | None = None
        loss: ApiError | None = None
        tries = Tries()
        candidates = self._candidates(tries, self._swarm.is_connected)
        async with aclosing(candidates) as keys:
            async for key in keys:
                if failure is not None:
                    self.on_gateway_change()
                self._last_good = key
                left_s = None if end_s is None else max(0.0, end_s - clock())
                answer = self._swarm.ask(key, said.rest(left_s), token)
                failure = yield Attempt(key, answer)
                assert failure is not None  # one that went well asks for no other
                if failure.code is not ErrorCode.UNAUTHORIZED:
                    loss = failure  # a stranger's word tells nothing of what broke
                if said.has_any and failure.code in NOT_THERE:
                    # A Node.js gateway, or one that knows nobody to go on.
                    tries.refused(key)
                    continue
                if said.has_any and not (said.can_continue and _is_loss(failure)):
                    raise broke_off(failure)
                if not tries.may_go_on(key, failure):
                    self._gave_up(key, failure)
        if failure is not None and said.has_any:
            raise broke_off(loss or failure)
        raise self._nobody(tries)

    def _nobody(self, tries: Tries) -> ApiError:
        """Why no gateway did it."""
        if tries.refusal is None:
            return no_gateway()
        now_s = asyncio.get_running_loop().time()
        is_away = was_lately(self._lost_s, now_s)
        return account_away() if is_away else worded(tries.refusal)

    async def _candidates(
        self, tries: Tries, is_ready: Callable[[PublicKey], bool] = lambda _key: False
    ) -> AsyncGenerator[PublicKey, None]:
        """Give gateways to try: the last good one first, then look them up anew.

        The next look-ups find what came back, or was not yet there, meanwhile; who
        refused is not asked again. One that is not ready is given once it has said that
        it is there.
        """
        clock = asyncio.get_running_loop().time
        is_more, is_again = True, False
        while is_more:
            keys = await self._find(Role.GATEWAY, is_fresh=is_again)
            keys.sort(key=lambda key: key != self._last_good)
            worth = tries.worth(keys)
            found = reached(worth, self._swarm.reach, self._lost, is_ready)
            async with aclosing(found):
                async for key in found:
                    self._met_s = clock()
                    yield key
                    self._met_s = clock()
                    tries.was_met()
            is_again, is_any = True, bool(keys)
            is_more = await tries.go_on(self._met_s, self._lost_s, is_any=is_any)

    async def _find(self, role: Role, *, is_fresh: bool = False) -> list[PublicKey]:
        try:
            if is_fresh:
                return list(await self._swarm.find(role, max_age_s=LOOK_AGE_S))
            return list(await self._swarm.find(role))
        except DhtUnreachable as error:
            raise ApiError(
                ErrorCode.DHT_UNREACHABLE,
                "No DHT node answers: check the network and --bootstrap HOST:PORT.",
                status=503,
                retry_after_s=10,
            ) from error

    def _gave_up(self, key: PublicKey, error: Exception) -> None:
        """Drop a gateway that is lost; what is a refusal is raised."""
        if isinstance(error, ApiError) and not _is_loss(error):
            self._last_good = key
            raise worded(error)
        self._lost_s = asyncio.get_running_loop().time()
        self._lost(key)

    def _lost(self, key: PublicKey) -> None:
        self._swarm.drop(Role.GATEWAY, key)
        if self._last_good == key:
            self._last_good = None

    async def _look_up(self, role: Role) -> list[tuple[PeerView, Models]]:
        seen = await self._look_at_all(role)
        if seen and not any(view.is_reachable for view, _ in seen):
            # Perhaps this peer was behind, or is out, which `find` tells now.
            seen = await self._look_at_all(role)
        return sorted(seen, key=lambda s: (not s[0].is_reachable, s[0].rtt_s or 0.0))

    async def _look_at_all(self, role: Role) -> list[tuple[PeerView, Models]]:
        keys = (await self._find(role))[:PEERS_MAX]
        room = asyncio.Semaphore(PINGS_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._look_at(role, key, room)) for key in keys]
        return [task.result() for task in tasks]

    async def _look_at(
        self, role: Role, key: PublicKey, room: asyncio.Semaphore
    ) -> tuple[PeerView, Models]:
        name, is_self = bytes(key).hex(), self._swarm.is_self(key)
        async with room:
            started_s = time.perf_counter()  # uvloop's own clock has only milliseconds
            try:
                reply = await self._swarm.request(
                    key, "ping", {}, PING_TIMEOUT_S, role=role
                )
                said = ping_of(reply_untrusted(reply))
            except (NetError, ApiError):
                return PeerView(role, name, is_self=is_self, is_reachable=False), ()
        view = PeerView(
            role,
            name,
            rtt_s=time.perf_counter() - started_s,
            models=tuple(model.name for model in said.models),
            busy=said.busy,
            slots=said.slots,
            is_self=is_self,
            is_well=said.is_healthy,
            closed=said.closed,
        )
        return view, said.models


def _is_loss(error: ApiError) -> bool:
    """Whether the gateway itself is gone, or going."""
    is_gone = error.code in (ErrorCode.PEER_LOST, ErrorCode.STOPPED)
    return is_gone and not error.is_partial


def no_gateway() -> ApiError:
    """Nobody offers, or answers, as a gateway."""
    return ApiError(
        ErrorCode.NO_GATEWAY,
        "No gateway answers. Start one with: peerchat serve --role all; or check "
        "--bootstrap and --open.",
        status=503,
        retry_after_s=10,
    )


def _maybe_done(method: str) -> ApiError:
    what = "made the account" if method == "register" else "did it"
    return ApiError(
        ErrorCode.PEER_LOST,
        f"The gateway was lost while it {what}; log in to see whether it did.",
        status=502,
    )


def _token_of(reply: Mapping[str, object]) -> str:
    token = reply.get("key")
    if not isinstance(token, str) or not 0 < len(token) <= TOKEN_CHARS_MAX:
        raise ApiError(
            ErrorCode.INTERNAL,
            "The gateway took the password but gave no token; log in again.",
            status=502,
        )
    return token
