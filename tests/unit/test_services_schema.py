"""Stores of earlier versions come up to date, in SQLite."""

import asyncio
import sqlite3
import subprocess
import sys

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from peerchat.api import ApiError
from peerchat.services import schema
from peerchat.services.accounts import Accounts, Source
from peerchat.services.database import parse_url, place_of
from peerchat.services.messages import Credentials
from peerchat.services.schema import FIRST_REVISION, MIGRATIONS, SCHEMA_VERSION
from peerchat.services.store import open_store
from peerchat.services.tables import metadata
from peerchat.testing.passwords import fast_hasher

# What peerchat 0.1 made, by sqlite3's .schema, with rows in it.
FIRST_SCHEMA = """
CREATE TABLE about (
    "key" VARCHAR(64) NOT NULL, value VARCHAR(256) NOT NULL, PRIMARY KEY ("key"));
CREATE TABLE accounts (
    email VARCHAR(254) NOT NULL, password_hash VARCHAR(128) NOT NULL,
    role VARCHAR(32) NOT NULL, created_ms BIGINT NOT NULL, PRIMARY KEY (email));
CREATE TABLE accepted_prompts (
    id INTEGER NOT NULL, user VARCHAR(254) NOT NULL, at_ms BIGINT NOT NULL,
    PRIMARY KEY (id));
CREATE INDEX accepted_by_time ON accepted_prompts (at_ms);
CREATE INDEX accepted_by_user ON accepted_prompts (user, at_ms);
CREATE TABLE secrets (
    name VARCHAR(64) NOT NULL, value VARCHAR(256) NOT NULL, created_ms BIGINT NOT NULL,
    PRIMARY KEY (name));
INSERT INTO about VALUES ('schema_version', '1');
INSERT INTO accepted_prompts VALUES (7, 'ann@example.org', 5);
"""
ANN = Credentials("ann@example.org", "correct horse")
SECRET = "ab" * 32


@pytest.fixture
def first_store(tmp_path):
    path = tmp_path / "peerchat.db"
    hasher = fast_hasher()
    hashed = hasher._hash(ANN.password)
    hasher.close()
    connection = sqlite3.connect(path)
    connection.executescript(FIRST_SCHEMA)
    row = (ANN.email, hashed, "user", 3)
    connection.execute("INSERT INTO accounts VALUES (?, ?, ?, ?)", row)
    connection.execute("INSERT INTO secrets VALUES ('jwt_secret', ?, 4)", [SECRET])
    connection.commit()
    connection.close()
    path.chmod(0o600)
    return path


def rows(path, query):
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


async def test_a_store_of_the_first_version_loses_nothing(first_store):
    store = await open_store(first_store)
    assert (await store.secret("jwt_secret")).hex() == SECRET
    hasher = fast_hasher()
    record = await Accounts(store, hasher).login(ANN, Source("p"))
    hasher.close()
    await store.close()
    assert (record.role, record.status, record.epoch) == ("user", "active", 0)
    assert (record.max_requests, record.created_ms) == (None, 3)
    assert rows(first_store, "SELECT * FROM accepted_prompts") == [
        (7, "ann@example.org", 5, "", 1)
    ]
    assert rows(first_store, "SELECT value FROM about") == [(str(SCHEMA_VERSION),)]


@pytest.mark.parametrize("is_old", [True, False])
async def test_the_schema_is_what_the_tables_say(first_store, tmp_path, is_old):
    store = await open_store(first_store if is_old else tmp_path / "new.db")

    def difference(connection):
        return compare_metadata(MigrationContext.configure(connection), metadata)

    assert await store.run(lambda c: c.run_sync(difference)) == []
    await store.close()


async def test_a_new_store_is_what_the_migrations_make(tmp_path, monkeypatch):
    async def shape(path):
        await (await open_store(path)).close()
        query = "SELECT type, name FROM sqlite_master ORDER BY 1, 2"
        names = rows(path, query)
        about_each = (
            [kind, name, sorted(rows(path, f"PRAGMA {what}('{name}')"), key=str)]
            for kind, name in names
            for what in ("table_info", "index_info")
        )
        kept = "about", "alembic_version"
        return list(about_each), [rows(path, f"SELECT * FROM {one}") for one in kept]

    made = await shape(tmp_path / "made.db")
    monkeypatch.setattr(schema, "_make", schema._migrate)
    assert made == await shape(tmp_path / "migrated.db")


