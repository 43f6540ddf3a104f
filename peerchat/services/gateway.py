"""The role ``gateway``: checks tokens, limits users, routes prompts to processors.

Streams over ``peerchat/stream`` and answers the unary methods of docs/PROTOCOL.md
section 11, which is all that Node.js clients know.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import re
import secrets
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime

from peerchat.api import (
    AnswerEvent,
    ApiError,
    ErrorCode,
    Finished,
    Fragment,
    PromptRequest,
    RateLimit,
    Role,
)
from peerchat.net.errors import NetError
from peerchat.settings import PROMPT_BYTES_MAX, STALL_S, SWARM_REFRESH_S

from .auth_client import AuthClient
from .dispatcher import Dispatcher
from .embed_messages import EmbedData, EmbedReply, embed_reply, embed_request
from .gateway_accounts import GatewayAccounts, for_callers
from .gateway_methods import GatewayMethods
from .known_accounts import KnownAccounts
from .limit_passes import LimitPasses
from .limits import Limiter
from .messages import (
    ANSWER_BYTES_MAX,
    UNAUTHORIZED_MESSAGE,
    LimitReply,
    PingReply,
    PromptData,
    PromptFailure,
    PromptReply,
    RateLimitInfo,
    Refusal,
    convert_untrusted,
    decode_envelope_untrusted,
    limit_reply_of,
    refusal_of,
)
from .metrics import RoleMetrics
from .patrol import Patrol
from .prompt_requests import check_request
from .prompt_stream import Caller
from .receipts import request_hash
from .relay import Relay, Routing
from .router import LOOK_IN_NEED_S, Router
from .routing_counts import RoutingCounts
from .service import Method
from .swarm import Swarm
from .tokens import Claims, TokenVerifier, Verifier
from .traces import Traces
from .user_limits import Accepted, UserLimits

logger = logging.getLogger(__name__)

FIRST_LOOK_S = 5.0
"""At a start, for an auth peer to tell which sessions were ended; most start sooner."""

FOLLOW_EVERY_S = 1.0
"""Between two looks at who is there and who waits in vain."""

NOT_THE_USERS_FAULT = frozenset(
    {
        ErrorCode.NO_PROCESSOR,
        ErrorCode.MODEL_MISSING,
        ErrorCode.BUSY,
        ErrorCode.PEER_LOST,
        ErrorCode.ENGINE_DOWN,
        ErrorCode.DHT_UNREACHABLE,
        ErrorCode.STOPPED,
    }
)
"""A prompt that got no text for such a reason was not accepted, and does not count."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


