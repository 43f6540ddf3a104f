"""Records of ours and of npm hyperdht on loopback: put by one, kept and got by all."""

import contextlib
import hashlib
import json
from collections.abc import AsyncIterator

import pytest

from peerchat.net import HyperDHT, KeyPair, SeqReused, SeqTooLow, system_env
from peerchat.net.identity import Target

pytestmark = pytest.mark.interop

NETS = ["pppp", "nnnn", "pnpn"]
"""Storing nodes, ``p`` of ours and ``n`` of npm; the first one bootstraps."""

VALUES = [b"", b"a value", bytes(range(250)) * 4]
SEQ_REUSED, SEQ_TOO_LOW = 16, 17


def keys(name: str) -> KeyPair:
    """As tests/node/records_peer.js makes them."""
    return KeyPair.from_seed(hashlib.sha256(name.encode()).digest())


class World:
    """Storing nodes of both kinds, and one client of each."""

    def __init__(self, dht: HyperDHT, node, count: int) -> None:
        self.dht = dht
        self.count = count
        self._node = node

    async def call(self, op: str, **options):
        answer = await self._node.call({"op": op, **options})
        assert "error" not in answer, answer
        return answer

    async def put_by_node(self, name: str, value: bytes, seq: int) -> list[int]:
        """What the storing nodes answered."""
        answer = await self.call("mutablePut", name=name, value=value.hex(), seq=seq)
        assert answer["publicKey"] == keys(name).public_key.hex()
        return answer["answered"]

    async def get_by_node(self, name: str, seq: int = 0, latest: bool = True):
        key = keys(name).public_key.hex()
        return (await self.call("mutableGet", key=key, seq=seq, latest=latest))[
            "record"
        ]


@contextlib.asynccontextmanager
async def open_world(kinds: str, node_peer) -> AsyncIterator[World]:
    async with contextlib.AsyncExitStack() as stack:
        bootstrap: list[tuple[str, int]] = []

        async def start_node(**environ):
            nodes = [{"host": host, "port": port} for host, port in bootstrap]
            peer = await node_peer(
                "records_peer.js", BOOTSTRAP=json.dumps(nodes), **environ
            )
            ready = await peer.next()
            return peer, (ready["host"], ready["port"])

        async def start_python(**options):
            dht = HyperDHT(
                system_env(), bootstrap=bootstrap, host="127.0.0.1", **options
            )
            return await stack.enter_async_context(dht)

        for kind in kinds:
            if kind == "p":
                dht = await start_python(ephemeral=False, firewalled=False)
                address = tuple(dht.address)
            else:
                _, address = await start_node(PERSISTENT=1)
            bootstrap = bootstrap or [address]
        node, _ = await start_node()
        # npm's own first node stays ephemeral, and so stores nothing.
        storing = len(kinds) - kinds.startswith("n")
        yield World(await start_python(), node, storing)


@pytest.mark.parametrize("kinds", NETS)
async def test_what_python_puts_node_gets(kinds, node_peer):
    async with open_world(kinds, node_peer) as world:
        for seq, value in enumerate(VALUES):
            result = await world.dht.mutable_put(keys("p"), value, seq)
            assert (result.stored, result.refused) == (world.count, 0)
            expected = {
                "seq": seq,
                "value": value.hex(),
                "signature": result.signature.hex(),
            }
            assert await world.get_by_node("p") == expected
            assert await world.get_by_node("p", seq, latest=False) == expected
            assert await world.get_by_node("p", seq + 1) is None

            target = await world.dht.immutable_put(value)
            answer = await world.call("immutableGet", target=target.hex())
            assert answer["value"] == value.hex()


@pytest.mark.parametrize("kinds", NETS)
async def test_what_node_puts_python_gets(kinds, node_peer):
    async with open_world(kinds, node_peer) as world:
        key = keys("n").public_key
        assert await world.dht.mutable_get(key) is None
        for seq, value in enumerate(VALUES):
            assert await world.put_by_node("n", value, seq) == [0] * world.count
            record = await world.dht.mutable_get(key)
            assert (record.seq, record.value) == (seq, value)
            assert await world.dht.mutable_get(key, seq, latest=False) == record
            assert await world.dht.mutable_get(key, seq + 1) is None

            answer = await world.call("immutablePut", value=value.hex())
            assert answer["answered"] == [0] * world.count
            target = Target(bytes.fromhex(answer["target"]))
            assert await world.dht.immutable_get(target) == value
        assert await world.dht.immutable_get(Target(bytes(32))) is None


@pytest.mark.parametrize("kinds", NETS)
async def test_neither_rolls_back_the_others_record(kinds, node_peer):
    async with open_world(kinds, node_peer) as world:
        # Both hold the same key, as one user on two machines.
        await world.put_by_node("shared", b"by node", 300)
        with pytest.raises(SeqTooLow):
            await world.dht.mutable_put(keys("shared"), b"older", 299)
        with pytest.raises(SeqReused):
            await world.dht.mutable_put(keys("shared"), b"other", 300)
        assert (await world.get_by_node("shared"))["value"] == b"by node".hex()

        result = await world.dht.mutable_put(keys("shared"), b"by python", 70_000)
        assert result.stored == world.count
        refused = await world.put_by_node("shared", b"older", 69_999)
        assert refused == [SEQ_TOO_LOW] * world.count
        refused = await world.put_by_node("shared", b"other", 70_000)
        assert refused == [SEQ_REUSED] * world.count
        assert (await world.put_by_node("shared", b"by python", 70_000)) == [
            0
        ] * world.count
        record = await world.dht.mutable_get(keys("shared").public_key)
        assert (record.seq, record.value) == (70_000, b"by python")
        assert record.signature == result.signature


async def test_the_highest_seq_goes_both_ways(node_peer):
    async with open_world("pn", node_peer) as world:
        highest = 2**53 - 1
        await world.put_by_node("n", b"value", highest)
        assert (await world.dht.mutable_get(keys("n").public_key)).seq == highest
        await world.dht.mutable_put(keys("p"), b"value", highest)
        assert (await world.get_by_node("p"))["seq"] == highest
