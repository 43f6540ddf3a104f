"""The processor: slots, fair queue, streaming, the unary methods, stopping."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from peerchat.api import (
    AnswerEvent,
    ApiError,
    ErrorCode,
    Finished,
    Fragment,
    Progress,
    PromptRequest,
    Role,
)
from peerchat.cli.serve import ready_text
from peerchat.contribution import Contribution
from peerchat.services import engine_look
from peerchat.services.admission import (
    QUEUE_PER_CALLER_MAX,
    QUEUE_PER_PEER_MAX,
    Admission,
)
from peerchat.services.engine_look import EngineLook
from peerchat.services.engines.ollama import OllamaEngine
from peerchat.services.messages import encode
from peerchat.services.metrics_http import exposition
from peerchat.services.processor import ProcessorRole
from peerchat.services.prompt_stream import Caller, PromptHandler
from peerchat.settings import Home, Settings
from peerchat.testing.engine import STALL, ScriptedEngine, dies
from peerchat.testing.ollama_stub import OllamaStub

KEY = bytes(range(32))
GATEWAY = "aa" * 32
SETTINGS = Settings(Home(Path(), Path(), Path(), Path()))


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The home of these processors is the working directory."""
    monkeypatch.chdir(tmp_path)


class FakeService:
    def __init__(self) -> None:
        self.public_key = KEY
        self.is_closed = False

    async def close(self) -> None:
        self.is_closed = True


class FakeSwarm:
    def __init__(self) -> None:
        self.service = FakeService()
        self.role: Role | None = None
        self.methods: Mapping[str, object] = {}

    async def serve(
        self,
        role: Role,
        methods: Mapping[str, object],
        prompts: PromptHandler | None = None,
        attach: object = None,
    ) -> FakeService:
        self.role = role
        self.methods = methods
        return self.service


def role_of(engine: object, slots: int = 1, **fields: object) -> ProcessorRole:
    settings = Settings(SETTINGS.home, slots=slots, **fields)  # type: ignore[arg-type]
    return ProcessorRole(FakeSwarm(), engine, settings)  # type: ignore[arg-type]


def request(prompt: str = "one two", model: str | None = None) -> PromptRequest:
    return PromptRequest(prompt, "r1", model)


async def collect(
    role: ProcessorRole, asked: PromptRequest | None = None, user: str = ""
) -> list[AnswerEvent]:
    caller = Caller(GATEWAY, user=user)
    return [event async for event in role.answer(asked or request(), caller)]


async def post(role: ProcessorRole, body: object) -> dict[str, object]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return json.loads(encode(await role.process_request(raw, GATEWAY)))


async def test_streams_and_says_who_served() -> None:
    engine = ScriptedEngine()
    role = role_of(engine)
    ready = asyncio.Event()
    running = asyncio.ensure_future(role.run(ready.set))
    await ready.wait()
    events = await collect(role)
    assert events[0] == Progress("serving", peer=KEY.hex(), model="scripted")
    assert events[1:3] == [Fragment("one "), Fragment("two ")]
    end = events[-1]
    assert isinstance(end, Finished)
    assert end.usage.peer == KEY.hex()
    assert end.usage.model == "scripted"
    assert end.request_id == "r1"
    assert role.busy == 0
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_an_answer_read_to_its_end_counts_as_ok() -> None:
    role = role_of(ScriptedEngine())
    answer = role.answer(request(), Caller(GATEWAY))
    async for event in answer:
        if isinstance(event, Finished):
            break
    await answer.aclose()  # as the channel does once it sent the end
    text = exposition([role.metrics])[0].decode()
    assert 'method="answer",outcome="ok",role="processor"} 1.0' in text
    assert "cancelled" not in text


async def test_run_serves_until_cancelled() -> None:
    swarm = FakeSwarm()
    role = ProcessorRole(swarm, ScriptedEngine(), SETTINGS)
    ready = asyncio.Event()
    running = asyncio.ensure_future(role.run(ready.set))
    await ready.wait()
    assert swarm.role is Role.PROCESSOR
    assert set(swarm.methods) == {"ping", "processRequest", "embed"}
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert swarm.service.is_closed


async def test_runs_as_many_as_there_are_slots_and_queues_the_rest() -> None:
    go = asyncio.Event()
    engine = ScriptedEngine(["begun", go])
    role = role_of(engine, slots=2)
    first = [asyncio.ensure_future(collect(role)) for _ in range(2)]
    await engine.wait_for(lambda e: e.running == 2)
    third = role.answer(request(), Caller(GATEWAY))
    fourth = role.answer(request(), Caller(GATEWAY))
    assert await anext(third) == Progress("queued", position=1)
    assert await anext(fourth) == Progress("queued", position=2)
    assert (role.busy, role.queued) == (2, 2)
    go.set()
    assert await anext(third) == Progress("serving")
    events = [event async for event in third]
    assert isinstance(events[-1], Finished)
    assert isinstance([event async for event in fourth][-1], Finished)
    await asyncio.gather(*first)
    assert engine.running_max == 2
    assert (role.busy, role.queued) == (0, 0)


