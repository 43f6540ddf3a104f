"""What one user, one engine or one failure may cost the others."""

from __future__ import annotations

import asyncio

import pytest

from peerchat.api import ApiError, ErrorCode, Fragment, PromptRequest
from peerchat.continuation import Said
from peerchat.services import breaker
from peerchat.services.dispatch_queue import DispatchQueue
from peerchat.services.engines.base import engine_failed
from peerchat.testing.engine import ScriptedEngine
from peerchat.testing.faults import Fault, FaultyEngine, whole_answer

from .routing_world import RoutingWorld, ask, read_all


@pytest.fixture
async def world(tmp_path):
    async with RoutingWorld(tmp_path) as made:
        yield made


def test_slots_that_come_free_one_by_one_go_to_users_in_turns():
    queue = DispatchQueue[str]()
    for name in ("a0", "a1", "a2", "a3", "b0", "b1"):
        queue.enter(name[0], name, now_s=0.0)
    told = [one.item for one in queue.order()]
    served = []
    while len(queue):
        taken = queue.pop(lambda _: True)
        assert taken is not None
        served.append(taken.item)
        if taken.user == "a" and len(served) < 6:
            queue.enter("a", f"a{3 + len(served)}", now_s=0.0)  # who never stops
        assert queue.pop(lambda _: False) is None  # and nobody else is free
    assert told == ["a0", "b0", "a1", "b1", "a2", "a3"]
    assert served[:4] == ["a0", "b0", "a1", "b1"]


def test_who_is_passed_over_keeps_its_place():
    queue = DispatchQueue[str]()
    for name in ("x0", "y0", "z0"):
        queue.enter(name[0], name, now_s=0.0)
    taken = queue.pop(lambda item: item != "x0")
    assert taken is not None
    assert taken.item == "y0"
    assert [one.item for one in queue.order()] == ["x0", "z0"]


@pytest.mark.parametrize("name", ["num_predict", "max_tokens", "max_completion_tokens"])
def test_what_goes_on_has_what_is_left_of_the_tokens(name: str):
    said = Said(PromptRequest("why?", "r", options={name: 10, "temperature": 0.5}))
    assert said.rest(None).options == {name: 10, "temperature": 0.5}
    for word in ("one ", "two ", "three "):
        said.passed(Fragment(word))
    assert said.rest(None).options == {name: 7, "temperature": 0.5}
    for number in range(20):
        said.passed(Fragment(f"{number} "))
    assert said.rest(None).options[name] == 1
    unlimited = Said(PromptRequest("why?", "r", options={name: -1}))
    unlimited.passed(Fragment("word"))
    assert unlimited.rest(None).options == {name: -1}


class BusyEngine(ScriptedEngine):
    """Has no room, whatever its processor tells."""

    async def stream(self, request):
        self.requests.append(request)
        raise ApiError(ErrorCode.BUSY, "The engine is busy.", status=503)
        yield engine_failed("never")


async def test_a_busy_engine_is_asked_seldom_and_the_user_is_told(world, monkeypatch):
    monkeypatch.setattr(breaker, "REST_S", 0.01)
    monkeypatch.setattr(breaker, "REST_S_MAX", 0.05)
    engine = BusyEngine()
    await world.worker(engine)
    entry = await world.entry()
    async with asyncio.timeout(30):
        with pytest.raises(ApiError) as caught:
            await read_all(ask(world, entry))
    assert caught.value.code is ErrorCode.BUSY
    assert caught.value.retry_after_s
    assert 1 < len(engine.requests) <= 10


async def test_a_request_has_a_place_before_newcomers_told_of_themselves(world):
    await world.worker(ScriptedEngine(["x ", "y"]), slots=1)
    entry = await world.entry()
    read = await read_all(ask(world, entry))
    assert read.text == "x y"
    one = next(iter(entry.role.router.processors))
    one.busy = one.room
    async with asyncio.timeout(1):
        await entry.role.router.ensure(None)


async def test_a_broken_model_keeps_nobody_from_a_healthy_one(world):
    def fault(request):
        return Fault.ERROR if request.model == "broken" else Fault.NONE

    engine = FaultyEngine(fault)
    engine.model_names = ("scripted", "broken")
    await world.worker(engine, slots=4)
    entry = await world.entry()
    for number in range(5):
        with pytest.raises(ApiError):
            await read_all(ask(world, entry, f"p{number}", model="broken"))
    one = next(iter(entry.role.router.processors))
    assert not one.breaker("broken").allows(entry.role.router.now_s)
    read = await read_all(ask(world, entry, "well?", model="scripted"))
    assert read.text == whole_answer("well?")
    assert not any(progress.state == "queued" for progress in read.progress)
