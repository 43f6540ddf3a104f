"""A processor of a swarm: streamed, whole, stopped, lost and drained, with Ollama."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from peerchat.api import (
    ApiError,
    ErrorCode,
    Finished,
    Fragment,
    Progress,
    PromptRequest,
    Role,
)
from peerchat.net.identity import PublicKey
from peerchat.replies import ping_of
from peerchat.services.engines.ollama import OllamaEngine
from peerchat.services.identity import Identity
from peerchat.services.processor import ProcessorRole
from peerchat.services.swarm import Swarm
from peerchat.services.swarm_answer import SwarmAnswer
from peerchat.settings import Home, Settings
from peerchat.testing.memory_network import MemoryDht, MemoryNetwork
from peerchat.testing.ollama_stub import OllamaStub

SETTINGS = Settings(Home(Path(), Path(), Path(), Path()))


@dataclass
class World:
    stub: OllamaStub
    client: Swarm
    server: Swarm
    server_dht: MemoryDht
    key: PublicKey

    def ask(self, model: str | None = None, prompt: str = "why?") -> SwarmAnswer:
        request = PromptRequest(prompt, "r1", model)
        return self.client.ask(self.key, request, role=Role.PROCESSOR, user="u")


@pytest.fixture
async def world() -> AsyncIterator[World]:
    network = MemoryNetwork("processor")
    server_dht, client_dht = network.node(), network.node()
    server = Swarm(server_dht, Identity(b"s" * 32))
    client = Swarm(client_dht, Identity(b"c" * 32))
    async with OllamaStub() as stub:
        engine = OllamaEngine(host=stub.url)
        role = ProcessorRole(server, engine, SETTINGS)
        ready = asyncio.Event()
        running = asyncio.ensure_future(role.run(ready.set))
        await ready.wait()
        (key,) = await client.find(Role.PROCESSOR)
        yield World(stub, client, server, server_dht, key)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await client.close()
        await server.close()
        await engine.close()


async def first_fragment(answer: SwarmAnswer) -> Fragment:
    async for event in answer:
        if isinstance(event, Fragment):
            return event
    raise AssertionError("no fragment came")


async def test_an_answer_streams_through(world: World) -> None:
    events = [event async for event in world.ask()]
    text = "".join(event.text for event in events if isinstance(event, Fragment))
    assert text == "Hello from the stub!"
    end = events[-1]
    assert isinstance(end, Finished)
    assert end.usage.peer == world.key.hex()
    assert Progress("loading", model="llama3.2:latest") in events


async def test_the_unary_method_answers_whole(world: World) -> None:
    reply = await world.client.request(
        world.key, "processRequest", {"prompt": "why?"}, 10
    )
    assert isinstance(reply, dict)
    assert reply["response"] == "Hello from the stub!"
    ping = await world.client.request(world.key, "ping", {}, 10)
    assert isinstance(ping, dict)
    assert ping["service"] == "processor"
    assert "llama3.2:latest" in ping["models"]


async def test_a_stop_frees_ollamas_slot(world: World) -> None:
    answer = world.ask("slow")
    await first_fragment(answer)
    assert world.stub.state.active == 1
    await answer.aclose()
    await asyncio.wait_for(world.stub.wait_for(lambda s: s.active == 0), 5)
    assert world.stub.state.closed_by_client == 1


async def test_a_client_that_vanishes_frees_ollamas_slot(world: World) -> None:
    answer = world.ask("slow")
    await first_fragment(answer)
    session = await world.client.session(world.key)
    session.connection.destroy()
    await asyncio.wait_for(world.stub.wait_for(lambda s: s.active == 0), 5)


async def test_a_stop_before_the_first_byte_frees_ollamas_slot(world: World) -> None:
    answer = world.ask("silent")
    reader = asyncio.ensure_future(first_fragment(answer))
    await world.stub.wait_for(lambda s: s.active == 1)
    reader.cancel()
    await asyncio.gather(reader, return_exceptions=True)
    await asyncio.wait_for(world.stub.wait_for(lambda s: s.active == 0), 5)


async def test_an_unary_caller_that_vanishes_frees_ollamas_slot(world: World) -> None:
    body = {"prompt": "why?", "model": "silent"}
    calling = asyncio.ensure_future(
        world.client.request(world.key, "processRequest", body, 60)
    )
    await world.stub.wait_for(lambda s: s.active == 1)
    session = await world.client.session(world.key)
    session.connection.destroy()
    await asyncio.wait_for(world.stub.wait_for(lambda s: s.active == 0), 5)
    await asyncio.gather(calling, return_exceptions=True)


async def test_a_processor_that_dies_fails_the_answer(world: World) -> None:
    answer = world.ask("slow")
    await first_fragment(answer)
    world.server_dht.kill()
    with pytest.raises(ApiError) as caught:
        await read_on(answer)
    assert caught.value.code is ErrorCode.PEER_LOST


async def read_on(answer: SwarmAnswer) -> None:
    async for _ in answer:
        pass


async def test_an_engine_that_dies_in_the_middle_is_told(world: World) -> None:
    answer = world.ask("drop")
    assert (await first_fragment(answer)).text == "Hello"
    with pytest.raises(ApiError) as caught:
        await read_on(answer)
    assert caught.value.code is ErrorCode.ENGINE_FAILED
    assert caught.value.request_id == "r1"


async def test_queue_positions_reach_the_client(world: World) -> None:
    first = world.ask("slow")
    await first_fragment(first)
    second = world.ask()
    queued = await anext(second)
    assert queued == Progress("queued", position=1, peer=world.key.hex())
    await first.aclose()
    events = [event async for event in second]
    assert isinstance(events[-1], Finished)


async def test_drain_lets_an_answer_end(world: World) -> None:
    world.stub.models["slow:latest"].fragments = ("tick ",) * 10
    answer = world.ask("slow")
    await first_fragment(answer)
    draining = asyncio.ensure_future(world.server.drain(10))
    events = [event async for event in answer]
    assert isinstance(events[-1], Finished)
    await draining
    with pytest.raises(ApiError) as caught:
        await first_fragment(world.ask())
    assert caught.value.code is ErrorCode.STOPPED


async def test_models_that_only_give_vectors_are_told_apart(world: World) -> None:
    reply = await world.client.request(world.key, "ping", {}, 5, role=Role.PROCESSOR)
    told = {model.name: model.is_embedder for model in ping_of(reply).models}
    assert told["nomic-embed-text:latest"]
    assert not told["llama3.2:latest"]
    assert sum(told.values()) == 1
