"""What engines can do beyond plain prompts, through a gateway and a processor."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from peerchat.api import ApiError, ErrorCode, Finished, Message, ToolCalls
from peerchat.gateways import Gateways
from peerchat.services.engines.vectors import unpacked
from peerchat.services.processor import ProcessorRole
from peerchat.settings import Home, Settings
from tests.engines.harness import PNG, SCHEMA, TOOL, Harness, harness, text_of

from .services_world import World, token

SETTINGS = Settings(Home(Path(), Path(), Path(), Path()))


@asynccontextmanager
async def swarm_with(
    kind: str, folder: Path
) -> AsyncIterator[tuple[Harness, Gateways]]:
    async with harness(kind) as made, World(folder) as world:
        await world.gateway(max_requests=50)
        peer = world.peer()
        await world.run(ProcessorRole(peer.swarm, made.engine, SETTINGS))
        yield made, Gateways(world.peer().swarm)


@pytest.mark.parametrize("kind", ["ollama", "openai"])
async def test_functions_images_and_history_of_both(kind: str, tmp_path: Path) -> None:
    async with swarm_with(kind, tmp_path) as (made, gateways):
        answer = gateways.ask(
            "How is the weather?",
            token(),
            model=made.tools_model,
            tools=[TOOL],
            images=[PNG],
            history=[Message("user", "look", images=(PNG,))],
        )
        events = [event async for event in answer]
    calls = [call for one in events if isinstance(one, ToolCalls) for call in one.calls]
    assert [json.loads(call.arguments)["city"] for call in calls] == ["Graz", "Wien"]
    end = events[-1]
    assert isinstance(end, Finished)
    assert end.usage.finish_reason == "tool_calls"
    assert end.usage.queue_s is not None


async def test_real_llama_answers_through_the_swarm(tmp_path: Path) -> None:
    async with swarm_with("llama", tmp_path) as (made, gateways):
        asked = {"options": made.options, "model": "tiny"}
        whole = [e async for e in gateways.ask("hello", token(), **asked)]
        text = text_of(whole)
        assert len(text) == made.options["num_predict"]
        options = {**made.options, "num_predict": len(text) - 20}
        begun = gateways.ask(
            "hello", token(), model="tiny", options=options, prefix=text[:20]
        )
        assert text[:20] + text_of([e async for e in begun]) == text
        schema = gateways.ask(
            "hello",
            token(),
            options={**made.options, "num_predict": 200},
            response_format=SCHEMA,
        )
        assert set(json.loads(text_of([e async for e in schema]))) == {
            "is_sunny",
            "wind",
        }
        raw = gateways.ask("Once", token(), options=made.options, is_raw=True)
        assert text_of([e async for e in raw])


async def test_vectors_come_through_the_swarm(tmp_path: Path) -> None:
    async with swarm_with("llama", tmp_path) as (made, gateways):
        texts = [f"text {number}" for number in range(100)]
        got = await gateways.embed(texts, token(), model=made.embed_model)
        assert got.model == "vectors"
        assert len({len(unpacked(vector)) for vector in got.vectors}) == 1
        assert len(set(got.vectors)) == 100
        assert got.prompt_tokens
        with pytest.raises(ApiError) as caught:
            await gateways.embed(texts, token(), model="tiny")
        assert caught.value.code is ErrorCode.INVALID_REQUEST


async def test_what_an_engine_cannot_do_is_told_in_its_words(tmp_path: Path) -> None:
    async with swarm_with("guide", tmp_path) as (_, gateways):
        with pytest.raises(ApiError, match="The guide cannot see images"):
            [event async for event in gateways.ask("x", token(), images=[PNG])]
        with pytest.raises(ApiError, match="cannot embed"):
            await gateways.embed(["x"], token())
