"""A client that stands on nothing but a bootstrap address, over real sockets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from peerchat import Client
from peerchat.api import ApiError, ErrorCode, Fragment, Role
from peerchat.net import HyperDHT, system_env
from peerchat.services.identity import Identity
from peerchat.services.swarm import Swarm
from tests.scripted_swarm import LIMIT, TOKEN, finished

EMAIL = "ann@example.org"


async def login(_body: bytes, _caller: str) -> object:
    return {
        "success": True,
        "status": 200,
        "email": EMAIL,
        "key": TOKEN,
        "rateLimitInfo": LIMIT,
    }


async def ping(_body: bytes, _caller: str) -> object:
    return {"status": "healthy", "timestamp": 1, "service": "gateway"}


async def answer(request, _caller):
    yield Fragment(f"You said: {request.prompt}")
    yield finished()


@pytest_asyncio.fixture
async def bootstrap() -> AsyncIterator[str]:
    dht = HyperDHT.bootstrapper(system_env(), "127.0.0.1", 0)
    await dht.start()
    swarm = Swarm(dht, Identity(bytes(32)))
    await swarm.serve(Role.GATEWAY, {"login": login, "ping": ping}, answer)
    yield str(dht.address)
    await swarm.close()
    await dht.close()


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PEERCHAT_BOOTSTRAP", "PEERCHAT_OPEN", "PEERCHAT_SWARM"):
        monkeypatch.delenv(name, raising=False)


async def test_an_open_swarm_is_joined_by_its_bootstrap(
    bootstrap: str, tmp_path: Path
) -> None:
    port = bootstrap.rpartition(":")[2]
    options = {"home": tmp_path, "open": True, "bootstrap": f"127.0.0.1:{port}"}
    async with Client(**options) as client:
        assert (await client.status()).has_gateway
        await client.login(EMAIL, "password")
        assert (await client.ask_whole("Hi")).text == "You said: Hi"
        (peer,) = await client.peers()
        assert (peer.role, peer.is_reachable) == (Role.GATEWAY, True)


async def test_solo_uses_what_serves_in_its_home(
    bootstrap: str, tmp_path: Path
) -> None:
    with pytest.raises(ApiError) as caught:
        await Client(home=tmp_path).start()
    assert caught.value.code is ErrorCode.NO_GATEWAY
    assert "peerchat serve" in caught.value.message
    port = bootstrap.rpartition(":")[2]
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "serve.json").write_text(
        json.dumps({"bootstrap": f"127.0.0.1:{port}"})
    )
    async with Client(home=tmp_path) as client:
        assert (await client.login(EMAIL, "password")).email == EMAIL


async def test_a_dead_bootstrap_is_told(tmp_path: Path) -> None:
    client = Client(home=tmp_path, open=True, bootstrap="127.0.0.1:9")
    with pytest.raises(ApiError) as caught:
        await client.start()
    assert caught.value.code is ErrorCode.DHT_UNREACHABLE
    assert "--bootstrap" in caught.value.message