class GatewayRole:
    """The entry for clients.

    Args:
        swarm: announces the role, finds auth peers and processors.
        verifier: checks session tokens.
        limiter: counts accepted prompts.
        known: which sessions were ended, and users' own limits; without it tokens are
            good until they expire.
        is_private: auth peers are certified and share one truth.
        is_shared: the limiter's store is that of all gateways.
        refresh_s: how long it is believed whose an API key is.
        stall_s: an answer that says nothing for so long goes on elsewhere.
        prompt_bytes_max: longest prompt, UTF-8.
        metrics: where to count; its own when left out.
    """

    def __init__(
        self,
        swarm: Swarm,
        verifier: Verifier,
        limiter: Limiter,
        *,
        known: KnownAccounts | None = None,
        is_private: bool = False,
        is_shared: bool = False,
        stall_s: float = STALL_S,
        refresh_s: float = SWARM_REFRESH_S,
        prompt_bytes_max: int = PROMPT_BYTES_MAX,
        metrics: RoleMetrics | None = None,
    ) -> None:
        self.metrics = metrics or RoleMetrics(Role.GATEWAY)
        self.router = Router(swarm)
        self._swarm = swarm
        self._known = known
        passes = None
        if swarm.trust is None and isinstance(verifier, TokenVerifier):
            passes = LimitPasses(verifier.secrets)
        self._limits = UserLimits(swarm, limiter, is_shared=is_shared, passes=passes)
        self._dispatcher = Dispatcher(self.router)
        self._patrol = Patrol()
        self._traces = Traces()
        self._routing = Routing(
            swarm,
            self.router,
            self._dispatcher,
            self._patrol,
            RoutingCounts(self.metrics),
            stall_s,
        )
        self._prompt_bytes_max = prompt_bytes_max
        self._accounts = GatewayAccounts(
            AuthClient(swarm, is_private=is_private),
            verifier,
            self._limits,
            known,
            self.metrics,
            refresh_s=refresh_s,
        )
        self._others = GatewayMethods(
            self._accounts, self._limits, self._traces, self.router
        )
        self.metrics.gauge(
            "queue_length", "Prompts waiting.", lambda: self._dispatcher.queued
        )
        self.metrics.gauge(
            "processors", "Processors followed.", lambda: len(self.router.processors)
        )
        self._user_salt = secrets.token_bytes(16)

    @property
    def detail(self) -> str:
        """How many processors are known, for health."""
        return f"{len(self.router.processors)} processors known"

    async def run(self, ready: Callable[[], None]) -> None:
        """Serve until cancelled, which cuts running answers off."""
        methods: dict[str, Method] = {
            "ping": self.ping,
            **self._accounts.methods(),
            **self._others.methods(),
            "processPrompt": self.process_prompt,
            "embed": self.embed,
        }
        service = await self._swarm.serve(Role.GATEWAY, methods, self.answer)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._tick())
                group.create_task(self._look())
                group.create_task(self._patrol.run())
                group.create_task(self._limits.run())
                if self._known is not None:
                    group.create_task(self._known.run())
                    await self._known.wait_ready(FIRST_LOOK_S)
                ready()
                await asyncio.get_running_loop().create_future()
        finally:
            await service.close()
            await self.router.close()
            await self._limits.close()
            await self._patrol.close()

    # Unary methods

    async def ping(self, _body: bytes, _peer: str) -> PingReply:
        """Whether the gateway is there."""
        return PingReply("healthy", int(time.time() * 1000), Role.GATEWAY.value)

    async def process_prompt(
        self, body: bytes, peer: str
    ) -> PromptReply | LimitReply | PromptFailure | Refusal:
        """Answer a prompt whole."""
        request_id = uuid.uuid4().hex
        try:
            envelope = decode_envelope_untrusted(body)
            await self._claims(envelope.token)
            data = convert_untrusted(envelope.data, PromptData)
            request = PromptRequest(
                data.prompt, request_id, data.model or None, options=data.options
            )
            return await self._whole(request, Caller(peer, envelope.token))
        except ApiError as error:
            return _failure(error, request_id)

    async def embed(
        self, body: bytes, peer: str
    ) -> EmbedReply | LimitReply | PromptFailure | Refusal:
        """Make vectors of texts."""
        request_id = uuid.uuid4().hex
        try:
            envelope = decode_envelope_untrusted(body)
            await self._claims(envelope.token)
            data = convert_untrusted(envelope.data, EmbedData)
            request = embed_request(data, request_id)
            caller = Caller(peer, envelope.token)
            async with aclosing(self.answer(request, caller)) as events:
                return await embed_reply(request, events)
        except ApiError as error:
            return _failure(error, request_id)

    # Streaming

    async def answer(
        self, request: PromptRequest, caller: Caller
    ) -> AsyncGenerator[AnswerEvent, None]:
        """Stream an answer from whichever processors give it.

        Raises:
            ApiError: UNAUTHORIZED, INVALID_REQUEST, RATE_LIMITED, NO_PROCESSOR, BUSY,
                or what the last processor failed with.
        """
        request = _with_id(request)
        with self.metrics.request("processPrompt") as counted:
            claims = await self._claims(caller.token)
            check_request(request, self._prompt_bytes_max)
            now_s = self.router.now_s
            trace = self._traces.begin(claims.email, request.request_id, now_s)
            trace.add("received", now_s)
            admitting = asyncio.ensure_future(
                self._admit(claims.email, caller.token, request)
            )
            relay = Relay(self._routing, self._user(claims.email), trace)
            is_first = True
            try:
                if not request.prefix:
                    await admitting
                # What goes on was counted before, and its asker has waited enough: who
                # counts may be the gateway that died.
                async with aclosing(relay.run(request)) as events:
                    async for event in events:
                        if admitting.done():
                            admitting.result()
                        if is_first and isinstance(event, Fragment):
                            is_first = False
                            self.metrics.first_fragment(self.router.now_s - now_s)
                        if isinstance(event, Finished):
                            # Who has the end reads no further: no cancel.
                            accepted = await admitting
                            counted.outcome = "ok"
                            self.metrics.tokens(event.usage.answer_tokens)
                            event = replace(
                                event,
                                request_id=request.request_id,
                                rate_limit=accepted.rate_limit,
                            )
                        yield event
            except ApiError as error:
                error.request_id = request.request_id
                has_text = relay.has_text or bool(request.prefix)
                if (counted_as := _result_of(admitting)) is not None:
                    error.rate_limit = await self._after(
                        error, counted_as, claims.email, caller.token, has_text=has_text
                    )
                raise
            finally:
                admitting.cancel()

    # Parts

    async def _whole(self, request: PromptRequest, caller: Caller) -> PromptReply:
        parts: list[str] = []
        size = 0
        async with aclosing(self.answer(request, caller)) as events:
            async for event in events:
                match event:
                    case Fragment(text, is_thinking=False):
                        parts.append(text)
                        size += len(text.encode("utf-8", "replace"))
                        if size > ANSWER_BYTES_MAX:
                            raise ApiError(
                                ErrorCode.ENGINE_FAILED,
                                "The answer is too long for one message; stream it.",
                                status=502,
                            )
                    case Finished(rate_limit=RateLimit() as limit):
                        return PromptReply(
                            prompt=request.prompt,
                            response="".join(parts),
                            processed_at=_iso_now(),
                            request_id=request.request_id,
                            rate_limit_info=RateLimitInfo.of(limit),
                        )
        raise ApiError(ErrorCode.ENGINE_FAILED, "The answer broke off.", status=502)

    async def _claims(self, token: str) -> Claims:
        try:
            return await self._accounts.caller(token)
        except ApiError as error:
            logger.info("a prompt was refused: %s", error.message)
            if error.code is not ErrorCode.UNAUTHORIZED:
                raise
            raise ApiError(
                ErrorCode.UNAUTHORIZED, UNAUTHORIZED_MESSAGE, status=401
            ) from error

    async def _admit(self, email: str, token: str, request: PromptRequest) -> Accepted:
        try:
            return await self._limits.admit(
                email, self._accounts.limit(email), token, _key_of(request)
            )
        except ApiError as error:
            if error.code is ErrorCode.RATE_LIMITED:
                self.metrics.limited()
            raise for_callers(error) from error

    async def _after(
        self,
        error: ApiError,
        accepted: Accepted,
        email: str,
        token: str,
        *,
        has_text: bool,
    ) -> RateLimit | None:
        """Give the request back where it is due; what the user has left then."""
        if has_text or error.code not in NOT_THE_USERS_FAULT:
            return accepted.rate_limit
        try:
            await self._limits.take_back(accepted, email, token)
            return await self._accounts.allowance(email, token)
        except ApiError:
            return accepted.rate_limit

    async def _tick(self) -> None:
        """Drop silent processors, look after those who wait."""
        while True:
            self.router.tick()
            self._dispatcher.tick()
            await asyncio.sleep(FOLLOW_EVERY_S)

    async def _look(self) -> None:
        """Find processors; a look-up takes seconds where nodes of the DHT are dead."""
        while True:
            is_needed = self._dispatcher.has_hopeless()
            with contextlib.suppress(NetError, ApiError):
                if is_needed:
                    await self.router.look(max_age_s=LOOK_IN_NEED_S)
                else:
                    await self.router.look()
            await asyncio.sleep(FOLLOW_EVERY_S)

    def _user(self, email: str) -> str:
        """Tells users apart for a processor and names nobody."""
        name = email.encode("utf-8", "replace")
        return hashlib.blake2b(name, key=self._user_salt, digest_size=16).hexdigest()


