"""What a peer must remember, in SQLite or PostgreSQL.

The tables are in `tables`, what is under them is in `database`, how they came to be is
in `migrations`. All work runs as short transactions through `Store.run`; whatever the
database raises leaves here as `ApiError` with STORE_FAILED and a line that says what to
do.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets as chance
import stat
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from .database import (
    database_ms,
    exclusive,
    parse_url,
    place_of,
    postgres_engine,
    sqlite_engine,
)
from .quick_window import QuickWindow
from .schema import bring_up_to_date
from .store_errors import store_error
from .tables import (
    accepted_prompts,
    accounts,
    registration_codes,
    secrets,
    swarm_certificates,
    swarm_grants,
    swarm_invites,
    swarm_redemptions,
)

__all__ = [
    "Store",
    "accepted_prompts",
    "accounts",
    "database_ms",
    "exclusive",
    "open_store",
    "registration_codes",
    "secrets",
    "store_error",
    "swarm_certificates",
    "swarm_grants",
    "swarm_invites",
    "swarm_redemptions",
]

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Store:
    """One open database; make it with `open_store`.

    Attributes:
        path: SQLite's file, also when PostgreSQL is used instead.
        place: where it is, in words without a secret.
    """

    def __init__(self, path: Path, engine: AsyncEngine, place: str = "") -> None:
        self.path = path
        self.place = place or str(path)
        self._engine = engine
        self._running: set[asyncio.Task[Any]] = set()
        self._quick: QuickWindow | None = None
        self._is_closed = False

    @property
    def quick(self) -> QuickWindow | None:
        """Admits prompts without a transaction of `run`; only SQLite has it."""
        if self._quick is None and not (self.is_shared or self._is_closed):
            self._quick = QuickWindow(self.path)
        return self._quick

    @property
    def is_shared(self) -> bool:
        """Several machines may be using it at once."""
        return self._engine.dialect.name != "sqlite"

    async def run(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Do ``work`` in one transaction, and commit unless it raises.

        A check and what follows from it are one step only in SQLite; with PostgreSQL
        take `exclusive` first. A caller that is cancelled leaves the transaction to
        finish: half of it would have to be undone, and it is over in milliseconds.

        Raises:
            ApiError: STORE_FAILED, or what ``work`` raises.
        """
        task = asyncio.get_running_loop().create_task(self._transaction(work))
        self._running.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    async def secret(self, name: str) -> bytes:
        """A lasting secret of 32 random bytes, made when it is first asked for."""

        async def work(connection: AsyncConnection) -> str:
            known = select(secrets.c.value).where(secrets.c.name == name)
            found = await connection.scalar(known)
            if found is None:
                row = {
                    "name": name,
                    "value": chance.token_hex(32),
                    "created_ms": await database_ms(connection),
                }
                # Another process may make it now: whose comes first stays.
                insert = _insert_of(connection)
                query = insert(secrets).values(row).on_conflict_do_nothing()
                await connection.execute(query)
                found = await connection.scalar(known)
            return str(found)

        return bytes.fromhex(await self.run(work))

    async def close(self) -> None:
        """Let what runs finish, and close; idempotent."""
        if self._running:
            await asyncio.wait(self._running)
        self._is_closed = True
        if self._quick is not None:
            self._quick.close()
            self._quick = None
        try:
            await self._engine.dispose()
        except _failures() as error:
            logger.warning("%s did not close: %s", self.place, error)

    async def _transaction(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        try:
            async with self._engine.begin() as connection:
                return await work(connection)
        except _failures() as error:
            raise store_error(self.place, error) from error

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waits has it; nobody may wait any more


async def open_store(path: Path, url: str = "") -> Store:
    """Open the store; make it at first start, and bring an older one up to date.

    Args:
        path: of SQLite's file (mode 0600).
        url: of a PostgreSQL database to use instead.

    Raises:
        ApiError: STORE_FAILED: damaged, of a later version, locked, not writable, not
            reachable.
    """
    store = _remote(path, url) if url else _local(path)
    try:
        await store.run(bring_up_to_date)
    except BaseException:
        await store.close()
        raise
    return store


def _local(path: Path) -> Store:
    try:
        _prepare_file(path)
    except OSError as error:
        raise store_error(path, error) from error
    return Store(path, sqlite_engine(path))


def _remote(path: Path, url: str) -> Store:
    parsed = parse_url(url)
    return Store(path, postgres_engine(parsed), place_of(parsed))


def _prepare_file(path: Path) -> None:
    """SQLite gives its log and shared memory the mode that the file has."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    if sys.platform == "win32":
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        path.chmod(mode & 0o700)
        logger.warning("%s was open to others (mode %04o); repaired", path, mode)


def _insert_of(connection: AsyncConnection) -> Any:  # noqa: ANN401
    """The dialect's own insert; only its own is loaded."""
    if connection.dialect.name == "sqlite":
        from sqlalchemy.dialects.sqlite import insert as insert_sqlite

        return insert_sqlite
    from sqlalchemy.dialects.postgresql import insert as insert_postgres

    return insert_postgres


def _failures() -> tuple[type[BaseException], ...]:
    """What databases and systems raise; asyncpg's leaves SQLAlchemy as it is when a
    connection cannot be made."""
    driver: Any = sys.modules.get("asyncpg")
    if driver is None:
        return SQLAlchemyError, OSError
    return (
        SQLAlchemyError,
        OSError,
        driver.PostgresError,
        driver.InterfaceError,
        driver.InternalClientError,
    )
