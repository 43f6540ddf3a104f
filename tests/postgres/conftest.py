"""A PostgreSQL server of our own: Debian's programs, a free port, a folder that goes.

The server refuses to run as root, so root starts it as ``postgres`` or ``nobody``.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from peerchat.services.store import open_store

ROOTS = Path("/usr/lib/postgresql")
START_TIMEOUT_S = 60
USER = "peerchat"


def programs() -> Path | None:
    """Where ``initdb`` and ``pg_ctl`` are, the newest version first."""
    found = sorted(ROOTS.glob("*/bin/initdb"), key=lambda p: p.parts[-3], reverse=True)
    if found:
        return found[0].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    ours = [item for item in items if here in item.path.parents]
    for item in ours:
        item.add_marker(pytest.mark.postgres)
    if programs() is not None:
        return
    why = "PostgreSQL's server programs are not installed (Debian: postgresql)"
    if os.environ.get("PEERCHAT_TEST_ALL") == "1" and ours:
        raise pytest.UsageError(f"postgres tests were asked for, but {why}")
    for item in ours:
        item.add_marker(pytest.mark.skip(reason=why))


@dataclass
class Server:
    """A running server; its databases go with it."""

    folder: Path
    bin: Path
    port: int
    runs_as: str
    password: str = field(default_factory=secrets.token_hex)

    def url(self, database: str, **parts: str) -> str:
        user, password = parts.get("user", USER), parts.get("password", self.password)
        where = f"127.0.0.1:{self.port}/{database}"
        return f"postgresql+asyncpg://{user}:{password}@{where}"

    def create(self) -> str:
        """A new database; gives its name."""
        name = f"t{secrets.token_hex(6)}"
        self.sql(f"CREATE DATABASE {name}", "postgres")
        return name

    def sql(self, statement: str, database: str) -> str:
        socket_url = f"host={self.folder} port={self.port} user={USER}"
        arguments = ["-X", "-q", "-t", "-A", "-c", statement]
        target = f"{socket_url} dbname={database}"
        return self.run("psql", *arguments, target, env={"PGPASSWORD": self.password})

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1"
        log = str(self.folder / "log")
        self.control(
            "start", "-w", "-t", str(START_TIMEOUT_S), "-l", log, "-o", options
        )

    def stop(self, mode: str = "immediate") -> None:
        self.control("stop", "-m", mode, "-w")

    def control(self, *arguments: str) -> None:
        self.run("pg_ctl", "-D", str(self.folder / "data"), *arguments)

    def initialise(self) -> None:
        secret = self.folder / "password"
        secret.write_text(self.password)
        if os.getuid() == 0:
            shutil.chown(secret, self.runs_as)
        self.run(
            "initdb", "-D", str(self.folder / "data"), "-U", USER, "-A",
            "scram-sha-256", f"--pwfile={secret}", "-E", "UTF8", "--no-sync",
        )  # fmt: skip
        with (self.folder / "data" / "postgresql.conf").open("a") as file:
            file.write("fsync = off\nmax_connections = 60\n")

    def run(self, program: str, *arguments: str, env: dict[str, str] | None = None):
        command = [str(self.bin / program), *arguments]
        if os.getuid() == 0:
            command = ["runuser", "-u", self.runs_as, "--", *command]
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
            env={**os.environ, "LC_ALL": "C", **(env or {})},
            timeout=2 * START_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}"
        return done.stdout


def _unprivileged() -> str:
    if os.getuid() != 0:
        return pwd.getpwuid(os.getuid()).pw_name
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    found = programs()
    assert found is not None
    # Not pytest's own folder: its parents are closed to other users, and a socket's
    # path may have 107 bytes only.
    with tempfile.TemporaryDirectory(prefix="peerchat-pg-") as name:
        folder = Path(name)
        runs_as = _unprivileged()
        if os.getuid() == 0:
            shutil.chown(folder, runs_as)
        server = Server(folder, found, _free_port(), runs_as)
        server.initialise()
        server.start()
        yield server
        server.stop()


@pytest.fixture
def database(server: Server) -> str:
    """An empty database of the server; gives its name."""
    return server.create()


@pytest.fixture
def url(server: Server, database: str) -> str:
    return server.url(database)


@pytest.fixture
async def opened(url: str, tmp_path: Path):
    """Opens stores on the database; each is a process of its own, as it were."""
    stores = []

    async def make():
        stores.append(await open_store(tmp_path / "unused.db", url))
        return stores[-1]

    yield make
    for store in stores:
        await store.close()
