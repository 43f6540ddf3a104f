"""Routing inside a private swarm: who may hear a processor, and count prompts."""

from __future__ import annotations

import asyncio

import pytest

from peerchat.api import ApiError, PromptRequest, Role
from peerchat.gateways import Gateways
from peerchat.services.gateway import GatewayRole
from peerchat.services.limits import Limiter
from peerchat.services.processor import ProcessorRole
from peerchat.services.processor_state import Processor
from peerchat.services.processor_watch import ProcessorWatch
from peerchat.services.store import open_store
from peerchat.services.tokens import TokenVerifier
from peerchat.settings import Settings
from peerchat.testing.faults import FaultyEngine, whole_answer

from .routing_world import read_all
from .services_world import EMAIL, SECRET, token
from .test_gate import until
from .trust_world import SERVING, PrivateWorld, home_at


@pytest.fixture
async def world(tmp_path):
    async with PrivateWorld(tmp_path) as one:
        yield one


async def run(world: PrivateWorld, role) -> None:
    ready = asyncio.Event()
    world.spawn(role.run(ready.set))
    await ready.wait()


async def processor(world: PrivateWorld):
    member = world.member(SERVING)
    settings = Settings(home_at(world.folder / "processor"))
    await run(world, ProcessorRole(member.swarm, FaultyEngine(), settings))
    return member


async def gateway(world: PrivateWorld, name: str, most: int = 4):
    member = world.member(SERVING)
    store = await open_store(world.folder / f"{name}.db")
    world._resources.push_async_callback(store.close)
    limiter = Limiter(store, most)
    await run(world, GatewayRole(member.swarm, TokenVerifier([SECRET]), limiter))
    return member, limiter


async def test_certified_gateways_count_together(world) -> None:
    await processor(world)
    entries = [await gateway(world, f"g{number}") for number in range(3)]
    asking = world.member().swarm
    # Those that were found are looked at beside all else, and count from then on.
    for member, _ in entries:
        await member.swarm.find(Role.GATEWAY)
        keys = [other.key(Role.GATEWAY) for other, _ in entries]
        await until(lambda one=member, keys=keys: all(map(one.swarm.is_proven, keys)))
    for number in range(4):
        key = entries[number % 3][0].key(Role.GATEWAY)
        request = PromptRequest(f"p{number}", f"r{number}")
        read = await read_all(asking.ask(key, request, token()))
        assert read.text == whole_answer(f"p{number}")
    for member, _ in entries:
        request = PromptRequest("more", "r9")
        with pytest.raises(ApiError, match="Rate limit"):
            await read_all(asking.ask(member.key(Role.GATEWAY), request, token()))
    left = [(await limiter.status(EMAIL)).remaining for _, limiter in entries]
    assert sorted(left) == [0, 4, 4]


@pytest.mark.parametrize("method", ["limitAdmit", "limitStatus", "limitTakeBack"])
async def test_no_other_member_counts_or_takes_back(world, method) -> None:
    member, limiter = await gateway(world, "g")
    body = {"data": {"request": "r", "ticket": "t"}, "meta": {"key": token()}}
    key = member.key(Role.GATEWAY)
    said = await world.member().swarm.request(key, method, body, 5)
    assert said == f"[HRPC_ERR]=Only gateways may call {method}."
    assert (await limiter.status(EMAIL)).remaining == 4
    said = await world.member(SERVING).swarm.request(key, method, body, 5)
    assert said["success"] is True


async def test_only_gateways_hear_a_processors_status(world) -> None:
    member = await processor(world)
    key = member.key(Role.PROCESSOR)
    heard = {}
    for who, roles in (("gateway", SERVING), ("client", ())):
        one = Processor(key)
        watch = ProcessorWatch(world.member(roles).swarm, one, lambda: None)
        world.spawn(watch.run())
        async with asyncio.timeout(10):
            await watch.is_settled.wait()
        heard[who] = one.pushes
    assert heard == {"gateway": True, "client": False}


async def test_every_member_is_told_what_the_models_are(world) -> None:
    await processor(world)
    await gateway(world, "g")
    client = Gateways(world.member().swarm)
    async with asyncio.timeout(10):
        while True:
            (model,) = await client.models()
            if model.details is not None and model.details.parameters:
                break
            await asyncio.sleep(0.05)
    assert (model.name, model.details.family) == ("scripted", "scripted")
    await client.close()
