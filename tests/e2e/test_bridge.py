"""The HTTP bridge of a running serve, by curl."""

import json
import shutil
import subprocess
import urllib.request
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed"),
]

PASSWORD = "correct horse battery"


@pytest.fixture
def bridge(spawn, ollama_stub: str, tmp_path: Path) -> str:
    serving = spawn(
        "serve", "--role", "all", "--json", "--home", str(tmp_path / "home"),
        "--engine", "ollama", "--http-port", "0", "--metrics-port", "0",
        OLLAMA_HOST=ollama_stub,
    )  # fmt: skip
    return serving.event("ready")["http"]


def curl(url: str, *args: str) -> tuple[int, str]:
    done = subprocess.run(
        ["curl", "-sS", "-m", "30", "-w", "\n%{http_code}", *args, url],
        capture_output=True,
        text=True,
        check=True,
    )
    body, _, status = done.stdout.rpartition("\n")
    return int(status), body


def post(url: str, body: object, *args: str) -> tuple[int, dict]:
    status, text = curl(
        url, "-H", "Content-Type: application/json", "-d", json.dumps(body), *args
    )
    return status, json.loads(text)


def token(bridge: str) -> str:
    who = {"email": "ann@example.org", "password": PASSWORD}
    assert post(f"{bridge}/register", who)[0] == 201
    status, answer = post(f"{bridge}/login", who)
    assert status == 200
    return answer["key"]


def test_register_login_and_inference(bridge: str):
    key = token(bridge)
    authorization = ("-H", f"Authorization: Bearer {key}")
    status, answer = post(f"{bridge}/inference", {"query": "hello"}, *authorization)
    assert status == 200
    assert answer["prompt"] == "hello"
    assert answer["response"]
    assert answer["rateLimitInfo"]["remainingRequests"] == 9
    assert post(f"{bridge}/inference", {"query": "hello"})[0] == 401
    status, verified = post(f"{bridge}/verify-session", {}, *authorization)
    assert (status, verified["valid"]) == (200, True)


def test_inference_streams(bridge: str):
    key = token(bridge)
    status, body = curl(
        f"{bridge}/inference", "-N", "-H", "Accept: text/event-stream",
        "-H", "Content-Type: application/json", "-H", f"Authorization: Bearer {key}",
        "-d", '{"prompt":"hello"}',
    )  # fmt: skip
    assert status == 200
    assert body.count("data:") > 2


def test_a_client_that_goes_away_frees_the_engine(bridge: str, ollama_stub: str):
    key = token(bridge)
    request = urllib.request.Request(
        f"{bridge}/inference",
        data=json.dumps({"prompt": "go on", "model": "stall"}).encode(),
        headers={
            "Content-Type": "application/json",
            "Accept": "text/event-stream",
            "Authorization": f"Bearer {key}",
        },
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        while b"fragment" not in (line := response.readline()):
            assert line, "the stream ended before a fragment"
    # The stub answers this one once no request is running any more.
    with urllib.request.urlopen(f"{ollama_stub}/_stub/idle", timeout=10) as idle:
        counters = json.load(idle)
    assert counters["active"] == 0
    assert counters["closed_by_client"] >= 1


def test_sigterm_tells_whom_it_cuts_off(spawn, ollama_stub: str, tmp_path: Path):
    serving = spawn(
        "serve", "--role", "all", "--json", "--home", str(tmp_path / "home"),
        "--engine", "ollama", "--http-port", "0", "--metrics-port", "0",
        OLLAMA_HOST=ollama_stub,
    )  # fmt: skip
    url = serving.event("ready")["http"]
    request = urllib.request.Request(
        f"{url}/api/chat",
        data=b'{"model": "stall", "messages": [{"role": "user", "content": "go on"}]}',
        headers={"Authorization": f"Bearer {token(url)}"},
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        lines = [response.readline()]
        serving.process.terminate()
        lines += response
    assert "shutting down" in json.loads(lines[-1])["error"]
    assert serving.finish(None) == 0


def test_health_metrics_and_docs(bridge: str):
    status, body = curl(f"{bridge}/health")
    assert status == 200
    assert json.loads(body)["status"] == "healthy"
    assert "peerchat_" in curl(f"{bridge}/metrics")[1]
    assert json.loads(curl(f"{bridge}/openapi.json")[1])["openapi"].startswith("3.")
    assert curl(f"{bridge}/nowhere")[0] == 404
    assert curl(f"{bridge}/login")[0] == 405
    assert curl(f"{bridge}/login", "-d", "{")[0] == 400


def test_a_taken_port_is_named(bridge: str, run, tmp_path: Path):
    port = bridge.rpartition(":")[2]
    done = run(
        "serve", "--role", "all", "--home", str(tmp_path / "other"),
        "--engine", "guide", "--http-port", port, "--metrics-port", "0",
    )  # fmt: skip
    assert done.returncode == 1
    assert port in done.stderr
    assert "--http-port" in done.stderr
