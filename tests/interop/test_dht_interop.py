"""dht-rpc with npm nodes on loopback, either side first, and mixed."""

from __future__ import annotations

import contextlib
from hashlib import blake2b

import pytest
import pytest_asyncio

from peerchat.net.dht.messages import node_id
from peerchat.net.dht.node import DhtNode
from peerchat.net.driver.env import system_env
from peerchat.net.identity import Address, Target

pytestmark = pytest.mark.interop

PUT = 3
HOST = "127.0.0.1"


def target_of(name: str) -> Target:
    return Target(blake2b(name.encode(), digest_size=32).digest())


class StoringNode:
    """Our node with the one command of ``dht_peer.js``: store with a token, or get."""

    def __init__(self, **options) -> None:
        self.values: dict[bytes, bytes | None] = {}
        self.node = DhtNode(
            system_env(), host=HOST, on_request=self.on_request, **options
        )

    def on_request(self, request) -> bool:
        if request.command != PUT or request.target is None:
            return False
        if request.has_valid_token:
            self.values[request.target] = request.value
            request.reply(None)
        else:
            request.reply(self.values.get(request.target))
        return True


@pytest_asyncio.fixture
async def start_ours():
    async with contextlib.AsyncExitStack() as stack:

        async def start(bootstrap=(), **options) -> StoringNode:
            options = {"ephemeral": False, "firewalled": False, **options}
            storing = StoringNode(bootstrap=bootstrap, **options)
            await stack.enter_async_context(storing.node)
            return storing

        yield start


async def get(storing: StoringNode, target: Target) -> list[bytes | None]:
    """What the network has, and this node itself, which no query asks."""
    replies = [reply async for reply in storing.node.query(PUT, target)]
    return [*(reply.value for reply in replies), storing.values.get(target)]


async def check_both_ways(ours: StoringNode, peer, port: int, name: str) -> None:
    """Store on one side and find on the other; both see the same network."""
    target = target_of(name)
    stored = await peer.call({"op": "put", "target": target.hex(), "value": "0a0b"})
    assert stored["closest"]
    assert b"\x0a\x0b" in await get(ours, target)
    target = target_of(name + " back")
    query = ours.node.query(PUT, target, b"\x01\x02", commit=True)
    await query.finished()
    assert query.committed == len(query.closest_replies) > 0
    found = await peer.call({"op": "get", "target": target.hex()})
    assert "0102" in found["found"]
    theirs = await peer.call({"op": "find", "target": target.hex()})
    closest = await ours.node.find_node(target).finished()
    known = {reply.from_address.port for reply in closest}
    # Neither lists itself.
    assert {*theirs["closest"], port} == known | {ours.node.address.port}


async def test_node_js_joins_through_python(start_ours, node_peer):
    first = await start_ours()
    boot = f"{HOST}:{first.node.address.port}"
    peer = await node_peer("dht_peer.js", BOOTSTRAP=boot, COUNT=3)
    ready = await peer.next()
    addresses = [Address(HOST, port) for port in ready["ports"]]
    assert ready["id"] == node_id(addresses[0]).hex()
    status = await peer.call({"op": "status"})
    for node in status["nodes"]:
        assert node["ephemeral"] is False
        assert node["known"] == 3
    known = {entry.address for entry in first.node.table.closest(bytes(32))}
    assert known == set(addresses)
    await check_both_ways(first, peer, ready["ports"][0], "through python")


async def test_python_joins_through_node_js(start_ours, node_peer):
    peer = await node_peer("dht_peer.js")
    [port] = (await peer.next())["ports"]
    ours = await start_ours([f"{HOST}:{port}"])
    assert ours.node.id == node_id(ours.node.address)
    assert not ours.node.is_ephemeral
    [entry] = ours.node.table.closest(bytes(32))
    assert entry.address == Address(HOST, port)
    status = await peer.call({"op": "status"})
    assert status["nodes"][0]["known"] == 1
    await check_both_ways(ours, peer, port, "through node.js")


@pytest.mark.parametrize("is_python_first", [True, False])
async def test_a_mixed_network_stores_and_finds(start_ours, node_peer, is_python_first):
    if is_python_first:
        first = await start_ours()
        boot = f"{HOST}:{first.node.address.port}"
    else:
        alone = await node_peer("dht_peer.js")
        boot = f"{HOST}:{(await alone.next())['ports'][0]}"
    peer = await node_peer("dht_peer.js", BOOTSTRAP=boot, COUNT=10)
    port = (await peer.next())["ports"][0]
    ours = [await start_ours([boot]) for _ in range(8)]
    for index, storing in enumerate(ours[:3]):
        await check_both_ways(storing, peer, port, f"mixed {index}")


async def test_node_js_finds_our_server_socket_open(start_ours, node_peer):
    first = await start_ours()
    boot = f"{HOST}:{first.node.address.port}"
    peer = await node_peer("dht_peer.js", BOOTSTRAP=boot, FIREWALLED=1)
    await peer.next()
    [status] = (await peer.call({"op": "status"}))["nodes"]
    assert status["firewalled"] is False
    assert status["ephemeral"] is False


async def test_our_firewall_check_passes_with_node_js(start_ours, node_peer):
    peer = await node_peer("dht_peer.js")
    [port] = (await peer.next())["ports"]
    ours = await start_ours([f"{HOST}:{port}"], firewalled=None)
    assert not ours.node.is_firewalled
    assert not ours.node.is_ephemeral


async def test_single_requests_and_their_errors(start_ours, node_peer):
    peer = await node_peer("dht_peer.js")
    [port] = (await peer.next())["ports"]
    theirs = Address(HOST, port)
    ours = await start_ours([theirs])
    own = ours.node.address
    where = {"host": own.host, "port": own.port}
    pong = await ours.node.ping(theirs)
    assert pong.to == own
    assert (await peer.call({"op": "ping", **where})) == {
        "id": node_id(own).hex(),
        "to": port,
    }
    assert (await peer.call({"op": "delayedPing", **where})) == {"ok": True}
    await ours.node.delayed_ping(theirs, 0.05)
    assert (await ours.node.request(theirs, 77)).error == 99
    refused = await ours.node.request(
        theirs, PUT, target=target_of("t"), token=bytes(32)
    )
    assert refused.error == 2
    assert refused.token is not None
    answer = await peer.call(
        {"op": "badToken", "target": target_of("t").hex(), **where}
    )
    assert answer["error"] == 2
    assert answer["token"] is not None
