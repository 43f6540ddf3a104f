"""`peerchat key` and a program that uses what it gives."""

from __future__ import annotations

import json
import time
from pathlib import Path

import openai
import pytest

pytestmark = pytest.mark.e2e

TURNS = [{"role": "user", "content": "What is a gateway?"}]
PASSWORD = "correct horse battery"


def test_a_key_from_the_command_line(spawn, run, tmp_path: Path):
    home = ("--home", str(tmp_path / "home"))
    serving = spawn(
        "serve", "--role", "all", "--json", *home, "--engine", "guide",
        "--http-port", "0", "--metrics-port", "0", PEERCHAT_SWARM_REFRESH_S="1",
    )  # fmt: skip
    url = serving.event("ready")["http"]

    def peerchat(*args: str) -> list[dict]:
        done = run(*args, *home, "--json", PEERCHAT_PASSWORD=PASSWORD)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    peerchat("register", "ann@example.org")
    peerchat("login", "ann@example.org")
    assert peerchat("key", "list") == []
    (made,) = peerchat("key", "create", "my laptop")
    (listed,) = peerchat("key", "list")
    assert (listed["id"], listed["name"]) == (made["id"], "my laptop")
    assert "key" not in listed

    options = {"base_url": f"{url}/v1", "api_key": made["key"], "max_retries": 0}
    with openai.OpenAI(**options) as client:

        def ask() -> str:
            done = client.chat.completions.create(model="guide", messages=TURNS)
            return done.choices[0].message.content

        assert "gateway" in ask()
        peerchat("key", "revoke", made["id"])
        time.sleep(1.5)  # more than one refresh
        with pytest.raises(openai.AuthenticationError):
            ask()
    assert made["key"] not in "".join(serving.errors)
    done = run("key", "revoke", made["id"], *home)
    assert done.returncode == 1
    assert "no such key" in done.stderr
