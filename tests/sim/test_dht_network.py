"""Networks of 100 dht-rpc nodes under churn and loss, replayed from a seed."""

import asyncio
import random
from dataclasses import replace

import pytest

from peerchat.net.dht.node import DhtNode
from peerchat.net.dht.table import ROWS, K, key_of
from peerchat.net.errors import NetError
from peerchat.net.identity import Address, Target
from peerchat.testing.loop import run_virtual
from peerchat.testing.network import Link, SimNetwork

COUNT = 100
BOOTSTRAP = Address("10.0.0.1", 49737)


class Store:
    """Command 3: store with a token, get without."""

    def __init__(self):
        self.values = {}

    def __call__(self, request):
        if request.has_valid_token:
            self.values[request.target] = request.value
        request.reply(self.values.get(request.target))
        return True


class World:
    """Hosts that come and go; knows who is alive, which no node does."""

    def __init__(self, seed, link, count=COUNT):
        self.count = count
        self.chance = random.Random(seed)
        self.network = SimNetwork(seed, link)
        self.alive = {}
        self.hosts = 0

    async def start(self):
        first = DhtNode(
            self.network.host(BOOTSTRAP.host),
            host=BOOTSTRAP.host,
            port=BOOTSTRAP.port,
            ephemeral=False,
            firewalled=False,
            on_request=Store(),
        )
        await first.start()
        self.alive[BOOTSTRAP.host] = first
        for _ in range(self.count - 1):
            await self.join()

    async def join(self):
        """As someone would: again, when the network was too bad to get in."""
        self.hosts += 1
        ip = f"10.1.{self.hosts >> 8}.{self.hosts & 255}"
        env = self.network.host(ip)
        for _ in range(5):
            node = DhtNode(
                env, bootstrap=[BOOTSTRAP], ephemeral=False, on_request=Store()
            )
            try:
                await node.start()
            except NetError:
                continue
            self.alive[ip] = node
            return
        raise AssertionError("could not join in five tries")

    async def leave(self):
        """Half of them close, half lose power."""
        ip = self.chance.choice(sorted(set(self.alive) - {BOOTSTRAP.host}))
        node = self.alive.pop(ip)
        if self.chance.random() < 0.5:
            self.network.take_down(ip)
        await node.close()

    async def close(self):
        for node in self.alive.values():
            await node.close()

    def closest_alive(self, target, asking):
        nodes = [n for n in self.alive.values() if n.id and n is not asking]
        ids = sorted((n.id for n in nodes), key=lambda i: key_of(i) ^ key_of(target))
        return ids[:K]


async def churn(world, minutes, per_minute):
    for _ in range(minutes * per_minute):
        await asyncio.sleep(60 / per_minute)
        await world.leave()
        await world.join()


async def check_lookups(world, count, missed_max=0):
    """Every query ends with the closest nodes that live.

    At the far end of the twenty a few may be missing: rows are full, so not everybody
    knows everybody; and a node that loses both of two tries is not waited for.
    """
    nodes = list(world.alive.values())
    for _ in range(count):
        asking = world.chance.choice(nodes)
        target = Target(world.chance.randbytes(32))
        replies = await asking.find_node(target).finished()
        found = {reply.id for reply in replies}
        expected = world.closest_alive(target, asking)
        assert len(found) == K
        assert len(set(expected) - found) <= missed_max
        if not world.network.link.loss:
            assert found.issuperset(expected[: K // 2])


async def check_stored_is_found(world, count):
    for _ in range(count):
        target = Target(world.chance.randbytes(32))
        writer, reader = world.chance.sample(list(world.alive.values()), 2)
        query = writer.query(3, target, target, commit=True)
        await query.finished()
        assert query.committed > K / 2
        found = [r.value async for r in reader.query(3, target) if r.value is not None]
        assert found
        assert set(found) == {target}


def check_tables(world):
    for node in world.alive.values():
        assert not node.is_ephemeral
        assert 0 < len(node.table) <= ROWS * K
        for entry in node.table.oldest(len(node.table)):
            assert len(node.table.row_of(entry)) <= K
        assert node.statistics().queries_active <= 1


@pytest.mark.parametrize("seed", range(3))
def test_a_quiet_network_finds_exactly_the_closest(seed):
    print(f"seed {seed}")

    async def main():
        world = World(seed, Link())
        await world.start()
        await check_lookups(world, 40)
        await check_stored_is_found(world, 10)
        check_tables(world)
        await world.close()

    run_virtual(main)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("loss", "missed_max"), [(0.0, 2), (0.05, 3)])
def test_churn_and_loss_leave_lookups_right(seed, loss, missed_max):
    print(f"seed {seed}")

    async def main():
        world = World(seed, Link(0.005, 0.150, loss=loss, duplicate=0.02))
        await world.start()
        for _ in range(2):
            await churn(world, minutes=4, per_minute=3)
            await check_lookups(world, 15, missed_max)
            await check_stored_is_found(world, 5)
        check_tables(world)
        await world.close()

    run_virtual(main)


def test_a_run_replays_from_its_seed():
    def run(seed):
        async def main():
            world = World(seed, Link(loss=0.1), count=30)
            await world.start()
            await churn(world, minutes=1, per_minute=6)
            statistics = replace(world.network.statistics)
            await world.close()
            return statistics

        return run_virtual(main)

    first = run(1)
    assert first == run(1)
    assert first != run(2)
