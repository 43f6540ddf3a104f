"""docs/FAILURES.md: users who stop or are gone, processors and gateways that vanish.

A connection of these tests that nobody ends is given up as a real one is, but sooner.
"""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from peerchat.api import ApiError, PromptRequest, ToolCall, ToolCalls
from peerchat.net.driver import connection
from peerchat.net.identity import PublicKey
from peerchat.services import dispatcher, prompt_pulse, prompt_wire, router
from peerchat.services import gateway as gateway_role
from peerchat.services.processor_state import Processor
from peerchat.services.processor_watch import ProcessorWatch
from peerchat.testing import memory_network
from peerchat.testing.engine import STALL, ScriptedEngine
from peerchat.testing.faults import Fault, FaultyEngine, whole_answer
from peerchat.testing.streams import memory_connection_pair

from .routing_world import RoutingWorld, ask, first_text, joined, read_all
from .services_world import token
from .waiting import until

KEEP_ALIVE_S = 0.1
LOST_S = 0.5
"""A silent connection is given up after it."""


@pytest.fixture
async def world(tmp_path):
    async with RoutingWorld(tmp_path) as made:
        yield made


@pytest.fixture
def _fast_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_pulse, "BEAT_S", 0.03)


@pytest.fixture
def _soon_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = partial(memory_connection_pair, keep_alive_s=KEEP_ALIVE_S)
    monkeypatch.setattr(memory_network, "memory_connection_pair", pair)
    monkeypatch.setattr(connection, "SILENCE_MAX_S", LOST_S)


@pytest.fixture
def _no_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    """All are of an earlier version."""
    monkeypatch.setattr(prompt_wire, "VERSION", 2)


