from __future__ import annotations

import asyncio

import pytest

from peerchat.net.crypto.primitives import KeyPair
from peerchat.net.driver.connection import (
    OPEN_TIMEOUT_S,
    READ_QUEUE_BYTES_MAX,
    SILENCE_MAX_S,
    Connection,
)
from peerchat.net.errors import ConnectionLost, LocalProtocolError
from peerchat.testing.loop import run_virtual
from peerchat.testing.network import SeededRandom, SimClock
from peerchat.testing.streams import (
    handshake_pair,
    memory_connection_pair,
    memory_stream_pair,
)

A, B = KeyPair.from_seed(b"\1" * 32), KeyPair.from_seed(b"\2" * 32)


class Sink:
    """A receiver that only remembers."""

    def __init__(self) -> None:
        self.data = b""
        self.error: Exception | None = None

    def data_received(self, data: bytes) -> None:
        self.data += data

    def end_received(self) -> None: ...
    def message_received(self, data: bytes) -> None: ...
    def writable(self) -> None: ...

    def stream_closed(self, error: Exception | None) -> None:
        self.error = error


async def test_messages_cross_in_order_and_both_ends_close() -> None:
    a, b = memory_connection_pair(A, B)
    assert a.is_opened
    assert b.is_opened
    assert (a.remote_public_key, b.remote_public_key) == (B.public_key, A.public_key)
    assert a.handshake_hash == b.handshake_hash
    for number in range(5):
        a.write(b"%d" % number)
    a.end()
    assert [await b.read() for _ in range(6)] == [b"0", b"1", b"2", b"3", b"4", None]
    b.write(b"still open this way")
    assert await a.read() == b"still open this way"
    b.end()
    await asyncio.gather(a.wait_closed(), b.wait_closed())
    assert a.error is None
    assert b.error is None
    assert await a.read() is None


async def test_writer_waits_for_a_reader_that_lags() -> None:
    a, b = memory_connection_pair(A, B)
    sent = 0
    while a.write(bytes(50_000)):
        sent += 1
        await asyncio.sleep(0)
        assert sent < 100
    assert READ_QUEUE_BYTES_MAX <= sent * 50_000 < 2 * READ_QUEUE_BYTES_MAX
    drained = asyncio.ensure_future(a.drain())
    await asyncio.sleep(0)
    assert not drained.done()
    for _ in range(sent):
        assert await b.read() == bytes(50_000)
    await drained


async def test_destroy_fails_the_other_sides_waiters() -> None:
    a, b = memory_connection_pair(A, B)
    closed: list[str] = []
    b.add_close_callback(lambda: closed.append("b"))
    reading = asyncio.ensure_future(b.read())
    await asyncio.sleep(0)
    a.destroy()
    assert a.is_closed
    with pytest.raises(ConnectionLost, match="reset"):
        await reading
    await b.wait_closed()
    with pytest.raises(ConnectionLost, match="reset"):
        await b.drain()
    assert closed == ["b"]
    b.add_close_callback(lambda: closed.append("late"))
    assert closed == ["b", "late"]
    assert a.write(b"x") is False


@pytest.mark.parametrize("garbage", [b"\x01\x00\x00x", bytes(100), b"\xff" * 60])
async def test_wrong_bytes_destroy_the_connection(garbage: bytes) -> None:
    stream, other = memory_stream_pair()
    result, _ = handshake_pair(A, B, SeededRandom(1))
    connection = Connection(stream, result, clock=SimClock(), random=SeededRandom(2))
    sink = Sink()
    other.set_receiver(sink)
    # The first frame is refused as soon as it is longer than it may be.
    other.write(garbage)
    with pytest.raises(ConnectionLost, match="protocol violation"):
        await connection.wait_opened()
    await connection.wait_closed()
    assert isinstance(sink.error, ConnectionLost)


async def test_unordered_messages_arrive_beside_the_stream() -> None:
    a, b = memory_connection_pair(A, B)
    heard: list[bytes] = []
    b.set_message_receiver(heard.append)
    a.send_message(b"datagram")
    a.write(b"message")
    assert await b.read() == b"message"
    assert heard == [b"datagram"]
    with pytest.raises(ValueError, match="MTU"):
        a.send_message(bytes(5000))


async def test_a_message_longer_than_a_frame_is_refused() -> None:
    a, b = memory_connection_pair(A, B)
    with pytest.raises(LocalProtocolError):
        a.write(bytes(2**24))
    a.write(bytes(2**24 - 18))
    message = await b.read()
    assert message is not None
    assert len(message) == 2**24 - 18


def test_quiet_connections_send_keep_alives_that_nobody_sees() -> None:
    async def main() -> None:
        a, b = memory_connection_pair(A, B)
        await asyncio.sleep(300)
        assert not a.is_closed
        a.write(b"first thing read")
        assert await b.read() == b"first thing read"
        a.destroy()
        await b.wait_closed()

    run_virtual(main)


