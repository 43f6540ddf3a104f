"""A private swarm by the installed command: homes that meet over a bootstrap node."""

import json
import shutil
import signal
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

PASSWORD = "correct horse battery"
PASSPHRASE = "a long sentence that nobody guesses"
REFRESH_S = 1


class Home:
    """One home and the commands that run in it."""

    def __init__(self, folder: Path, spawn, run) -> None:
        self.folder = folder
        self._spawn = spawn
        self._run = run

    def command(self, *args: str, code: int = 0, **extra: object):
        extra = {"PEERCHAT_SWARM_REFRESH_S": REFRESH_S, **extra}
        done = self._run(*args, "--home", str(self.folder), **extra)
        assert done.returncode == code, f"{args}: {done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    def swarm(self, *args: str, code: int = 0, **extra: object):
        return self.command("swarm", *args, code=code, **extra)

    def fields(self, *args: str, **extra: object) -> dict:
        return json.loads(self.swarm(*args, "--json", **extra).stdout)

    def invite(self, *args: str) -> str:
        line = self.swarm("invite", *args).stdout
        assert line.startswith("peerchat:")
        assert line.count("\n") == 1
        return line

    def join(self, line: str):
        return self.swarm("join", "-", stdin=line)

    def serve(self, *roles: str, **extra: object):
        args = [part for role in roles for part in ("--role", role)]
        running = self._spawn(
            "serve", *args, "--json", "--home", str(self.folder), "--http-port", "0",
            "--metrics-port", "0",
            **{
                "PEERCHAT_ENGINE": "guide",
                "PEERCHAT_SWARM_REFRESH_S": REFRESH_S,
                "PEERCHAT_BCRYPT_COST": 10,
                **extra,
            },
        )  # fmt: skip
        self.metrics_url = running.event("ready")["metrics"][0]
        return running

    def metrics(self) -> str:
        with urllib.request.urlopen(self.metrics_url, timeout=10) as answer:
            return answer.read().decode()

    def refused(self, *args: str):
        """A command of who was revoked, once that is known: within one refresh."""
        deadline_s = time.monotonic() + 10 * REFRESH_S
        while time.monotonic() < deadline_s:
            done = self._run(*args, "--home", str(self.folder))
            if done.returncode:
                return done
        raise AssertionError(f"{args} was not refused: {done.stdout}")

    def log_in(self, email: str) -> None:
        for command in ("register", "login"):
            self.command(command, email, PEERCHAT_PASSWORD=PASSWORD)


def together(*calls: Callable[[], Any]) -> list[Any]:
    """Different homes at the same time: a command is mostly the start of Python."""
    with ThreadPoolExecutor(len(calls)) as threads:
        return [one.result() for one in [threads.submit(call) for call in calls]]


@pytest.fixture
def home(spawn, run, tmp_path: Path):
    return lambda name: Home(tmp_path / name, spawn, run)


def test_from_invitation_to_revocation(home, dht: str):
    owner, member, other = home("owner"), home("member"), home("other")
    created = owner.fields(
        "create", "Team", "--bootstrap", dht, PEERCHAT_PASSPHRASE=PASSPHRASE
    )
    assert created["swarm"] == "team"
    assert created["is_owner"]
    serving = owner.serve("all")

    def come_in(joiner: Home, label: str) -> None:
        joined = joiner.join(owner.invite("--name", label))
        assert "joined team" in joined.stdout
        joiner.log_in(f"{label}@example.org")
        assert joiner.command("ask", "What is a gateway?").stdout.strip()

    together(lambda: come_in(member, "laptop"), lambda: come_in(other, "desk"))

    refused, listed = together(
        lambda: member.command("serve", "--role", "gateway", code=1),
        lambda: owner.swarm("peers", "--json"),
    )
    assert "not certified as gateway" in refused.stderr.splitlines()[-1]
    peers = listed.stdout.splitlines()
    key = next(one["key"] for one in map(json.loads, peers) if one["name"] == "laptop")
    locked = owner.swarm("revoke", key[:12], code=1)
    assert "PEERCHAT_PASSPHRASE" in locked.stderr
    owner.swarm("revoke", key[:12], PEERCHAT_PASSPHRASE=PASSPHRASE)
    gone, answered = together(
        lambda: member.refused("ask", "still there?"),
        lambda: other.command("ask", "hello"),
    )
    assert "This home was removed from the swarm team." in gone.stderr
    assert answered.stdout.strip()

    rotated = owner.fields("rotate", PEERCHAT_PASSPHRASE=PASSPHRASE)
    assert rotated["generation"] == 1
    assert other.command("ask", "hello").stdout.strip()  # the first try
    shown = together(lambda: other.fields("show"), lambda: member.fields("show"))
    assert [one["generation"] for one in shown] == [1, 0]
    assert serving.finish(signal.SIGTERM) == 0
    told = "".join(serving.errors)
    for secret in (PASSPHRASE, PASSWORD, owner.fields("show", "--worker")["topic_key"]):
        assert secret not in told


