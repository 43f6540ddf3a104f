"""docs/FAILURES.md row by row.

The rows about queue, limits, kills, stalls and deadlines are in test_routing.py, and
all at once in tests/soak.
"""

from __future__ import annotations

import asyncio

import pytest

from peerchat.api import ApiError, ErrorCode, Role, ToolCall, ToolCalls
from peerchat.services.engines.base import engine_failed, model_missing
from peerchat.services.failures import KINDS
from peerchat.testing.engine import STALL, ScriptedEngine
from peerchat.testing.faults import (
    Fault,
    FaultyEngine,
    MalformedProcessor,
    whole_answer,
)

from .routing_world import RoutingWorld, ask, first_text, read_all
from .services_world import token


@pytest.fixture
async def world(tmp_path):
    async with RoutingWorld(tmp_path) as made:
        yield made


async def until(claim) -> None:
    """Return once it is true."""
    for _ in range(500):
        if claim():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to be")


async def running(engine) -> None:
    """The engine works on its first request."""
    await until(lambda: engine.running)


async def joined(world, entry, engine):
    """A second processor that the gateway knows."""
    worker = await world.worker(engine)
    router = entry.role.router
    await router.look(max_age_s=0)
    await until(
        lambda: worker.key in {bytes(one.key) for one in router.processors if one.slots}
    )
    return worker


async def refused(answer) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await read_all(answer)
    return caught.value


def test_every_code_has_its_kind() -> None:
    assert set(KINDS) == set(ErrorCode)


@pytest.mark.parametrize(
    "failure",
    [
        model_missing("There is no such model after all."),
        engine_failed("The engine is out of order."),
    ],
    ids=["lists a model and has it not", "fails before the first byte"],
)
async def test_before_the_first_byte_another_is_asked_unseen(world, failure) -> None:
    go_on = asyncio.Event()
    sick = ScriptedEngine([go_on, failure])
    await world.worker(sick)
    entry = await world.entry(max_requests=5)
    reading = asyncio.create_task(read_all(ask(world, entry)))
    await running(sick)
    await joined(world, entry, FaultyEngine())
    go_on.set()
    read = await reading
    assert read.text == whole_answer("why?")
    assert read.end.usage.continued == 0
    assert read.end.rate_limit.remaining == 4


async def test_a_hang_before_the_first_byte_is_left_for_one_that_is_free(world) -> None:
    hanging = FaultyEngine(Fault.HANG)
    await world.worker(hanging)
    entry = await world.entry(stall_s=0.1)
    reading = asyncio.create_task(read_all(ask(world, entry)))
    await running(hanging)
    await joined(world, entry, FaultyEngine())
    async with asyncio.timeout(10):
        assert (await reading).text == whole_answer("why?")
        await hanging.wait_for(lambda one: one.running == 0)


async def test_unreadable_bytes_are_no_answer(world) -> None:
    peer, broken = world.peer(), MalformedProcessor()
    peer.swarm.attach_members(Role.PROCESSOR, broken.attach)

    async def pong(_body: bytes, _peer: str) -> object:
        return {"status": "healthy", "service": "processor", "slots": 8}

    await peer.swarm.serve(Role.PROCESSOR, {"ping": pong})
    entry = await world.entry()
    error = await refused(ask(world, entry))
    assert broken.asked == 1
    assert error.code in (ErrorCode.NO_PROCESSOR, ErrorCode.PEER_LOST)
    await joined(world, entry, FaultyEngine())
    assert (await read_all(ask(world, entry, "and now"))).text == whole_answer(
        "and now"
    )


async def test_a_break_in_mid_answer_goes_on_elsewhere(world) -> None:
    go_on = asyncio.Event()
    await world.worker(ScriptedEngine(["half ", go_on, engine_failed("It died.")]))
    entry = await world.entry(max_requests=5)
    answer = ask(world, entry)
    got = await first_text(answer)
    second = await joined(world, entry, ScriptedEngine(["and whole"]))
    go_on.set()
    read = await read_all(answer)
    assert got.text + read.text == "half and whole"
    assert read.end.usage.continued == 1
    assert read.end.usage.peer == second.key.hex()
    assert read.end.rate_limit.remaining == 4


async def test_when_nobody_can_go_on_the_part_is_marked(world) -> None:
    await world.worker(FaultyEngine(Fault.DROP))
    entry = await world.entry()
    answer = ask(world, entry)
    part = (await first_text(answer)).text
    error = await refused(answer)
    assert error.message.startswith("The answer breaks off here")
    assert error.is_partial
    assert part
    assert whole_answer("why?").startswith(part)


async def test_function_calls_are_never_replayed(world) -> None:
    go_on = asyncio.Event()
    calls = ToolCalls((ToolCall("c1", "pay", "{}"),))
    await world.worker(ScriptedEngine([calls, go_on, engine_failed("It died.")]))
    entry = await world.entry()
    answer = ask(world, entry)
    async for event in answer:
        if isinstance(event, ToolCalls):
            break
    second = await joined(world, entry, FaultyEngine())
    go_on.set()
    error = await refused(answer)
    assert error.is_partial
    assert second.engine.requests == []


async def test_slow_but_alive_is_left_alone(world) -> None:
    await world.worker(FaultyEngine(delay_s=0.15))
    entry = await world.entry(stall_s=0.5)
    await joined(world, entry, FaultyEngine(delay_s=0.15))
    read = await read_all(ask(world, entry))
    assert read.text == whole_answer("why?")
    assert read.end.usage.continued == 0


async def test_a_gateway_dies_before_the_first_byte(world) -> None:
    go_on = asyncio.Event()
    engine = ScriptedEngine([go_on, "whole"])
    await world.worker(engine, slots=2)
    entries = [await world.entry(f"{n}.db") for n in range(2)]
    answer = world.client().ask("why?", token())
    reading = asyncio.create_task(read_all(answer))
    await running(engine)
    taken = next(one for one in entries if one.role._patrol._dogs)
    taken.peer.dht.kill()
    async with asyncio.timeout(10):
        await engine.wait_for(lambda one: len(one.requests) == 2)
        go_on.set()
        assert (await reading).text == "whole"
        await engine.wait_for(lambda one: one.running == 0)
    assert {request.request_id for request in engine.requests} == {answer.request_id}


async def test_a_wrong_request_is_asked_of_nobody_and_counts_nothing(world) -> None:
    worker = await world.worker()
    entry = await world.entry(max_requests=5)
    assert (await refused(ask(world, entry, " "))).code is ErrorCode.INVALID_REQUEST
    missing = await refused(ask(world, entry, model="no such"))
    assert missing.code is ErrorCode.MODEL_MISSING
    assert worker.engine.requests == []
    assert (await read_all(ask(world, entry))).end.rate_limit.remaining == 4


async def test_who_is_gone_gets_nothing_generated(world) -> None:
    engine = ScriptedEngine(["x ", STALL])
    await world.worker(engine)
    entry = await world.entry()
    client = world.peer()
    from peerchat.api import PromptRequest

    answer = client.swarm.ask(entry.key, PromptRequest("why?", "r-gone"), token())
    await first_text(answer)
    client.dht.kill()
    async with asyncio.timeout(2):
        await engine.wait_for(lambda one: one.running == 0)
