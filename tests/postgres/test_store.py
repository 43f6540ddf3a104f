"""The store on a real PostgreSQL: made once, equal to its description, clean errors."""

import asyncio
import logging
import subprocess
import sys

import pytest
from sqlalchemy import inspect

from peerchat.api import ApiError, ErrorCode
from peerchat.services.limits import Limiter
from peerchat.services.schema import SCHEMA_VERSION
from peerchat.services.store import open_store
from peerchat.services.tables import metadata

OPEN = """
import asyncio, sys
from pathlib import Path
from peerchat.services.store import open_store
async def main():
    store = await open_store(Path("unused.db"), sys.argv[1])
    print((await store.secret("one")).hex())
    await store.close()
asyncio.run(main())
"""


def tables(connection):
    look = inspect(connection)
    return {
        name: {column["name"]: column["nullable"] for column in look.get_columns(name)}
        for name in look.get_table_names()
        if name != "alembic_version"
    }


async def test_the_schema_is_what_the_tables_say(opened):
    store = await opened()
    found = await store.run(lambda c: c.run_sync(tables))
    assert found == {
        table.name: {column.name: bool(column.nullable) for column in table.columns}
        for table in metadata.sorted_tables
    }


async def test_alembic_sees_nothing_left_to_change(opened):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    def difference(connection):
        return compare_metadata(MigrationContext.configure(connection), metadata)

    store = await opened()
    assert await store.run(lambda c: c.run_sync(difference)) == []


async def test_several_processes_at_a_first_start(url, server, database):
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", OPEN, url, stdout=subprocess.PIPE
        )
        for _ in range(4)
    ]
    said = [await process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert len({out for out, _ in said}) == 1
    version = server.sql("SELECT value FROM about", database).strip()
    assert version == str(SCHEMA_VERSION)


async def test_a_later_version_is_left_alone(opened, url, tmp_path):
    store = await opened()
    await store.run(lambda c: c.exec_driver_sql("UPDATE about SET value = '99'"))
    with pytest.raises(ApiError, match="later peerchat"):
        await open_store(tmp_path / "unused.db", url)


async def test_a_failed_upgrade_leaves_nothing_behind(
    opened, url, server, database, tmp_path
):
    # A table that is in the way of the second migration, after the first one's.
    server.sql("CREATE TABLE swarm_grants (x integer)", database)
    with pytest.raises(ApiError) as caught:
        await opened()
    assert caught.value.code is ErrorCode.STORE_FAILED
    listed = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
    assert server.sql(listed, database).strip() == "1"
    server.sql("DROP TABLE swarm_grants", database)
    assert await (await opened()).secret("one")


async def refusal(url, tmp_path, caplog):
    """What is said of a store that cannot be opened; never its password."""
    caplog.clear()
    with caplog.at_level(logging.DEBUG), pytest.raises(ApiError) as caught:
        await open_store(tmp_path / "unused.db", url)
    error = caught.value
    assert error.code is ErrorCode.STORE_FAILED
    assert "\n" not in error.message
    password = url.split("://")[1].split("@")[0].split(":")[-1]
    assert password not in error.message
    assert password not in caplog.text
    return error.message


async def test_a_wrong_password(server, database, tmp_path, caplog):
    url = server.url(database, password="hunter2-very-secret")
    message = await refusal(url, tmp_path, caplog)
    assert "refuses the user or the password" in message
    assert f"peerchat@127.0.0.1:{server.port}/{database}" in message


async def test_a_database_that_does_not_exist(server, tmp_path, caplog):
    message = await refusal(server.url("nosuch"), tmp_path, caplog)
    assert "Create it with createdb" in message


async def test_no_server(server, tmp_path, caplog):
    url = "postgresql+asyncpg://ann:secretpassword@127.0.0.1:1/x"
    assert "Check that PostgreSQL runs" in await refusal(url, tmp_path, caplog)


async def test_a_user_who_may_not_make_tables(server, database, tmp_path, caplog):
    server.sql("CREATE USER guest PASSWORD 'guestpassword'", database)
    server.sql("REVOKE CREATE ON SCHEMA public FROM PUBLIC", database)
    url = server.url(database, user="guest", password="guestpassword")
    assert "grant CREATE" in await refusal(url, tmp_path, caplog)


async def test_a_read_only_server(opened, server, database):
    await opened()
    alter = f"ALTER DATABASE {database} SET default_transaction_read_only = "
    server.sql(alter + "on", "postgres")
    limiter = Limiter(await opened(), 5)
    with pytest.raises(ApiError, match="is read-only"):
        await limiter.admit("ann")


async def test_rows_too_long_tell_nothing_of_values(opened, caplog):
    store = await opened()
    with pytest.raises(ApiError) as caught:
        await Limiter(store).admit("x-private-" * 100)
    assert caught.value.code is ErrorCode.STORE_FAILED
    assert "x-private-" not in caplog.text


async def test_a_restart_in_mid_flight_gives_clean_errors_and_recovers(opened, server):
    store = await opened()
    limiter = Limiter(store, 1_000_000)
    errors: list[ApiError] = []
    has_failed = asyncio.Event()
    is_over = False

    async def work():
        while not is_over:
            try:
                await limiter.admit("ann")
            except ApiError as error:
                errors.append(error)
                has_failed.set()
                await asyncio.sleep(0.05)

    workers = [asyncio.create_task(work()) for _ in range(4)]
    await asyncio.sleep(0.3)
    await asyncio.to_thread(server.stop)
    await has_failed.wait()
    await asyncio.to_thread(server.start)
    is_over = True
    await asyncio.gather(*workers)
    assert {error.code for error in errors} == {ErrorCode.STORE_FAILED}
    assert all("\n" not in error.message for error in errors)
    for word in ("Traceback", "asyncpg", "sqlalchemy", server.password):
        assert not any(word in error.message for error in errors)
    before = (await limiter.status("ann")).remaining
    assert (await limiter.admit("ann")).rate_limit.remaining == before - 1


def test_sqlite_is_not_touched(tmp_path, url):
    path = tmp_path / "unused.db"

    async def main():
        await (await open_store(path, url)).close()

    asyncio.run(main())
    assert not path.exists()
