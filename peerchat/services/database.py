"""Which database is under the store: SQLite of this home, or PostgreSQL by URL.

Makes SQLAlchemy's engines and knows how each keeps transactions apart. SQLite has one
writer, and every transaction is one. PostgreSQL has many, so what must not happen twice
at once takes an advisory lock: `exclusive`.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sqlalchemy import URL, event, make_url, text
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from peerchat.api import ApiError, ErrorCode

BUSY_TIMEOUT_S = 5.0
"""How long to wait for another process's transaction; ours take milliseconds."""

WAITING_TIMEOUT_S = 15.0
"""How long to wait for the transactions of this process."""

CONNECT_TIMEOUT_S = 10.0
COMMAND_TIMEOUT_S = 20.0
"""A statement that takes longer never comes back: ours touch a few rows."""

CONNECTIONS = 5
CONNECTIONS_MORE = 5
"""Of one process at a busy moment; PostgreSQL allows a hundred for everybody."""

DRIVER = "postgresql+asyncpg"
WANTED = f"It must look like {DRIVER}://user:password@host/database"

# Never the URL itself: it holds a password.
_HIDDEN: Mapping[str, Any] = {"hide_parameters": True}


def sqlite_engine(path: Path) -> AsyncEngine:
    """An engine whose transactions are one after the other, in all processes."""
    engine = create_async_engine(
        URL.create("sqlite+aiosqlite", database=str(path)),
        # Every transaction writes or may write, and SQLite has one writer.
        pool_size=1,
        max_overflow=0,
        pool_timeout=WAITING_TIMEOUT_S,
        connect_args={"timeout": BUSY_TIMEOUT_S},
        **_HIDDEN,
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


def postgres_engine(url: URL) -> AsyncEngine:
    """An engine whose connections are looked at before use, as servers restart."""
    return create_async_engine(
        url,
        pool_size=CONNECTIONS,
        max_overflow=CONNECTIONS_MORE,
        pool_timeout=WAITING_TIMEOUT_S,
        pool_pre_ping=True,
        connect_args={
            "timeout": CONNECT_TIMEOUT_S,
            "command_timeout": COMMAND_TIMEOUT_S,
            "server_settings": {"application_name": "peerchat"},
        },
        **_HIDDEN,
    )


def parse_url(url: str) -> URL:
    """The URL of a PostgreSQL database.

    Raises:
        ApiError: STORE_FAILED; it is none, or the driver is not installed.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise _refused(f"The database URL cannot be read. {WANTED}.") from None
    if parsed.drivername not in (DRIVER, "postgresql", "postgres"):
        raise _refused(
            f"The store cannot use {parsed.drivername.split('+')[0]}. {WANTED}."
        )
    if not parsed.database:
        raise _refused(f"The database URL names no database. {WANTED}.")
    if find_spec("asyncpg") is None:
        raise _refused(
            "PostgreSQL needs a driver that is not installed: "
            "pip install 'peerchat[postgres]'."
        )
    # libpq's name for what asyncpg calls ssl.
    query = {"ssl" if k == "sslmode" else k: v for k, v in parsed.query.items()}
    return parsed.set(drivername=DRIVER, query=query)


def place_of(url: URL) -> str:
    """The database in words that hold no secret."""
    user = f"{url.username}@" if url.username else ""
    host = url.host or str(url.query.get("host", "")) or "localhost"
    port = f":{url.port}" if url.port else ""
    return f"postgresql://{user}{host}{port}/{url.database}"


async def exclusive(connection: AsyncConnection, name: str) -> None:
    """Wait until no other transaction, in any process, holds the name; then hold it
    until this one ends. SQLite's transactions exclude each other anyway."""
    if connection.dialect.name == "sqlite":
        return
    digest = hashlib.blake2b(b"peerchat " + name.encode(), digest_size=8).digest()
    number = int.from_bytes(digest, "big", signed=True)
    query = text("SELECT pg_advisory_xact_lock(:number)")
    await connection.execute(query, {"number": number})


async def database_ms(connection: AsyncConnection) -> int:
    """Unix time for what several processes compare: the server's own, if it has one."""
    if connection.dialect.name == "sqlite":
        return int(time.time() * 1000)
    query = text("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")
    return int((await connection.execute(query)).scalar_one())


def _refused(message: str) -> ApiError:
    return ApiError(ErrorCode.STORE_FAILED, message, status=400)
