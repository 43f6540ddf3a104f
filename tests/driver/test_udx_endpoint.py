"""UDX streams over real sockets on loopback, in both kinds of socket."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from peerchat.net.driver.endpoint import UdxEndpoint
from peerchat.net.driver.env import LoopClock, SystemRandom
from peerchat.net.driver.sockets import SystemDatagrams
from peerchat.net.driver.stream import UNSENT_HIGH_BYTES, UdxStreamDriver
from peerchat.net.env import Datagram, DatagramSocket, Env
from peerchat.net.errors import ConnectionLost, LocalProtocolError
from peerchat.net.identity import Address

LOOPBACK = "127.0.0.1"


class Recorder:
    """A receiver that remembers; `reply` answers data while it is delivered."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.messages: asyncio.Queue[bytes] = asyncio.Queue()
        self.ended = asyncio.Event()
        self.can_write = asyncio.Event()
        self.closed: asyncio.Future[Exception | None] = asyncio.Future()
        self._grown = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.data += data
        self._grown.set()

    def end_received(self) -> None:
        self.ended.set()

    def message_received(self, data: bytes) -> None:
        self.messages.put_nowait(data)

    def writable(self) -> None:
        self.can_write.set()

    def stream_closed(self, error: Exception | None) -> None:
        self.closed.set_result(error)

    async def received(self, count: int) -> None:
        while len(self.data) < count:
            self._grown.clear()
            await self._grown.wait()


class Side:
    """One endpoint with a socket and a stream."""

    def __init__(self, endpoint: UdxEndpoint, socket: DatagramSocket) -> None:
        self.endpoint = endpoint
        self.socket = socket
        self.other: list[Datagram] = []
        self.stream: UdxStreamDriver = endpoint.create_stream()
        self.recorder = Recorder()
        self.stream.set_receiver(self.recorder)

    def connect(self, peer: Side) -> None:
        self.stream.connect(self.socket, peer.stream.id, peer.socket.address)


async def open_side(is_portable: bool) -> Side:
    env = Env(LoopClock(), SystemRandom(), SystemDatagrams(is_portable=is_portable))
    endpoint = UdxEndpoint(env)
    other: list[Datagram] = []
    socket = await endpoint.bind(LOOPBACK, 0, lambda _, batch: other.extend(batch))
    side = Side(endpoint, socket)
    side.other = other
    return side


@asynccontextmanager
async def two_sides(is_portable: bool = False) -> AsyncIterator[tuple[Side, Side]]:
    a, b = await open_side(is_portable), await open_side(is_portable)
    a.connect(b)
    b.connect(a)
    try:
        async with asyncio.timeout(60):
            yield a, b
    finally:
        for side in (a, b):
            side.endpoint.close()
            side.socket.close()


async def write_all(side: Side, data: bytes, block_bytes: int = 65536) -> None:
    for start in range(0, len(data), block_bytes):
        if not side.stream.write(data[start : start + block_bytes]):
            await side.recorder.can_write.wait()
            side.recorder.can_write.clear()


