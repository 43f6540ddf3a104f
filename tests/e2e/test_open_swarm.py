"""Homes that meet over a bootstrap node: separate processes, separate accounts."""

import json
import signal
import urllib.request
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

PASSWORD = "correct horse battery"
SECRET = "a secret that both gateways and auth peers know"


def serve(spawn, home: Path, dht: str, *roles: str, **extra: object):
    args = [part for role in roles for part in ("--role", role)]
    return spawn(
        "serve", *args, "--open", "--bootstrap", dht, "--json", "--home", str(home),
        "--http-port", "0", "--metrics-port", "0",
        **{"JWT_SECRET": SECRET, "PEERCHAT_ENGINE": "guide", **extra},
    )  # fmt: skip


def register(run, home: Path, dht: str, email: str = "ann@example.org") -> None:
    where = ("--open", "--bootstrap", dht, "--home", str(home))
    for command in ("register", "login"):
        done = run(command, email, *where, PEERCHAT_PASSWORD=PASSWORD)
        assert done.returncode == 0, done.stderr


def test_two_homes_meet(spawn, run, dht: str, tmp_path: Path):
    serve(spawn, tmp_path / "box", dht, "all").event("ready")
    home = tmp_path / "laptop"
    where = ("--open", "--bootstrap", dht, "--home", str(home))

    refused = run("ask", "hello", *where)
    assert refused.returncode == 1
    assert "login" in refused.stderr
    register(run, home, dht)
    who = run("whoami", *where)
    assert "ann@example.org" in who.stdout
    answered = run("ask", "What is a gateway?", "-v", *where)
    assert answered.returncode == 0, answered.stderr
    assert answered.stdout.strip()
    # What is not protected is told at every start, once.
    assert answered.stderr.count("would see the passwords and prompts") == 1
    found = run("peers", "--json", *where)
    assert found.stderr == ""
    roles = {json.loads(line)["role"] for line in found.stdout.splitlines()}
    assert {"auth", "gateway", "processor"} <= roles
    assert "guide" in run("models", *where).stdout
    assert run("token", *where).stdout.count(".") == 2
    assert run("logout", *where).returncode == 0
    assert run("token", *where).returncode == 1


def test_wrong_password_and_taken_account(spawn, run, dht: str, tmp_path: Path):
    serve(spawn, tmp_path / "box", dht, "auth", "gateway").event("ready")
    home = tmp_path / "laptop"
    register(run, home, dht)
    where = ("--open", "--bootstrap", dht, "--home", str(home))
    wrong = run("login", "ann@example.org", *where, PEERCHAT_PASSWORD="wrong wrong")
    assert wrong.returncode == 1
    assert "Invalid credentials" in wrong.stderr
    taken = run("register", "ann@example.org", *where, PEERCHAT_PASSWORD=PASSWORD)
    assert taken.returncode == 1
    assert "already exists" in taken.stderr


def test_the_limit_is_refused_with_the_seconds_left(spawn, run, dht, tmp_path: Path):
    serve(
        spawn, tmp_path / "box", dht, "all", PEERCHAT_MAX_REQUESTS=2
    ).event("ready")  # fmt: skip
    home = tmp_path / "laptop"
    register(run, home, dht)
    where = ("--open", "--bootstrap", dht, "--home", str(home))
    assert [run("ask", "hi", *where).returncode for _ in range(2)] == [0, 0]
    refused = run("ask", "hi", *where)
    assert refused.returncode == 1
    assert "limit" in refused.stderr.lower()
    assert any(word.rstrip("s.").isdigit() for word in refused.stderr.split())


def test_nobody_there_is_said_in_words(spawn, run, dht: str, tmp_path: Path):
    where = ("--open", "--bootstrap", dht, "--home", str(tmp_path / "laptop"))
    alone = run("login", "ann@example.org", *where, PEERCHAT_PASSWORD=PASSWORD)
    assert alone.returncode == 1
    assert "gateway" in alone.stderr
    serve(spawn, tmp_path / "a", dht, "gateway").event("ready")
    no_auth = run("login", "ann@example.org", *where, PEERCHAT_PASSWORD=PASSWORD)
    assert no_auth.returncode == 1
    assert "auth" in no_auth.stderr
    serve(spawn, tmp_path / "b", dht, "auth").event("ready")
    register(run, tmp_path / "laptop", dht)
    no_processor = run("ask", "hello", *where)
    assert no_processor.returncode == 1
    assert "processor" in no_processor.stderr
    for done in (alone, no_auth, no_processor):
        told = [one for one in done.stderr.splitlines() if "open swarm" not in one]
        assert len(told) == 1, done.stderr


def test_unreachable_bootstrap_is_said_in_words(run, tmp_path: Path):
    done = run(
        "ask", "hello", "--open", "--bootstrap", "127.0.0.1:9",
        "--home", str(tmp_path / "laptop"),
    )  # fmt: skip
    assert done.returncode == 1
    assert "--bootstrap" in done.stderr
    assert len(done.stderr.splitlines()) == 2  # the first says what is open


