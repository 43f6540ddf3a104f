"""Records on a simulated network: what is put is got, by anybody, after losses."""

import asyncio

import pytest

from peerchat.net import (
    DhtUnreachable,
    HyperDHT,
    LocalProtocolError,
    NetError,
    SeqReused,
    SeqTooLow,
    hash_topic,
)
from peerchat.net.hyperdht import record_store
from peerchat.net.hyperdht.constants import Command
from peerchat.net.hyperdht.mutable import MutablePut, MutableRecord, sign_mutable
from peerchat.testing.network import Link, SimNetwork
from tests.sim.hyperdht_world import BOOT_HOST, BOOT_PORT, keys, run_virtual, simulate

KEYS = keys("owner")
TARGET = hash_topic(KEYS.public_key)
LOSSY = Link(delay_min_s=0.005, delay_max_s=0.080, loss=0.05, duplicate=0.02)


def plant(dht: HyperDHT, record: MutableRecord) -> None:
    """Have one node keep a version that it was never put."""
    dht._storage.store._mutables.set(TARGET, record, dht.env.clock.now())


@pytest.mark.parametrize("seed", range(3))
def test_what_is_put_is_got_until_nobody_cares(seed):
    async def main(world):
        writer, reader = await world.add(), await world.add(is_closed=True)
        value = bytes(range(250)) * 4
        target = await writer.immutable_put(value)
        assert target == hash_topic(value)
        result = await writer.mutable_put(KEYS, b"first", 1)
        assert (result.seq, result.stored, result.refused) == (1, 20, 0)
        for dht in (reader, world.boot, await world.add_persistent()):
            assert await dht.immutable_get(target) == value
            record = await dht.mutable_get(KEYS.public_key)
            assert record == MutableRecord(1, b"first", result.signature)
        assert sum(dht.statistics().values for dht in world.nodes) == 40

        for dht in world.nodes[1:25]:
            if dht not in (writer, reader):
                world.kill(dht)
        assert await reader.immutable_get(target) == value
        result = await writer.mutable_put(KEYS, b"second", 2)
        assert result.stored > 0
        assert (await reader.mutable_get(KEYS.public_key)).value == b"second"

    simulate(main, seed, LOSSY, persistent=40)


def test_records_that_nobody_reads_are_forgotten(monkeypatch):
    monkeypatch.setattr(record_store, "RECORD_STORE_AGE_S", 600.0)

    async def main(world):
        writer = await world.add()
        target = await writer.immutable_put(b"value")
        await writer.mutable_put(KEYS, b"value")
        await asyncio.sleep(390)
        reader = await world.add()
        assert await reader.immutable_get(target) == b"value"
        await asyncio.sleep(810)
        reader = await world.add()
        assert await reader.immutable_get(target) is None
        assert await reader.mutable_get(KEYS.public_key) is None

    simulate(main, persistent=1)


def test_anybody_can_keep_a_signed_version_alive_and_nobody_can_make_one():
    async def main(world):
        owner, member = await world.add(), await world.add()
        await owner.mutable_put(KEYS, b"old", 1)
        record = sign_mutable(KEYS, b"value", 2)
        assert (await member.mutable_put_signed(KEYS.public_key, record)).stored == 6
        assert await owner.mutable_get(KEYS.public_key) == record
        old = sign_mutable(KEYS, b"old", 1)
        with pytest.raises(SeqTooLow):
            await member.mutable_put_signed(KEYS.public_key, old)
        forged = MutableRecord(3, b"mine", record.signature)
        with pytest.raises(LocalProtocolError):
            await member.mutable_put_signed(KEYS.public_key, forged)

    simulate(main, persistent=5)


def test_older_and_different_versions_are_refused_by_all():
    async def main(world):
        dht = await world.add()
        await dht.mutable_put(KEYS, b"value", 5)
        assert (await dht.mutable_put(KEYS, b"value", 5)).stored == 6
        with pytest.raises(SeqTooLow, match="seq 4"):
            await dht.mutable_put(KEYS, b"older", 4)
        with pytest.raises(SeqReused, match="seq 5"):
            await dht.mutable_put(KEYS, b"other", 5)
        plant(world.boot, sign_mutable(KEYS, b"later", 6))
        with pytest.raises(SeqTooLow):
            await dht.mutable_put(KEYS, b"other", 5)
        assert (await dht.mutable_get(KEYS.public_key)).value == b"later"

    simulate(main)


def test_a_version_that_some_nodes_refuse_is_told_as_such():
    async def main(world):
        dht = await world.add()
        plant(world.boot, sign_mutable(KEYS, b"later", 9))
        result = await dht.mutable_put(KEYS, b"value", 5)
        assert (result.stored, result.refused) == (5, 1)
        assert (await dht.mutable_get(KEYS.public_key)).seq == 9

    simulate(main)


