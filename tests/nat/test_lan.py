"""Two machines on one LAN meet through a bootstrap node on one of them."""

import json
from pathlib import Path

import pytest

pytestmark = [pytest.mark.nat, pytest.mark.timeout(180)]

PASSWORD = "correct horse battery"
SECRET = "a secret that both gateways and auth peers know"


def start_dht(spawn, host, home: Path) -> str:
    running = spawn(
        "dht", "--port", "0", "--bootstrap", "none", "--home", str(home),
        program=host.command,
    )  # fmt: skip
    port = running.line("listening: ").rpartition(":")[2]
    return f"{host.address}:{port}"


def serve(spawn, host, home: Path, dht: str, *roles: str):
    args = [part for role in roles for part in ("--role", role)]
    running = spawn(
        "serve", *args, "--open", "--bootstrap", dht, "--json", "--home", str(home),
        "--engine", "guide", "--http-port", "0", "--metrics-port", "0",
        program=host.command, JWT_SECRET=SECRET,
    )  # fmt: skip
    return running.event("ready")


def test_a_laptop_asks_the_box_next_to_it(lan, spawn, run, tmp_path: Path):
    box, laptop = lan
    dht = start_dht(spawn, box, tmp_path / "dht")
    ready = serve(spawn, box, tmp_path / "box", dht, "all")
    where = ("--open", "--bootstrap", dht, "--home", str(tmp_path / "laptop"))
    for command in ("register", "login"):
        done = run(
            command, "ann@example.org", *where,
            program=laptop.command, PEERCHAT_PASSWORD=PASSWORD,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    asked = run("ask", "hello", "--json", *where, program=laptop.command)
    assert asked.returncode == 0, asked.stderr
    end = json.loads(asked.stdout.splitlines()[-1])
    assert end["usage"]["peer"] == ready["roles"]["processor"]["key"]
    # The box's own home uses its running serve, and ends it.
    here = ("--home", str(tmp_path / "box"))
    assert "answers" in run("status", *here, program=box.command).stdout
    stopped = run("stop", *here, program=box.command)
    assert stopped.returncode == 0, stopped.stderr


def test_roles_on_both_machines_work_together(lan, spawn, run, tmp_path: Path):
    box, laptop = lan
    dht = start_dht(spawn, laptop, tmp_path / "dht")
    serve(spawn, box, tmp_path / "box", dht, "processor")
    serve(spawn, laptop, tmp_path / "desk", dht, "auth", "gateway")
    where = ("--open", "--bootstrap", dht, "--home", str(tmp_path / "third"))
    for command in ("register", "login"):
        done = run(
            command, "bob@example.org", *where,
            program=box.command, PEERCHAT_PASSWORD=PASSWORD,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    asked = run("ask", "hello", *where, program=box.command)
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.strip()
