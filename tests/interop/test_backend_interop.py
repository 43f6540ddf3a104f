"""The Node.js backend's workers and ours in one swarm, in both mixtures."""

import json
from pathlib import Path

import pytest

pytestmark = [pytest.mark.interop, pytest.mark.timeout(180)]

PASSWORD = "correct horse battery"
SECRET = "test-secret-that-is-long-enough-for-hs256"


async def testnet(node_peer) -> tuple[str, str]:
    """A Node.js DHT; its bootstrap list for Node.js and for the command line."""
    bootstrap = (await (await node_peer("testnet.js")).next())["bootstrap"]
    first = bootstrap[0]
    return json.dumps(bootstrap), f"{first['host']}:{first['port']}"


def serve(spawn, home: Path, dht: str, *roles: str):
    args = [part for role in roles for part in ("--role", role)]
    return spawn(
        "serve", *args, "--open", "--bootstrap", dht, "--json", "--home", str(home),
        "--http-port", "0", "--metrics-port", "0", "--engine", "guide",
        JWT_SECRET=SECRET,
    ).event("ready")  # fmt: skip


async def test_a_node_client_is_served_by_our_roles(node_peer, spawn, tmp_path: Path):
    bootstrap, dht = await testnet(node_peer)
    serve(spawn, tmp_path / "box", dht, "auth", "gateway", "processor")
    client = await node_peer("backend_client.js", BOOTSTRAP=bootstrap)
    assert (await client.next())["ready"]
    assert len((await client.call({"lookup": "gateway"}))["keys"]) == 1

    who = {"email": "ann@example.org", "password": PASSWORD}
    registered = await client.call({"method": "register", "data": who})
    assert registered["status"] == 201
    assert registered["email"] == "ann@example.org"
    again = await client.call({"method": "register", "data": who})
    assert (again["status"], again["message"]) == (409, "User already exists")
    wrong = await client.call(
        {"method": "login", "data": {**who, "password": "not this one"}}
    )
    assert (wrong["status"], wrong["message"]) == (401, "Invalid credentials")
    login = await client.call({"method": "login", "data": who})
    assert login["success"] is True
    assert login["rateLimitInfo"]["remainingRequests"] == 10
    key = login["key"]

    verified = await client.call({"method": "verifySession", "data": {}, "key": key})
    assert verified["valid"] is True
    assert verified["email"] == "ann@example.org"
    forged = await client.call(
        {"method": "verifySession", "data": {}, "key": key + "x"}
    )
    assert (forged["status"], forged["valid"]) == (401, False)

    ask = {"method": "processPrompt", "data": {"prompt": "hello"}, "key": key}
    for left in range(9, -1, -1):
        answer = await client.call(ask)
        assert answer["prompt"] == "hello"
        assert answer["response"]
        assert answer["rateLimitInfo"]["remainingRequests"] == left
    refused = await client.call(ask)
    assert refused["status"] == 429
    assert refused["message"] == "Rate limit exceeded"
    assert 0 < refused["retryAfter"] <= 60
    assert refused["rateLimitInfo"]["remainingRequests"] == 0


async def test_a_node_client_sees_errors_of_the_contract(
    node_peer, spawn, tmp_path: Path
):
    bootstrap, dht = await testnet(node_peer)
    serve(spawn, tmp_path / "box", dht, "auth", "gateway")
    client = await node_peer("backend_client.js", BOOTSTRAP=bootstrap)
    await client.next()
    bad = await client.call({"method": "register", "raw": {"email": "x"}})
    assert bad["status"] == 400
    assert bad["message"].startswith("Invalid request format")
    ping = await client.call({"method": "ping", "raw": {}})
    assert (ping["status"], ping["service"]) == ("healthy", "gateway")
    unknown = await client.call({"method": "noSuchMethod", "data": {}})
    assert "threw" in unknown
    unauthorized = await client.call(
        {"method": "processPrompt", "data": {"prompt": "x"}}
    )
    assert unauthorized["status"] == 401
    assert unauthorized["message"] == "Unauthorized: Invalid or expired token"


async def test_our_gateway_and_client_use_node_workers(
    node_peer, spawn, run, tmp_path: Path
):
    bootstrap, dht = await testnet(node_peer)
    for script in ("backend_auth.js", "backend_processor.js"):
        worker = await node_peer(script, BOOTSTRAP=bootstrap, JWT_SECRET=SECRET)
        assert (await worker.next())["ready"]
    serve(spawn, tmp_path / "box", dht, "gateway")
    where = ("--open", "--bootstrap", dht, "--home", str(tmp_path / "laptop"))
    for command in ("register", "login"):
        done = run(command, "bob@example.org", *where, PEERCHAT_PASSWORD=PASSWORD)
        assert done.returncode == 0, done.stderr
    answered = run("ask", "ping pong", *where)
    assert answered.returncode == 0, answered.stderr
    assert "node says: ping pong" in answered.stdout
    thrown = run("ask", "throw", *where)
    assert thrown.returncode == 1
    assert "engine on fire" in thrown.stderr
