"""The swarm of the soak: members that can be killed, started again and forgotten.

Unlike the worlds of `tests/unit` it holds nothing of a member that is gone, so that
what memory still grows by is peerchat's own.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from peerchat.api import PromptRequest, Role
from peerchat.gateways import Gateways
from peerchat.net.crypto.primitives import KeyPair
from peerchat.services.gateway import GatewayRole
from peerchat.services.limits import Limiter
from peerchat.services.processor import ProcessorRole
from peerchat.services.store import Store
from peerchat.services.tokens import TokenVerifier
from peerchat.settings import Home, Settings
from peerchat.testing.faults import Fault, FaultyEngine, Lots, MalformedProcessor
from peerchat.testing.memory_network import MemoryNetwork
from tests.unit.services_world import SECRET, Peer

WORKERS = 4
ENTRIES = 3
SLOTS = 4
SLOTS_OF_FIRST = 8
"""It is the one that lives on: what leaks with each prompt is to be seen there."""
STALL_S = 1.0
PIECE_S = 0.003

LIMIT = 1_000_000
"""Prompts of a user: nobody is refused, all are counted."""
WINDOW_MINUTES = 60.0

FREED_S = 10.0
"""Whoever lost its asker stops within it: beats take 2 s, the connection alone 13 s."""

LINGER_S = 1.0
"""Of clients' connections, so that all rest soon."""

KEPT = 4
"""Of what gateways remember of old requests: soon full, so that it does not grow."""

DEAD_NAMED = 12
"""Dead peers of a role that the DHT still names."""


class Working:
    """What engines work on, by request."""

    def __init__(self) -> None:
        self._counts = Counter[str]()
        self._freed: dict[str, asyncio.Event] = {}

    @property
    def requests(self) -> list[str]:
        """Those that any engine works on, be its processor dead or alive."""
        return list(self._counts)

    def begin(self, request_id: str) -> None:
        """One more engine works on it."""
        self._counts[request_id] += 1

    def end(self, request_id: str) -> None:
        """One less does."""
        self._counts[request_id] -= 1
        if not self._counts[request_id]:
            del self._counts[request_id]
            if waiting := self._freed.pop(request_id, None):
                waiting.set()

    async def is_freed(self, request_id: str, timeout_s: float) -> bool:
        """Whether no engine works on it any more, in time."""
        if request_id not in self._counts:
            return True
        waiting = self._freed.setdefault(request_id, asyncio.Event())
        try:
            async with asyncio.timeout(timeout_s):
                await waiting.wait()
        except TimeoutError:
            return False
        return True


LEFT = "left"
"""In prompts whose askers leave: their answers have no end, so that nothing else can
end them."""


class SoakEngine(FaultyEngine):
    """Tells what it works on, and remembers nothing of it."""

    def __init__(self, lots: Lots, working: Working) -> None:
        def chance(request: PromptRequest) -> Fault:
            return Fault.ENDLESS if LEFT in request.prompt else lots(request)

        super().__init__(chance, delay_s=PIECE_S)
        self._working = working

    async def stream(self, request: PromptRequest):
        self._working.begin(request.request_id)
        try:
            async with aclosing(super().stream(request)) as events:
                async for event in events:
                    yield event
        finally:
            self._working.end(request.request_id)
            self.requests.clear()


