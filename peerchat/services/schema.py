"""Brings a store to the schema that this peerchat knows, in one transaction.

The steps are alembic's, in `migrations/versions`; a new SQLite store is made at once as
the tables say, which a test holds equal. Several processes may start at once:
the first one works and the others wait, by SQLite's write lock or an advisory lock. A
store that is new or up to date loads nothing of alembic.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import (
    Column,
    Connection,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    inspect,
    select,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from peerchat.api import ApiError, ErrorCode

from .database import exclusive
from .tables import about, metadata

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 4
"""Of the newest migration; each one writes its own into ``about``."""

FIRST_REVISION = "v0001"
"""What stores of peerchat 0.1 have; they were made without alembic."""

MIGRATIONS = Path(__file__).parent / "migrations"

UPGRADE_POLL_S = 0.01
_upgrading = threading.Lock()


async def bring_up_to_date(connection: AsyncConnection) -> None:
    """Make what is missing; needs a transaction.

    Raises:
        ApiError: STORE_FAILED; a later peerchat wrote it.
    """
    await exclusive(connection, "schema")
    version = await connection.run_sync(_version)
    if version > SCHEMA_VERSION:
        raise ApiError(
            ErrorCode.STORE_FAILED,
            f"The store was written by a later peerchat (schema {version}). "
            "Upgrade peerchat, or use another home with --home.",
        )
    if version < SCHEMA_VERSION:
        async with _alone():
            await connection.run_sync(_upgrade, version)
        if version:
            logger.info("upgraded the store from schema %d", version)


@asynccontextmanager
async def _alone() -> AsyncIterator[None]:
    """One upgrade of this process at a time: Alembic keeps its context in a module."""
    while not _upgrading.acquire(blocking=False):  # noqa: ASYNC110, across threads
        await asyncio.sleep(UPGRADE_POLL_S)
    try:
        yield
    finally:
        _upgrading.release()


def _version(connection: Connection) -> int:
    """0: nothing is there yet."""
    if not inspect(connection).has_table(about.name):
        return 0
    query = select(about.c.value).where(about.c.key == "schema_version")
    return int(connection.scalar(query) or 0)


def _make(connection: Connection) -> None:
    """Everything in an empty SQLite file: alembic takes a third of a second for it."""
    metadata.create_all(connection, checkfirst=False)
    newest = {"key": "schema_version", "value": str(SCHEMA_VERSION)}
    connection.execute(about.insert(), newest)
    # As alembic itself makes it, so that the next version's steps go on from here.
    stamp = Table(
        "alembic_version",
        MetaData(),
        Column("version_num", String(32), nullable=False),
        PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
    )
    stamp.create(connection)
    connection.execute(stamp.insert(), {"version_num": f"v{SCHEMA_VERSION:04}"})


def _upgrade(connection: Connection, version: int) -> None:
    is_sqlite = connection.dialect.name == "sqlite"
    if is_sqlite and not inspect(connection).get_table_names():
        _make(connection)
    else:
        _migrate(connection, version)


def _migrate(connection: Connection, version: int = 0) -> None:
    from alembic import command
    from alembic.config import Config

    # It tells of every step, which is of interest only to who writes one.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    if version and not inspect(connection).has_table("alembic_version"):
        command.stamp(config, FIRST_REVISION)
    command.upgrade(config, "head")
