"""API keys: ``pk_ID_SECRET``, for programs, valid until they are revoked.

The secret is random, so a fast hash of it is kept and nothing else. A key is as good as
its account: one that is disabled or deleted has none, and whoever gets the address
later does not inherit any.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from peerchat.api import ApiError, ErrorCode

from .account_table import Status, find
from .emails import LOCAL_EMAIL
from .messages import invalid
from .store import Store, database_ms, exclusive
from .tables import api_keys

PREFIX = "pk_"
KEYS_MAX = 64
"""Of one account: more than one per program and machine."""

NAME_CHARS_MAX = 64
WRONG_KEY = "The API key is wrong or was revoked"

_KEY = re.compile(r"pk_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_row = api_keys.c


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as its owner sees it."""

    key_id: str
    name: str
    created_ms: int
    key: str = field(default="", repr=False)
    """Only when it was just made; nobody tells it again."""


class ApiKeys:
    """The keys of a store's accounts.

    Args:
        store: where they are.
        has_local: this home's own user may have some: only where there is no swarm.
    """

    def __init__(self, store: Store, *, has_local: bool = False) -> None:
        self._store = store
        self._has_local = has_local

    async def create(self, email: str, name: str) -> ApiKey:
        """Make a key; raises `ApiError` (400) for a bad name or too many keys."""
        name = " ".join(name.split())
        if not 0 < len(name) <= NAME_CHARS_MAX or not name.isprintable():
            raise invalid(f"The name must have 1 to {NAME_CHARS_MAX} characters")
        key_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)

        async def work(connection: AsyncConnection) -> ApiKey:
            await exclusive(connection, "api keys")
            count = select(func.count()).where(_row.email == email)
            if int(await connection.scalar(count) or 0) >= KEYS_MAX:
                raise invalid(f"An account has at most {KEYS_MAX} keys; revoke one")
            now_ms = await database_ms(connection)
            values = {
                "id": key_id,
                "email": email,
                "name": name,
                "secret_hash": _hashed(secret),
                "created_ms": now_ms,
            }
            await connection.execute(insert(api_keys).values(values))
            return ApiKey(key_id, name, now_ms, f"{PREFIX}{key_id}_{secret}")

        return await self._store.run(work)

    async def list(self, email: str) -> Sequence[ApiKey]:
        """The account's keys, the oldest first."""
        query = (
            select(_row.id, _row.name, _row.created_ms)
            .where(_row.email == email)
            .order_by(_row.created_ms, _row.id)
        )

        async def work(connection: AsyncConnection) -> Sequence[ApiKey]:
            return [ApiKey(*row) for row in await connection.execute(query)]

        return await self._store.run(work)

    async def revoke(self, email: str, key_id: str) -> ApiKey:
        """End a key of the account; raises `ApiError` (400) when it has no such."""
        known = {key.key_id: key for key in await self.list(email)}.get(key_id)
        query = delete(api_keys).where(_row.email == email, _row.id == key_id)

        async def work(connection: AsyncConnection) -> int:
            return (await connection.execute(query)).rowcount

        if known is None or not await self._store.run(work):
            raise invalid("There is no such key of yours; peerchat key list shows them")
        return known

    async def resolve(self, key: str) -> str:
        """Whose a key is; raises `ApiError` (401) when it is nobody's."""
        parts = _KEY.fullmatch(key)
        if parts is None:
            raise wrong_key()
        key_id, secret = parts.groups()
        query = select(_row.email, _row.secret_hash, _row.created_ms)
        query = query.where(_row.id == key_id)

        async def work(connection: AsyncConnection) -> str:
            row = (await connection.execute(query)).first()
            known = row.secret_hash if row is not None else ""
            is_right = hmac.compare_digest(known, _hashed(secret))
            if row is None or not is_right:
                raise wrong_key()
            if row.email == LOCAL_EMAIL:
                if not self._has_local:
                    raise wrong_key()
                return LOCAL_EMAIL
            account = await find(connection, str(row.email))
            if account is None or account.status != Status.ACTIVE:
                raise wrong_key()
            if row.created_ms < account.created_ms:
                raise wrong_key()
            return account.email

        return await self._store.run(work)


def wrong_key() -> ApiError:
    """The key is nobody's."""
    return ApiError(ErrorCode.UNAUTHORIZED, WRONG_KEY, status=401)


def _hashed(secret: str) -> str:
    data, person = secret.encode(), b"peerchat api key"
    return hashlib.blake2b(data, digest_size=32, person=person).hexdigest()
