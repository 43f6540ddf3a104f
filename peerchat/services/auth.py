"""The role ``auth``: accounts, passwords, tokens. Called by gateways.

Methods and answers are those of docs/PROTOCOL.md section 11.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from peerchat.api import ApiError, ErrorCode, Role

from .accounts import Accounts
from .messages import (
    Credentials,
    LoginReply,
    PingReply,
    Refusal,
    RegisterReply,
    decode_untrusted,
    refusal_of,
)
from .metrics import RoleMetrics
from .service import Method, Service
from .swarm import Swarm
from .tokens import TokenIssuer

logger = logging.getLogger(__name__)

WANTED = "Invalid request: expected { email: '...', password: '...' }"


class AuthRole:
    """Serves the accounts of this home's store.

    Args:
        swarm: announces the role and takes its requests.
        accounts: who exists.
        issuer: signs tokens.
        metrics: where to count; its own when left out.
    """

    def __init__(
        self,
        swarm: Swarm,
        accounts: Accounts,
        issuer: TokenIssuer,
        *,
        metrics: RoleMetrics | None = None,
    ) -> None:
        self.metrics = metrics or RoleMetrics(Role.AUTH)
        self.detail = ""
        """The store's last failure, for health; empty when all is well."""
        self._swarm = swarm
        self._accounts = accounts
        self._issuer = issuer

    async def run(self, ready: Callable[[], None]) -> None:
        """Serve until cancelled."""
        methods: dict[str, Method] = {
            "ping": self.ping,
            "register": self.register,
            "login": self.login,
        }
        service: Service = await self._swarm.serve(Role.AUTH, methods)
        try:
            ready()
            await asyncio.get_running_loop().create_future()
        finally:
            await service.close()

    async def ping(self, _body: bytes, _peer: str) -> PingReply:
        """Whether accounts can be asked for."""
        status = "unhealthy" if self.detail else "healthy"
        return PingReply(status, int(time.time() * 1000), Role.AUTH.value)

    async def register(self, body: bytes, _peer: str) -> RegisterReply | Refusal:
        """Make an account."""
        with self.metrics.request("register") as counted:
            try:
                credentials = decode_untrusted(body, Credentials, WANTED)
                record = await self._accounts.register(credentials)
            except ApiError as error:
                counted.outcome = error.code.value
                return self._refused(error)
            self.detail = ""
            return RegisterReply(record.email)

    async def login(self, body: bytes, peer: str) -> LoginReply | Refusal:
        """Check a password and give a token."""
        with self.metrics.request("login") as counted:
            try:
                credentials = decode_untrusted(body, Credentials, WANTED)
                record = await self._accounts.login(credentials, peer)
            except ApiError as error:
                counted.outcome = error.code.value
                return self._refused(error)
            self.detail = ""
            return LoginReply(
                success=True,
                status=200,
                email=record.email,
                key=self._issuer.issue(record.email, record.role),
            )

    def _refused(self, error: ApiError) -> Refusal:
        if error.code is not ErrorCode.STORE_FAILED:
            return refusal_of(error)
        # Where the store is, and why it fails, is for this peer's operator.
        self.detail = error.message
        shown = ApiError(
            ErrorCode.STORE_FAILED,
            "The accounts cannot be read now; its operator's log says why. Try later.",
            status=503,
            retry_after_s=10,
        )
        return refusal_of(shown)