def _failure(error: ApiError, request_id: str) -> LimitReply | PromptFailure | Refusal:
    """A failure in the words of the unary methods."""
    limit = error.rate_limit
    if error.code is ErrorCode.RATE_LIMITED and limit is not None:
        return limit_reply_of(error)
    if error.status in (400, 401):
        return refusal_of(error)
    return PromptFailure(
        error=True,
        message=error.message,
        request_id=request_id,
        rate_limit_info=RateLimitInfo.of(limit) if limit else None,
    )


def _key_of(request: PromptRequest) -> str:
    """The same for a request that goes on at another gateway, and for no other."""
    name = request.request_id.encode("utf-8", "replace")
    return hashlib.blake2b(
        request_hash(request), key=name[:64], digest_size=32
    ).hexdigest()


def _result_of(admitting: asyncio.Future[Accepted]) -> Accepted | None:
    """What was admitted by now; None if it was refused."""
    is_there = admitting.done() and not admitting.cancelled()
    return None if not is_there or admitting.exception() else admitting.result()


def _with_id(request: PromptRequest) -> PromptRequest:
    if _REQUEST_ID.fullmatch(request.request_id):
        return request
    return replace(request, request_id=uuid.uuid4().hex)


def _iso_now() -> str:
    """As JavaScript's ``Date.toISOString``."""
    now = datetime.now(UTC)
    return now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
