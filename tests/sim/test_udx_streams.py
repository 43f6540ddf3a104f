"""UDX stream drivers over the simulated network: endpoints, timers and closing."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from peerchat.net.driver.endpoint import LINGER_S, UdxEndpoint
from peerchat.net.driver.stream import UdxStreamDriver
from peerchat.net.env import DatagramSocket
from peerchat.net.errors import ConnectionLost
from peerchat.net.identity import Address
from peerchat.testing.loop import run_virtual
from peerchat.testing.network import Link, SimNetwork


@dataclass
class Peer:
    """A host with one endpoint, one socket and one stream."""

    network: SimNetwork
    ip: str
    data: bytearray = field(default_factory=bytearray)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    can_write: asyncio.Event = field(default_factory=asyncio.Event)
    closed: asyncio.Future[Exception | None] = field(default_factory=asyncio.Future)
    endpoint: UdxEndpoint = field(init=False)
    socket: DatagramSocket = field(init=False)
    stream: UdxStreamDriver = field(init=False)

    async def open(self) -> Peer:
        self.endpoint = UdxEndpoint(self.network.host(self.ip))
        self.socket = await self.endpoint.bind(self.ip, 0, lambda *_: None)
        self.stream = self.endpoint.create_stream()
        self.stream.set_receiver(self)
        return self

    def data_received(self, data: bytes) -> None:
        self.data += data

    def end_received(self) -> None:
        self.ended.set()

    def message_received(self, data: bytes) -> None: ...

    def writable(self) -> None:
        self.can_write.set()

    def stream_closed(self, error: Exception | None) -> None:
        self.closed.set_result(error)


async def two_peers(network: SimNetwork) -> tuple[Peer, Peer]:
    a, b = await Peer(network, "1.1.1.1").open(), await Peer(network, "2.2.2.2").open()
    a.stream.connect(a.socket, b.stream.id, b.socket.address)
    b.stream.connect(b.socket, a.stream.id, a.socket.address)
    return a, b


@pytest.mark.parametrize("seed", range(10))
def test_a_transfer_over_a_bad_link_closes_cleanly(seed: int):
    print("seed", seed)
    link = Link(0.001, 0.08, loss=0.01 * seed, duplicate=0.05)

    async def main() -> None:
        a, b = await two_peers(SimNetwork(seed, link))
        want = bytes(range(256)) * 1000
        for start in range(0, len(want), 10_000):
            if not a.stream.write(want[start : start + 10_000]):
                await a.can_write.wait()
                a.can_write.clear()
        a.stream.end()
        await b.ended.wait()
        b.stream.write(b"thanks")
        b.stream.end()
        assert await a.closed is None
        assert await b.closed is None
        assert b.data == want
        assert a.data == b"thanks"
        assert a.endpoint.stream_count == b.endpoint.stream_count == 1
        await asyncio.sleep(LINGER_S + 0.1)
        assert a.endpoint.stream_count == b.endpoint.stream_count == 0

    run_virtual(main)


def test_a_peer_that_vanishes_is_given_up_after_13_seconds():
    async def main() -> None:
        network = SimNetwork(1)
        a, b = await two_peers(network)
        a.stream.write(b"hello")
        await asyncio.sleep(1)
        network.take_down("2.2.2.2")
        started_at = asyncio.get_running_loop().time()
        a.stream.write(b"anyone?")
        error = await a.closed
        assert isinstance(error, ConnectionLost)
        assert error.reason == "timed out"
        waited_s = asyncio.get_running_loop().time() - started_at
        assert waited_s == pytest.approx(13.0)
        assert not b.closed.done()

    run_virtual(main)


def test_a_stream_moves_to_another_address_without_losing_a_byte():
    async def main() -> None:
        network = SimNetwork(2, Link(loss=0.05))
        a, b = await two_peers(network)
        moved = await b.endpoint.bind("2.2.2.2", 0, lambda *_: None)
        want = bytes(300_000)
        for start in range(0, len(want), 1000):
            a.stream.write(want[start : start + 1000])
            if start == 100_000:
                await asyncio.sleep(0.03)
                # Both sides agree on the new path, as after a punched hole.
                a.stream.change_remote(a.socket, b.stream.id, moved.address)
                b.stream.change_remote(moved, a.stream.id, a.socket.address)
        a.stream.end()
        b.stream.end()
        assert await b.closed is None
        assert b.data == want
        assert a.stream.remote_address == moved.address

    run_virtual(main)


def test_packets_from_elsewhere_are_refused():
    async def main() -> None:
        network = SimNetwork(3)
        a, b = await two_peers(network)
        stranger = await Peer(network, "3.3.3.3").open()
        stranger.stream.connect(stranger.socket, b.stream.id, b.socket.address)
        stranger.stream.write(b"evil")
        a.stream.write(b"good")
        await asyncio.sleep(1)
        assert b.data == b"good"

    run_virtual(main)


def test_the_firewall_is_asked_until_it_lets_a_packet_in():
    async def main() -> None:
        network = SimNetwork(4)
        a = await Peer(network, "1.1.1.1").open()
        b = await Peer(network, "2.2.2.2").open()
        asked: list[Address] = []

        def firewall(socket: DatagramSocket, source: Address) -> bool:
            asked.append(source)
            if len(asked) < 3:
                return True
            stream.connect(socket, a.stream.id, source)
            return False

        stream = b.endpoint.create_stream(firewall=firewall)
        stream.set_receiver(b)
        a.stream.connect(a.socket, stream.id, b.socket.address)
        a.stream.write(b"knock")
        await asyncio.sleep(10)
        assert b.data == b"knock"
        assert asked == [a.socket.address] * 3
        assert a.stream.buffered == 0

    run_virtual(main)


def test_an_endpoint_that_closes_tells_its_peers():
    async def main() -> None:
        a, b = await two_peers(SimNetwork(5))
        a.stream.write(b"x")
        await asyncio.sleep(1)
        a.endpoint.close()
        error = await b.closed
        assert isinstance(error, ConnectionLost)
        assert error.reason == "reset by peer"
        assert isinstance(await a.closed, ConnectionLost)

    run_virtual(main)
