"""A gateway's methods beside accounts and prompts: models, traces, limits for its
fellows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import msgspec

from peerchat.api import ApiError, ErrorCode, Hop, RateLimit

from .gateway_accounts import GatewayAccounts, for_callers
from .messages import (
    RateLimitInfo,
    convert_untrusted,
    decode_envelope_untrusted,
    limit_reply_of,
    refusal_of,
)
from .model_messages import ModelsReply, models_reply
from .router import Router
from .served_models import served_models
from .service import Method
from .tokens import Claims
from .traces import Traces
from .user_limits import AdmitData, TicketData, UserLimits

MODELS_KEPT_S = 1.0


class CountedReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A user's allowance as the gateway that counts it has it."""

    success: bool
    status: int
    rate_limit_info: RateLimitInfo = msgspec.field(name="rateLimitInfo")
    ticket: str = ""


class TraceData(msgspec.Struct, frozen=True):
    """What ``trace`` takes."""

    request_id: str = msgspec.field(name="requestId")


class TraceHop(msgspec.Struct, frozen=True, rename="camel"):
    """One step."""

    role: str
    peer: str
    what: str
    at_s: float
    detail: str


class TraceReply(msgspec.Struct, frozen=True, kw_only=True):
    """What happened to a request of the caller's."""

    success: bool
    status: int
    request_id: str = msgspec.field(name="requestId")
    hops: list[TraceHop]


class GatewayMethods:
    """Answers them.

    Args:
        accounts: says whose a token is.
        limits: counts.
        traces: of this gateway's requests, by the users' addresses.
        router: knows the processors.
    """

    def __init__(
        self,
        accounts: GatewayAccounts,
        limits: UserLimits,
        traces: Traces,
        router: Router,
    ) -> None:
        self._accounts = accounts
        self._limits = limits
        self._traces = traces
        self._router = router
        self._models: ModelsReply | None = None
        self._models_until_s = 0.0

    def methods(self) -> Mapping[str, Method]:
        """By their names."""
        return {
            "limitAdmit": _method(self._admit),
            "limitStatus": _method(self._status),
            "limitTakeBack": _method(self._take_back),
            "models": _method(self._list_models),
            "trace": _method(self._trace),
        }

    async def _admit(self, body: bytes) -> object:
        claims, data = await self._read_fellow(body)
        request = convert_untrusted(data, AdmitData).request[:64]
        most = self._accounts.limit(claims.email)
        limit, ticket = await self._limits.admit_for(claims.email, most, request)
        return _counted(limit, ticket)

    async def _status(self, body: bytes) -> object:
        claims, _ = await self._read_fellow(body)
        most = self._accounts.limit(claims.email)
        return _counted(await self._limits.own_status(claims.email, most))

    async def _take_back(self, body: bytes) -> object:
        claims, data = await self._read_fellow(body)
        await self._limits.take_back_for(convert_untrusted(data, TicketData).ticket)
        most = self._accounts.limit(claims.email)
        return _counted(await self._limits.own_status(claims.email, most))

    async def _list_models(self, _body: bytes) -> object:
        """For anybody, as a ping is, and so made anew no more than once a second."""
        now_s = self._router.now_s
        if self._models is None or now_s >= self._models_until_s:
            self._models = models_reply(served_models(self._router.processors))
            self._models_until_s = now_s + MODELS_KEPT_S
        return self._models

    async def _trace(self, body: bytes) -> object:
        claims, data = await self._read(body)
        request_id = convert_untrusted(data, TraceData).request_id
        trace = self._traces.find(claims.email, request_id)
        if trace is None:
            raise ApiError(
                ErrorCode.INVALID_REQUEST,
                "This gateway knows no such request of yours; it keeps the last 1,000.",
                status=404,
            )
        return TraceReply(
            success=True,
            status=200,
            request_id=request_id,
            hops=[_trace_hop(hop) for hop in trace.hops],
        )

    async def _read_fellow(self, body: bytes) -> tuple[Claims, Mapping[str, object]]:
        """What another gateway asks, and for whom."""
        envelope = decode_envelope_untrusted(body)
        claims = self._limits.passed(envelope.token)
        return claims or await self._accounts.caller(envelope.token), envelope.data

    async def _read(self, body: bytes) -> tuple[Claims, Mapping[str, object]]:
        envelope = decode_envelope_untrusted(body)
        return await self._accounts.caller(envelope.token), envelope.data


def _method(work: Callable[[bytes], Awaitable[object]]) -> Method:
    async def method(body: bytes, _peer: str) -> object:
        try:
            return await work(body)
        except ApiError as error:
            if error.code is ErrorCode.RATE_LIMITED and error.rate_limit is not None:
                return limit_reply_of(error)
            return refusal_of(for_callers(error))

    return method


def _counted(limit: RateLimit, ticket: str = "") -> CountedReply:
    info = RateLimitInfo.of(limit)
    return CountedReply(success=True, status=200, rate_limit_info=info, ticket=ticket)


def _trace_hop(hop: Hop) -> TraceHop:
    return TraceHop(hop.role, hop.peer, hop.what, round(hop.at_s, 4), hop.detail)
