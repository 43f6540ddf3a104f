from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from peerchat.net.crypto.primitives import KeyPair
from peerchat.net.driver.connection import Connection
from peerchat.net.errors import (
    ConnectFailed,
    ConnectionLost,
    PeerNotFound,
    RequestTimeout,
    RpcClosed,
    RpcRemoteError,
)
from peerchat.net.identity import PublicKey
from peerchat.net.mux import rpc
from peerchat.net.rpc.client import RpcClient
from peerchat.net.rpc.server import RpcServer
from peerchat.net.rpc.session import REQUESTS_MAX, RUNNING_BYTES_MAX, RpcSession
from peerchat.testing.loop import run_virtual
from peerchat.testing.streams import memory_connection_pair

A, B = KeyPair.from_seed(b"\1" * 32), KeyPair.from_seed(b"\2" * 32)


class TinyDht:
    """One server and whoever dials it."""

    def __init__(self) -> None:
        self.connections: list[tuple[Connection, Connection]] = []
        self.dials = 0
        self.gate: asyncio.Event | None = None
        self.is_listening = False
        self._on_connection: Callable[[Connection], None]

    def create_server(
        self, on_connection: Callable[[Connection], None], *, firewall: object = None
    ) -> TinyDht:
        self._on_connection = on_connection
        return self

    async def listen(self, key_pair: KeyPair) -> None:
        self.is_listening = True

    async def close(self) -> None:
        self.is_listening = False

    async def connect(
        self, public_key: PublicKey, *, key_pair: KeyPair | None = None
    ) -> Connection:
        self.dials += 1
        if self.gate is not None:
            await self.gate.wait()
        if not self.is_listening:
            raise PeerNotFound("nobody listens")
        pair = memory_connection_pair(key_pair or A, B)
        self.connections.append(pair)
        self._on_connection(pair[1])
        return pair[0]


async def echo(value: bytes, session: RpcSession) -> bytes:
    return value


async def start(
    *, server_secret: bytes | None = None, client_secret: bytes | None = None
) -> tuple[TinyDht, RpcServer, RpcClient]:
    dht = TinyDht()
    server = RpcServer(dht, capability=server_secret)
    server.respond("echo", echo)
    await server.listen(B)
    return dht, server, RpcClient(dht, capability=client_secret)


async def call(
    client: RpcClient, method: str, value: bytes | None, timeout_s: float = 5.0
) -> bytes | None:
    return await client.request(B.public_key, method, value, timeout_s=timeout_s)


async def test_values_come_back() -> None:
    _, server, client = await start()
    for value in (b"x", bytes(300), bytes(3_000_000)):
        assert await call(client, "echo", value) == value
    assert await call(client, "echo", None) is None
    assert server.public_key == B.public_key
    assert len(server.sessions) == 1
    await client.close()
    await server.close()


async def test_errors_carry_the_handlers_words() -> None:
    _, server, client = await start()

    async def fail(value: bytes, session: RpcSession) -> bytes:
        raise ValueError("no such thing")

    async def refuse(value: bytes, session: RpcSession) -> bytes:
        raise asyncio.CancelledError

    server.respond("fail", fail)
    server.respond("refuse", refuse)
    with pytest.raises(RpcRemoteError, match="no such thing") as caught:
        await call(client, "fail", b"")
    assert caught.value.code == "REQUEST_ERROR"
    with pytest.raises(RpcRemoteError, match="CancelledError"):
        await call(client, "refuse", b"")
    with pytest.raises(RpcRemoteError, match="Unknown method 'nope'") as caught:
        await call(client, "nope", b"")
    assert caught.value.code == "UNKNOWN_METHOD"
    assert await call(client, "echo", b"still works") == b"still works"
    server.unrespond("fail")
    with pytest.raises(RpcRemoteError, match="Unknown method"):
        await call(client, "fail", b"")
    await client.close()
    await server.close()