@dataclass(eq=False)
class Member:
    """A role of the swarm in a process of its own, but for the process."""

    peer: Peer
    role: ProcessorRole | GatewayRole
    task: asyncio.Task[None]

    @property
    def key_pair(self) -> KeyPair:
        return self.peer.dht.default_key_pair

    async def has_stopped(self) -> bool:
        """Whether it works on nothing, soon; its engine included."""
        await self.peer.swarm.drain(FREED_S)
        engine = self.role._engine if isinstance(self.role, ProcessorRole) else None
        is_computing = engine is not None and engine.running
        return not is_computing and not any(
            one.active for one in self.peer.swarm.services
        )

    async def close(self) -> None:
        """End what is left of it."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await close_peer(self.peer)


async def close_peer(peer: Peer) -> None:
    await peer.swarm.close()
    await peer.dht.close()


class SoakSwarm:
    """Processors, gateways and clients of one soak.

    Args:
        folder: of the homes.
        store: that the gateways count in.
        lots: what happens to each attempt.
    """

    def __init__(self, folder: Path, store: Store, lots: Lots) -> None:
        self.network = MemoryNetwork()
        self.lots = lots
        self.working = Working()
        self.workers: list[Member] = []
        self.entries: list[Member] = []
        self._folder = folder
        self._store = store
        self._malformed: Peer | None = None

    async def start(self) -> None:
        """Let everybody serve."""
        for _ in range(WORKERS):
            await self.start_worker()
        for _ in range(ENTRIES):
            await self.start_entry()
        self._malformed = await self._start_malformed()

    async def close(self) -> None:
        """End all."""
        for member in (*self.entries, *self.workers):
            await member.close()
        if self._malformed is not None:
            await close_peer(self._malformed)

    async def start_worker(self, key_pair: KeyPair | None = None) -> None:
        """Start a processor; one that was there before has its key pair."""
        peer = self.peer(key_pair)
        engine = SoakEngine(self.lots, self.working)
        slots = SLOTS if self.workers else SLOTS_OF_FIRST
        settings = Settings(Home(*[self._folder] * 4), slots=slots)
        keys = peer.swarm.identity.role_key_pair(Role.PROCESSOR)
        role = ProcessorRole(peer.swarm, engine, settings, key_pair=keys)
        self.workers.append(Member(peer, role, await serving(role.run)))

    async def start_entry(self, key_pair: KeyPair | None = None) -> None:
        """Start a gateway; one that was there before has its key pair."""
        peer = self.peer(key_pair)
        limiter = Limiter(self._store, LIMIT, WINDOW_MINUTES)
        verifier = TokenVerifier([SECRET])
        role = GatewayRole(
            peer.swarm, verifier, limiter, is_shared=True, stall_s=STALL_S
        )
        role._traces._kept_max = role.router.affinity._kept_max = KEPT
        self.entries.append(Member(peer, role, await serving(role.run)))

    def peer(self, key_pair: KeyPair | None = None) -> Peer:
        dht = self.network.node()
        if key_pair is not None:
            dht.default_key_pair = key_pair
        return Peer(dht)

    def client(self) -> tuple[Peer, Gateways]:
        """A user's; closing both is the user's."""
        peer = self.peer()
        peer.swarm._sessions._rpc._linger_s = LINGER_S
        return peer, Gateways(peer.swarm)

    def forget_the_dead(self) -> None:
        """As the DHT does, sooner or later: here once a dozen are named."""
        for named in self.network.topics.values():
            dead = [key for key, dht in named.items() if dht.is_dead]
            for key in dead[:-DEAD_NAMED]:
                del named[key]

    def forget_pieces(self) -> None:
        """Streams in memory note each delivery for other tests."""
        members = (*self.workers, *self.entries)
        peers = [self._malformed, *(member.peer for member in members)]
        for peer in peers:
            for connection in peer.dht.connections:
                connection._stream.pieces.clear()

    async def _start_malformed(self) -> Peer:
        peer = self.peer()
        peer.swarm.attach_members(Role.PROCESSOR, MalformedProcessor().attach)
        await peer.swarm.serve(Role.PROCESSOR, {"ping": _pong})
        return peer


async def serving(run: Callable[[Callable[[], None]], object]) -> asyncio.Task[None]:
    """Start a role; returns once it serves."""
    ready = asyncio.Event()
    task = asyncio.create_task(run(ready.set))
    async with asyncio.timeout(30):
        await ready.wait()
    return task


async def _pong(_body: bytes, _peer: str) -> object:
    return {"status": "healthy", "service": "processor", "slots": SLOTS}
