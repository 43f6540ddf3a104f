"""UDX streams with udx-native on the other end, over clean and bad loopback."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from peerchat.net.driver.endpoint import UdxEndpoint
from peerchat.net.driver.env import system_env
from peerchat.net.driver.stream import UdxStreamDriver
from peerchat.net.env import Datagram, DatagramSocket
from peerchat.net.errors import ConnectionLost
from peerchat.net.identity import Address

from .conftest import NodePeer, StartNodePeer

pytestmark = pytest.mark.interop

LOOPBACK = "127.0.0.1"
MIB = 1024 * 1024


class LossyRelay:
    """Passes datagrams between two addresses, and loses, copies and delays some."""

    def __init__(self, seed: int, loss: float) -> None:
        print("relay seed", seed)
        self._chance = random.Random(seed)
        self._loss = loss
        self.ends: list[Address] = []
        self.lost = 0

    async def open(self) -> None:
        datagrams = system_env().datagrams
        self.sockets = [await datagrams.bind(LOOPBACK, 0, self._pass) for _ in "ab"]

    def _pass(self, socket: DatagramSocket, batch: Any) -> None:
        here = self.sockets.index(socket)
        out, to = self.sockets[1 - here], self.ends[1 - here]
        loop = asyncio.get_running_loop()
        for data, _ in batch:
            if self._chance.random() < self._loss:
                self.lost += 1
                continue
            for _ in range(1 + (self._chance.random() < 0.01)):
                delay_s = 0.002 if self._chance.random() < 0.02 else 0.0
                loop.call_later(delay_s, out.send, data, to)

    def close(self) -> None:
        for socket in self.sockets:
            socket.close()


class Python:
    """This side: a stream, its receiver, and what came."""

    def __init__(self, endpoint: UdxEndpoint, socket: DatagramSocket) -> None:
        self.endpoint = endpoint
        self.socket = socket
        self.stream: UdxStreamDriver = endpoint.create_stream()
        self.hash = hashlib.sha256()
        self.count = 0
        self.messages: asyncio.Queue[bytes] = asyncio.Queue()
        self.ended = asyncio.Event()
        self.can_write = asyncio.Event()
        self.closed: asyncio.Future[Exception | None] = asyncio.Future()
        self.stream.set_receiver(self)

    def data_received(self, data: bytes) -> None:
        self.count += len(data)
        self.hash.update(data)

    def end_received(self) -> None:
        self.ended.set()

    def message_received(self, data: bytes) -> None:
        self.messages.put_nowait(data)

    def writable(self) -> None:
        self.can_write.set()

    def stream_closed(self, error: Exception | None) -> None:
        self.closed.set_result(error)

    async def write_all(self, count: int) -> str:
        """Write pseudo-random bytes and end; their hash."""
        chance = random.Random(count)
        sent = hashlib.sha256()
        for start in range(0, count, 65536):
            block = chance.randbytes(min(65536, count - start))
            sent.update(block)
            if not self.stream.write(block):
                self.can_write.clear()
                await self.can_write.wait()
        self.stream.end()
        return sent.hexdigest()


@pytest_asyncio.fixture
async def python() -> AsyncIterator[Python]:
    endpoint = UdxEndpoint(system_env())
    other: list[Datagram] = []
    socket = await endpoint.bind(LOOPBACK, 0, lambda _, batch: other.extend(batch))
    yield Python(endpoint, socket)
    endpoint.close()
    socket.close()
    assert not other


async def join(python: Python, start: StartNodePeer) -> NodePeer:
    """Start a Node.js stream and connect the two."""
    node = await start(
        "udx_peer.js", str(python.socket.address.port), str(python.stream.id)
    )
    hello = await node.next()
    address = Address(LOOPBACK, hello["port"])
    python.stream.connect(python.socket, hello["id"], address)
    return node


async def exchange(python: Python, node: NodePeer, count: int) -> None:
    """Both write ``count`` bytes at once; both must get what the other wrote."""
    await node.send({"op": "write", "bytes": count})
    sent = await python.write_all(count)
    events = {}
    while "close" not in events:
        event = await node.next()
        events[event["event"]] = event
    assert events["end"]["bytes"] == python.count == count
    assert events["end"]["hash"] == sent
    assert python.hash.hexdigest() == events["written"]["hash"]
    assert await python.closed is None


async def test_16_mib_each_way(python: Python, node_peer: StartNodePeer):
    node = await join(python, node_peer)
    await exchange(python, node, 16 * MIB)
    statistics = python.stream.statistics()
    assert statistics.mtu == 1500
    assert statistics.timeouts == 0


@pytest.mark.parametrize("loss", [0.01, 0.05])
async def test_both_recover_from_loss(
    python: Python, node_peer: StartNodePeer, loss: float
):
    relay = LossyRelay(seed=5, loss=loss)
    await relay.open()
    node = await node_peer(
        "udx_peer.js", str(relay.sockets[1].address.port), str(python.stream.id)
    )
    hello = await node.next()
    relay.ends = [python.socket.address, Address(LOOPBACK, hello["port"])]
    python.stream.connect(python.socket, hello["id"], relay.sockets[0].address)
    await exchange(python, node, MIB)
    relay.close()
    assert relay.lost > 0
    assert python.stream.statistics().retransmits > 0


async def test_messages_both_ways(python: Python, node_peer: StartNodePeer):
    node = await join(python, node_peer)
    python.stream.send_message(b"to node")
    assert await node.next() == {"event": "message", "text": "to node"}
    await node.send({"op": "message", "text": "to python"})
    assert await python.messages.get() == b"to python"


async def test_node_destroys(python: Python, node_peer: StartNodePeer):
    node = await join(python, node_peer)
    await node.send({"op": "destroy"})
    error = await python.closed
    assert isinstance(error, ConnectionLost)
    assert error.reason == "reset by peer"


async def test_python_destroys(python: Python, node_peer: StartNodePeer):
    node = await join(python, node_peer)
    python.stream.destroy()
    assert await node.next() == {"event": "error", "code": "ECONNRESET"}
    assert await node.next() == {"event": "close"}


async def test_a_reader_that_pauses_stops_node(
    python: Python, node_peer: StartNodePeer
):
    python.stream.pause_reading()
    node = await join(python, node_peer)
    count = 12 * MIB
    await node.send({"op": "write", "bytes": count})
    # The window is full once nothing new comes for a while: node has said nothing.
    with pytest.raises(TimeoutError):
        await node.next(timeout_s=2)
    assert python.count == 0
    received = python.stream.statistics().bytes_received
    assert 3 * MIB < received < 6 * MIB
    python.stream.resume_reading()
    assert (await node.next())["event"] == "written"
    await python.ended.wait()
    assert python.count == count