def test_a_peer_whose_keep_alives_stop_is_given_up() -> None:
    async def main() -> None:
        clock = SimClock()
        stream_a, stream_b = memory_stream_pair()
        for_a, for_b = handshake_pair(A, B, SeededRandom(1))
        a = Connection(stream_a, for_a, clock=clock, random=SeededRandom(2))
        b = Connection(stream_b, for_b, clock=clock, random=SeededRandom(3))
        await a.wait_opened()
        await asyncio.sleep(60)
        assert not a.is_closed
        stream_b.peer = memory_stream_pair()[0]  # its packets go nowhere now
        stream_b.peer.peer = stream_b
        stopped_s = clock.now()
        await a.wait_closed()
        assert SILENCE_MAX_S - 10 <= clock.now() - stopped_s <= SILENCE_MAX_S + 10
        assert isinstance(a.error, ConnectionLost)
        assert a.error.reason == "timed out"
        b.destroy()

    run_virtual(main)


def test_a_peer_that_ended_its_side_may_be_silent() -> None:
    async def main() -> None:
        a, b = memory_connection_pair(A, B)
        await asyncio.sleep(60)
        a.end()
        assert await b.read() is None
        await asyncio.sleep(600)
        assert b.write(b"a late answer")
        assert await a.read() == b"a late answer"
        b.end()
        await asyncio.gather(a.wait_closed(), b.wait_closed())
        assert a.error is None

    run_virtual(main)


def test_a_peer_that_never_speaks_is_given_up() -> None:
    async def main() -> None:
        clock = SimClock()
        stream, _ = memory_stream_pair()
        result, _ = handshake_pair(A, B, SeededRandom(1))
        connection = Connection(stream, result, clock=clock, random=SeededRandom(2))
        with pytest.raises(ConnectionLost, match="timed out"):
            await connection.wait_opened()
        assert clock.now() == pytest.approx(OPEN_TIMEOUT_S)

    run_virtual(main)


async def test_frames_that_came_before_mux_reach_channels_made_after() -> None:
    a, b = memory_connection_pair(A, B)
    channel = a.mux.create_channel("echo")
    assert channel is not None
    channel.open(b"hi")
    channel.send(7, b"payload")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    heard: list[object] = []
    done = asyncio.Event()

    def on_message(kind: int, payload: bytes) -> None:
        heard.append((kind, payload))
        done.set()

    mine = b.mux.create_channel("echo", on_open=heard.append, on_message=on_message)
    assert mine is not None
    mine.open()
    await done.wait()
    assert heard == [b"hi", (7, b"payload")]


async def test_a_failing_handler_closes_the_connection() -> None:
    a, b = memory_connection_pair(A, B)

    def on_message(kind: int, payload: bytes) -> None:
        raise RuntimeError("a bug")

    theirs = b.mux.create_channel("x", on_message=on_message)
    mine = a.mux.create_channel("x")
    assert theirs is not None
    assert mine is not None
    theirs.open()
    mine.open()
    mine.send(0, b"")
    await a.wait_closed()
    assert isinstance(b.error, ConnectionLost)
    assert b.error.reason == "internal error"
    assert mine.is_closed
    assert theirs.is_closed


async def test_with_mux_an_end_is_answered_with_an_end() -> None:
    a, b = memory_connection_pair(A, B)
    assert b.mux is not None
    a.end()
    await asyncio.gather(a.wait_closed(), b.wait_closed())
    assert a.error is None
    assert b.error is None


async def test_a_drain_handler_that_fails_closes_the_connection() -> None:
    a, b = memory_connection_pair(A, B)
    mine, theirs = a.mux.create_channel("x"), b.mux.create_channel("x")
    assert mine is not None
    assert theirs is not None
    closed: list[str] = []

    def on_drain() -> None:
        raise RuntimeError("a bug")

    mine.on_drain = on_drain
    mine.open()
    theirs.open()
    b.add_close_callback(lambda: closed.append("b"))
    while mine.send(0, bytes(10_000)):
        pass
    await a.wait_closed()
    assert isinstance(a.error, ConnectionLost)
    assert a.error.reason == "internal error"
    await b.wait_closed()
    assert closed == ["b"]


async def test_a_close_handler_that_fails_does_not_keep_the_news_from_others() -> None:
    a, _ = memory_connection_pair(A, B)
    told = asyncio.Event()

    def on_close(is_remote: bool) -> None:
        raise RuntimeError("a bug")

    channel = a.mux.create_channel("x", on_close=on_close)
    assert channel is not None
    channel.open()
    a.add_close_callback(told.set)
    a.destroy()
    async with asyncio.timeout(5):
        await told.wait()