async def test_a_value_over_the_servers_limit_is_refused() -> None:
    dht = TinyDht()
    server = RpcServer(dht, value_bytes_max=100)
    server.respond("echo", echo)
    await server.listen(B)
    client = RpcClient(dht)
    assert await call(client, "echo", bytes(100)) == bytes(100)
    with pytest.raises(RpcRemoteError, match="at most 100"):
        await call(client, "echo", bytes(101))
    await client.close()
    await server.close()


async def test_handlers_run_side_by_side_in_tasks_of_their_own() -> None:
    _, server, client = await start()
    gate, all_run = asyncio.Event(), asyncio.Event()
    tasks: set[object] = set()

    async def slow(value: bytes, session: RpcSession) -> bytes:
        async with asyncio.timeout(30):
            tasks.add(asyncio.current_task())
            if len(tasks) == 20:
                all_run.set()
            await gate.wait()
            return value

    server.respond("slow", slow)
    calls = [
        asyncio.ensure_future(call(client, "slow", b"%d" % number))
        for number in range(20)
    ]
    assert await call(client, "echo", b"passes them") == b"passes them"
    await all_run.wait()
    gate.set()
    assert await asyncio.gather(*calls) == [b"%d" % number for number in range(20)]
    await client.close()
    await server.close()


async def test_a_dead_connection_is_replaced_and_what_ran_over_it_fails() -> None:
    dht, server, client = await start()
    assert await call(client, "echo", b"x") == b"x"
    dead, _ = dht.connections[0]
    dead._stream.hold(True)
    lost = asyncio.ensure_future(call(client, "echo", b"lost"))
    await asyncio.sleep(0)
    await asyncio.gather(*(client.renew(B.public_key) for _ in range(3)))
    with pytest.raises(RpcClosed):
        await lost
    assert dead.is_closed
    assert dht.dials == 2
    assert await call(client, "echo", b"y") == b"y"
    await client.close()
    await server.close()


async def test_a_connection_that_speaks_meanwhile_is_kept() -> None:
    dht, server, client = await start()
    assert await call(client, "echo", b"x") == b"x"
    dht.gate = asyncio.Event()
    renewing = asyncio.ensure_future(client.renew(B.public_key))
    await asyncio.sleep(0)
    assert await call(client, "echo", b"here I am") == b"here I am"
    dht.gate.set()
    await renewing
    kept, unneeded = dht.connections[0][0], dht.connections[1][0]
    assert unneeded.is_closed
    assert not kept.is_closed
    assert await call(client, "echo", b"y") == b"y"
    await client.close()
    await server.close()


async def test_a_peer_that_cannot_be_reached_anew_is_left_as_it_is() -> None:
    dht, server, client = await start()
    assert await call(client, "echo", b"x") == b"x"
    dht.is_listening = False
    with pytest.raises(ConnectFailed):
        await client.renew(B.public_key)
    assert not dht.connections[0][0].is_closed
    assert await call(client, "echo", b"y") == b"y"
    dht.gate = asyncio.Event()
    renewing = asyncio.ensure_future(client.renew(B.public_key))
    await asyncio.sleep(0)
    await client.close()
    with pytest.raises(RpcClosed):
        await renewing
    await server.close()


async def test_no_more_than_the_limit_of_handlers_run() -> None:
    _, server, client = await start()
    gate, is_full = asyncio.Event(), asyncio.Event()
    running = most = 0

    async def slow(value: bytes, session: RpcSession) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == REQUESTS_MAX:
            is_full.set()
        await gate.wait()
        running -= 1

    server.respond("slow", slow)
    count = REQUESTS_MAX + 50
    calls = [asyncio.ensure_future(call(client, "slow", b"")) for _ in range(count)]
    await is_full.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    assert most == REQUESTS_MAX
    gate.set()
    await asyncio.gather(*calls)
    assert most == REQUESTS_MAX
    await client.close()
    await server.close()


