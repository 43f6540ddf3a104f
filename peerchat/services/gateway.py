"""The role ``gateway``: checks tokens, limits users, routes prompts to processors.

Streams over ``peerchat/stream`` and answers the unary methods of docs/PROTOCOL.md
section 11, which is all that Node.js clients know.
"""

from __future__ import annotations

import asyncio
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
from peerchat.settings import PROMPT_BYTES_MAX

from .auth_client import AuthClient
from .gateway_accounts import GatewayAccounts, for_callers
from .known_accounts import KnownAccounts
from .limits import Admission, Limiter
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
from .prompt_requests import check_request
from .prompt_stream import Caller
from .relay import Relay
from .router import Router
from .service import Method
from .swarm import Swarm
from .tokens import Claims, Verifier

logger = logging.getLogger(__name__)

FIRST_LOOK_S = 5.0
"""At a start, for an auth peer to tell which sessions were ended; most start sooner."""

NOT_THE_USERS_FAULT = frozenset(
    {
        ErrorCode.NO_PROCESSOR,
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
        prompt_bytes_max: int = PROMPT_BYTES_MAX,
        metrics: RoleMetrics | None = None,
    ) -> None:
        self.metrics = metrics or RoleMetrics(Role.GATEWAY)
        self.router = Router(swarm)
        self._swarm = swarm
        self._known = known
        self._limiter = limiter
        self._prompt_bytes_max = prompt_bytes_max
        self._accounts = GatewayAccounts(
            AuthClient(swarm, is_private=is_private),
            verifier,
            limiter,
            known,
            self.metrics,
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
            "processPrompt": self.process_prompt,
        }
        service = await self._swarm.serve(Role.GATEWAY, methods, self.answer)
        try:
            async with asyncio.TaskGroup() as group:
                if self._known is not None:
                    group.create_task(self._known.run())
                    await self._known.wait_ready(FIRST_LOOK_S)
                ready()
                await asyncio.get_running_loop().create_future()
        finally:
            await service.close()

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
            self._claims(envelope.token)
            data = convert_untrusted(envelope.data, PromptData)
            request = PromptRequest(
                data.prompt, request_id, data.model or None, options=data.options
            )
            return await self._whole(request, Caller(peer, envelope.token))
        except ApiError as error:
            if error.code is ErrorCode.RATE_LIMITED and error.rate_limit is not None:
                return limit_reply_of(error)
            if error.status in (400, 401):
                return refusal_of(error)
            limit = error.rate_limit
            return PromptFailure(
                error=True,
                message=error.message,
                request_id=request_id,
                rate_limit_info=RateLimitInfo.of(limit) if limit else None,
            )

    # Streaming

    async def answer(
        self, request: PromptRequest, caller: Caller
    ) -> AsyncGenerator[AnswerEvent, None]:
        """Stream an answer from whichever processor gives it.

        Raises:
            ApiError: UNAUTHORIZED, INVALID_REQUEST, RATE_LIMITED, NO_PROCESSOR, BUSY,
                or what the last processor failed with.
        """
        request = _with_id(request)
        with self.metrics.request("processPrompt") as counted:
            claims = self._claims(caller.token)
            check_request(request, self._prompt_bytes_max)
            admission = await self._admit(claims.email)
            relay = Relay(self._swarm, self.router, self._user(claims.email))
            began_s = time.monotonic()
            try:
                async with aclosing(relay.run(request)) as events:
                    async for event in events:
                        if isinstance(event, Fragment) and not relay.has_text:
                            self.metrics.first_fragment(time.monotonic() - began_s)
                        if isinstance(event, Finished):
                            # Who has the end reads no further: no cancel.
                            counted.outcome = "ok"
                            self.metrics.tokens(event.usage.answer_tokens)
                            event = replace(
                                event,
                                request_id=request.request_id,
                                rate_limit=admission.rate_limit,
                            )
                        yield event
            except ApiError as error:
                error.request_id = request.request_id
                error.rate_limit = await self._after(error, admission, relay, claims)
                raise

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

    def _claims(self, token: str) -> Claims:
        try:
            return self._accounts.claims(token)
        except ApiError as error:
            logger.info("a prompt was refused: %s", error.message)
            if error.code is not ErrorCode.UNAUTHORIZED:
                raise
            raise ApiError(
                ErrorCode.UNAUTHORIZED, UNAUTHORIZED_MESSAGE, status=401
            ) from error

    async def _admit(self, email: str) -> Admission:
        try:
            return await self._limiter.admit(email, self._accounts.limit(email))
        except ApiError as error:
            if error.code is ErrorCode.RATE_LIMITED:
                self.metrics.limited()
            raise for_callers(error) from error

    async def _after(
        self, error: ApiError, admission: Admission, relay: Relay, claims: Claims
    ) -> RateLimit | None:
        """Give the request back where it is due; what the user has left then."""
        if relay.has_text or error.code not in NOT_THE_USERS_FAULT:
            return admission.rate_limit
        try:
            await self._limiter.take_back(admission)
            return await self._accounts.allowance(claims.email)
        except ApiError:
            return admission.rate_limit

    def _user(self, email: str) -> str:
        """Tells users apart for a processor and names nobody."""
        name = email.encode("utf-8", "replace")
        return hashlib.blake2b(name, key=self._user_salt, digest_size=16).hexdigest()


def _with_id(request: PromptRequest) -> PromptRequest:
    if _REQUEST_ID.fullmatch(request.request_id):
        return request
    return replace(request, request_id=uuid.uuid4().hex)


def _iso_now() -> str:
    """As JavaScript's ``Date.toISOString``."""
    now = datetime.now(UTC)
    return now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
