"""Node.js workers in a private swarm: let in by their key, and by nothing less."""

import json
import signal
import time
import urllib.request
from pathlib import Path

import pytest

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]

PASSWORD = "correct horse battery"
REFRESH_S = 2


@pytest.fixture
def command(run):
    def call(home: Path, *args: str, code: int | None = 0, **extra: object):
        extra = {"PEERCHAT_SWARM_REFRESH_S": REFRESH_S, **extra}
        done = run(*args, "--home", str(home), **extra)
        assert code is None or done.returncode == code, f"{args}: {done.stderr}"
        return done

    return call


def until(command, home: Path, code: int, prompt: str = "ping pong"):
    """What an ask gives once the swarm record has gone round."""
    deadline_s = time.monotonic() + 40
    while True:
        done = command(home, "ask", prompt, code=None, PEERCHAT_MAX_REQUESTS=1000)
        if done.returncode == code or time.monotonic() > deadline_s:
            assert done.returncode == code, done.stdout + done.stderr
            return done
        time.sleep(0.5)


def refused_peers(metrics_url: str, reason: str) -> float:
    with urllib.request.urlopen(metrics_url, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    wanted = f'peerchat_refused_peers_total{{reason="{reason}"'
    return sum(float(one.split()[-1]) for one in lines if one.startswith(wanted))


async def test_a_worker_is_accepted_once_granted_and_refused_once_revoked(
    node_peer, spawn, command, tmp_path: Path
):
    bootstrap = (await (await node_peer("testnet.js")).next())["bootstrap"]
    dht = f"{bootstrap[0]['host']}:{bootstrap[0]['port']}"
    home = tmp_path / "owner"
    command(home, "swarm", "create", "team", "--bootstrap", dht)
    serving = spawn(
        "serve", "--role", "auth", "--role", "gateway", "--json", "--home", str(home),
        "--http-port", "0", "--metrics-port", "0",
        PEERCHAT_SWARM_REFRESH_S=REFRESH_S, PEERCHAT_MAX_REQUESTS=1000,
    )  # fmt: skip
    metrics_url = serving.event("ready")["metrics"][0]
    for name in ("register", "login"):
        command(home, name, "ann@example.org", PEERCHAT_PASSWORD=PASSWORD)
    shown = json.loads(command(home, "swarm", "show", "--worker", "--json").stdout)
    worker = await node_peer(
        "backend_processor.js",
        BOOTSTRAP=json.dumps(bootstrap),
        SWARM_TOPIC_KEY=shown["topic_key"],
        SWARM_CAPABILITY=shown["capability"],
    )
    key = (await worker.next())["key"]

    # It knows the secret, is found, and is refused: nobody granted its key.
    refused = command(home, "ask", "ping pong", code=1)
    assert "processor" in refused.stderr
    assert refused_peers(metrics_url, "no_certificate") > 0
    command(home, "swarm", "grant", key, "--role", "processor", "--name", "node-1")
    assert "node says: ping pong" in until(command, home, 0).stdout
    assert "node-1" in command(home, "swarm", "peers").stdout
    command(home, "swarm", "revoke", key[:8])
    assert "processor" in until(command, home, 1).stderr
    assert refused_peers(metrics_url, "revoked") > 0
    assert serving.finish(signal.SIGTERM) == 0
    told = "".join(serving.errors)
    assert shown["topic_key"] not in told
    assert shown["capability"] not in told


async def test_a_worker_of_the_open_swarm_is_not_found(
    node_peer, spawn, command, tmp_path: Path
):
    bootstrap = (await (await node_peer("testnet.js")).next())["bootstrap"]
    dht = f"{bootstrap[0]['host']}:{bootstrap[0]['port']}"
    home = tmp_path / "owner"
    command(home, "swarm", "create", "team", "--bootstrap", dht)
    spawn(
        "serve", "--role", "auth", "--role", "gateway", "--json", "--home", str(home),
        "--http-port", "0", "--metrics-port", "0",
    ).event("ready")  # fmt: skip
    for name in ("register", "login"):
        command(home, name, "ann@example.org", PEERCHAT_PASSWORD=PASSWORD)
    worker = await node_peer("backend_processor.js", BOOTSTRAP=json.dumps(bootstrap))
    await worker.next()
    assert "processor" in command(home, "ask", "ping pong", code=1).stderr
