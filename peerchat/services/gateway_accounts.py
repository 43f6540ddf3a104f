"""A gateway's methods for accounts and sessions: passed on to auth peers.

Tokens are checked here first, so that nobody troubles an auth peer with one that is
worth nothing; the auth peer checks again. What was changed through this gateway counts
here at once.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import msgspec

from peerchat.api import ApiError, ErrorCode, RateLimit
from peerchat.settings import SWARM_REFRESH_S

from .account_messages import (
    Asked,
    LoginRequest,
    ManageRequest,
    PasswordRequest,
    RegisterRequest,
    SessionRequest,
)
from .auth_client import AuthClient
from .key_messages import KeysRequest
from .known_accounts import KnownAccounts
from .known_keys import KnownKeys
from .lockout import Lockout
from .messages import (
    LoginReply,
    RateLimitInfo,
    VerifyReply,
    check_credentials,
    convert_untrusted,
    decode_envelope_untrusted,
    refusal_of,
)
from .metrics import RoleMetrics
from .service import Method
from .tokens import Claims, Verifier
from .user_limits import UserLimits

logger = logging.getLogger(__name__)

PEER_FAILURES_FREE = 10
"""Wrong passwords in a row from one client before it is slowed down."""

PEER_REGISTRATIONS_FREE = 20
"""Accounts that one client learns to exist, or codes that it tries, before that."""

WANTED = "Email and password are required"


class GatewayAccounts:
    """What a gateway knows of its callers.

    Args:
        auth: the way to auth peers.
        verifier: checks session tokens.
        limiter: tells what a user has left.
        known: which sessions were ended, and users' own limits.
        metrics: where to count.
        refresh_s: how long it is believed whose an API key is.
    """

    def __init__(
        self,
        auth: AuthClient,
        verifier: Verifier,
        limiter: UserLimits,
        known: KnownAccounts | None,
        metrics: RoleMetrics,
        *,
        refresh_s: float = SWARM_REFRESH_S,
    ) -> None:
        self._auth = auth
        self._verifier = verifier
        self._limiter = limiter
        self._known = known
        self._metrics = metrics
        self._keys = KnownKeys(auth, refresh_s)
        self._by_peer = Lockout(PEER_FAILURES_FREE)
        self._registrations = Lockout(PEER_REGISTRATIONS_FREE)

    def methods(self) -> Mapping[str, Method]:
        """By the names of the contract."""
        return {
            "register": self._method("register", self._register),
            "login": self._method("login", self._login),
            "verifySession": self._method("verifySession", self._verify),
            "changePassword": self._method("changePassword", self._change_password),
            "logoutEverywhere": self._method("logoutEverywhere", self._logout),
            "manageAccounts": self._method("manageAccounts", self._manage),
            "manageKeys": self._method("manageKeys", self._manage_keys),
        }

    async def caller(self, token: str) -> Claims:
        """Whose a session token or an API key is; raises `ApiError` (401)."""
        if not self._keys.is_key(token):
            return self.claims(token)
        claims = await self._keys.claims(token)
        if self._known is not None:
            self._known.check(claims)
        return claims

    def claims(self, token: str) -> Claims:
        """Whose a session token is; raises `ApiError` (401) when it is worth nothing.

        For what a program with a key has no business with: passwords, accounts, keys.
        """
        claims = self._verifier.verify(token)
        if self._known is not None:
            self._known.check(claims)
        return claims

    def limit(self, email: str) -> int | None:
        """The user's own limit, if there is one."""
        return self._known.max_requests(email) if self._known is not None else None

    async def allowance(self, email: str, token: str) -> RateLimit:
        """What the user has left."""
        return await self._limiter.status(email, self.limit(email), token)

    def _method(
        self, name: str, work: Callable[[bytes, str], Awaitable[object]]
    ) -> Method:
        """The method with what all have in common: counted, and refused in words."""

        async def method(body: bytes, peer: str) -> object:
            with self._metrics.request(name) as counted:
                try:
                    return await work(body, peer)
                except ApiError as error:
                    counted.outcome = error.code.value
                    is_verify = name == "verifySession"
                    return refusal_of(for_callers(error), is_verify=is_verify)

        return method

    async def _register(self, body: bytes, peer: str) -> object:
        data = decode_envelope_untrusted(body).data
        request = convert_untrusted(data, RegisterRequest, WANTED)
        check_credentials(request.credentials())
        self._registrations.begin(peer)
        reply = await self._auth.register(_for(request, peer))
        self._registrations.forgive(peer)
        return reply

    async def _login(self, body: bytes, peer: str) -> object:
        data = decode_envelope_untrusted(body).data
        request = convert_untrusted(data, LoginRequest, WANTED)
        check_credentials(request.credentials())
        self._by_peer.begin(peer)
        try:
            reply, auth_key = await self._auth.login(_for(request, peer))
        except ApiError as error:
            self._judged(peer, error)
            raise
        self._by_peer.succeed(peer)
        token = _text(reply.get("key"))
        email = _text(reply.get("email")) or request.email
        try:
            email = self._verifier.verify(token).email
        except ApiError as error:
            logger.warning(
                "auth peer %s gives tokens that this gateway does not accept (%s): in "
                "an open swarm set the same JWT_SECRET for both, else compare clocks",
                auth_key.hex()[:8],
                error.message,
            )
        limit = RateLimitInfo.of(await self.allowance(email, token))
        return LoginReply(
            success=True, status=200, email=email, key=token, rate_limit_info=limit
        )

    async def _verify(self, body: bytes, _peer: str) -> object:
        token = decode_envelope_untrusted(body).token
        claims = await self.caller(token)
        limit = await self.allowance(claims.email, token)
        return VerifyReply(email=claims.email, rate_limit_info=RateLimitInfo.of(limit))

    async def _change_password(self, body: bytes, peer: str) -> object:
        envelope = decode_envelope_untrusted(body)
        claims = self.claims(envelope.token)
        request = convert_untrusted(envelope.data, PasswordRequest)
        asked = _for(request, peer, envelope.token)
        self._by_peer.begin(peer)
        try:
            reply = await self._auth.with_token("changePassword", asked, claims.email)
        except ApiError as error:
            self._judged(peer, error)
            raise
        self._by_peer.succeed(peer)
        await self._refresh()
        return reply

    async def _logout(self, body: bytes, peer: str) -> object:
        envelope = decode_envelope_untrusted(body)
        claims = self.claims(envelope.token)
        asked = _for(SessionRequest(), peer, envelope.token)
        reply = await self._auth.with_token("logoutEverywhere", asked, claims.email)
        await self._refresh()
        return reply

    async def _manage(self, body: bytes, peer: str) -> object:
        envelope = decode_envelope_untrusted(body)
        claims = self.claims(envelope.token)
        request = convert_untrusted(envelope.data, ManageRequest)
        asked = _for(request, peer, envelope.token)
        reply = await self._auth.with_token("manageAccounts", asked, claims.email)
        if request.action not in ("list", "invite"):
            await self._refresh()
        return reply

    async def _manage_keys(self, body: bytes, peer: str) -> object:
        envelope = decode_envelope_untrusted(body)
        claims = self.claims(envelope.token)
        request = convert_untrusted(envelope.data, KeysRequest)
        asked = _for(request, peer, envelope.token)
        reply = await self._auth.with_token("manageKeys", asked, claims.email)
        if request.action == "revoke":
            self._keys.forget()
        return reply

    def _judged(self, peer: str, error: ApiError) -> None:
        """Count only a wrong password against the client."""
        if error.status != 401:
            self._by_peer.forgive(peer)

    async def _refresh(self) -> None:
        if self._known is None:
            return
        try:
            await self._known.refresh()
        except ApiError as error:
            logger.warning("changes of accounts: %s", error.message)


T = TypeVar("T", bound=Asked)


def _for(request: T, peer: str, token: str = "") -> T:
    """The request as it goes on: what the client wrote into these does not count."""
    return msgspec.structs.replace(request, source=peer, token=token)


def for_callers(error: ApiError) -> ApiError:
    """Where a store is and why it fails stays in the log of its peer."""
    if error.code is not ErrorCode.STORE_FAILED:
        return error
    return ApiError(
        ErrorCode.STORE_FAILED,
        "The gateway's store fails; its operator's log says why. Try later.",
        status=503,
        retry_after_s=10,
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
