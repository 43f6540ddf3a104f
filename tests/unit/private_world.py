"""Homes that share one network in memory, for tests of private swarms."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from peerchat.config import load_settings, prepare_home
from peerchat.services.enrolment import Enrolment
from peerchat.services.identity import Identity, load_identity
from peerchat.services.membership import Membership, SwarmHomes
from peerchat.services.private_swarms import PrivateSwarms
from peerchat.services.store import Store, open_store
from peerchat.testing.memory_network import MemoryDht, MemoryNetwork

START_S = 1_900_000_000.0


class Clock:
    """Unix time that a test moves."""

    def __init__(self) -> None:
        self.at_s = START_S

    def __call__(self) -> float:
        return self.at_s


class HomeOf:
    """One home: its swarms, and a node of the network whenever it needs one."""

    def __init__(self, folder: Path, network: MemoryNetwork, clock: Clock) -> None:
        self.settings = load_settings({"home": folder}, environ={})
        prepare_home(self.settings.home)
        self.network = network
        self.clock = clock
        self.homes = SwarmHomes(self.settings.home)
        self.dht: MemoryDht = network.node()
        self.swarms = PrivateSwarms(self.settings, open_dht=self.open_dht, now_s=clock)

    @property
    def identity(self) -> Identity:
        return load_identity(self.settings.home.seed_path)

    def membership(self, name: str = "team") -> Membership:
        return self.homes.load(name)

    @asynccontextmanager
    async def open_dht(self, _bootstrap: Sequence[str]) -> AsyncIterator[MemoryDht]:
        yield self.dht

    @asynccontextmanager
    async def store(self) -> AsyncIterator[Store]:
        store = await open_store(self.settings.home.store_path)
        try:
            yield store
        finally:
            await store.close()

    @asynccontextmanager
    async def enrolment(self, name: str = "team") -> AsyncIterator[Enrolment]:
        """This home lets others in."""
        async with self.store() as store:
            enrolment = Enrolment(
                self.network.node(),
                self.homes,
                name,
                self.identity,
                store,
                now_s=self.clock,
            )
            await enrolment.start()
            try:
                yield enrolment
            finally:
                await enrolment.close()


class World:
    """The network of one test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.network = MemoryNetwork()
        self.clock = Clock()

    def home(self, name: str) -> HomeOf:
        return HomeOf(self.folder / name, self.network, self.clock)

    async def owner(self, passphrase: str = "") -> HomeOf:
        owner = self.home("owner")
        await owner.swarms.create("team", passphrase)
        return owner
