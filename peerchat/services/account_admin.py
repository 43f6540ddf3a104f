"""What an admin does with accounts: approve, disable, delete, limit, reset, invite, …

Each action is one transaction. The last admin can be neither disabled nor deleted, for
nobody could let anyone in after that.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from peerchat.api import ApiError, ErrorCode

from .account_table import (
    AccountRecord,
    AccountRole,
    Status,
    change,
    find,
    forget_deleted,
    has_admin,
    page,
)
from .accounts import LOCK, Accounts
from .emails import known_email
from .messages import Credentials, check_credentials, invalid
from .passwords import check_new_password
from .registration import (
    CODE_LIFE_S,
    CODE_LIFE_S_MAX,
    RegistrationCode,
    make_code,
)
from .store import exclusive

T = TypeVar("T")

PAGE = 200
"""Accounts of one answer: some 40 KB."""

LIMIT_MAX = 1_000_000
PASSWORD_BYTES = 15
"""Of a password that is made here: 20 letters and digits."""


@dataclass(frozen=True, slots=True)
class AdminRequest:
    """One action; which fields it needs depends on it."""

    action: str
    email: str = ""
    limit: int | None = None
    password: str = field(default="", repr=False)
    expires_s: int | None = None
    after: str = ""


@dataclass(frozen=True, slots=True)
class AdminResult:
    """What was done."""

    accounts: Sequence[AccountRecord] = ()
    has_more: bool = False
    password: str = field(default="", repr=False)
    """Made here because none was given; it is shown once."""
    code: RegistrationCode | None = None


class AccountAdmin:
    """Manages accounts; who asks has been checked."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self._actions: Mapping[str, Callable[[AdminRequest], Awaitable[AdminResult]]]
        self._actions = {
            "list": self._list,
            "approve": self._approve,
            "disable": self._disable,
            "enable": self._enable,
            "delete": self._delete,
            "limit": self._limit,
            "reset": self._reset,
            "invite": self._invite,
        }

    async def do(self, request: AdminRequest) -> AdminResult:
        """Do one action.

        Raises:
            ApiError: 400 for an unknown action or account or a wrong field, 409 when it
                cannot be done to this account, STORE_FAILED.
        """
        action = self._actions.get(request.action)
        if action is None:
            raise invalid(f"Unknown action; one of: {', '.join(self._actions)}")
        return await action(request)

    async def _list(self, request: AdminRequest) -> AdminResult:
        found = await self._run(lambda c: page(c, request.after, PAGE + 1))
        return AdminResult(found[:PAGE], has_more=len(found) > PAGE)

    async def _approve(self, request: AdminRequest) -> AdminResult:
        async def work(connection: AsyncConnection) -> AccountRecord:
            known = await _known(connection, request)
            if known.status == Status.DISABLED:
                raise _conflict(f"{known.email} is disabled, not waiting: enable it.")
            return await _changed(connection, known, status=Status.ACTIVE)

        return AdminResult([await self._run(work)])

    async def _enable(self, request: AdminRequest) -> AdminResult:
        async def work(connection: AsyncConnection) -> AccountRecord:
            known = await _known(connection, request)
            return await _changed(connection, known, status=Status.ACTIVE)

        return AdminResult([await self._run(work)])

    async def _disable(self, request: AdminRequest) -> AdminResult:
        async def work(connection: AsyncConnection) -> AccountRecord:
            known = await _known(connection, request)
            await _check_not_last(connection, known)
            return await _changed(
                connection, known, ends_sessions=True, status=Status.DISABLED
            )

        return AdminResult([await self._run(work)])

    async def _delete(self, request: AdminRequest) -> AdminResult:
        async def work(connection: AsyncConnection) -> AccountRecord:
            known = await _known(connection, request)
            await _check_not_last(connection, known)
            await forget_deleted(connection)
            return await _changed(
                connection,
                known,
                ends_sessions=True,
                status=Status.DELETED,
                role=AccountRole.USER,
                max_requests=None,
                password_hash="",
            )

        return AdminResult([await self._run(work)])

    async def _limit(self, request: AdminRequest) -> AdminResult:
        limit = request.limit
        if limit is not None and not 1 <= limit <= LIMIT_MAX:
            raise invalid(f"The limit must be from 1 to {LIMIT_MAX}, or left out")

        async def work(connection: AsyncConnection) -> AccountRecord:
            known = await _known(connection, request)
            return await _changed(connection, known, max_requests=limit)

        return AdminResult([await self._run(work)])

    async def _reset(self, request: AdminRequest) -> AdminResult:
        made = "" if request.password else secrets.token_urlsafe(PASSWORD_BYTES)
        password = request.password or made
        email = known_email(request.email)
        check_credentials(Credentials(email, password))
        check_new_password(password)
        hashed = await self._accounts.hasher.hash(password)

        async def work(connection: AsyncConnection) -> AccountRecord:
            known = await _known(connection, request)
            return await _changed(
                connection, known, ends_sessions=True, password_hash=hashed
            )

        record = await self._run(work)
        self._accounts.forgive(email)
        return AdminResult([record], password=made)

    async def _invite(self, request: AdminRequest) -> AdminResult:
        life_s = CODE_LIFE_S if request.expires_s is None else request.expires_s
        if not 60 <= life_s <= CODE_LIFE_S_MAX:
            raise invalid(f"A code lives from 60 to {CODE_LIFE_S_MAX} seconds")
        return AdminResult(code=await self._run(lambda c: make_code(c, life_s)))

    async def _run(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        async def alone(connection: AsyncConnection) -> T:
            await exclusive(connection, LOCK)
            return await work(connection)

        return await self._accounts.store.run(alone)


async def _known(connection: AsyncConnection, request: AdminRequest) -> AccountRecord:
    email = known_email(request.email)
    if not email:
        raise invalid(f"Which account? {request.action} needs an email")
    found = await find(connection, email)
    if found is None:
        raise _unknown(email)
    return found


async def _changed(
    connection: AsyncConnection,
    known: AccountRecord,
    *,
    ends_sessions: bool = False,
    **values: object,
) -> AccountRecord:
    changed = await change(connection, known.email, values, ends_sessions=ends_sessions)
    if changed is None:
        raise _unknown(known.email)
    return changed


async def _check_not_last(connection: AsyncConnection, known: AccountRecord) -> None:
    is_admin = known.role == AccountRole.ADMIN and known.status == Status.ACTIVE
    if is_admin and not await has_admin(connection, besides=known.email):
        raise _conflict(f"{known.email} is the only admin; nobody could undo this.")


def _unknown(email: str) -> ApiError:
    return invalid(f"There is no account {email}")


def _conflict(message: str) -> ApiError:
    return ApiError(ErrorCode.CONFLICT, message, status=409)