async def test_concurrent_calls_share_one_attempt_to_connect() -> None:
    dht, server, client = await start()
    dht.gate = asyncio.Event()
    calls = [asyncio.ensure_future(call(client, "echo", b"x")) for _ in range(10)]
    await asyncio.sleep(0)
    calls[0].cancel()
    await asyncio.sleep(0)
    dht.gate.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == [b"x"] * 9
    assert dht.dials == 1
    await client.close()
    await server.close()


async def test_a_failed_attempt_is_not_remembered() -> None:
    dht, server, client = await start()
    dht.is_listening = False
    with pytest.raises(ConnectFailed):
        await call(client, "echo", b"")
    dht.is_listening = True
    assert await call(client, "echo", b"x") == b"x"
    assert dht.dials == 2
    await client.close()
    await server.close()


async def test_losing_the_connection_fails_what_is_pending_and_cancels() -> None:
    dht, server, client = await start()
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def hang(value: bytes, session: RpcSession) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    server.respond("hang", hang)
    pending = asyncio.ensure_future(call(client, "hang", b""))
    await started.wait()
    dht.connections[0][0].destroy()
    with pytest.raises(RpcClosed):
        await pending
    await cancelled.wait()
    assert await call(client, "echo", b"anew") == b"anew"
    assert dht.dials == 2
    await client.close()
    await server.close()


async def test_closing_the_server_fails_pending_requests() -> None:
    _, server, client = await start()
    started = asyncio.Event()

    async def hang(value: bytes, session: RpcSession) -> None:
        started.set()
        await asyncio.Event().wait()

    server.respond("hang", hang)
    pending = asyncio.ensure_future(call(client, "hang", b""))
    await started.wait()
    await server.close()
    with pytest.raises(RpcClosed):
        await pending
    assert len(server.sessions) == 0
    await client.close()
    with pytest.raises(RpcClosed):
        await call(client, "echo", b"")


def test_requests_time_out_each_at_its_own_time() -> None:
    async def main() -> None:
        dht, server, client = await start()
        gate = asyncio.Event()

        async def hang(value: bytes, session: RpcSession) -> bytes:
            await gate.wait()
            return b"late"

        server.respond("hang", hang)
        loop = asyncio.get_running_loop()
        ended: dict[str, float] = {}

        async def one(name: str, timeout_s: float) -> None:
            with pytest.raises(RequestTimeout):
                await call(client, "hang", b"", timeout_s)
            ended[name] = loop.time()

        await asyncio.gather(one("long", 9), one("short", 2), one("mid", 5))
        assert ended == pytest.approx({"short": 2, "mid": 5, "long": 9})
        gate.set()
        assert await call(client, "echo", b"x") == b"x"
        dht.gate = asyncio.Event()
        other = RpcClient(dht)
        with pytest.raises(RequestTimeout):
            await call(other, "echo", b"", 3)
        await other.close()
        await client.close()
        await server.close()

    run_virtual(main)


def test_an_unused_connection_lingers_then_closes_unless_held() -> None:
    async def main() -> None:
        dht, server, client = await start()
        for _ in range(3):
            assert await call(client, "echo", b"x") == b"x"
            await asyncio.sleep(9)
        assert dht.dials == 1
        await asyncio.sleep(2)
        assert dht.connections[0][0].is_closed
        assert dht.connections[0][1].is_closed
        session = await client.session(B.public_key)
        session.hold()
        assert dht.dials == 2
        await asyncio.sleep(100)
        assert not session.is_closed
        session.release()
        await asyncio.sleep(11)
        assert session.is_closed
        await client.close()
        await server.close()

    run_virtual(main)


