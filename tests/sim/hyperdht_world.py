"""Whole HyperDHT nodes on a simulated network, in virtual time from one seed."""

import asyncio
import hashlib

from peerchat.net import Connection, HyperDHT, KeyPair
from peerchat.testing.loop import run_virtual
from peerchat.testing.network import Link, SimNetwork

BOOT_HOST = "10.0.0.1"
BOOT_PORT = 49737


def keys(name: object) -> KeyPair:
    return KeyPair.from_seed(hashlib.sha256(f"{name}".encode()).digest())


class World:
    """A network with one bootstrap node; `add` gives it more."""

    def __init__(self, seed: int, link: Link | None = None) -> None:
        print(f"seed {seed}")
        self.network = SimNetwork(seed, link)
        self.nodes: list[HyperDHT] = []
        self._dead: list[HyperDHT] = []
        self._count = 0
        env = self.network.host(BOOT_HOST)
        self.boot = HyperDHT.bootstrapper(env, BOOT_HOST, BOOT_PORT)

    async def start(self, persistent: int = 0) -> None:
        await self.boot.start()
        self.nodes.append(self.boot)
        for _ in range(persistent):
            await self.add_persistent()

    async def add(self, *, is_closed: bool = False, **options) -> HyperDHT:
        """A new node; ``is_closed`` lets it believe that a firewall is before it."""
        self._count += 1
        host = f"10.1.{self._count // 200}.{self._count % 200 + 1}"
        dht = HyperDHT(
            self.network.host(host), bootstrap=[(BOOT_HOST, BOOT_PORT)], **options
        )
        await dht.start()
        dht.node.io.is_firewalled |= is_closed
        self.nodes.append(dht)
        return dht

    async def add_persistent(self) -> HyperDHT:
        return await self.add(ephemeral=False, firewalled=False)

    def kill(self, dht: HyperDHT) -> None:
        """As when its power fails: nobody hears of it."""
        self.network.take_down(dht.address.host)
        self.nodes.remove(dht)
        self._dead.append(dht)

    async def close(self) -> None:
        await asyncio.gather(*(dht.close() for dht in self.nodes + self._dead))


def simulate(main, seed: int = 1, link: Link | None = None, persistent: int = 5):
    """Run ``main(world)`` on a started world; nothing may be left behind."""

    async def run() -> None:
        world = World(seed, link)
        await world.start(persistent)
        try:
            await main(world)
        finally:
            await world.close()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, left

    run_virtual(run)


class Accepting:
    """Connections of a server, in the order they came."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Connection] = asyncio.Queue()
        self.count = 0

    def __call__(self, connection: Connection) -> None:
        self.count += 1
        self.queue.put_nowait(connection)

    async def next(self) -> Connection:
        return await self.queue.get()


async def swap(a: Connection, b: Connection, total: int = 1000) -> None:
    """Send different bytes both ways and see that they come out equal."""

    async def send(connection: Connection, fill: int) -> None:
        for index in range(0, total, 1000):
            if not connection.write(bytes([fill, index & 255]) * 500):
                await connection.drain()
        connection.end()

    async def receive(connection: Connection) -> bytes:
        parts = []
        while (part := await connection.read()) is not None:
            parts.append(part)
        return b"".join(parts)

    def expected(fill: int) -> bytes:
        parts = (bytes([fill, index & 255]) * 500 for index in range(0, total, 1000))
        return b"".join(parts)

    got_b, got_a, _, _ = await asyncio.gather(
        receive(b), receive(a), send(a, 1), send(b, 2)
    )
    assert got_b == expected(1)
    assert got_a == expected(2)
    await asyncio.gather(a.wait_closed(), b.wait_closed())
    assert a.error is None
    assert b.error is None