@pytest.mark.parametrize("liar", range(6))
def test_the_latest_valid_version_wins_whoever_lies(liar):
    async def main(world):
        dht = await world.add()
        honest = [node for node in world.nodes[:6] if node is not world.nodes[liar]]
        for seq, node in enumerate(honest):
            plant(node, sign_mutable(KEYS, b"value %d" % seq, seq))
        forged = sign_mutable(keys("liar"), b"forged", 99)
        plant(world.nodes[liar], forged)
        assert (await dht.mutable_get(KEYS.public_key)).seq == 4
        assert (await dht.mutable_get(KEYS.public_key, 3)).seq == 4
        assert await dht.mutable_get(KEYS.public_key, 5) is None
        first = await dht.mutable_get(KEYS.public_key, 2, latest=False)
        assert first.seq in (2, 3, 4)
        if liar != 0:  # what a node keeps itself it has checked
            assert (await world.boot.mutable_get(KEYS.public_key)).seq == 4

    simulate(main)


def test_values_that_do_not_hash_to_the_target_are_ignored():
    async def main(world):
        dht = await world.add()
        target = hash_topic(b"value")
        for node in world.nodes[1:6]:
            node._storage.store.put_immutable(target, b"another value")
        assert await dht.immutable_get(target) is None
        world.boot._storage.store.put_immutable(target, b"value")
        assert await dht.immutable_get(target) == b"value"

    simulate(main)


def test_replies_that_do_not_parse_are_ignored():
    async def main(world):
        dht = await world.add()
        await dht.mutable_put(KEYS, b"value", 1)

        def receive(request):
            request.reply(b"\xff junk")
            return True

        world.nodes[2]._storage.store.receive = receive
        assert (await dht.mutable_get(KEYS.public_key)).value == b"value"

    simulate(main)


def test_a_token_that_grew_old_is_replaced():
    async def main(world):
        dht = await world.add()
        request = dht.node.request
        ages = []

        async def late(address, command, **options):
            if not ages:
                ages.append(command)
                await asyncio.sleep(20)
            return await request(address, command, **options)

        dht.node.request = late
        assert (await dht.mutable_put(KEYS, b"value")).stored == 2
        assert ages == [Command.MUTABLE_PUT]

    simulate(main, persistent=1)


def test_nodes_that_never_answer_a_put_fail_it():
    async def main(world):
        dht = await world.add()
        for node in world.nodes[:6]:
            store = node._storage.store
            store._receive_mutable_put = lambda request: None
            store._receive_immutable_put = lambda request: request.error(99)
        with pytest.raises(NetError):
            await dht.mutable_put(KEYS, b"value")
        with pytest.raises(NetError, match="error 99"):
            await dht.immutable_put(b"value")

    simulate(main)


def test_what_is_too_long_or_out_of_range_is_not_sent():
    async def main(world):
        sent = world.network.statistics
        with pytest.raises(LocalProtocolError, match="1000"):
            await world.boot.immutable_put(bytes(1001))
        with pytest.raises(LocalProtocolError, match="1000"):
            await world.boot.mutable_put(KEYS, bytes(1001))
        with pytest.raises(LocalProtocolError, match="seq"):
            await world.boot.mutable_put(KEYS, b"", -1)
        with pytest.raises(LocalProtocolError):
            await world.boot.mutable_get(KEYS.public_key, -1)
        assert world.network.statistics == sent

    simulate(main, persistent=0)


def test_a_network_of_one_node_keeps_its_own_records_and_its_rules():
    async def main(world):
        boot = world.boot
        target = await boot.immutable_put(b"value")
        assert await boot.immutable_get(target) == b"value"
        assert (await boot.mutable_put(KEYS, b"value", 5)).stored == 1
        assert (await boot.mutable_get(KEYS.public_key)).seq == 5
        assert (await boot.mutable_get(KEYS.public_key, latest=False)).seq == 5
        assert await boot.mutable_get(KEYS.public_key, 6) is None
        with pytest.raises(SeqTooLow, match="this node"):
            await boot.mutable_put(KEYS, b"older", 4)
        guest = await world.add()
        assert await guest.immutable_get(target) == b"value"
        assert (await guest.mutable_get(KEYS.public_key)).value == b"value"

    simulate(main, persistent=0)


def test_an_ephemeral_node_alone_cannot_put():
    async def run():
        network = SimNetwork(1)
        boot = HyperDHT.bootstrapper(network.host(BOOT_HOST), BOOT_HOST, BOOT_PORT)
        await boot.start()
        dht = HyperDHT(network.host("10.1.1.1"), bootstrap=[(BOOT_HOST, BOOT_PORT)])
        await dht.start()
        network.take_down(BOOT_HOST)
        with pytest.raises(DhtUnreachable):
            await dht.immutable_put(b"value")
        with pytest.raises(DhtUnreachable):
            await dht.mutable_get(KEYS.public_key)
        await dht.close()
        await boot.close()

    run_virtual(run)


def test_an_ephemeral_node_answers_no_record_commands():
    async def main(world):
        dht, other = await world.add(), await world.add()
        put = MutablePut(KEYS.public_key, sign_mutable(KEYS, b"", 0)).encode()
        for command in (6, 7, 8, 9):
            answer = await other.node.request(
                dht.node.client_socket.address, command, target=TARGET, value=put
            )
            assert answer.error == 1

    simulate(main)
