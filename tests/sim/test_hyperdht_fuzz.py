"""Whatever is sent to a node, it neither fails nor forgets its work."""

import asyncio
import logging
import random

import pytest

from peerchat.net import hash_topic
from peerchat.net.dht.messages import RequestMessage, encode_request
from peerchat.net.hyperdht.constants import Command, Mode
from peerchat.net.hyperdht.messages import (
    Announce,
    Handshake,
    Holepunch,
    NoisePayload,
    PeerRecord,
)
from peerchat.net.hyperdht.mutable import MutablePut, sign_mutable
from peerchat.net.identity import Address
from tests.sim.hyperdht_world import Accepting, keys, simulate, swap

SERVER = keys("server")
TARGETS = [hash_topic(SERVER.public_key), hash_topic("topic"), None]
DATAGRAMS = 3000


def some_value(chance: random.Random) -> bytes | None:
    """A value of any command, right or damaged."""
    addresses = [None, Address("10.0.0.1", 49737), Address("127.0.0.1", 1)]
    noise = chance.randbytes(chance.choice([0, 1, 96, 150, 1500]))
    value = chance.choice(
        [
            Handshake(
                chance.choice(list(Mode)),
                noise,
                chance.choice(addresses),
                chance.choice(addresses),
            ).encode(),
            Holepunch(
                chance.choice(list(Mode)), 1, noise, chance.choice(addresses)
            ).encode(),
            Announce(
                PeerRecord(SERVER.public_key),
                chance.choice([None, bytes(32)]),
                bytes(64),
                chance.choice([0, 2**53]),
            ).encode(),
            NoisePayload(error=1).encode(),
            MutablePut(
                SERVER.public_key, sign_mutable(SERVER, noise[:999], seq=len(noise))
            ).encode(),
            noise,
            None,
        ]
    )
    if value and chance.random() < 0.5:
        damaged = bytearray(value)
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        value = bytes(damaged[: chance.randrange(1, len(damaged) + 1)])
    return value


@pytest.mark.parametrize("seed", range(3))
def test_a_node_survives_any_request(seed, caplog):
    caplog.set_level(logging.WARNING)

    async def main(world):
        chance = random.Random(seed)
        accepting = Accepting()
        dht = await world.add_persistent()
        await dht.create_server(accepting).listen(SERVER)
        topic = hash_topic("topic")
        await dht.announce(topic, SERVER)
        attacker = await world.network.host("10.7.7.7").datagrams.bind(
            "", 0, lambda *_: None
        )
        for count in range(DATAGRAMS):
            message = RequestMessage(
                tid=chance.randrange(1 << 16),
                to=dht.address,
                command=chance.choice([*Command, 6, 7, 8, 9, 10, 99, 2**40]),
                is_internal=chance.random() < 0.1,
                token=chance.choice([None, None, bytes(32)]),
                target=chance.choice(TARGETS),
                value=some_value(chance),
            )
            to = chance.choice([dht.address, world.boot.address])
            attacker.send(encode_request(message), to)
            if count % 100 == 0:
                await asyncio.sleep(0.1)
        await asyncio.sleep(30)
        client = await world.add()
        assert [p.public_key for p in await client.lookup(topic)] == [SERVER.public_key]
        connection = await client.connect(SERVER.public_key)
        await swap(connection, await accepting.next())
        assert accepting.count == 1
        assert dht.statistics().streams <= 1

    simulate(main, seed)
    assert not caplog.records
