"""What a peer must remember: accounts, accepted prompts, secrets. SQLite, for now.

The tables are SQLAlchemy's, and only `_engine` knows which database is under them. All
work runs as short transactions through `Store.run`, one after the other; whatever the
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
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import event, insert, select
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from peerchat.api import ApiError, ErrorCode

from .tables import (
    about,
    accepted_prompts,
    accounts,
    metadata,
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

SCHEMA_VERSION = 1

BUSY_TIMEOUT_S = 5.0
"""How long to wait for another process's transaction; ours take milliseconds."""

WAITING_TIMEOUT_S = 15.0
"""How long to wait for the transactions of this process."""


class Store:
    """One open database; make it with `open_store`."""

    def __init__(self, path: Path, engine: AsyncEngine) -> None:
        self.path = path
        self._engine = engine
        self._running: set[asyncio.Task[Any]] = set()

    async def run(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Do ``work`` in one transaction, and commit unless it raises.

        A caller that is cancelled leaves the transaction to finish: half of it would
        have to be undone, and it is over in milliseconds anyway.

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
            found = await connection.scalar(
                select(secrets.c.value).where(secrets.c.name == name)
            )
            if found is None:
                found = chance.token_hex(32)
                row = {"name": name, "value": found, "created_ms": _now_ms()}
                await connection.execute(insert(secrets).values(row))
            return str(found)

        return bytes.fromhex(await self.run(work))

    async def close(self) -> None:
        """Let what runs finish, and close the file; idempotent."""
        if self._running:
            await asyncio.wait(self._running)
        try:
            await self._engine.dispose()
        except SQLAlchemyError as error:
            logger.warning("%s did not close: %s", self.path, error)

    async def _transaction(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        try:
            async with self._engine.begin() as connection:
                return await work(connection)
        except (SQLAlchemyError, OSError) as error:
            raise store_error(self.path, error) from error

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waits has it; nobody may wait any more


async def open_store(path: Path) -> Store:
    """Open the store, and make it at first start (mode 0600).

    Raises:
        ApiError: STORE_FAILED: damaged, of a later version, locked, or not writable.
    """
    try:
        _prepare_file(path)
    except OSError as error:
        raise store_error(path, error) from error
    store = Store(path, _engine(path))
    try:
        await store.run(_set_up)
    except BaseException:
        await store.close()
        raise
    return store


async def _set_up(connection: AsyncConnection) -> None:
    await connection.run_sync(metadata.create_all)
    found = await connection.scalar(
        select(about.c.value).where(about.c.key == "schema_version")
    )
    if found is None:
        row = {"key": "schema_version", "value": str(SCHEMA_VERSION)}
        await connection.execute(insert(about).values(row))
    elif int(found) > SCHEMA_VERSION:
        raise ApiError(
            ErrorCode.STORE_FAILED,
            f"The store was written by a later peerchat (schema {int(found)}). "
            "Upgrade peerchat, or use another home with --home.",
        )


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


def _engine(path: Path) -> AsyncEngine:
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{path}",
        # Every transaction writes or may write, and SQLite has one writer.
        pool_size=1,
        max_overflow=0,
        pool_timeout=WAITING_TIMEOUT_S,
        connect_args={"timeout": BUSY_TIMEOUT_S},
    )

    @event.listens_for(engine.sync_engine, "connect")
    def on_connect(connection: Any, _record: Any) -> None:  # noqa: ANN401
        # Else the driver begins transactions by its own, older rules.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def on_begin(connection: Any) -> None:  # noqa: ANN401
        # Taking the write lock first: a check and what follows from it are one step
        # for all processes of a home.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


_REMEDIES = {
    "SQLITE_BUSY": (
        "is locked by another program. Close it (peerchat stop) and try again"
    ),
    "SQLITE_LOCKED": "is locked. Try again",
    "SQLITE_FULL": "cannot grow: the disk is full. Free some space and try again",
    "SQLITE_READONLY": "is read-only. Make the file and its folder writable",
    "SQLITE_CANTOPEN": "cannot be opened. Check that its folder exists and is yours",
    "SQLITE_PERM": "may not be opened. Make the file yours",
    "SQLITE_IOERR": "cannot be read or written. Check the disk",
    "SQLITE_CORRUPT": (
        "is damaged. Restore it from a backup, or move it away to start anew"
    ),
    "SQLITE_NOTADB": (
        "is no database. Restore it from a backup, or move it away to start anew"
    ),
}


def store_error(path: Path, error: BaseException) -> ApiError:
    """What a failure of the database or the disk means for a person."""
    if isinstance(error, PoolTimeoutError):
        remedy = "is busy with other requests. Try again"
    elif isinstance(error, OSError):
        reason = (error.strerror or str(error)).lower()
        remedy = f"cannot be used ({reason}). Check its mode and the disk's free space"
    else:
        origin = error.orig if isinstance(error, DBAPIError) else None
        name = getattr(origin, "sqlite_errorname", "")
        remedy = next(
            (text for code, text in _REMEDIES.items() if name.startswith(code)),
            f"failed ({type(error).__name__}). The log says why",
        )
    logger.error("the store %s: %s", path, error)
    return ApiError(ErrorCode.STORE_FAILED, f"The store {path} {remedy}.")


def _now_ms() -> int:
    return int(time.time() * 1000)