@pytest.mark.parametrize("is_portable", [False, True])
async def test_both_ways_at_once_every_byte_arrives(is_portable: bool):
    size = 4 * 1024 * 1024 if is_portable else 64 * 1024 * 1024
    there, back = os.urandom(size), os.urandom(size // 8)
    async with two_sides(is_portable) as (a, b), asyncio.TaskGroup() as tasks:
        tasks.create_task(write_all(a, there))
        tasks.create_task(write_all(b, back))
        await b.recorder.received(size)
        await a.recorder.received(size // 8)
    assert hashlib.sha256(b.recorder.data).digest() == hashlib.sha256(there).digest()
    assert hashlib.sha256(a.recorder.data).digest() == hashlib.sha256(back).digest()


async def test_what_is_flushed_leaves_before_the_turn_ends():
    async with two_sides() as (a, b):
        await write_all(a, b"hello")
        await b.recorder.received(5)
        before = a.stream.statistics().packets_sent
        a.stream.write(b"one")
        assert a.stream.statistics().packets_sent == before
        a.stream.flush()
        assert a.stream.statistics().packets_sent == before + 1
        await b.recorder.received(8)


async def test_a_reader_that_pauses_stops_the_writer():
    async with two_sides() as (a, b):
        b.stream.pause_reading()
        block = bytes(65536)
        written = 0
        # The writer is stopped for good once the peer's window and the buffer are full.
        while True:
            written += len(block)
            if not a.stream.write(block):
                try:
                    async with asyncio.timeout(0.5):
                        await a.recorder.can_write.wait()
                except TimeoutError:
                    break
                a.recorder.can_write.clear()
        assert written <= 4 * 1024 * 1024 + UNSENT_HIGH_BYTES + 2 * len(block)
        assert not b.recorder.data
        b.stream.resume_reading()
        await a.recorder.can_write.wait()
        await b.recorder.received(written)


async def test_half_close_then_the_other_half():
    async with two_sides() as (a, b):
        a.stream.write(b"question")
        a.stream.end()
        await b.recorder.ended.wait()
        assert b.recorder.data == b"question"
        assert not b.recorder.closed.done()
        with pytest.raises(LocalProtocolError):
            a.stream.write(b"more")
        b.stream.write(b"answer")
        b.stream.end()
        assert await a.recorder.closed is None
        assert await b.recorder.closed is None
        assert a.recorder.data == b"answer"


async def test_destroy_closes_both_sides():
    async with two_sides() as (a, b):
        a.stream.write(b"hello")
        await b.recorder.received(5)
        why = RuntimeError("enough")
        a.stream.destroy(why)
        assert await a.recorder.closed is why
        error = await b.recorder.closed
        assert isinstance(error, ConnectionLost)
        assert error.reason == "reset by peer"


async def test_messages_go_beside_the_stream():
    async with two_sides() as (a, b):
        a.stream.send_message(b"beside")
        assert await b.recorder.messages.get() == b"beside"
        with pytest.raises(ValueError, match="at most"):
            a.stream.send_message(bytes(2000))


async def test_what_is_not_for_a_known_stream_goes_to_the_receiver():
    async with two_sides() as (a, b):
        strange = bytes.fromhex("ff01") + bytes(18)
        for data in (b"\x03hello", b"", strange):
            a.socket.send(data, b.socket.address)
        a.stream.write(b"after")
        await b.recorder.received(5)
        assert b.other == [
            (b"\x03hello", a.socket.address),
            (b"", a.socket.address),
            (strange, a.socket.address),
        ]


async def test_data_before_connect_is_acknowledged_after_it():
    a, b = await open_side(False), await open_side(False)
    asked: list[Address] = []

    def firewall(socket: DatagramSocket, source: Address) -> bool:
        asked.append(source)
        assert socket is b.socket
        if not b.stream.is_connected:
            b.stream.connect(socket, a.stream.id, source)
        return False

    b.stream = b.endpoint.create_stream(firewall=firewall)
    b.recorder = Recorder()
    b.stream.set_receiver(b.recorder)
    a.connect(b)
    a.stream.write(b"first")
    await b.recorder.received(5)
    assert asked == [a.socket.address]
    b.stream.write(b"reply")
    await a.recorder.received(5)
    for side in (a, b):
        side.endpoint.close()
        side.socket.close()


async def test_totals_count_streams_that_are_closed_too():
    async with two_sides() as (a, b):
        await write_all(a, b"x" * 100_000)
        await b.recorder.received(100_000)
        assert a.endpoint.totals().bytes_sent > 100_000
        assert b.endpoint.totals().bytes_received > 100_000
    # Leaving closed both endpoints, and with them every stream.
    assert a.endpoint.stream_count == 0
    assert a.endpoint.totals().bytes_sent > 100_000


async def test_a_receiver_that_fails_does_not_keep_others_from_their_packets(caplog):
    a, b = await open_side(False), await open_side(False)
    bad_a, bad_b = a.endpoint.create_stream(), b.endpoint.create_stream()

    class Broken(Recorder):
        def data_received(self, data: bytes) -> None:
            raise RuntimeError("a bug")

    broken = Broken()
    bad_b.set_receiver(broken)
    bad_a.set_receiver(Recorder())
    bad_a.connect(a.socket, bad_b.id, b.socket.address)
    bad_b.connect(b.socket, bad_a.id, a.socket.address)
    a.connect(b)
    b.connect(a)
    bad_a.write(b"x")
    a.stream.write(b"y")
    async with asyncio.timeout(5):
        await b.recorder.received(1)
        assert isinstance(await broken.closed, ConnectionLost)
    assert "receiver failed" in caplog.text
    for side in (a, b):
        side.endpoint.close()
        side.socket.close()