async def test_events_are_not_answered_and_work_both_ways() -> None:
    _, server, client = await start()
    heard = asyncio.Queue[bytes]()

    async def note(value: bytes, session: RpcSession) -> None:
        heard.put_nowait(value)
        if value == b"up":
            session.event("note", b"down")
            assert await session.request("echo", b"asked", timeout_s=5) == b"asked"
            heard.put_nowait(b"done")

    server.respond("note", note)
    client.respond("note", note)
    client.respond("echo", echo)
    session = await client.session(B.public_key)
    session.event("note", b"up")
    session.event("unknown", b"")
    got = {await heard.get() for _ in range(3)}
    assert got == {b"up", b"down", b"done"}
    await client.close()
    with pytest.raises(RpcClosed):
        session.event("note", b"")
    await server.close()


async def test_equal_capabilities_work() -> None:
    _, server, client = await start(server_secret=b"s" * 32, client_secret=b"s" * 32)
    assert await call(client, "echo", b"x") == b"x"
    await client.close()
    await server.close()


@pytest.mark.parametrize(
    ("server_secret", "client_secret"),
    [(b"s" * 32, None), (b"s" * 32, b"t" * 32), (None, b"s" * 32)],
)
async def test_without_the_capability_nothing_is_answered(
    server_secret: bytes | None, client_secret: bytes | None
) -> None:
    dht, server, client = await start(
        server_secret=server_secret, client_secret=client_secret
    )
    called = []

    async def watched(value: bytes, session: RpcSession) -> bytes:
        called.append(value)
        return value

    server.respond("watched", watched)
    with pytest.raises(RpcClosed):
        await call(client, "watched", b"")
    if server_secret is not None:
        assert called == []
        error = dht.connections[0][1].error
        assert isinstance(error, ConnectionLost)
    await client.close()
    await server.close()


async def test_the_hook_can_pair_channels_before_any_frame() -> None:
    dht = TinyDht()
    heard = asyncio.Queue[bytes]()

    def on_connection(connection: Connection) -> None:
        def notify(name: bytes) -> None:
            channel = connection.mux.create_channel(
                "extra", name, on_message=lambda _, payload: heard.put_nowait(payload)
            )
            assert channel is not None
            channel.open()

        connection.mux.pair("extra", None, notify)

    server = RpcServer(dht, on_connection=on_connection)
    await server.listen(B)
    client = RpcClient(dht)
    session = await client.session(B.public_key)
    channel = session.connection.mux.create_channel("extra", b"1")
    assert channel is not None
    channel.open()
    channel.send(0, b"beside RPC")
    assert await heard.get() == b"beside RPC"
    await client.close()
    await server.close()


async def test_refusals_that_nobody_reads_do_not_pile_up() -> None:
    connection, serving = memory_connection_pair(A, B)
    session = RpcSession(serving, B.public_key, handlers={})
    channel = connection.mux.create_channel(rpc.PROTOCOL, B.public_key)
    assert channel is not None
    channel.open()
    await asyncio.sleep(0)
    connection.pause_reading()
    method = "m" * 50_000
    for number in range(1, 500):
        channel.send(rpc.REQUEST, rpc.encode_request(number, method, None))
        channel.send(rpc.REQUEST, rpc.encode_request(rpc.EVENT_ID, method, None))
        await asyncio.sleep(0)
    tiny = rpc.encode_request(7, "m", None)
    for _ in range(20_000):
        channel.send(rpc.REQUEST, tiny)
        await asyncio.sleep(0)
    assert serving.buffered < 200_000
    connection.resume_reading()
    session.close()
    serving.destroy()
    await connection.wait_closed()


async def test_large_requests_wait_for_the_handlers_of_others() -> None:
    _, server, client = await start()
    gate = asyncio.Event()
    running = most = 0

    async def slow(value: bytes, session: RpcSession) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await gate.wait()
        running -= 1

    server.respond("slow", slow)
    value = bytes(RUNNING_BYTES_MAX // 4)
    calls = [asyncio.ensure_future(call(client, "slow", value)) for _ in range(8)]
    for _ in range(50):
        await asyncio.sleep(0)
    assert most == 5
    gate.set()
    await asyncio.gather(*calls)
    await client.close()
    await server.close()
