"""The role ``auth``: accounts, passwords, tokens. Called by gateways.

Methods and answers are those of docs/PROTOCOL.md section 11. A token that comes with a
method is checked here, against the accounts as they are now: a gateway is not believed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from peerchat.api import ApiError, ErrorCode, Role

from .account_admin import AccountAdmin
from .account_messages import (
    Asked,
    ChangesRequest,
    LoginRequest,
    ManageReply,
    ManageRequest,
    PasswordRequest,
    RegisterRequest,
    SessionReply,
    SessionRequest,
)
from .account_table import AccountRecord, AccountRole, Status
from .accounts import Accounts, Source
from .api_keys import ApiKeys
from .auth_keys import AuthKeys
from .emails import LOCAL_EMAIL
from .known_accounts import StoreChanges
from .messages import (
    LoginReply,
    PendingReply,
    PingReply,
    Refusal,
    RegisterReply,
    decode_untrusted,
    invalid,
    refusal_of,
)
from .metrics import RoleMetrics
from .registration import refused
from .service import Method, Service
from .swarm import Swarm
from .tokens import Claims, Issuer, Verifier

logger = logging.getLogger(__name__)

WANTED = "Invalid request: expected { email: '...', password: '...' }"


class AuthRole:
    """Serves the accounts of this home's store.

    Args:
        swarm: announces the role and takes its requests.
        accounts: who exists.
        issuer: signs tokens.
        verifier: checks them; without it, the methods that take one are refused.
        local: checks the token of this home's own user, who may manage accounts;
            only where there is no swarm.
        is_gateway: whether a peer (hex) may be believed whom it asks for, and may
            hear what happened to accounts.
        metrics: where to count; its own when left out.
    """

    def __init__(
        self,
        swarm: Swarm,
        accounts: Accounts,
        issuer: Issuer,
        *,
        verifier: Verifier | None = None,
        local: Verifier | None = None,
        is_gateway: Callable[[str], bool] | None = None,
        metrics: RoleMetrics | None = None,
    ) -> None:
        self.metrics = metrics or RoleMetrics(Role.AUTH)
        self.detail = ""
        """The store's last failure, for health; empty when all is well."""
        self._swarm = swarm
        self._accounts = accounts
        self._admin = AccountAdmin(accounts)
        self._issuer = issuer
        self._verifier = verifier
        self._local = local
        self._is_gateway = is_gateway or (lambda peer: False)
        keys = ApiKeys(accounts.store, has_local=local is not None)
        self._keys = AuthKeys(keys, self._key_owner, self._is_gateway)

    async def run(self, ready: Callable[[], None]) -> None:
        """Serve until cancelled."""
        methods: dict[str, Method] = {
            "ping": self.ping,
            "register": self._method("register", self._register),
            "login": self._method("login", self._login),
            "changePassword": self._method("changePassword", self._change_password),
            "logoutEverywhere": self._method("logoutEverywhere", self._logout),
            "manageAccounts": self._method("manageAccounts", self._manage),
            "accountChanges": self._method("accountChanges", self._changes),
            "manageKeys": self._method("manageKeys", self._keys.manage),
            "resolveKey": self._method("resolveKey", self._keys.resolve),
        }
        await self._accounts.prepare()
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

    def _method(
        self, name: str, work: Callable[[bytes, str], Awaitable[object]]
    ) -> Method:
        """The method with what all have in common: counted, and refused in words."""

        async def method(body: bytes, peer: str) -> object:
            with self.metrics.request(name) as counted:
                try:
                    answer = await work(body, peer)
                except ApiError as error:
                    counted.outcome = error.code.value
                    return self._refused(error)
                self.detail = ""
                return answer

        return method

    async def _register(self, body: bytes, peer: str) -> object:
        request = decode_untrusted(body, RegisterRequest, WANTED)
        record = await self._accounts.register(
            request.credentials(), self._source(peer, request), request.code
        )
        if record.status == Status.PENDING:
            return PendingReply(record.email)
        return RegisterReply(record.email)

    async def _login(self, body: bytes, peer: str) -> object:
        request = decode_untrusted(body, LoginRequest, WANTED)
        source = self._source(peer, request)
        record = await self._accounts.login(request.credentials(), source)
        key = self._issuer.issue(record.email, record.role, record.epoch)
        return LoginReply(success=True, status=200, email=record.email, key=key)

    async def _change_password(self, body: bytes, peer: str) -> object:
        request = decode_untrusted(body, PasswordRequest)
        record = await self._caller(request.token)
        source = self._source(peer, request)
        changed = await self._accounts.change_password(
            record, request.old, request.new, source
        )
        key = self._issuer.issue(changed.email, changed.role, changed.epoch)
        return _session_reply(changed, key)

    async def _logout(self, body: bytes, _peer: str) -> object:
        record = await self._caller(decode_untrusted(body, SessionRequest).token)
        changed = await self._accounts.logout_everywhere(record.email)
        return _session_reply(changed or record)

    async def _manage(self, body: bytes, _peer: str) -> object:
        request = decode_untrusted(body, ManageRequest)
        await self._check_admin(request.token)
        return ManageReply.of(await self._admin.do(request.request()))

    async def _changes(self, body: bytes, peer: str) -> object:
        if not self._is_gateway(peer):
            raise refused("Only gateways hear what happens to accounts.")
        request = decode_untrusted(body, ChangesRequest)
        source = StoreChanges(self._accounts.store)
        (reply,) = await source.changes(request.since, request.after)
        return reply

    # Parts

    async def _caller(self, token: str) -> AccountRecord:
        """Whose a token is, if the session goes on."""
        claims = self._claims(token)
        if claims.email == LOCAL_EMAIL:
            raise invalid(
                "The local account of a home has no password and no other sessions."
            )
        return await self._accounts.session(claims.email, claims.epoch)

    async def _key_owner(self, token: str) -> str:
        claims = self._claims(token)
        if claims.email == LOCAL_EMAIL and self._local is not None:
            return self._local.verify(token).email
        return (await self._caller(token)).email

    async def _check_admin(self, token: str) -> None:
        claims = self._claims(token)
        if claims.email == LOCAL_EMAIL and self._local is not None:
            self._local.verify(token)
            return
        record = await self._accounts.session(claims.email, claims.epoch)
        if record.role != AccountRole.ADMIN:
            raise refused("Only an admin of the swarm manages accounts.")

    def _claims(self, token: str) -> Claims:
        if self._verifier is None:
            raise invalid("This auth peer checks no tokens")
        return self._verifier.verify(token)

    def _source(self, peer: str, request: Asked) -> Source:
        return Source(peer, request.source if self._is_gateway(peer) else "")

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


def _session_reply(record: AccountRecord, key: str = "") -> SessionReply:
    return SessionReply(
        success=True, status=200, email=record.email, epoch=record.epoch, key=key
    )
