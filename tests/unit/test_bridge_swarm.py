"""The bridge over a real swarm in memory: streams, and stops reach the next hop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from peerchat.api import ApiError, ErrorCode, Fragment, Role
from peerchat.config import find_home
from peerchat.gateways import Gateways
from peerchat.services.bridge import BridgeRole
from peerchat.services.identity import Identity
from peerchat.services.swarm import Swarm
from peerchat.settings import Settings
from peerchat.testing.memory_network import MemoryNetwork
from tests.scripted_swarm import TOKEN, finished

HEADERS = {"Authorization": f"Bearer {TOKEN}"}


class StallingGateway:
    """Answers ``stall`` with one fragment and then nothing, until it is closed."""

    def __init__(self) -> None:
        self.has_begun = asyncio.Event()
        self.is_closed = asyncio.Event()
        self.request_ids: list[str] = []

    async def ping(self, _body: bytes, _caller: str) -> object:
        return {"status": "healthy", "timestamp": 1, "service": "gateway"}

    async def answer(self, request, _caller):
        self.request_ids.append(request.request_id)
        if request.prompt == "limit":
            raise ApiError(
                ErrorCode.RATE_LIMITED, "Rate limit", status=429, retry_after_s=7
            )
        yield Fragment("Hello")
        if request.prompt == "stall":
            self.has_begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.is_closed.set()
        yield finished(request_id=request.request_id)


@pytest.fixture
def stalling() -> StallingGateway:
    return StallingGateway()


@pytest_asyncio.fixture
async def url(stalling: StallingGateway, tmp_path: Path) -> AsyncIterator[str]:
    network = MemoryNetwork()
    serving = Swarm(network.node(), Identity(bytes(32)))
    await serving.serve(Role.GATEWAY, {"ping": stalling.ping}, stalling.answer)
    asking = Swarm(network.node(), Identity(bytes([1]) * 32))
    settings = Settings(find_home(tmp_path, {})[0], http_port=0)
    role = BridgeRole(settings, Gateways(asking))
    is_ready = asyncio.Event()
    task = asyncio.ensure_future(role.run(is_ready.set))
    await is_ready.wait()
    yield role.url
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await asking.close()
    await serving.close()


async def test_one_request_id_from_http_to_the_gateway(
    url: str, stalling: StallingGateway
) -> None:
    async with (
        aiohttp.ClientSession(headers=HEADERS) as session,
        session.post(f"{url}/inference", json={"query": "Hi"}) as response,
    ):
        body = await response.json()
        assert (response.status, body["response"]) == (200, "Hello")
        identifiers = {body["requestId"], response.headers["X-Request-Id"]}
    assert identifiers == set(stalling.request_ids)


async def test_a_limit_comes_through(url: str) -> None:
    async with (
        aiohttp.ClientSession(headers=HEADERS) as session,
        session.post(f"{url}/inference", json={"query": "limit"}) as response,
    ):
        assert response.status == 429
        assert response.headers["Retry-After"] == "7"


@pytest.mark.parametrize("accept", ["text/event-stream", "application/json"])
async def test_a_caller_who_goes_away_stops_the_gateway(
    url: str, stalling: StallingGateway, accept: str
) -> None:
    async with aiohttp.ClientSession(headers={**HEADERS, "Accept": accept}) as session:

        async def ask() -> None:
            async with session.post(
                f"{url}/inference", json={"query": "stall"}
            ) as response:
                line = await response.content.readline()
                assert line == b"event: fragment\n"
                data = await response.content.readline()
                assert json.loads(data.removeprefix(b"data: ")) == {"text": "Hello"}
                await response.read()

        asking = asyncio.ensure_future(ask())
        await stalling.has_begun.wait()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        async with asyncio.timeout(1):
            await stalling.is_closed.wait()