def test_an_invite_is_used_once_and_refusals_say_why(home, dht: str, tmp_path: Path):
    owner, first, late = home("owner"), home("first"), home("late")
    owner.swarm("create", "team", "--bootstrap", dht)
    line = owner.invite()
    alone = late.swarm("join", line.strip(), code=1)
    assert "must be running" in alone.stderr
    serving = owner.serve("auth", "gateway")
    file = tmp_path / "invite.txt"
    file.write_text(f"Hello!\n{line}")
    assert "begin with" in first.swarm("join", "--file", str(file), code=1).stderr
    file.write_text(line)
    first.swarm("join", "--file", str(file))
    assert "used already" in late.swarm("join", line.strip(), code=1).stderr
    withdrawn = owner.fields("invite", "--expires", "1h")
    owner.swarm("uninvite", withdrawn["id"][:8])
    assert "withdrawn" in late.swarm("join", withdrawn["invite"], code=1).stderr
    states = {
        json.loads(one)["state"]
        for one in owner.swarm("invites", "--json").stdout.splitlines()
    }
    assert states == {"used", "withdrawn"}
    assert late.swarm("list", "--json").stdout == ""
    counted = owner.metrics()
    for reason in ("invite_used", "invite_withdrawn"):
        assert f'reason="{reason}"' in counted
    told = "".join(serving.errors)
    assert line.strip() not in told


def test_a_member_serves_once_it_is_granted(home, dht: str):
    owner, gpu, asker = home("owner"), home("gpu"), home("asker")
    owner.swarm("create", "team", "--bootstrap", dht)
    owner.serve("auth", "gateway")

    def ask_in_vain() -> None:
        asker.join(owner.invite())
        asker.log_in("ann@example.org")
        assert "processor" in asker.command("ask", "hello", code=1).stderr

    def serve_in_vain() -> str:
        gpu.join(owner.invite("--name", "gpu"))
        gpu.command("serve", "--role", "processor", code=1)
        peers = owner.swarm("peers", "--json").stdout.splitlines()
        return next(
            one["key"] for one in map(json.loads, peers) if one["name"] == "gpu"
        )

    _, key = together(ask_in_vain, serve_in_vain)
    owner.swarm("grant", key[:8], "--role", "processor")
    gpu.serve("processor")
    shown, answered = together(
        lambda: gpu.fields("show"), lambda: asker.command("ask", "hello")
    )
    assert shown["roles"] == ["processor"]
    assert answered.stdout.strip()


def test_a_backup_outlives_the_machine(home, dht: str, tmp_path: Path):
    owner, member = home("owner"), home("member")
    owner.swarm("create", "team", "--bootstrap", dht, PEERCHAT_PASSPHRASE=PASSPHRASE)
    secret_file = tmp_path / "passphrase"
    secret_file.write_text(f"{PASSPHRASE}\n")
    serving = owner.serve("auth", "gateway", "processor")
    member.join(owner.invite())
    backup = tmp_path / "team.backup"
    owner.swarm("backup", str(backup), "--passphrase-file", str(secret_file))
    assert "already" in owner.swarm("backup", str(backup), code=1).stderr
    serving.finish(signal.SIGKILL)
    shutil.rmtree(owner.folder)

    again = home("new machine")
    wrong = again.swarm("restore", str(backup), code=1, PEERCHAT_PASSPHRASE="wrong")
    assert "passphrase" in wrong.stderr
    restored = again.fields("restore", str(backup), PEERCHAT_PASSPHRASE=PASSPHRASE)
    assert restored["is_owner"]
    again.serve("auth", "gateway", "processor")
    member.log_in("ann@example.org")
    assert member.command("ask", "hello").stdout.strip()
    assert member.fields("renew")["is_admin"] is False


def test_use_none_is_solo_and_leaving_needs_care(home, dht: str):
    owner = home("owner")
    assert "no swarm is in use" in owner.swarm("show", code=1).stderr
    owner.swarm("create", "team", "--bootstrap", dht)
    assert "backup" in owner.swarm("leave", "team", code=1).stderr
    owner.swarm("use", "none")
    assert owner.command("ask", "hello").stdout.strip()
    owner.swarm("use", "team")
    assert [owner.fields("list")["is_current"]] == [True]
    owner.swarm("leave", "team", "--yes")
    assert owner.swarm("list", "--json").stdout == ""
    assert "in no swarm named" in owner.swarm("use", "team", code=1).stderr
    owner.command("ask", "hello", "--swarm", "team", code=1)
