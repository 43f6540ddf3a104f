"""Our HyperDHT and npm hyperdht on loopback: each as bootstrap, server and client."""

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator

import pytest

from peerchat.net import (
    Connection,
    HyperDHT,
    KeyPair,
    PeerNotFound,
    PeerUnreachable,
    PublicKey,
    RpcClient,
    RpcRemoteError,
    RpcServer,
    hash_topic,
    system_env,
)

pytestmark = pytest.mark.interop

PART_BYTES = 65536
BULK_BYTES = 64 * 1024 * 1024
SMALL_BYTES = 100_000
TOPIC = hash_topic("hyperdht interop")


def part(name: str, index: int) -> bytes:
    """What tests/node/hyperdht_peer.js sends as part ``index``."""
    return hashlib.sha256(f"{name} {index}".encode()).digest() * 2048


def hash_of(name: str, total: int) -> str:
    digest = hashlib.sha256()
    for index in range(-(-total // PART_BYTES)):
        digest.update(part(name, index)[: total - index * PART_BYTES])
    return digest.hexdigest()


def keys(name: str) -> KeyPair:
    return KeyPair.from_seed(hashlib.sha256(name.encode()).digest())


async def send(connection: Connection, total: int) -> None:
    for index in range(-(-total // PART_BYTES)):
        if not connection.write(part("python", index)[: total - index * PART_BYTES]):
            await connection.drain()
    connection.end()


async def receive(connection: Connection) -> dict[str, object]:
    digest = hashlib.sha256()
    length = 0
    while (data := await connection.read()) is not None:
        digest.update(data)
        length += len(data)
    return {"length": length, "hash": digest.hexdigest()}


async def exchange(connection: Connection, total: int) -> dict[str, object]:
    """Send and receive at once, as the script does."""
    got, _ = await asyncio.gather(receive(connection), send(connection, total))
    return got


class NodeJs:
    """A hyperdht_peer.js, with its answers sorted from what it tells by itself."""

    def __init__(self, peer) -> None:
        self._peer = peer
        self._calls = 0
        self._told: list[dict] = []

    async def call(self, op: str, **arguments) -> dict:
        self._calls += 1
        await self._peer.send({"id": self._calls, "op": op, **arguments})
        answer = await self._next(lambda message: message.get("id") == self._calls)
        assert "error" not in answer, answer
        return answer

    async def told(self, key: str) -> dict:
        return (await self._next(lambda message: key in message))[key]

    async def _next(self, matches) -> dict:
        for index, message in enumerate(self._told):
            if matches(message):
                return self._told.pop(index)
        while not matches(message := await self._peer.next()):
            self._told.append(message)
        return message


@pytest.fixture
def start_node(node_peer):
    async def start(bootstrap=(), **environ) -> tuple[NodeJs, tuple[str, int]]:
        nodes = [{"host": host, "port": port} for host, port in bootstrap]
        peer = await node_peer(
            "hyperdht_peer.js", BOOTSTRAP=json.dumps(nodes), **environ
        )
        node = NodeJs(peer)
        ready = await node._next(lambda message: message.get("ready"))
        return node, (ready["host"], ready["port"])

    return start


@contextlib.asynccontextmanager
async def python_dht(
    bootstrap=(), *, is_closed: bool = False, **options
) -> AsyncIterator[HyperDHT]:
    """A node of ours; ``is_closed`` makes it believe that a firewall is before it."""
    dht = HyperDHT(system_env(), bootstrap=bootstrap, host="127.0.0.1", **options)
    async with dht:
        dht.node.io.is_firewalled |= is_closed
        yield dht


@contextlib.asynccontextmanager
async def mixed_net(kinds: str, start_node) -> AsyncIterator[list[tuple[str, int]]]:
    """Persistent nodes, ``p`` of ours and ``n`` of npm; the first one bootstraps."""
    async with contextlib.AsyncExitStack() as stack:
        bootstrap: list[tuple[str, int]] = []
        for kind in kinds:
            if kind == "p":
                dht = await stack.enter_async_context(
                    python_dht(bootstrap, ephemeral=False, firewalled=False)
                )
                address = tuple(dht.address)
            else:
                _, address = await start_node(bootstrap, PERSISTENT=1)
            bootstrap = bootstrap or [address]
        yield bootstrap


NETS = ["pppp", "nnnn", "pnpn"]
SIDES: dict[str, tuple[dict, dict]] = {
    "default": ({}, {}),
    "closed": ({"is_closed": True}, {}),
    "open": ({"firewalled": False}, {"OPEN": 1}),
    "we are open": ({"firewalled": False}, {}),
    "they are open": ({"is_closed": True}, {"OPEN": 1}),
}
"""Options of ours and environment of theirs; npm's default on loopback is closed."""


@pytest.mark.parametrize("kinds", NETS)
async def test_announce_lookup_and_find_peer_across(kinds, start_node):
    async with mixed_net(kinds, start_node) as bootstrap, python_dht(bootstrap) as dht:
        node, _ = await start_node(bootstrap)
        theirs = (await node.call("announce", topic=TOPIC.hex(), name="n"))["publicKey"]
        ours = keys("p")
        assert await dht.announce(TOPIC, ours) >= 3

        found = {peer.public_key.hex() for peer in await dht.lookup(TOPIC)}
        assert found == {theirs, ours.public_key.hex()}
        found = set((await node.call("lookup", topic=TOPIC.hex()))["keys"])
        assert found == {theirs, ours.public_key.hex()}

        await dht.unannounce(TOPIC, ours)
        assert (await node.call("lookup", topic=TOPIC.hex()))["keys"] == [theirs]
        await node.call("unannounce", topic=TOPIC.hex(), name="n")
        assert await dht.lookup(TOPIC) == []

        listening = (await node.call("listen", name="server", total=0))["publicKey"]
        record = await dht.find_peer(PublicKey(bytes.fromhex(listening)))
        assert record is not None
        assert record.public_key.hex() == listening
        server = dht.create_server(lambda connection: connection.destroy())
        await server.listen(keys("listener"))
        key = server.public_key.hex()
        assert (await node.call("findPeer", key=key))["publicKey"] == key

        await server.close()
        assert (await node.call("findPeer", key=key))["publicKey"] is None
        await node.call("close")
        assert await dht.find_peer(record.public_key) is None


@pytest.mark.parametrize("sides", SIDES)
@pytest.mark.parametrize("kinds", NETS)
async def test_python_connects_to_node(kinds, sides, start_node):
    options, environ = SIDES[sides]
    async with (
        mixed_net(kinds, start_node) as bootstrap,
        python_dht(bootstrap, **options) as dht,
    ):
        node, _ = await start_node(bootstrap, **environ)
        answer = await node.call("listen", name="server", total=SMALL_BYTES)
        key = PublicKey(bytes.fromhex(answer["publicKey"]))
        for _ in range(2):  # the second time by the remembered relays
            connection = await dht.connect(key, key_pair=keys("client"))
            got = await exchange(connection, SMALL_BYTES)
            assert got == {"length": SMALL_BYTES, "hash": hash_of("node", SMALL_BYTES)}
            theirs = await node.told("connection")
            assert theirs["hash"] == hash_of("python", SMALL_BYTES)
            assert theirs["remote"] == keys("client").public_key.hex()
            assert theirs["handshakeHash"] == connection.handshake_hash.hex()
            assert connection.remote_public_key == key


@pytest.mark.parametrize("sides", SIDES)
@pytest.mark.parametrize("kinds", NETS)
async def test_node_connects_to_python(kinds, sides, start_node):
    options, environ = SIDES[sides]
    async with (
        mixed_net(kinds, start_node) as bootstrap,
        python_dht(bootstrap, **options) as dht,
    ):
        node, _ = await start_node(bootstrap, **environ)
        accepted: asyncio.Queue[Connection] = asyncio.Queue()
        server = dht.create_server(accepted.put_nowait)
        await server.listen(keys("server"))
        for _ in range(2):
            call = asyncio.ensure_future(
                node.call(
                    "connect",
                    key=server.public_key.hex(),
                    name="client",
                    total=SMALL_BYTES,
                )
            )
            connection = await accepted.get()
            got = await exchange(connection, SMALL_BYTES)
            assert got == {"length": SMALL_BYTES, "hash": hash_of("node", SMALL_BYTES)}
            theirs = await call
            assert theirs["hash"] == hash_of("python", SMALL_BYTES)
            assert theirs["remote"] == server.public_key.hex()
            assert theirs["handshakeHash"] == connection.handshake_hash.hex()
            assert connection.remote_public_key == keys("client").public_key


async def test_64_mib_each_way_when_python_connects(start_node):
    async with mixed_net("pn", start_node) as bootstrap, python_dht(bootstrap) as dht:
        node, _ = await start_node(bootstrap)
        answer = await node.call("listen", name="server", total=BULK_BYTES)
        connection = await dht.connect(PublicKey(bytes.fromhex(answer["publicKey"])))
        got = await exchange(connection, BULK_BYTES)
        assert got == {"length": BULK_BYTES, "hash": hash_of("node", BULK_BYTES)}
        assert (await node.told("connection"))["hash"] == hash_of("python", BULK_BYTES)


async def test_64_mib_each_way_when_node_connects(start_node):
    async with mixed_net("np", start_node) as bootstrap, python_dht(bootstrap) as dht:
        node, _ = await start_node(bootstrap)
        accepted: asyncio.Queue[Connection] = asyncio.Queue()
        server = dht.create_server(accepted.put_nowait)
        await server.listen(keys("server"))
        key = server.public_key.hex()
        call = asyncio.ensure_future(
            node.call("connect", key=key, name="c", total=BULK_BYTES)
        )
        got = await exchange(await accepted.get(), BULK_BYTES)
        assert got == {"length": BULK_BYTES, "hash": hash_of("node", BULK_BYTES)}
        assert (await call)["hash"] == hash_of("python", BULK_BYTES)


async def test_a_firewall_of_ours_refuses_a_node_client(start_node):
    async with mixed_net("pn", start_node) as bootstrap, python_dht(bootstrap) as dht:
        node, _ = await start_node(bootstrap)
        unwanted = keys("unwanted").public_key
        server = dht.create_server(
            lambda connection: connection.destroy(),
            firewall=lambda key, payload: key == unwanted,
        )
        await server.listen(keys("server"))
        with pytest.raises(AssertionError, match="SERVER_ERROR"):
            await node.call(
                "connect", key=server.public_key.hex(), name="unwanted", total=1
            )


async def test_a_server_of_node_that_is_gone_is_not_found(start_node):
    async with mixed_net("pn", start_node) as bootstrap, python_dht(bootstrap) as dht:
        node, _ = await start_node(bootstrap)
        answer = await node.call("listen", name="server", total=0)
        await node.call("close")
        with pytest.raises(PeerNotFound):
            await dht.connect(PublicKey(bytes.fromhex(answer["publicKey"])))


async def test_two_node_peers_connect_through_relays_of_ours(start_node):
    """The DHT is ours alone: handshake and holepunch messages go through us."""
    async with mixed_net("ppp", start_node) as bootstrap:
        server, _ = await start_node(bootstrap)
        client, _ = await start_node(bootstrap)
        key = (await server.call("listen", name="s", total=10))["publicKey"]
        got = await client.call("connect", key=key, name="c", total=SMALL_BYTES)
        assert got["length"] == 10


async def echo(value: bytes, session) -> bytes:
    return value


async def fail(value: bytes, session) -> bytes:
    raise ValueError("it went wrong here")


async def test_rpc_from_python_to_node(start_node):
    async with mixed_net("pn", start_node) as bootstrap, python_dht(bootstrap) as dht:
        node, _ = await start_node(bootstrap)
        answer = await node.call("rpcListen", name="rpc")
        key = PublicKey(bytes.fromhex(answer["publicKey"]))
        client = RpcClient(dht)

        async def call(method, value):
            return await client.request(key, method, value, timeout_s=30)

        assert await call("echo", b"hello") == b"hello"
        with pytest.raises(RpcRemoteError, match="it went wrong"):
            await call("fail", b"")
        with pytest.raises(RpcRemoteError, match="Unknown method"):
            await call("nothing like it", b"")
        large = bytes(range(256)) * 4096
        assert await call("echo", large) == large
        values = [b"value %d" % index for index in range(100)]
        assert await asyncio.gather(*(call("echo", v) for v in values)) == values
        session = await client.session(key)
        session.event("note", b"an event")
        assert json.loads(await call("notes", b"")) == ["an event"]
        await client.close()


async def test_rpc_from_node_to_python(start_node):
    async with mixed_net("np", start_node) as bootstrap, python_dht(bootstrap) as dht:
        node, _ = await start_node(bootstrap)
        noted: asyncio.Queue[bytes] = asyncio.Queue()

        async def note(value, session):
            noted.put_nowait(value)

        server = RpcServer(dht)
        server.respond("echo", echo)
        server.respond("fail", fail)
        server.respond("note", note)
        await server.listen(keys("rpc"))
        key = server.public_key.hex()

        async def call(method, value=b""):
            return await node.call(
                "rpcRequest", key=key, method=method, value=value.hex()
            )

        assert (await call("echo", b"hello"))["value"] == b"hello".hex()
        with pytest.raises(AssertionError, match="it went wrong here"):
            await call("fail")
        with pytest.raises(AssertionError, match=r"(?i)unknown method"):
            await call("nothing like it")
        large = await node.call("rpcLarge", key=key, size=1 << 20)
        assert large["isEqual"]
        assert (await node.call("rpcBatch", key=key, count=100))["equal"] == 100
        value = b"an event".hex()
        await node.call("rpcEvent", key=key, method="note", value=value)
        assert await noted.get() == b"an event"
        await server.close()


async def test_a_firewall_of_node_keeps_us_out(start_node):
    """npm stays silent to clients that it refuses."""
    async with mixed_net("pn", start_node) as bootstrap, python_dht(bootstrap) as dht:
        node, _ = await start_node(bootstrap)
        refuse = [keys("unwanted").public_key.hex()]
        answer = await node.call("listen", name="s", total=1, refuse=refuse)
        key = PublicKey(bytes.fromhex(answer["publicKey"]))
        with pytest.raises(PeerUnreachable, match="does not answer"):
            await dht.connect(key, key_pair=keys("unwanted"))