def test_a_processor_killed_between_answers_is_replaced(
    spawn, run, dht: str, tmp_path: Path
):
    serve(spawn, tmp_path / "box", dht, "auth", "gateway").event("ready")
    processors = {}
    for name in ("one", "two"):
        running = serve(spawn, tmp_path / name, dht, "processor")
        processors[running.event("ready")["roles"]["processor"]["key"]] = running
    home = tmp_path / "laptop"
    register(run, home, dht)
    where = ("--open", "--bootstrap", dht, "--home", str(home))
    first = run("ask", "hello", "--json", *where)
    served_by = json.loads(first.stdout.splitlines()[-1])["usage"]["peer"]
    processors.pop(served_by).finish(signal.SIGKILL)
    second = run("ask", "hello", "--json", *where)
    assert second.returncode == 0, second.stderr
    last = json.loads(second.stdout.splitlines()[-1])
    assert last["usage"]["peer"] in processors


def test_a_processor_killed_during_an_answer_is_reported(
    spawn, run, dht: str, ollama_stub: str, tmp_path: Path
):
    serve(spawn, tmp_path / "box", dht, "auth", "gateway").event("ready")
    processor = serve(
        spawn, tmp_path / "gpu", dht, "processor",
        PEERCHAT_ENGINE="ollama", OLLAMA_HOST=ollama_stub,
    )  # fmt: skip
    processor.event("ready")
    home = tmp_path / "laptop"
    register(run, home, dht)
    story = (
        "ask", "tell me a story", "--model", "stall", "--json",
        "--open", "--bootstrap", dht, "--home", str(home),
    )  # fmt: skip
    ended = spawn(*story)
    ended.event("fragment")
    assert ended.finish(signal.SIGTERM) == 128 + signal.SIGTERM
    with urllib.request.urlopen(f"{ollama_stub}/_stub/idle", timeout=5) as idle:
        assert json.load(idle)["active"] == 0
    asking = spawn(*story)
    asking.event("fragment")
    processor.finish(signal.SIGKILL)
    assert asking.finish(None, timeout_s=40) == 1
    assert "breaks off here" in "".join(asking.errors)


def test_a_gateway_killed_during_an_answer_is_replaced(
    spawn, run, dht: str, ollama_stub: str, tmp_path: Path
):
    words = [f"{number} " for number in range(300)]
    behaviour = {"model": "slow:latest", "fragments": words, "delay_s": 0.02}
    request = urllib.request.Request(
        f"{ollama_stub}/_stub/behaviour", json.dumps(behaviour).encode(), method="POST"
    )
    urllib.request.urlopen(request, timeout=10).close()
    boxes = [
        serve(spawn, tmp_path / "box", dht, "auth", "gateway"),
        serve(spawn, tmp_path / "other", dht, "gateway"),
    ]
    gpu = serve(
        spawn, tmp_path / "gpu", dht, "processor",
        PEERCHAT_ENGINE="ollama", OLLAMA_HOST=ollama_stub,
    )  # fmt: skip
    metrics = [box.event("ready")["metrics"][0] for box in boxes]
    gpu.event("ready")
    home = tmp_path / "laptop"
    register(run, home, dht)
    asking = spawn(
        "ask", "count", "--model", "slow", "--json",
        "--open", "--bootstrap", dht, "--home", str(home),
    )  # fmt: skip
    text = asking.event("fragment")["text"]
    serving = next(
        box
        for box, url in zip(boxes, metrics, strict=True)
        if 'peerchat_requests_in_flight{method="processPrompt",role="gateway"} 1.0'
        in urllib.request.urlopen(url, timeout=10).read().decode()
    )
    serving.finish(signal.SIGKILL)
    while True:
        event = asking.event("fragment", "done")
        if event["event"] == "done":
            break
        text += event["text"]
    assert text == "".join(words)
    assert event["usage"]["continued"] == 1
    assert asking.finish(None) == 0


def test_sigterm_withdraws_and_ends_with_zero(spawn, run, dht: str, tmp_path: Path):
    serving = serve(spawn, tmp_path / "box", dht, "all")
    serving.event("ready")
    where = ("--open", "--bootstrap", dht, "--home", str(tmp_path / "laptop"))
    assert run("peers", "--json", *where).stdout
    assert serving.finish(signal.SIGTERM) == 0
    after = run("peers", "--json", *where)
    assert after.stdout.strip() == ""


def test_secrets_stay_out_of_the_logs(spawn, run, dht: str, tmp_path: Path):
    serving = serve(spawn, tmp_path / "box", dht, "all")
    serving.event("ready")
    home = tmp_path / "laptop"
    register(run, home, dht)
    where = ("--open", "--bootstrap", dht, "--home", str(home))
    token = run("token", *where).stdout.strip()
    prompt = "a prompt that nobody else may read"
    assert run("ask", prompt, "-v", *where).returncode == 0
    assert serving.finish() == 0
    logs = [path for path in tmp_path.rglob("*.log*") if path.is_file()]
    assert logs
    told = "".join(path.read_text() for path in logs) + "".join(serving.errors)
    for secret in (PASSWORD, token, prompt, SECRET):
        assert secret not in told
