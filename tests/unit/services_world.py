"""Roles on a network in memory: one peer each, real connections between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

from peerchat.api import (
    AnswerEvent,
    Finished,
    Fragment,
    Message,
    Progress,
    PromptRequest,
    Role,
    Usage,
)
from peerchat.services.accounts import Accounts
from peerchat.services.auth import AuthRole
from peerchat.services.gateway import GatewayRole
from peerchat.services.identity import Identity
from peerchat.services.limits import Limiter
from peerchat.services.prompt_stream import Caller
from peerchat.services.store import open_store
from peerchat.services.swarm import Swarm
from peerchat.services.tokens import TokenIssuer, TokenVerifier
from peerchat.testing.memory_network import MemoryDht, MemoryNetwork
from peerchat.testing.passwords import fast_hasher

SECRET = b"a secret that auth and gateway share!"
PASSWORD = "correct horse battery"
EMAIL = "ann@example.org"

Answering = Callable[[PromptRequest, Caller], AsyncIterator[AnswerEvent]]

__all__ = ["Message", "Peer", "World"]


class Peer:
    """One process: its DHT node and its swarm."""

    def __init__(self, dht: MemoryDht) -> None:
        self.dht = dht
        self.swarm = Swarm(dht, Identity(dht.default_key_pair.seed))

    def key(self, role: Role) -> bytes:
        return bytes(self.swarm.identity.role_key_pair(role).public_key)


class World:
    """Peers of one test; ``async with``."""

    def __init__(self, folder: Path) -> None:
        self.network = MemoryNetwork()
        self.folder = folder
        self.served: list[str] = []
        """Prompts that reached a processor, by its name."""
        self.stopped = asyncio.Event()
        """A processor's handler was closed before its end."""
        self._resources = AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._resources.aclose()

    def peer(self) -> Peer:
        peer = Peer(self.network.node())
        self._resources.push_async_callback(peer.swarm.close)
        return peer

    async def run(self, role) -> None:
        ready = asyncio.Event()
        task = asyncio.create_task(role.run(ready.set))
        self._tasks.append(task)
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if task.done():
            task.result()

    async def store(self, name: str = "peerchat.db"):
        store = await open_store(self.folder / name)
        self._resources.push_async_callback(store.close)
        return store

    async def auth(self, name: str = "peerchat.db", secret: bytes = SECRET) -> Peer:
        peer = self.peer()
        hasher = fast_hasher()
        self._resources.callback(hasher.close)
        accounts = Accounts(await self.store(name), hasher)
        await self.run(AuthRole(peer.swarm, accounts, TokenIssuer(secret)))
        return peer

    async def gateway(self, max_requests: int = 10, minutes: float = 1.0) -> Peer:
        peer = self.peer()
        limiter = Limiter(await self.store("limits.db"), max_requests, minutes)
        verifier = TokenVerifier([SECRET])
        await self.run(GatewayRole(peer.swarm, verifier, limiter))
        return peer

    async def processor(
        self, name: str, answering: Answering | None = None, **ping: object
    ) -> Peer:
        peer = self.peer()

        async def say(request, caller):
            self.served.append(name)
            yield Progress("serving")
            for word in request.prompt.split():
                yield Fragment(word + " ")
            yield Finished(Usage(name, "", "stop", 0.5, answer_tokens=3))

        async def pong(_body: bytes, _peer: str) -> object:
            return {"status": "healthy", "service": "processor", **ping}

        handler = answering or say
        await peer.swarm.serve(Role.PROCESSOR, {"ping": pong}, handler)
        return peer

    async def node_processor(self, answer: object) -> Peer:
        """A worker that knows only the unary methods."""
        peer = self.peer()

        async def pong(_body: bytes, _peer: str) -> object:
            return {"status": "healthy", "service": "processor"}

        async def process(_body: bytes, _peer: str) -> object:
            self.served.append("node")
            if isinstance(answer, Exception):
                raise answer
            return answer

        methods = {"ping": pong, "processRequest": process}
        await peer.swarm.serve(Role.PROCESSOR, methods)
        return peer


def token(email: str = EMAIL) -> str:
    return TokenIssuer(SECRET).issue(email)


async def call(client: Peer, to: Peer, method: str, data: object = None, key: str = ""):
    """What a client of the Node.js backend does with a gateway."""
    body = {"data": data if data is not None else {}, "meta": {"key": key}}
    server = to.key(Role.GATEWAY)
    return await client.swarm.request(server, method, body, timeout_s=10)


async def read(answer) -> tuple[str, Finished]:
    text, end = "", None
    async for event in answer:
        if isinstance(event, Fragment):
            text += event.text
        if isinstance(event, Finished):
            end = event
    assert end is not None
    return text, end
