"""Whole HyperDHT nodes on real sockets of this machine."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator

import pytest

from peerchat.net import (
    Connection,
    HyperDHT,
    KeyPair,
    PeerNotFound,
    hash_topic,
    system_env,
)

BULK_BYTES = 4 * 1024 * 1024


@contextlib.asynccontextmanager
async def network(size: int, host: str) -> AsyncIterator[list[HyperDHT]]:
    """Persistent nodes, the first of which is everybody's bootstrap node."""
    async with contextlib.AsyncExitStack() as stack:
        nodes: list[HyperDHT] = []
        for _ in range(size):
            dht = HyperDHT(
                system_env(),
                bootstrap=[("127.0.0.1", dht.address.port) for dht in nodes[:1]],
                host=host,
                ephemeral=False,
                firewalled=False,
            )
            nodes.append(await stack.enter_async_context(dht))
        yield nodes


async def pump(source: Connection, sink: Connection, total: int) -> bool:
    sent, got = hashlib.sha256(), hashlib.sha256()

    async def send() -> None:
        for index in range(total // 65536):
            part = index.to_bytes(4, "big") * 16384
            sent.update(part)
            if not source.write(part):
                await source.drain()
        source.end()

    async def receive() -> None:
        while (part := await sink.read()) is not None:
            got.update(part)

    await asyncio.gather(send(), receive())
    return sent.digest() == got.digest()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("is_closed", [False, True])
async def test_find_connect_and_carry_bytes(host, is_closed):
    async with (
        network(4, host) as nodes,
        HyperDHT(system_env(), bootstrap=[f"127.0.0.1:{nodes[0].address.port}"]) as a,
        HyperDHT(system_env(), bootstrap=[f"127.0.0.1:{nodes[0].address.port}"]) as b,
    ):
        a.node.io.is_firewalled |= is_closed
        b.node.io.is_firewalled |= is_closed
        topic = hash_topic("loopback")
        accepted: asyncio.Queue[Connection] = asyncio.Queue()
        server = a.create_server(accepted.put_nowait)
        await server.listen(a.default_key_pair)
        assert await a.announce(topic, a.default_key_pair) >= 3
        (record,) = await b.lookup(topic)
        assert record.public_key == server.public_key
        connection = await b.connect(record.public_key)
        other = await accepted.get()
        outcomes = await asyncio.gather(
            pump(connection, other, BULK_BYTES), pump(other, connection, BULK_BYTES)
        )
        assert outcomes == [True, True]
        await server.close()
        with pytest.raises(PeerNotFound):
            await b.connect(record.public_key)


async def test_a_lone_node_on_all_interfaces_serves_itself():
    async with HyperDHT(system_env(), ephemeral=False, firewalled=False) as dht:
        accepted: asyncio.Queue[Connection] = asyncio.Queue()
        await dht.create_server(accepted.put_nowait).listen(dht.default_key_pair)
        connection = await dht.connect(dht.default_key_pair.public_key)
        other = await accepted.get()
        assert await pump(connection, other, 65536)
        topic = hash_topic("lone")
        assert await dht.announce(topic, dht.default_key_pair) == 1
        assert len(await dht.lookup(topic)) == 1


async def test_what_a_first_node_announced_alone_is_found_by_who_joins():
    async with HyperDHT(system_env(), ephemeral=False, firewalled=False) as first:
        accepted: asyncio.Queue[Connection] = asyncio.Queue()
        await first.create_server(accepted.put_nowait).listen(first.default_key_pair)
        topic = hash_topic("first")
        await first.announce(topic, first.default_key_pair)
        bootstrap = [f"127.0.0.1:{first.address.port}"]
        async with HyperDHT(system_env(), bootstrap=bootstrap) as dht:
            (record,) = await dht.lookup(topic)
            connection = await dht.connect(record.public_key)
            assert await pump(connection, await accepted.get(), 65536)


async def test_one_process_serves_everything_and_others_join_it():
    """Several servers on one bootstrap node, each under a key and a topic."""
    async with HyperDHT.bootstrapper(system_env(), "127.0.0.1", 0) as solo:
        accepted: asyncio.Queue[Connection] = asyncio.Queue()
        identities = [KeyPair.from_seed(bytes([index]) * 32) for index in range(4)]
        for index, key_pair in enumerate(identities):
            await solo.create_server(accepted.put_nowait).listen(key_pair)
            assert await solo.announce(hash_topic(f"role {index}"), key_pair) == 1
        async with HyperDHT(system_env(), bootstrap=[solo.address]) as guest:
            for dht in (solo, guest):
                for index, key_pair in enumerate(identities):
                    (record,) = await dht.lookup(hash_topic(f"role {index}"))
                    assert record.public_key == key_pair.public_key
                    connection = await dht.connect(record.public_key)
                    other = await accepted.get()
                    assert other.public_key == key_pair.public_key
                    assert await pump(connection, other, 65536)


async def test_a_taken_port_is_an_os_error():
    async with HyperDHT(system_env(), host="127.0.0.1") as dht:
        second = HyperDHT(system_env(), host="127.0.0.1", port=dht.address.port)
        with pytest.raises(OSError, match="in use"):
            await second.start()


async def test_a_generated_key_pair_is_used_unless_one_is_given():
    keys = KeyPair.from_seed(bytes(32))
    assert HyperDHT(system_env(), key_pair=keys).default_key_pair == keys
    first, second = HyperDHT(system_env()), HyperDHT(system_env())
    assert first.default_key_pair != second.default_key_pair