async def test_positions_move_up_when_one_leaves_the_queue() -> None:
    engine = ScriptedEngine([STALL])
    role = role_of(engine)
    running = asyncio.ensure_future(collect(role))
    await engine.wait_for(lambda e: e.running == 1)
    second = role.answer(request(), Caller(GATEWAY))
    third = role.answer(request(), Caller(GATEWAY))
    await anext(second)
    assert await anext(third) == Progress("queued", position=2)
    await second.aclose()
    assert await anext(third) == Progress("queued", position=1)
    running.cancel()
    assert await anext(third) == Progress("serving")
    await third.aclose()
    await asyncio.gather(running, return_exceptions=True)
    assert (role.busy, role.queued) == (0, 0)


async def test_a_stop_frees_the_slot_and_the_engine() -> None:
    engine = ScriptedEngine(["begun", STALL])
    role = role_of(engine)
    answer = role.answer(request(), Caller(GATEWAY))
    async for event in answer:
        if isinstance(event, Fragment):
            break
    assert role.busy == 1
    await answer.aclose()
    assert role.busy == 0
    assert (engine.running, engine.stopped) == (0, 1)


async def test_cancelling_a_waiting_reader_leaves_the_queue() -> None:
    engine = ScriptedEngine([STALL])
    role = role_of(engine)
    tasks = [asyncio.ensure_future(collect(role)) for _ in range(2)]
    await engine.wait_for(lambda e: e.running == 1)
    assert role.queued == 1
    for task in reversed(tasks):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (role.busy, role.queued) == (0, 0)
    assert len(engine.requests) == 1


async def test_an_engine_that_dies_fails_the_answer_and_frees_the_slot() -> None:
    role = role_of(ScriptedEngine(["half", dies()]))
    answer = role.answer(request(), Caller(GATEWAY))
    assert await anext(answer) == Progress("serving")
    assert await anext(answer) == Fragment("half")
    with pytest.raises(ApiError) as caught:
        await anext(answer)
    assert caught.value.code is ErrorCode.ENGINE_FAILED
    assert role.busy == 0


async def test_a_full_queue_is_busy() -> None:
    engine = ScriptedEngine([STALL])
    role = role_of(engine)
    tasks = [
        asyncio.ensure_future(collect(role, user=f"u{n}"))
        for n in range(QUEUE_PER_PEER_MAX + 1)
    ]
    await engine.wait_for(lambda e: e.running == 1)
    assert role.queued == QUEUE_PER_PEER_MAX
    with pytest.raises(ApiError) as caught:
        await collect(role, user="one more")
    assert caught.value.code is ErrorCode.BUSY
    assert caught.value.status == 503
    assert caught.value.retry_after_s
    assert caught.value.retry_after_s <= 120
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (role.busy, role.queued) == (0, 0)


@pytest.mark.parametrize(("prompt", "words"), [("  ", "empty"), ("x" * 33, "32 bytes")])
async def test_refuses_bad_prompts_before_they_take_a_slot(
    prompt: str, words: str
) -> None:
    engine = ScriptedEngine()
    role = role_of(engine, prompt_bytes_max=32)
    with pytest.raises(ApiError) as caught:
        await collect(role, request(prompt))
    assert caught.value.code is ErrorCode.INVALID_REQUEST
    assert words in caught.value.message
    assert engine.requests == []


async def test_unary_answer_in_the_shape_of_the_contract() -> None:
    role = role_of(ScriptedEngine([Fragment("hm", is_thinking=True), "a", "b"]))
    reply = await post(role, {"prompt": "why?", "requestId": "abc"})
    processed_at = reply.pop("processed_at")
    assert isinstance(processed_at, str)
    assert processed_at.endswith("Z")
    assert reply == {
        "prompt": "why?",
        "response": "ab",
        "requestId": "abc",
        "model": "scripted",
    }


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{nonsense", "Invalid request"),
        (b"", "Invalid request"),
        (b"[]", "Invalid request"),
        ({}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": "  "}, "empty"),
        ({"prompt": "x", "model": 7}, "model"),
        ({"prompt": "x", "model": "no such"}, "no model"),
        ({"prompt": "x", "options": "hot"}, "options"),
    ],
)
async def test_unary_failures_in_the_shape_of_the_contract(
    body: object, words: str
) -> None:
    reply = await post(role_of(ScriptedEngine()), body)
    assert reply["error"] is True
    assert reply["requestId"]
    assert words in str(reply["message"])
    assert set(reply) == {"error", "message", "requestId"}


async def test_unary_failure_of_the_engine() -> None:
    engine = ScriptedEngine()
    engine.is_up = False
    reply = await post(role_of(engine), {"prompt": "x"})
    assert reply["error"] is True
    assert reply["message"] == "The scripted engine is down."


async def test_ping_tells_what_gateways_choose_by() -> None:
    engine = ScriptedEngine(models=("m1", "m2"))
    role = role_of(engine, slots=3)
    ping = json.loads(encode(await role.ping(b"", GATEWAY)))
    assert isinstance(ping.pop("timestamp"), int)
    assert ping == {
        "status": "healthy",
        "service": "processor",
        "models": ["m1", "m2"],
        "embedders": [],
        "slots": 3,
        "busy": 0,
        "queued": 0,
        "engine": "scripted",
        "detail": "",
    }


