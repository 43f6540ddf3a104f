"""A private swarm whose two machines share accounts and limits in PostgreSQL."""

import json
import time
from pathlib import Path

import pytest

from tests.e2e.test_private_swarm import PASSWORD, Home
from tests.processes import dht, run, spawn

__all__ = ["dht", "run", "spawn"]

# Some twenty commands, each a process that joins the swarm.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

LIMIT = 4
NEW = "another horse battery"


@pytest.fixture
def home(spawn, run, tmp_path: Path):
    return lambda name: Home(tmp_path / name, spawn, run)


def until(work, what: str, timeout_s: float = 120) -> None:
    """Wait until it is so: another gateway hears of it with its next refresh."""
    deadline_s = time.monotonic() + timeout_s
    while not work():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.3)


def test_two_gateways_share_accounts_limits_and_sessions(home, dht: str, url: str):
    owner, second, member = home("owner"), home("second"), home("member")
    for one in (owner, second):
        configure(one, url)
    owner.fields("create", "Team", "--bootstrap", dht)
    first_serve = owner.serve("all")
    second.join(owner.invite("--role", "auth", "--role", "gateway"))
    second_serve = second.serve("auth", "gateway")
    member.join(owner.invite())

    member.log_in("admin@example.org")
    listed = member.command("user", "list", "--json").stdout
    assert [json.loads(line)["role"] for line in listed.splitlines()] == ["admin"]

    # Each home's own commands go by its own gateway first.
    for one in (owner, second):
        one.command("login", "admin@example.org", PEERCHAT_PASSWORD=PASSWORD)
    for n in range(LIMIT):
        (owner, second)[n % 2].command("ask", "hello")
    for one in (owner, second, member):
        refused = one.command("ask", "hello", code=1)
        assert "Rate limit exceeded" in refused.stderr

    owner.command(
        "password",
        PEERCHAT_PASSWORD=PASSWORD,
        PEERCHAT_NEW_PASSWORD=NEW,
    )
    assert owner.command("whoami").stdout
    for one in (second, member):
        until(
            lambda one=one: "session has ended" in whoami(one),
            "a session outlived the password",
        )
    for running in (first_serve, second_serve):
        assert running.finish() == 0
        told = "".join(running.errors)
        assert PASSWORD not in told
        assert url.split(":")[2].split("@")[0] not in told
        assert "Traceback" not in told


def configure(one: Home, url: str) -> None:
    one.folder.mkdir(mode=0o700)
    path = one.folder / "config.toml"
    path.touch(0o600)
    path.write_text(
        f'database_url = "{url}"\nmax_requests = {LIMIT}\nwindow_minutes = 30\n'
    )


def whoami(one: Home) -> str:
    done = one._run("whoami", "--home", str(one.folder))
    return done.stderr
