"""A hundred nodes that come and go: what is announced is found, and connects."""

import asyncio
import random

import pytest

from peerchat.net import HyperDHT, hash_topic
from peerchat.testing.network import Link
from tests.sim.hyperdht_world import Accepting, keys, simulate, swap

NODES = 100
TOPICS = 4
ROUNDS = 4
CHURN = 8
"""Persistent nodes that die, and that are born, in each round."""


class Service:
    """A server under its own key that also announces a topic, as roles do."""

    def __init__(self, index: int) -> None:
        self.topic = hash_topic(f"topic {index % TOPICS}")
        self.key_pair = keys(f"service {index}")
        self.accepting = Accepting()

    async def start(self, world) -> None:
        self.dht = await world.add(is_closed=bool(len(world.nodes) % 2))
        await self.dht.create_server(self.accepting).listen(self.key_pair)
        await self.announce()

    async def announce(self) -> None:
        assert await self.dht.announce(self.topic, self.key_pair) > 0


async def churn(world, services, chance) -> None:
    """Some nodes die without a word, as many new ones join."""
    busy = {service.dht for service in services} | {world.boot}
    for dht in chance.sample([n for n in world.nodes if n not in busy], CHURN):
        world.kill(dht)
    for _ in range(CHURN):
        await world.add_persistent()


async def visit(world, services: list[Service], seen_from: HyperDHT) -> None:
    """Look up every topic, find all who serve it, and talk to each of them."""
    for topic in {service.topic for service in services}:
        expected = {s.key_pair.public_key: s for s in services if s.topic == topic}
        found = {peer.public_key for peer in await seen_from.lookup(topic)}
        assert found == set(expected)
        for key, service in expected.items():
            connection = await seen_from.connect(key)
            await swap(connection, await service.accepting.next(), 5000)


@pytest.mark.parametrize("seed", [11, 12])
def test_every_lookup_finds_a_live_announcement_and_connects(seed):
    async def main(world):
        chance = random.Random(seed)
        services = [Service(index) for index in range(2 * TOPICS)]
        for service in services:
            await service.start(world)
        for _ in range(ROUNDS):
            await visit(world, services, await world.add())
            await churn(world, services, chance)
            # Time for announcers to notice dead relays; topics are announced anew
            # by whoever announced them, as hyperswarm does every ten minutes.
            await asyncio.sleep(chance.uniform(20, 300))
            await asyncio.gather(*(service.announce() for service in services))
        await visit(world, services, await world.add(is_closed=True))

    link = Link(delay_min_s=0.005, delay_max_s=0.080, loss=0.02, duplicate=0.01)
    simulate(main, seed, link, persistent=NODES)


def test_a_server_stays_findable_for_hours():
    async def main(world):
        service = Service(0)
        await service.start(world)
        for _ in range(4):
            await asyncio.sleep(3600)
            dht = await world.add()
            connection = await dht.connect(service.key_pair.public_key)
            await swap(connection, await service.accepting.next())
        # Topics are not renewed by anybody: this record has expired.
        assert await dht.lookup(service.topic) == []

    simulate(main, persistent=5)


def test_a_crashed_server_is_forgotten_and_a_new_one_takes_its_place():
    async def main(world):
        first, second = Service(0), Service(0)
        await first.start(world)
        world.kill(first.dht)
        await second.start(world)
        dht = await world.add()
        connection = await dht.connect(second.key_pair.public_key)
        await swap(connection, await second.accepting.next())
        world.kill(second.dht)
        await asyncio.sleep(30 * 60)
        assert await dht.find_peer(second.key_pair.public_key) is None

    simulate(main, persistent=10)


def test_the_same_seed_gives_the_same_run():
    def run(seed):
        trace = []

        async def main(world):
            service = Service(0)
            await service.start(world)
            dht = await world.add()
            connection = await dht.connect(service.key_pair.public_key)
            await swap(connection, await service.accepting.next(), 20_000)
            trace.append((dht.env.clock.now(), world.network.statistics))
            trace.append(connection.handshake_hash)

        simulate(main, seed, Link(loss=0.1))
        return trace

    assert run(3) == run(3)
    assert run(3) != run(4)