async def test_ping_tells_that_the_engine_is_down() -> None:
    engine = ScriptedEngine()
    engine.is_up = False
    ping = json.loads(encode(await role_of(engine).ping(b"", GATEWAY)))
    assert ping["status"] == "unhealthy"
    assert ping["detail"] == "engine down"
    assert ping["models"] == []


async def test_stop_reaches_ollama() -> None:
    async with OllamaStub() as stub:
        engine = OllamaEngine(host=stub.url)
        role = role_of(engine)
        answer = role.answer(request(model="slow"), Caller(GATEWAY))
        async for event in answer:
            if isinstance(event, Fragment):
                break
        assert stub.state.active == 1
        await answer.aclose()
        await asyncio.wait_for(stub.wait_for(lambda state: state.active == 0), 5)
        assert stub.state.closed_by_client == 1
        await engine.close()


async def test_ollama_gets_no_more_than_its_slots() -> None:
    async with OllamaStub(parallel=8) as stub:
        engine = OllamaEngine(host=stub.url)
        role = role_of(engine, slots=2)
        await asyncio.gather(*(collect(role, user=f"u{n}") for n in range(6)))
        assert stub.state.completed == 6
        assert stub.state.active_max <= 2
        assert stub.state.waiting == 0
        await engine.close()


def order_of(admission: Admission, *entries: tuple[str, str]) -> list[str]:
    """The order in which requests start that came one after the other."""
    running = admission.enter("x", "first")
    names = {id(admission.enter(p, u)): f"{p}{u}" for p, u in entries}
    order = []
    while admission.queued:
        upcoming = admission._waiting[0]
        running.leave()
        order.append(names[id(upcoming)])
        running = upcoming
    running.leave()
    return order


def test_callers_take_turns() -> None:
    order = order_of(
        Admission(1), *[("g", "a")] * 3, *[("g", "b")] * 2, ("h", "c"), ("g", "a")
    )
    assert order == ["ga", "gb", "hc", "ga", "gb", "ga", "ga"]


def test_one_user_cannot_fill_the_queue() -> None:
    admission = Admission(1)
    for _ in range(1 + QUEUE_PER_CALLER_MAX):
        admission.enter("g", "a")
    with pytest.raises(ApiError) as caught:
        admission.enter("g", "a")
    assert "You have too many" in caught.value.message
    assert admission.enter("g", "b").position == 2


def test_the_whole_queue_is_bounded() -> None:
    admission = Admission(1, queue_max=3)
    tickets = [admission.enter("g", f"u{n}") for n in range(4)]
    with pytest.raises(ApiError):
        admission.enter("h")
    tickets[0].leave()
    assert admission.enter("h").position == 3


def test_leaving_twice_frees_one_slot() -> None:
    admission = Admission(1)
    first, second, third = (admission.enter("g", f"u{n}") for n in range(3))
    first.leave()
    first.leave()
    assert second.is_admitted
    assert not third.is_admitted
    assert (admission.busy, admission.queued) == (1, 1)
    third.leave()
    second.leave()
    assert (admission.busy, admission.queued) == (0, 0)
    assert admission._newest_tags == {}


# What is wrong with it


async def test_a_useless_engine_is_told_at_each_change(caplog, monkeypatch) -> None:
    monkeypatch.setattr(engine_look, "HEALTH_FRESH_S", 0)
    engine = ScriptedEngine()
    engine.is_up = False
    look = EngineLook(engine, Contribution())
    caplog.set_level("INFO", "peerchat.services.engine_look")
    for is_up in (False, False, True, True, False):
        engine.is_up = is_up
        await look.look()
        assert look.problem == ("" if is_up else "scripted: down")
    assert [(one.levelname, one.message) for one in caplog.records] == [
        ("WARNING", "engine scripted: scripted: down"),
        ("INFO", "engine scripted: scripted"),
        ("WARNING", "engine scripted: scripted: down"),
    ]


async def test_an_offer_that_fits_no_model_is_told(caplog) -> None:
    engine = ScriptedEngine(models=("big", "small"))
    told = "--offer tiny* fits no model of the engine: it has big, small"
    partly = EngineLook(engine, Contribution(("tiny*", "big")))
    await partly.look()
    assert partly.names == ["big"]
    assert partly.problem == ""
    assert caplog.messages == [f"engine scripted: {told}"]
    useless = EngineLook(engine, Contribution(("tiny*",)))
    await useless.look()
    assert useless.problem == told


def test_who_is_not_ready_does_not_say_so() -> None:
    settings = replace(SETTINGS, roles=frozenset({Role.GATEWAY, Role.PROCESSOR}))
    assert ready_text(settings, "") == "ready: gateway processor"
    told = ready_text(settings, "no engine answers: start it")
    assert told == "ready: gateway; processor waits: no engine answers: start it"
    alone = replace(SETTINGS, roles=frozenset({Role.PROCESSOR}))
    assert ready_text(alone, "x") == "ready: nothing yet; processor waits: x"
