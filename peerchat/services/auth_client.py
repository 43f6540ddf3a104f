"""A gateway's way to the auth peers: in a sensible order, with fail-over.

In an open swarm each auth peer may have accounts of its own. So a user is always sent
to the same ones first (those of this process, else by a hash of address and key), and
one that does not know the user does not have the last word.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping

from peerchat.api import ApiError, ErrorCode, Role
from peerchat.net.errors import ConnectFailed, NetError
from peerchat.net.identity import PublicKey
from peerchat.replies import reply_untrusted

from .messages import Credentials
from .swarm import Swarm, api_error_of

logger = logging.getLogger(__name__)

TIMEOUT_S = 25.0
"""bcrypt behind a queue of others; a client waits 30 s."""

PEERS_TRIED_MAX = 6
KNOWERS_TRIED_MAX = 3
"""Auth peers that see the password of a user whom the first one does not know."""


class AuthClient:
    """Calls auth peers."""

    def __init__(self, swarm: Swarm) -> None:
        self._swarm = swarm

    async def register(self, credentials: Credentials) -> Mapping[str, object]:
        """Make an account with the first auth peer that can be reached.

        Raises:
            ApiError: what the peer refused, or NO_AUTH.
        """
        for key in await self._ordered(credentials.email):
            try:
                return await self._call(key, "register", credentials)
            except ConnectFailed:
                continue
            except NetError as error:
                # It may have been done; a second peer must not do it again.
                self._swarm.drop(Role.AUTH, key)
                raise api_error_of(error, "The auth peer") from error
        raise no_auth()

    async def login(
        self, credentials: Credentials
    ) -> tuple[Mapping[str, object], PublicKey]:
        """Check a password; returns the answer and who gave it.

        Raises:
            ApiError: what the peers refused, or NO_AUTH.
        """
        refusal: ApiError | None = None
        unknown = 0
        for key in await self._ordered(credentials.email):
            try:
                return await self._call(key, "login", credentials), key
            except NetError as error:
                logger.info("auth peer %s: %s", key.hex()[:8], error)
            except ApiError as error:
                if error.status in (400, 429):
                    raise
                if refusal is None or error.code is ErrorCode.UNAUTHORIZED:
                    refusal = error
                unknown += error.code is ErrorCode.UNAUTHORIZED
                if unknown >= KNOWERS_TRIED_MAX:
                    break
        raise refusal or no_auth()

    async def _ordered(self, email: str) -> list[PublicKey]:
        try:
            keys = await self._swarm.find(Role.AUTH)
        except NetError as error:
            raise api_error_of(error) from error
        name = email.strip().lower().encode("utf-8", "replace")

        def rank(key: PublicKey) -> tuple[bool, bytes]:
            digest = hashlib.blake2b(name + key, digest_size=8).digest()
            return not self._swarm.is_self(key), digest

        return sorted(keys, key=rank)[:PEERS_TRIED_MAX]

    async def _call(
        self, key: PublicKey, method: str, credentials: Credentials
    ) -> Mapping[str, object]:
        try:
            reply = await self._swarm.request(key, method, credentials, TIMEOUT_S)
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