def test_each_version_of_the_schema_has_its_migration():
    scripts = ScriptDirectory(str(MIGRATIONS))
    found = [script.revision for script in scripts.walk_revisions()]
    assert found[-1] == FIRST_REVISION
    assert len(found) == SCHEMA_VERSION
    assert found[0] == f"v{SCHEMA_VERSION:04}"


async def test_a_failed_upgrade_leaves_the_store_as_it_was(first_store):
    connection = sqlite3.connect(first_store)
    connection.execute("CREATE TABLE swarm_grants (x)")
    connection.commit()
    connection.close()
    before = rows(first_store, "SELECT name, sql FROM sqlite_master ORDER BY 1")
    with pytest.raises(ApiError):
        await open_store(first_store)
    assert before == rows(first_store, "SELECT name, sql FROM sqlite_master ORDER BY 1")


def test_processes_that_start_at_once_upgrade_once(first_store):
    code = (
        "import asyncio, sys; from pathlib import Path;"
        "from peerchat.services.store import open_store;"
        "asyncio.run(open_store(Path(sys.argv[1])))"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(first_store)])
        for _ in range(4)
    ]
    assert [process.wait(60) for process in running] == [0] * 4
    assert rows(first_store, "SELECT value FROM about") == [(str(SCHEMA_VERSION),)]


def test_a_new_or_up_to_date_store_does_without_alembic(first_store, tmp_path):
    code = (
        "import asyncio, sys; from pathlib import Path;"
        "from peerchat.services.store import open_store;"
        "store = asyncio.run(open_store(Path(sys.argv[1])));"
        "sys.exit('alembic' in sys.modules)"
    )
    new = [sys.executable, "-c", code, str(tmp_path / "new.db")]
    assert subprocess.run(new, check=False, timeout=60).returncode == 0
    command = [sys.executable, "-c", code, str(first_store)]
    assert subprocess.run(command, check=False, timeout=60).returncode == 1
    assert subprocess.run(command, check=False, timeout=60).returncode == 0


# URLs


@pytest.mark.parametrize(
    ("url", "place"),
    [
        (
            "postgresql+asyncpg://ann:hunter2@db.example.org:5433/chat",
            "postgresql://ann@db.example.org:5433/chat",
        ),
        (
            "postgresql://ann:hunter2@db/chat?sslmode=require",
            "postgresql://ann@db/chat",
        ),
        (
            "postgresql+asyncpg:///chat?host=/run/postgresql&password=hunter2",
            "postgresql:///run/postgresql/chat",
        ),
    ],
)
def test_a_url_is_named_without_its_password(url, place):
    parsed = parse_url(url)
    assert parsed.drivername == "postgresql+asyncpg"
    assert "sslmode" not in parsed.query
    assert place_of(parsed) == place


@pytest.mark.parametrize(
    "url", ["", "hunter2", "mysql://ann:hunter2@db/x", "postgresql://ann:hunter2@db"]
)
def test_what_is_no_url_of_postgresql(url):
    with pytest.raises(ApiError, match="postgresql") as caught:
        parse_url(url)
    assert "hunter2" not in caught.value.message


def test_without_the_driver(monkeypatch):
    monkeypatch.setattr("peerchat.services.database.find_spec", lambda name: None)
    with pytest.raises(ApiError, match=r"pip install 'peerchat\[postgres\]'"):
        parse_url("postgresql://ann:hunter2@db/chat")


async def test_one_process_makes_several_stores_at_once(tmp_path):
    """In one loop and in several: the node's thread has a store, and so has the app."""

    async def make(name):
        store = await open_store(tmp_path / f"{name}.db")
        await store.close()

    threads = [asyncio.to_thread(asyncio.run, make(f"thread {n}")) for n in range(3)]
    await asyncio.gather(make("a"), make("b"), *threads)
