"""A world with real processors on faulty engines, for tests of routing."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from peerchat.api import (
    AnswerEvent,
    Finished,
    Fragment,
    Progress,
    PromptRequest,
    Role,
)
from peerchat.gateways import Gateways
from peerchat.services.gateway import GatewayRole
from peerchat.services.limits import Limiter
from peerchat.services.processor import ProcessorRole
from peerchat.services.tokens import TokenVerifier
from peerchat.settings import Home, Settings
from peerchat.testing.engine import ScriptedEngine
from peerchat.testing.faults import FaultyEngine

from .services_world import SECRET, Peer, World, token
from .waiting import until


@dataclass
class Worker:
    """A processor of the world."""

    peer: Peer
    engine: ScriptedEngine
    role: ProcessorRole
    task: asyncio.Task[None]

    @property
    def key(self) -> bytes:
        return self.peer.key(Role.PROCESSOR)


@dataclass
class Entry:
    """A gateway of the world."""

    peer: Peer
    role: GatewayRole

    @property
    def key(self) -> bytes:
        return self.peer.key(Role.GATEWAY)

    def counted(self, name: str) -> float | None:
        """What its figures say of a counter."""
        registry = self.role.metrics.registry
        return registry.get_sample_value(f"peerchat_{name}_total", {"role": "gateway"})


class RoutingWorld(World):
    """Adds real processors and gateways."""

    async def worker(
        self, engine: ScriptedEngine | None = None, slots: int = 1, **settings: object
    ) -> Worker:
        peer, engine = self.peer(), engine or FaultyEngine()
        folder = self.folder / f"worker-{len(self._tasks)}"
        home = Home(folder, folder, folder, folder)
        role = ProcessorRole(
            peer.swarm,
            engine,
            Settings(home, slots=slots, **settings),
            key_pair=peer.swarm.identity.role_key_pair(Role.PROCESSOR),
        )
        await self.run(role)
        return Worker(peer, engine, role, self._tasks[-1])

    async def stop(self, worker: Worker) -> None:
        """End its role, as a restart begins."""
        worker.task.cancel()
        await asyncio.gather(worker.task, return_exceptions=True)

    async def start(self, worker: Worker) -> None:
        """Run its role again, under the same key."""
        await self.run(worker.role)
        worker.task = self._tasks[-1]

    async def entry(
        self, name: str = "limits.db", max_requests: int = 1000, **options: object
    ) -> Entry:
        peer = self.peer()
        limiter = Limiter(await self.store(name), max_requests, 1.0)
        role = GatewayRole(peer.swarm, TokenVerifier([SECRET]), limiter, **options)
        await self.run(role)
        return Entry(peer, role)

    def client(self) -> Gateways:
        client = Gateways(self.peer().swarm)
        self._resources.push_async_callback(client.close)
        return client


@dataclass
class Read:
    """An answer that was read to its end."""

    text: str
    progress: list[Progress]
    end: Finished


async def read_all(answer) -> Read:
    text, progress, end = [], [], None
    async for event in answer:
        match event:
            case Fragment(is_thinking=False):
                text.append(event.text)
            case Progress():
                progress.append(event)
            case Finished():
                end = event
    assert end is not None
    return Read("".join(text), progress, end)


def ask(world: RoutingWorld, entry: Entry, prompt: str = "why?", **fields: object):
    client = world.peer()
    user = str(fields.pop("user", "ann@example.org"))
    request = PromptRequest(prompt, f"r-{prompt}"[:60].replace("?", ""), **fields)
    return client.swarm.ask(entry.key, request, token(user))


async def first_text(answer) -> AnswerEvent:
    async for event in answer:
        if isinstance(event, Fragment):
            return event
    raise AssertionError("no text")


async def knows(world, entry, *keys: bytes) -> None:
    """The gateway follows these processors."""
    router = entry.role.router
    await router.look(max_age_s=0)
    await until(lambda: set(keys) <= {bytes(p.key) for p in router.processors})


async def joined(world, entry, engine):
    """A second processor that the gateway knows."""
    worker = await world.worker(engine)
    await knows(world, entry, worker.key)
    return worker
