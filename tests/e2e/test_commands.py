"""What people see of commands: their lines, and the one line when they fail."""

import json
import signal
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e


def test_a_failure_is_one_line(run, tmp_path: Path):
    store = tmp_path / "home" / "data" / "peerchat.db"
    assert run("ask", "hello", "--home", str(tmp_path / "home")).returncode == 0
    store.write_bytes(b"no database" * 1000)
    done = run("ask", "hello", "--home", str(tmp_path / "home"))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert str(store) in line
    done = run("doctor", "--json", "--home", str(tmp_path / "home"))
    assert done.returncode == 1
    assert done.stderr == ""
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["check"] for one in found if one["ok"] is False] == ["store"]
    assert "sqlite" in (tmp_path / "home" / "logs" / "error.log").read_text()


def test_doctor_checks_what_the_contract_says(run, dht: str, tmp_path: Path):
    args = ["doctor", "--json", "--home", str(tmp_path / "home")]
    done = run(*args, "--open", "--bootstrap", dht)
    assert done.returncode == 0, done.stdout
    checks = {json.loads(line)["check"] for line in done.stdout.splitlines()}
    assert checks == {"engine", "http", "metrics", "store", "dht", "nat", "clock"}
    made = run("swarm", "create", "team", "--bootstrap", dht, *args[2:])
    assert made.returncode == 0, made.stderr
    done = run(*args)
    assert done.returncode == 0, done.stdout
    found = [json.loads(line)["check"] for line in done.stdout.splitlines()]
    assert set(found) == checks | {"member", "record", "modes", "peers"}


def test_a_wrong_token_does_not_take_the_place_of_a_good_one(run, tmp_path: Path):
    done = run("chat", "--home", str(tmp_path), stdin="/settoken abc\n/status\nhello\n")
    assert done.returncode == 0, done.stderr
    assert "Invalid token" in done.stderr
    assert "local@localhost" in done.stdout
    assert "guide" in done.stdout


def test_whoami_tells_the_limit(run, tmp_path: Path):
    done = run("whoami", "--json", "--home", str(tmp_path))
    fields = json.loads(done.stdout)
    assert fields["email"] == "local@localhost"
    assert fields["remaining"] == fields["max_requests"] == 10


@pytest.mark.parametrize("after_s", [0.08, 0.2, 1.5])
def test_ctrl_c_leaves_no_traceback(spawn, tmp_path: Path, after_s: float):
    chat = spawn("chat", "--home", str(tmp_path))
    time.sleep(after_s)
    code = chat.finish(signal.SIGINT)
    # Python itself takes its first hundredths of a second without us.
    assert code in (130, -signal.SIGINT)
    if code == 130:
        assert "Traceback" not in "".join(chat.errors)


def test_help_loads_little(run):
    code = "import sys, peerchat.cli; print(*sys.modules)"
    done = run("-c", code, program=[sys.executable])
    heavy = {"asyncio", "msgspec", "nacl", "sqlalchemy", "aiohttp", "textual", "rich"}
    assert heavy.isdisjoint(done.stdout.split())