@pytest.fixture
def _soon_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who are lost are tried again at once."""
    monkeypatch.setattr(gateway_role, "LOOK_IN_NEED_S", 0.0)
    monkeypatch.setattr(gateway_role, "FOLLOW_EVERY_S", 0.05)
    monkeypatch.setattr(router, "RETRY_S", 0.0)


async def vanish(peer) -> None:
    """Let it fall silent, once all know that it says when it is there."""
    ends = peer.dht.connections
    await until(
        lambda: all(one._stream.peer._receiver._does_peer_keep_alive for one in ends)
    )
    peer.dht.be_silent()


async def freed(worker, *entries) -> None:
    """Every hop has freed what it held for a request."""
    async with asyncio.timeout(5):
        await worker.engine.wait_for(lambda one: one.running == 0)
    await until(lambda: worker.role.busy == 0)
    for entry in entries:
        role = entry.role
        await until(lambda role=role: not role._patrol._dogs)
        await until(lambda role=role: not role._dispatcher._waiting)
        await until(
            lambda role=role: not any(p.running for p in role.router.processors)
        )


# The user


async def test_a_stop_frees_every_hop(world) -> None:
    worker = await world.worker(FaultyEngine(Fault.ENDLESS))
    entry = await world.entry()
    answer = world.client().ask("why?", token())
    await first_text(answer)
    assert (worker.engine.running, worker.role.busy) == (1, 1)
    await answer.aclose()
    await freed(worker, entry)


@pytest.mark.parametrize("steps", [["x ", STALL], [STALL]], ids=["later", "at once"])
async def test_who_is_gone_gets_nothing_generated(world, steps) -> None:
    worker, entry = await world.worker(ScriptedEngine(steps)), await world.entry()
    client = world.peer()
    answer = client.swarm.ask(entry.key, PromptRequest("why?", "r-gone"), token())
    reading = asyncio.create_task(read_all(answer))
    await worker.engine.wait_for(lambda one: one.running)
    client.dht.kill()
    await freed(worker, entry)
    with pytest.raises(ApiError):
        await reading


@pytest.mark.usefixtures("_fast_beats")
@pytest.mark.parametrize("fault", [Fault.ENDLESS, Fault.STALL, Fault.HANG])
async def test_who_vanished_without_a_word_gets_nothing_generated(world, fault) -> None:
    worker, entry = await world.worker(FaultyEngine(fault)), await world.entry()
    client = world.peer()
    answer = client.swarm.ask(entry.key, PromptRequest("why?", "r-gone"), token())
    reading = asyncio.create_task(read_all(answer))
    await worker.engine.wait_for(lambda one: one.running)
    client.dht.be_silent()
    await freed(worker, entry)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)


@pytest.mark.usefixtures("_no_beats", "_soon_lost")
async def test_who_vanished_and_never_beats_is_lost_with_the_connection(world) -> None:
    worker, entry = await world.worker(FaultyEngine(Fault.STALL)), await world.entry()
    client = world.peer()
    answer = client.swarm.ask(entry.key, PromptRequest("why?", "r-gone"), token())
    await first_text(answer)
    await vanish(client)
    await freed(worker, entry)


# The processor


async def test_a_silent_processor_is_left_for_one_that_is_free(world) -> None:
    silent = await world.worker(FaultyEngine(Fault.STALL))
    entry = await world.entry()
    answer = ask(world, entry)
    got = await first_text(answer)
    second = await joined(world, entry, FaultyEngine())
    silent.peer.dht.be_silent()
    read = await read_all(answer)
    assert got.text + read.text == whole_answer("why?")
    assert read.end.usage.continued == 1
    assert read.end.usage.peer == second.key.hex()


async def test_a_silent_processor_is_waited_for_where_nobody_else_is_free(
    world,
) -> None:
    go_on = asyncio.Event()
    silent = await world.worker(ScriptedEngine(["half ", go_on, "whole"]))
    entry = await world.entry()
    answer = ask(world, entry)
    await first_text(answer)
    silent.peer.dht.be_silent()
    (dog,) = entry.role._patrol._dogs
    one, router = dog._processor, entry.role.router
    await until(lambda: router.now_s - one.seen_s > one.suspect_after_s())
    assert not dog.judge(router.now_s)
    silent.peer.dht.be_silent(False)
    go_on.set()
    read = await read_all(answer)
    assert (read.text, read.end.usage.continued) == ("whole", 0)


@pytest.mark.usefixtures("_soon_lost")
async def test_a_silent_processor_is_lost_with_its_connection(
    world, monkeypatch
) -> None:
    monkeypatch.setattr(dispatcher, "HOPE_S", 0.0)
    silent = await world.worker(FaultyEngine(Fault.STALL))
    entry = await world.entry()
    answer = ask(world, entry)
    await first_text(answer)
    await vanish(silent.peer)
    async with asyncio.timeout(10):
        with pytest.raises(ApiError) as caught:
            await read_all(answer)
    assert caught.value.is_partial


@pytest.mark.usefixtures("_soon_looked")
async def test_the_only_processor_that_restarts_is_waited_for(world) -> None:
    worker, entry = await world.worker(), await world.entry()
    await read_all(ask(world, entry, "before"))
    await world.stop(worker)
    await until(lambda: not entry.role.router.processors)
    reading = asyncio.create_task(read_all(ask(world, entry, "meanwhile")))
    await until(entry.role._dispatcher.has_hopeless)
    await world.start(worker)
    read = await reading
    assert read.text == whole_answer("meanwhile")
    # It is in no queue while nobody can tell whether it will be served.
    assert not [one for one in read.progress if one.state == "queued"]


@pytest.mark.usefixtures("_soon_looked")
async def test_the_only_processor_that_is_stopped_goes_on_later(world) -> None:
    worker = await world.worker(FaultyEngine(delay_s=0.05))
    entry = await world.entry()
    answer = ask(world, entry)
    got = await first_text(answer)
    await world.stop(worker)
    rest = asyncio.create_task(read_all(answer))
    await until(lambda: not entry.role.router.processors)
    await world.start(worker)
    read = await rest
    assert got.text + read.text == whole_answer("why?")
    assert read.end.usage.continued == 1


async def test_who_is_there_is_asked_while_others_say_nothing(
    world, monkeypatch
) -> None:
    monkeypatch.setattr(router, "SETTLE_S", 3600.0)
    entry = await world.entry()
    dead = Processor(PublicKey(bytes(32)))
    watch = ProcessorWatch(entry.peer.swarm, dead, lambda: None)
    entry.role.router._followed[dead.key] = router._Followed(dead, watch)
    await world.worker()
    assert (await read_all(ask(world, entry))).text == whole_answer("why?")


# The gateway


async def test_a_gateway_dies_before_the_first_byte(world) -> None:
    go_on = asyncio.Event()
    engine = ScriptedEngine([go_on, "whole"])
    await world.worker(engine, slots=2)
    entries = [await world.entry(f"{n}.db") for n in range(2)]
    client, changes = world.client(), []
    client.on_gateway_change = lambda: changes.append(1)
    answer = client.ask("why?", token())
    reading = asyncio.create_task(read_all(answer))
    await engine.wait_for(lambda one: one.running)
    taken = next(one for one in entries if one.role._patrol._dogs)
    taken.peer.dht.kill()
    async with asyncio.timeout(10):
        await engine.wait_for(lambda one: len(one.requests) == 2)
        go_on.set()
        read = await reading
        await engine.wait_for(lambda one: one.running == 0)
    assert (read.text, read.end.usage.continued) == ("whole", 0)
    assert len(changes) == 1
    assert {request.request_id for request in engine.requests} == {answer.request_id}


@pytest.mark.usefixtures("_no_beats", "_soon_lost")
async def test_a_silent_gateway_is_lost_with_its_connection(world) -> None:
    await world.worker(FaultyEngine(delay_s=0.3), slots=2)
    entries = [await world.entry(is_shared=True) for _ in range(2)]
    answer = world.client().ask("why?", token())
    got = await first_text(answer)
    taken = next(one for one in entries if one.role._patrol._dogs)
    await vanish(taken.peer)
    async with asyncio.timeout(10):
        read = await read_all(answer)
    assert got.text + read.text == whole_answer("why?")
    assert read.end.usage.continued == 1


async def test_function_calls_are_not_replayed_by_another_gateway(world) -> None:
    calls = ToolCalls((ToolCall("c1", "pay", "{}"),))
    engine = ScriptedEngine([calls, STALL])
    await world.worker(engine, slots=2)
    entries = [await world.entry(is_shared=True) for _ in range(2)]
    answer = world.client().ask("why?", token())
    async for event in answer:
        if isinstance(event, ToolCalls):
            break
    taken = next(one for one in entries if one.role._patrol._dogs)
    taken.peer.dht.kill()
    with pytest.raises(ApiError) as caught:
        await read_all(answer)
    assert caught.value.is_partial
    assert len(engine.requests) == 1
