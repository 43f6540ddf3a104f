"""A gateway's way to the auth peers: in a sensible order, with fail-over.

In an open swarm each auth peer may have accounts of its own. So a user is always sent
to the same ones first (those of this process, else by a hash of address and key), and
one that does not know the user does not have the last word. In a private swarm all have
the same accounts, and any certified one will do; nobody else is shown a token.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing

import msgspec

from peerchat.api import ApiError, ErrorCode, Role
from peerchat.net.errors import ConnectFailed, NetError
from peerchat.net.identity import PublicKey
from peerchat.reaching import reached
from peerchat.replies import reply_untrusted

from .account_messages import (
    Asked,
    ChangesReply,
    ChangesRequest,
    LoginRequest,
    RegisterRequest,
)
from .swarm import Swarm, api_error_of

logger = logging.getLogger(__name__)

TIMEOUT_S = 25.0
"""bcrypt behind a queue of others; a client waits 30 s."""

PEERS_TRIED_MAX = 6
KNOWERS_TRIED_MAX = 3
"""Auth peers that see the password of a user whom the first one does not know."""

FINAL = (400, 403, 429)
"""Verdicts about the request or the account, not about who knows the account."""


class AuthClient:
    """Calls auth peers.

    Args:
        swarm: finds and reaches them.
        is_private: all auth peers are certified, and share one truth.
    """

    def __init__(self, swarm: Swarm, *, is_private: bool = False) -> None:
        self._swarm = swarm
        self._is_private = is_private

    async def register(self, request: RegisterRequest) -> Mapping[str, object]:
        """Make an account with the first auth peer that can be reached.

        Raises:
            ApiError: what the peer refused, or NO_AUTH.
        """
        keys = await self._ordered(request.email)
        return await self._once(keys, "register", request)

    async def login(
        self, request: LoginRequest
    ) -> tuple[Mapping[str, object], PublicKey]:
        """Check a password; returns the answer and who gave it.

        Raises:
            ApiError: what the peers refused, or NO_AUTH.
        """
        refusal: ApiError | None = None
        unknown = 0
        ordered = await self._ordered(request.email)
        async with aclosing(self._reached(ordered)) as keys:
            async for key in keys:
                try:
                    return await self._call(key, "login", request), key
                except NetError as error:
                    logger.info("auth peer %s: %s", key.hex()[:8], error)
                except ApiError as error:
                    if error.status in FINAL:
                        raise
                    if refusal is None or error.code is ErrorCode.UNAUTHORIZED:
                        refusal = error
                    unknown += error.code is ErrorCode.UNAUTHORIZED
                    if unknown >= (1 if self._is_private else KNOWERS_TRIED_MAX):
                        break
        raise refusal or no_auth()

    async def with_token(
        self, method: str, request: Asked, email: str
    ) -> Mapping[str, object]:
        """Pass a method that goes by the caller's token on to an auth peer.

        Raises:
            ApiError: what the peer refused; NO_AUTH; 501 when the accounts are not
                this gateway's, whose auth peers would have to be shown the token.
        """
        keys = await self._ordered(email)
        if not self._is_private:
            keys = [key for key in keys if self._swarm.is_self(key)]
            if not keys:
                raise not_ours()
        return await self._once(keys, method, request)

    async def changes(self, since_ms: int, after: str) -> Sequence[ChangesReply]:
        """What happened to accounts, by each auth peer that answers.

        Raises:
            ApiError: NO_AUTH; nobody answers.
        """
        request = ChangesRequest(since_ms, after)
        keys = await self._ordered("")
        # All at once: one that says nothing must not hold the others up.
        told = await asyncio.gather(*(self._changes_of(key, request) for key in keys))
        pages = [page for page in told if page is not None]
        if not pages:
            raise no_auth()
        return pages

    async def _changes_of(
        self, key: PublicKey, request: ChangesRequest
    ) -> ChangesReply | None:
        try:
            reply = await self._call(key, "accountChanges", request)
            return msgspec.convert(reply, ChangesReply)
        except (NetError, ApiError, msgspec.ValidationError) as error:
            logger.info("auth peer %s tells no changes: %s", key.hex()[:8], error)
            return None

    async def _once(
        self, keys: Sequence[PublicKey], method: str, request: Asked
    ) -> Mapping[str, object]:
        """Ask the first peer that can be reached, and nobody after it."""
        async with aclosing(self._reached(keys)) as there:
            async for key in there:
                try:
                    return await self._call(key, method, request)
                except ConnectFailed:
                    continue
                except NetError as error:
                    # It may have been done; a second peer must not do it again.
                    self._swarm.drop(Role.AUTH, key)
                    raise api_error_of(error, "The auth peer") from error
        raise no_auth()

    def _reached(self, keys: Sequence[PublicKey]) -> AsyncGenerator[PublicKey, None]:
        """Those that are there; a dead one does not hold the next one up."""

        async def reach(key: PublicKey) -> None:
            await self._swarm.reach(key, role=Role.AUTH)

        return reached(keys, reach, is_ready=self._swarm.is_self)

    async def _ordered(self, email: str) -> list[PublicKey]:
        try:
            keys = await self._swarm.find(Role.AUTH)
        except NetError as error:
            raise api_error_of(error) from error
        if self._is_private:
            return keys[:PEERS_TRIED_MAX]  # those that are proven come first
        name = email.strip().lower().encode("utf-8", "replace")

        def rank(key: PublicKey) -> tuple[bool, bytes]:
            digest = hashlib.blake2b(name + key, digest_size=8).digest()
            return not self._swarm.is_self(key), digest

        return sorted(keys, key=rank)[:PEERS_TRIED_MAX]

    async def _call(
        self, key: PublicKey, method: str, request: Asked | ChangesRequest
    ) -> Mapping[str, object]:
        is_trusted = self._is_private or self._swarm.is_self(key)
        if not is_trusted and isinstance(request, Asked):
            # Whose token it is, and for whom it is asked, is not a stranger's affair.
            request = msgspec.structs.replace(request, source="", token="")
        try:
            reply = await self._swarm.request(
                key, method, request, TIMEOUT_S, role=Role.AUTH
            )
        except NetError:
            self._swarm.drop(Role.AUTH, key)
            raise
        return reply_untrusted(reply)


def no_auth() -> ApiError:
    """Nobody keeps accounts."""
    return ApiError(
        ErrorCode.NO_AUTH,
        "No auth peer answers. Start one with: peerchat serve --role auth.",
        status=503,
        retry_after_s=10,
    )


def not_ours() -> ApiError:
    """The accounts belong to somebody else's auth peer."""
    return ApiError(
        ErrorCode.INVALID_REQUEST,
        "This gateway does not keep the accounts, so it cannot change them or end "
        "sessions: ask one whose process runs auth too (peerchat serve --role all).",
        status=501,
    )
