"""Bridges over scripted swarms, for tests that speak HTTP to them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
import pytest_asyncio

from peerchat.api import Role
from peerchat.config import find_home
from peerchat.gateways import Gateways
from peerchat.services.bridge import BridgeRole
from peerchat.services.bridge.own_account import OwnAccount
from peerchat.services.metrics import RoleMetrics
from peerchat.settings import Settings
from tests.scripted_swarm import TOKEN, ScriptedPeer, ScriptedSwarm, gateway, key

__all__ = ["BEARER", "EVENTS", "WHO", "Bridge", "Starter", "bridge", "start"]

WHO = {"email": "ann@example.org", "password": "correct horse"}
BEARER = {"Authorization": f"Bearer {TOKEN}"}
EVENTS = {**BEARER, "Accept": "text/event-stream"}


@dataclass
class Bridge:
    """A bridge that serves, and what stands behind it."""

    url: str
    swarm: ScriptedSwarm
    metrics: RoleMetrics
    session: aiohttp.ClientSession
    task: asyncio.Task[None]
    role: BridgeRole
    ollama_url: str = ""

    async def call(
        self, method: str, path: str, **options: object
    ) -> tuple[int, dict, aiohttp.ClientResponse]:
        async with self.session.request(method, self.url + path, **options) as response:
            body = await response.json() if response.content_type != "text/html" else {}
            return response.status, body, response

    async def post(self, path: str, body: object = None, **headers: str):
        return await self.call("POST", path, json=body, headers=headers)

    @property
    def gateway(self) -> ScriptedPeer:
        return self.swarm.peers[key(1)]


class Starter:
    """Starts bridges; all end with the test."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.started: list[Bridge] = []
        self.own: OwnAccount | None = None

    async def __call__(
        self, swarm: ScriptedSwarm | None = None, **changes: object
    ) -> Bridge:
        swarm = swarm or ScriptedSwarm(a=gateway())
        metrics = RoleMetrics(Role.BRIDGE)
        settings = replace(self.settings, **changes)
        role = BridgeRole(settings, Gateways(swarm), metrics, self.own)
        is_ready = asyncio.Event()
        task = asyncio.ensure_future(role.run(is_ready.set))
        waiting = asyncio.ensure_future(is_ready.wait())
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if task.done():
            task.result()
        session = aiohttp.ClientSession()
        bridge = Bridge(role.url, swarm, metrics, session, task, role, role.ollama_url)
        self.started.append(bridge)
        return bridge

    async def close(self) -> None:
        for bridge in self.started:
            await bridge.session.close()
            bridge.task.cancel()
            await asyncio.gather(bridge.task, return_exceptions=True)


@pytest_asyncio.fixture
async def start(tmp_path: Path) -> AsyncIterator[Starter]:
    starter = Starter(Settings(find_home(tmp_path, {})[0], http_port=0))
    yield starter
    await starter.close()


@pytest_asyncio.fixture
async def bridge(start: Starter) -> Bridge:
    return await start()
