"""The accounts' rows: SQL only, inside the caller's transaction.

A deleted account leaves a row for as long as a token of it could live, so that gateways
hear of it; to everybody but them it is not there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import delete, func, insert, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from .store import accounts, database_ms
from .tokens import TOKEN_LIFE_S

FORGET_MS = (TOKEN_LIFE_S + 3600) * 1000
"""After so long no token from before a change is alive, clocks considered."""

_row = accounts.c


class Status(StrEnum):
    """What may be done with an account."""

    ACTIVE = "active"
    PENDING = "pending"
    """Waits for an admin's approval."""
    DISABLED = "disabled"
    DELETED = "deleted"


class AccountRole(StrEnum):
    """What an account may do with others."""

    USER = "user"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class AccountRecord:
    """An account as it is kept."""

    email: str
    role: str = AccountRole.USER
    status: str = Status.ACTIVE
    epoch: int = 0
    """Counts what ended all sessions; a token of an earlier one is worth nothing."""
    max_requests: int | None = None
    """Its own limit in a window; None: the gateway's."""
    created_ms: int = 0
    changed_ms: int = 0
    password_hash: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened to accounts, for gateways."""

    now_ms: int
    accounts: Sequence[AccountRecord]
    has_more: bool


async def find(connection: AsyncConnection, email: str) -> AccountRecord | None:
    """The account, whatever its status; None when there is none."""
    found = await find_with_deleted(connection, email)
    return None if found is None or found.status == Status.DELETED else found


async def find_with_deleted(
    connection: AsyncConnection, email: str
) -> AccountRecord | None:
    """The account, or what is left of it."""
    query = select(*_COLUMNS).where(_row.email == email)
    row = (await connection.execute(query)).first()
    return None if row is None else _record(row)


async def has_admin(connection: AsyncConnection, *, besides: str = "") -> bool:
    """Whether somebody (else) can manage accounts."""
    query = select(func.count()).where(
        _row.role == AccountRole.ADMIN,
        _row.status == Status.ACTIVE,
        _row.email != besides,
    )
    return bool(await connection.scalar(query))


async def create(
    connection: AsyncConnection, email: str, hashed: str, role: str, status: str
) -> AccountRecord:
    """Make an account, also in place of a deleted one, whose sessions stay ended.

    The caller holds `exclusive` and knows that there is none.
    """
    now_ms = await database_ms(connection)
    left = await find_with_deleted(connection, email)
    record = AccountRecord(
        email,
        role,
        status,
        epoch=left.epoch + 1 if left else 0,
        created_ms=now_ms,
        # Gateways hear only of accounts that were changed after they were made.
        changed_ms=now_ms + 1 if left else now_ms,
        password_hash=hashed,
    )
    await connection.execute(delete(accounts).where(_row.email == email))
    await connection.execute(insert(accounts).values(_values(record)))
    return record


async def change(
    connection: AsyncConnection,
    email: str,
    values: Mapping[str, object],
    *,
    ends_sessions: bool = False,
    password_was: str | None = None,
) -> AccountRecord | None:
    """Set columns and tell gateways of it; None when there is no such account.

    Args:
        values: by column.
        ends_sessions: make every token from before worthless.
        password_was: do it only if the hash is still this one.
    """
    query = update(accounts).where(_row.email == email, _row.status != Status.DELETED)
    if password_was is not None:
        query = query.where(_row.password_hash == password_was)
    now_ms = await database_ms(connection)
    # A clock that was set back must not hide the change from gateways.
    changed_ms = _latest(connection, now_ms, _row.changed_ms + 1)
    query = query.values({**values, "changed_ms": changed_ms})
    if ends_sessions:
        query = query.values(epoch=_row.epoch + 1)
    changed = await connection.execute(query)
    return await find_with_deleted(connection, email) if changed.rowcount else None


async def rehash(
    connection: AsyncConnection, email: str, was: str, hashed: str
) -> None:
    """Keep a dearer hash of the same password."""
    query = update(accounts).where(_row.email == email, _row.password_hash == was)
    await connection.execute(query.values(password_hash=hashed))


async def page(
    connection: AsyncConnection, after: str, count: int
) -> Sequence[AccountRecord]:
    """Accounts by address, those that come after ``after``."""
    query = (
        select(*_COLUMNS)
        .where(_row.email > after, _row.status != Status.DELETED)
        .order_by(_row.email)
        .limit(count)
    )
    return [_record(row) for row in await connection.execute(query)]


async def changed_since(
    connection: AsyncConnection, since_ms: int, after: str, count: int
) -> Changes:
    """What gateways need to know, in order of time and then address.

    Args:
        connection: of the store.
        since_ms: a time of this store's clock; 0: everything that still matters.
        after: the last address had at exactly ``since_ms``.
        count: at most so many.
    """
    now_ms = await database_ms(connection)
    is_fresh = _row.changed_ms > now_ms - FORGET_MS
    query = (
        select(*_COLUMNS)
        .where(
            tuple_(_row.changed_ms, _row.email) > tuple_(since_ms, after),
            _row.changed_ms > _row.created_ms,
            _row.max_requests.is_not(None) | is_fresh,
        )
        .order_by(_row.changed_ms, _row.email)
        .limit(count + 1)
    )
    found = [_record(row) for row in await connection.execute(query)]
    return Changes(now_ms, found[:count], len(found) > count)


async def forget_deleted(connection: AsyncConnection) -> None:
    """Remove what is left of accounts whose tokens have all expired."""
    old_ms = await database_ms(connection) - FORGET_MS
    is_old = (_row.status == Status.DELETED) & (_row.changed_ms < old_ms)
    await connection.execute(delete(accounts).where(is_old))


async def highest_cost_prefix(connection: AsyncConnection) -> str:
    """The first seven characters, with the cost, of the dearest password hash."""
    prefix = func.substr(_row.password_hash, 1, 7)
    return str(await connection.scalar(select(func.max(prefix))) or "")


_COLUMNS = (
    _row.email,
    _row.role,
    _row.status,
    _row.epoch,
    _row.max_requests,
    _row.created_ms,
    _row.changed_ms,
    _row.password_hash,
)


def _record(row: Any) -> AccountRecord:  # noqa: ANN401
    return AccountRecord(*row)


def _values(record: AccountRecord) -> dict[str, object]:
    return {column.name: getattr(record, column.name) for column in _COLUMNS}


def _latest(connection: AsyncConnection, *values: object) -> Any:  # noqa: ANN401
    name = "max" if connection.dialect.name == "sqlite" else "greatest"
    return getattr(func, name)(*values)
