"""secretstream, Protomux and RPC against the npm packages, over TCP."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from peerchat.net.crypto.primitives import KeyPair
from peerchat.net.driver.connection import Connection
from peerchat.net.driver.env import LoopClock, SystemRandom
from peerchat.net.driver.noise_stream import open_noise_stream
from peerchat.net.errors import ConnectionLost, RpcClosed, RpcRemoteError
from peerchat.net.identity import Address
from peerchat.net.rpc.session import RpcSession
from peerchat.net.streams import ByteStreamReceiver

from .conftest import NodePeer, StartNodePeer

pytestmark = pytest.mark.interop

CLIENT, SERVER = KeyPair.from_seed(b"\1" * 32), KeyPair.from_seed(b"\2" * 32)
SCRIPT = "secretstream_peer.js"
BIG_BYTES = 5_000_000


class TcpStream(asyncio.Protocol):
    """A ByteStream over one TCP connection."""

    rtt_s: float | None = None
    remote_address: Address | None = None
    buffered = 0

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self._receiver: ByteStreamReceiver | None = None
        self._is_full = False
        self._early = b""
        self._error: Exception | None = None
        self._has_ended = False
        self._has_remote_ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self._receiver is None:
            self._early += data
        else:
            self._receiver.data_received(data)

    def eof_received(self) -> bool:
        assert self._receiver is not None
        self._has_remote_ended = True
        self._receiver.end_received()
        self._close_maybe()
        return True

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        if self._receiver is not None:
            self._receiver.writable()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._receiver is not None:
            lost = ConnectionLost("reset by peer") if exc else self._error
            self._receiver.stream_closed(lost)

    def set_receiver(self, receiver: ByteStreamReceiver) -> None:
        self._receiver = receiver
        if self._early:
            early, self._early = self._early, b""
            receiver.data_received(early)

    def write(self, data: bytes) -> bool:
        self.transport.write(data)
        return not self._is_full

    def flush(self) -> None:
        """Nothing is held back."""

    def send_message(self, data: bytes) -> None:
        raise ValueError("TCP has no messages")

    def end(self) -> None:
        if not self.transport.is_closing():
            self._has_ended = True
            self.transport.write_eof()
            self._close_maybe()

    def _close_maybe(self) -> None:
        if self._has_ended and self._has_remote_ended:
            self.transport.close()

    def destroy(self, error: Exception | None = None) -> None:
        self._error = error
        self.transport.abort()

    def pause_reading(self) -> None:
        self.transport.pause_reading()

    def resume_reading(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()


async def secure(stream: TcpStream, *, is_initiator: bool) -> Connection:
    return await open_noise_stream(
        stream,
        is_initiator=is_initiator,
        key_pair=CLIENT if is_initiator else SERVER,
        clock=LoopClock(),
        random=SystemRandom(),
    )


async def dial(node_peer: StartNodePeer, **env: object) -> tuple[NodePeer, Connection]:
    peer = await node_peer(SCRIPT, MODE="server", **env)
    port = (await peer.next())["port"]
    loop = asyncio.get_running_loop()
    _, stream = await loop.create_connection(TcpStream, "127.0.0.1", port)
    connection = await secure(stream, is_initiator=True)
    assert connection.remote_public_key == SERVER.public_key
    return peer, connection


def pattern(length: int) -> bytes:
    return (b"peerchat" * (length // 8 + 1))[:length]


async def test_messages_and_ends_cross(node_peer: StartNodePeer) -> None:
    peer, connection = await dial(node_peer, RAW=1)
    messages = [b"a", bytes(70_000), b"b" * 3_000_000, b"last"]
    for message in messages:
        if not connection.write(message):
            await connection.drain()
    for message in messages:
        assert await connection.read() == message
    connection.end()
    assert await connection.read() is None
    await connection.wait_closed()
    assert connection.error is None
    assert await peer.next() == {"gone": True}


async def test_our_client_calls_a_node_server(node_peer: StartNodePeer) -> None:
    peer, connection = await dial(node_peer)
    noted = asyncio.Queue[bytes]()

    async def on_noted(value: bytes, session: RpcSession) -> None:
        noted.put_nowait(value)

    session = RpcSession(connection, SERVER.public_key, handlers={"noted": on_noted})

    async def call(method: str, value: bytes | None) -> bytes | None:
        return await session.request(method, value, timeout_s=20)

    many = [call("echo" if i % 2 else "later", b"%d" % i) for i in range(1, 200)]
    assert await asyncio.gather(*many) == [b"%d" % i for i in range(1, 200)]
    assert await call("echo", None) is None
    with pytest.raises(RpcRemoteError, match="no such thing") as caught:
        await call("fail", b"")
    assert caught.value.code == "REQUEST_ERROR"
    with pytest.raises(RpcRemoteError, match="Unknown method 'absent'") as caught:
        await call("absent", b"")
    assert caught.value.code == "UNKNOWN_METHOD"
    big = pattern(BIG_BYTES)
    size = f"{BIG_BYTES} {hashlib.sha256(big).hexdigest()}".encode()
    assert await call("size", big) == size
    assert await call("make", b"%d" % BIG_BYTES) == big
    session.event("note", b"an event each way")
    assert await noted.get() == b"an event each way"
    session.close()
    await session.wait_closed()
    assert await peer.next() == {"gone": True}
    with pytest.raises(RpcClosed):
        await call("echo", b"")


async def test_channels_pair_with_node(node_peer: StartNodePeer) -> None:
    peer, connection = await dial(node_peer)
    heard = asyncio.Queue[object]()
    channel = connection.mux.create_channel(
        "count",
        b"7",
        handshake=b"\x0ehello from our",
        on_open=heard.put_nowait,
        on_message=lambda kind, payload: heard.put_nowait((kind, payload)),
        on_close=lambda is_remote: heard.put_nowait(is_remote),
    )
    unwanted = connection.mux.create_channel("nobody", on_close=heard.put_nowait)
    assert channel is not None
    assert unwanted is not None
    connection.mux.cork()
    channel.open()
    channel.send(0, b"four")
    channel.send(0, bytes(300))
    connection.mux.uncork()
    assert await heard.get() == b"\x0fhello from node"
    assert [await heard.get(), await heard.get()] == [(0, b"4"), (0, b"304")]
    unwanted.open()
    assert await heard.get() is True
    channel.close()
    assert await heard.get() is False
    assert await peer.next() == {"channel": "7", "handshake": "hello from our"}
    assert await peer.next() == {"closed": "7", "total": 304}
    connection.destroy()
    await connection.wait_closed()


async def test_a_node_client_calls_our_server(node_peer: StartNodePeer) -> None:
    sessions = asyncio.Queue[RpcSession]()

    async def echo(value: bytes, session: RpcSession) -> bytes:
        return value

    async def later(value: bytes, session: RpcSession) -> bytes:
        await asyncio.sleep(0.02)
        return value

    async def size(value: bytes, session: RpcSession) -> bytes:
        return f"{len(value)} {hashlib.sha256(value).hexdigest()}".encode()

    async def make(value: bytes, session: RpcSession) -> bytes:
        return pattern(int(value))

    async def fail(value: bytes, session: RpcSession) -> bytes:
        raise ValueError("no such thing")

    async def callback(value: bytes, session: RpcSession) -> bytes | None:
        return await session.request("reverse", value, timeout_s=10)

    handlers = {f.__name__: f for f in (echo, later, size, make, fail, callback)}

    async def accept(stream: TcpStream) -> None:
        connection = await secure(stream, is_initiator=False)
        assert connection.remote_public_key == CLIENT.public_key
        key = connection.public_key
        sessions.put_nowait(RpcSession(connection, key, handlers=handlers))

    accepting: list[asyncio.Future[None]] = []

    class Listening(TcpStream):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            accepting.append(asyncio.ensure_future(accept(self)))

    loop = asyncio.get_running_loop()
    server = await loop.create_server(Listening, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    peer = await node_peer(SCRIPT, MODE="client", PORT=port, BIG=BIG_BYTES)
    digest = hashlib.sha256(pattern(BIG_BYTES)).hexdigest()
    expected = [
        {"batch": [f"n{i}" for i in range(50)] + ["slow"]},
        {"empty": None},
        {
            "fail": {
                "message": "REQUEST_ERROR: Request failed",
                "code": "REQUEST_ERROR",
                "cause": "no such thing",
            }
        },
        {
            "absent": {
                "message": "UNKNOWN_METHOD: Unknown method 'absent'",
                "code": "UNKNOWN_METHOD",
            }
        },
        {"size": f"{BIG_BYTES} {digest}", "sha": digest},
        {"made": digest},
        {"reversed": "cba"},
        {"closed": True},
    ]
    assert [await peer.next() for _ in expected] == expected
    session = await sessions.get()
    await session.wait_closed()
    assert session.is_closed
    await asyncio.gather(*accepting)
    server.close()
    await server.wait_closed()
