"""With nothing configured: one command, one answer; and one home is one node."""

import json
import signal
import stat
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e


def test_ask_needs_no_other_step(run, tmp_path: Path):
    done = run("ask", "What is peerchat?", "--home", str(tmp_path / "home"))
    assert done.returncode == 0, done.stderr
    assert "guide" in done.stdout.lower()
    assert "Traceback" not in done.stderr


def test_what_is_kept_is_private(run, tmp_path: Path):
    home = tmp_path / "home"
    assert run("ask", "hello", "--home", str(home)).returncode == 0
    files = [path for path in home.rglob("*") if path.is_file()]
    assert files
    for path in files:
        if "logs" not in path.parts:
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    for folder in (home, *(path for path in home.rglob("*") if path.is_dir())):
        assert stat.S_IMODE(folder.stat().st_mode) & 0o077 == 0, folder


def test_prompt_from_standard_input_and_json_lines(run, tmp_path: Path):
    done = run(
        "ask",
        "-",
        "--json",
        "--home",
        str(tmp_path / "home"),
        stdin="How do I stop it?",
    )
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    text = "".join(one["text"] for one in events if one["event"] == "fragment")
    assert text
    assert events[-1]["event"] == "done"
    assert events[-1]["usage"]["model"] == "guide"
    assert len(events[-1]["usage"]["peer"]) == 64


def test_empty_prompt_is_bad_usage(run, tmp_path: Path):
    done = run("ask", "-", "--home", str(tmp_path / "home"), stdin=" \n")
    assert done.returncode == 2
    assert done.stderr.startswith("peerchat: ")
    assert len(done.stderr.splitlines()) == 1


def test_over_long_prompt_is_refused_in_words(run, tmp_path: Path):
    prompt = "x" * (256 * 1024 + 1)
    done = run("ask", "-", "--home", str(tmp_path / "home"), stdin=prompt)
    assert done.returncode == 1
    assert "256" in done.stderr or "262144" in done.stderr or "262,144" in done.stderr


def test_a_running_serve_of_the_same_home_is_used(spawn, run, tmp_path: Path):
    home = str(tmp_path / "home")
    serving = spawn(
        "serve", "--role", "all", "--json", "--home", home, "--engine", "guide",
        "--http-port", "0", "--metrics-port", "0",
    )  # fmt: skip
    ready = serving.event("ready")
    done = run("ask", "hello", "--json", "--home", home)
    assert done.returncode == 0, done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["usage"]["peer"] == ready["roles"]["processor"]["key"]
    status = run("status", "--home", home)
    assert status.returncode == 0
    assert "gateway" in status.stdout
    assert run("stop", "--home", home).returncode == 0
    assert serving.finish(None) == 0
    after = run("status", "--home", home)
    assert "gateway" not in after.stdout


def test_role_keys_are_the_same_after_a_restart(spawn, tmp_path: Path):
    keys = []
    for _ in range(2):
        serving = spawn(
            "serve", "--role", "gateway", "--role", "auth", "--json",
            "--home", str(tmp_path / "home"), "--metrics-port", "0",
        )  # fmt: skip
        keys.append(serving.event("ready")["roles"])
        assert serving.finish(signal.SIGTERM) == 0
    assert keys[0] == keys[1]
    assert keys[0]["gateway"]["key"] != keys[0]["auth"]["key"]


def test_stop_clears_up_after_a_crash(spawn, run, tmp_path: Path):
    home = str(tmp_path / "home")
    serving = spawn(
        "serve", "--role", "all", "--home", home, "--engine", "guide",
        "--http-port", "0", "--metrics-port", "0",
    )  # fmt: skip
    serving.line("ready: ")
    serving.finish(signal.SIGKILL)
    assert run("status", "--home", home).returncode == 0
    assert run("stop", "--home", home).returncode == 0
    assert run("ask", "hello", "--home", home).returncode == 0
