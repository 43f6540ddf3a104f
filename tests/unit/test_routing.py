"""Routing with real processors: choice, queue, failover, limits, traces, receipts."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from peerchat.api import (
    ApiError,
    ErrorCode,
    Finished,
    Fragment,
    Message,
    ModelDetails,
    PromptRequest,
    Role,
)
from peerchat.net.identity import PublicKey
from peerchat.services import dispatcher
from peerchat.services.processor_watch import ProcessorWatch
from peerchat.services.receipts import open_receipt_untrusted, request_hash
from peerchat.testing.engine import STALL, ScriptedEngine
from peerchat.testing.faults import Fault, FaultyEngine, whole_answer

from .routing_world import RoutingWorld, ask, first_text, joined, knows, read_all
from .services_world import call, token
from .waiting import until


@pytest.fixture
async def world(tmp_path):
    async with RoutingWorld(tmp_path) as made:
        yield made


async def test_the_answer_says_who_why_and_how(world) -> None:
    worker, entry = await world.worker(), await world.entry()
    read = await read_all(ask(world, entry))
    assert read.text == whole_answer("why?")
    serving = read.progress[-1]
    assert (serving.state, serving.reason) == ("serving", "the only one")
    usage = read.end.usage
    assert (usage.peer, usage.path, usage.model) == (
        worker.key.hex(),
        "direct",
        "scripted",
    )
    whats = [hop.what for hop in read.end.hops]
    assert (whats[0], whats[-1]) == ("received", "finished")
    assert {"chosen", "admitted", "first"} <= set(whats)


async def test_a_processor_never_gets_more_than_its_slots(world) -> None:
    engine = FaultyEngine(delay_s=0.03)
    await world.worker(engine, slots=2)
    entries = [await world.entry(f"{n}.db") for n in range(2)]
    reads = await asyncio.gather(
        *(
            read_all(ask(world, entries[n % 2], f"p{n}", user=f"u{n}@example.org"))
            for n in range(12)
        )
    )
    assert [one.text for one in reads] == [whole_answer(f"p{n}") for n in range(12)]
    assert engine.running_max == 2
    positions = {p.position for one in reads for p in one.progress if p.position}
    assert positions
    waited = [p for one in reads for p in one.progress if p.state == "queued"]
    assert all(p.estimate_s is not None for p in waited)


async def test_who_waits_is_told_again_as_time_goes_by(world, monkeypatch) -> None:
    monkeypatch.setattr(dispatcher, "RETELL_S", 0.01)
    go_on = asyncio.Event()
    await world.worker(ScriptedEngine(["x ", go_on]))
    entry = await world.entry()
    first = ask(world, entry, "one")
    await first_text(first)
    second = ask(world, entry, "two")
    told = [await anext(second)]
    (lease,) = entry.role._dispatcher._leases
    for _ in range(2):
        lease.began_s -= 3.0  # as if it ran for longer
        told.append(await anext(second))
    assert [one.position for one in told] == [1, 1, 1]
    waits = [one.estimate_s for one in told]
    assert waits == sorted(waits, reverse=True)
    assert waits[0] - waits[2] >= 5
    go_on.set()
    await read_all(first)
    hops = (await read_all(second)).end.hops
    assert [hop.what for hop in hops].count("queued") == 1
    assert entry.role._dispatcher._leases == set()


async def test_what_found_no_room_after_all_is_next_again(world, monkeypatch) -> None:
    go_on = asyncio.Event()
    engine = ScriptedEngine(["x ", go_on])
    await world.worker(engine)
    entry, other = [await world.entry(f"{n}.db") for n in range(2)]
    for one in (entry, other):
        await one.role.router.ensure(None)
    (known,) = entry.role.router.processors
    with monkeypatch.context() as patched:
        # It does not hear that the other gateway took the slot.
        patched.setattr(ProcessorWatch, "_tell", lambda *_told, **_: None)
        known.seen_s = float("inf")
        async with aclosing(ask(world, other, "of the other")) as held:
            await first_text(held)
            first = asyncio.create_task(read_all(ask(world, entry, "first")))
            await until(lambda: known._is_full)
            second = asyncio.create_task(
                read_all(ask(world, entry, "second", user="bob@example.org"))
            )
            await until(lambda: entry.role._dispatcher.queued == 2)
    go_on.set()
    reads = await asyncio.gather(first, second)
    assert [one.prompt for one in engine.requests] == [
        "of the other",
        "first",
        "second",
    ]
    assert [one.text for one in reads] == ["x ", "x "]
    assert "retrying" not in {p.state for one in reads for p in one.progress}
    assert "full" in [hop.what for hop in reads[0].end.hops]
    assert entry.counted("bounces") == 1
    assert not known.breaker(None)._outcomes.count(False)


async def test_a_full_queue_refuses_at_once(world) -> None:
    await world.worker(ScriptedEngine(["x ", STALL]))
    entry = await world.entry()
    answers = [ask(world, entry, f"p{n}") for n in range(10)]
    tasks = [asyncio.create_task(first_text(one)) for one in answers[:9]]
    await until(lambda: entry.role._dispatcher.queued == 8)
    with pytest.raises(ApiError, match="too many prompts waiting") as caught:
        await read_all(answers[9])
    assert (caught.value.status, caught.value.code) == (503, ErrorCode.BUSY)
    assert caught.value.retry_after_s
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for one in answers:
        await one.aclose()


async def test_stop_while_waiting_frees_the_place_and_the_slot(world) -> None:
    engine = ScriptedEngine(["x ", STALL])
    worker, entry = await world.worker(engine), await world.entry()
    running = ask(world, entry, "one")
    await first_text(running)
    waiting = ask(world, entry, "two", user="bob@example.org")
    task = asyncio.create_task(first_text(waiting))
    await until(lambda: entry.role._dispatcher.queued == 1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await waiting.aclose()
    await running.aclose()
    async with asyncio.timeout(2):
        await engine.wait_for(lambda one: one.running == 0)
    await until(lambda: not entry.role._dispatcher._waiting)
    await until(lambda: worker.role.busy == 0)
    await until(lambda: [p.running for p in entry.role.router.processors] == [0])
    assert len(engine.requests) == 1


async def test_killed_in_the_middle_another_goes_on(world) -> None:
    first = await world.worker(FaultyEngine(Fault.STALL))
    entry = await world.entry()
    answer = ask(world, entry)
    got = [await first_text(answer)]
    second = await world.worker(FaultyEngine())
    await entry.role.router.look(max_age_s=0)
    first.peer.dht.kill()
    async for event in answer:
        if isinstance(event, Fragment):
            got.append(event)
        if isinstance(event, Finished):
            usage, hops = event.usage, event.hops
    assert "".join(one.text for one in got) == whole_answer("why?")
    assert usage.continued == 1
    assert usage.peer == second.key.hex()
    assert usage.answer_tokens == 7
    assert [hop.what for hop in hops if hop.what in ("chosen", "failed")] == [
        "chosen",
        "failed",
        "chosen",
    ]
    prefix = second.engine.requests[0].prefix
    assert whole_answer("why?").startswith(prefix)
    assert second.engine.requests[0].model == "scripted"


@pytest.mark.parametrize("fault", [Fault.NONE, Fault.REPEATS])
async def test_a_stalled_answer_goes_on_elsewhere(world, fault) -> None:
    engines = [FaultyEngine(Fault.STALL), FaultyEngine(fault)]
    await world.worker(engines[0])
    entry = await world.entry(stall_s=0.3)
    answer = ask(world, entry)
    got = [await first_text(answer)]
    await world.worker(engines[1])
    await entry.role.router.look(max_age_s=0)
    read = await read_all(answer)
    assert got[0].text + read.text == whole_answer("why?")
    assert read.end.usage.continued == 1
    async with asyncio.timeout(2):
        await engines[0].wait_for(lambda one: one.running == 0)


async def test_a_stall_is_waited_out_where_nobody_else_is_free(world) -> None:
    go_on = asyncio.Event()
    await world.worker(ScriptedEngine(["half ", go_on, "whole"]))
    entry = await world.entry(stall_s=0.2)
    answer = ask(world, entry)
    await first_text(answer)
    reading = asyncio.create_task(read_all(answer))
    (dog,) = entry.role._patrol._dogs
    await until(lambda: dog.waiting_since_s)
    assert not dog.judge(dog.waiting_since_s + 10)
    go_on.set()
    read = await reading
    assert (read.text, read.end.usage.continued) == ("whole", 0)


async def test_the_deadline_ends_it(world) -> None:
    engine = FaultyEngine(Fault.ENDLESS)
    await world.worker(engine)
    entry = await world.entry()
    with pytest.raises(ApiError, match="time is over") as caught:
        await read_all(ask(world, entry, deadline_s=0.5))
    assert caught.value.code is ErrorCode.TIMEOUT
    assert caught.value.is_partial
    assert 0 < engine.requests[0].deadline_s <= 0.5
    async with asyncio.timeout(2):
        await engine.wait_for(lambda one: one.running == 0)


async def test_a_gateway_dies_and_another_goes_on_and_counts_once(world) -> None:
    await world.worker(FaultyEngine(delay_s=0.02), slots=4)
    await world.worker(FaultyEngine(delay_s=0.02), slots=4)
    # One store: what PostgreSQL is to several machines.
    entries = [await world.entry(is_shared=True, max_requests=5) for _ in range(2)]
    client = world.client()
    answer = client.ask("why?", token())
    got = [await first_text(answer)]
    taken = next(one for one in entries if one.role._patrol._dogs)
    left = next(one for one in entries if one is not taken)
    taken.peer.dht.kill()
    read = await read_all(answer)
    assert got[0].text + read.text == whole_answer("why?")
    assert read.end.usage.continued == 1
    assert read.end.rate_limit.remaining == 4
    verified = await client.verify(token())
    assert verified.rate_limit.remaining == 4
    assert left.role._traces.find("ann@example.org", answer.request_id)


async def test_one_limit_across_gateways_and_the_bound_when_the_owner_dies(
    world,
) -> None:
    await world.worker(slots=8)
    entries = [await world.entry(f"own-{n}.db", max_requests=4) for n in range(3)]

    async def accepted(among) -> int:
        count, refused = 0, []
        for number in range(12):
            entry = among[number % len(among)]
            try:
                await read_all(ask(world, entry, f"p{number} {count}"))
            except ApiError as error:
                refused.append((error.code, bool(error.retry_after_s)))
            else:
                count += 1
        assert set(refused) <= {(ErrorCode.RATE_LIMITED, True)}
        return count

    assert await accepted(entries) == 4
    counts = [
        (await one.role._limits._limiter.status("ann@example.org")).remaining
        for one in entries
    ]
    assert sorted(counts) == [0, 4, 4]
    owner = entries[counts.index(0)]
    owner.peer.dht.kill()
    left = [one for one in entries if one is not owner]
    # The bound: one window's allowance more for each death of an owner.
    assert await accepted(left) == 4


async def test_what_nobody_answered_is_given_back_to_the_owner(world) -> None:
    entries = [await world.entry(f"own-{n}.db", max_requests=4) for n in range(2)]
    for entry in entries * 4:
        with pytest.raises(ApiError) as caught:
            await read_all(ask(world, entry))
        assert caught.value.code is ErrorCode.NO_PROCESSOR
        assert caught.value.rate_limit.remaining == 4


async def test_a_trace_is_for_who_asked(world) -> None:
    await world.worker()
    entry, client = await world.entry(), world.peer()
    await read_all(ask(world, entry, "why"))
    data = {"requestId": "r-why"}
    told = await call(client, entry.peer, "trace", data, token())
    whats = [hop["what"] for hop in told["hops"]]
    assert whats[0] == "received"
    assert "chosen" in whats
    other = await call(client, entry.peer, "trace", data, token("bob@example.org"))
    assert other["status"] == 404


async def test_the_receipt_is_the_processors(world) -> None:
    worker, entry = await world.worker(), await world.entry()
    read = await read_all(ask(world, entry))
    receipt = open_receipt_untrusted(read.end.receipt)
    assert receipt.key == worker.key
    assert receipt.begin_in(read.text) is not None
    assert receipt.statement.request_hash == request_hash(PromptRequest("why?", ""))
    assert receipt.statement.request_id == read.end.request_id
    assert receipt.statement.answer_tokens == read.end.usage.answer_tokens


async def test_a_paused_processor_finishes_and_takes_nothing_new(world) -> None:
    go_on = asyncio.Event()
    worker = await world.worker(ScriptedEngine(["a ", go_on, "b"]), slots=2)
    entry = await world.entry()
    running = ask(world, entry)
    await first_text(running)
    worker.role.set_paused(True)
    (known,) = entry.role.router.processors
    await until(lambda: known.closed)
    with pytest.raises(ApiError) as caught:
        await read_all(ask(world, entry, "new"))
    assert caught.value.code is ErrorCode.BUSY
    go_on.set()
    assert (await read_all(running)).text == "b"
    worker.role.set_paused(False)
    await until(lambda: not known.closed)
    assert (await read_all(ask(world, entry, "new"))).text == "a b"


async def test_only_what_is_offered(world) -> None:
    engine = ScriptedEngine(models=("big", "tiny:latest"))
    worker = await world.worker(engine, offer=("tiny",))
    entry = await world.entry()
    assert [one.name for one in await worker.role.models()] == ["tiny:latest"]
    assert (await read_all(ask(world, entry, "a"))).end.usage.model == "tiny:latest"
    with pytest.raises(ApiError) as caught:
        await read_all(ask(world, entry, "b", model="big"))
    assert caught.value.code is ErrorCode.MODEL_MISSING


async def test_vectors_by_the_unary_methods(world) -> None:
    worker, entry, client = await world.worker(), await world.entry(), world.peer()
    data = {"inputs": ["a", "abc"]}
    told = await call(client, entry.peer, "embed", data, token())
    assert told["embeddings"] == [[1.0], [3.0]]
    assert told["rateLimitInfo"]["remainingRequests"] == 999
    told = await client.swarm.request(
        worker.key, "embed", data, timeout_s=5, role=Role.PROCESSOR
    )
    assert (told["embeddings"], told["promptTokens"]) == ([[1.0], [3.0]], 4)


async def test_a_sick_processor_is_kept_out_and_let_back_in(world) -> None:
    sick = await world.worker(FaultyEngine(Fault.ERROR), slots=4)
    await world.worker(FaultyEngine(), slots=1)
    entry = await world.entry()
    for number in range(12):
        await read_all(ask(world, entry, f"p{number}"))
    assert len(sick.engine.requests) <= 4
    (known,) = (p for p in entry.role.router.processors if bytes(p.key) == sick.key)
    assert not known.breaker(None).allows(asyncio.get_running_loop().time()) or (
        len(sick.engine.requests) < 3
    )


async def test_the_next_turn_goes_to_who_knows_the_conversation(world) -> None:
    workers = [await world.worker(slots=4) for _ in range(4)]
    entry = await world.entry()
    history: tuple[Message, ...] = ()
    peers = set()
    for number in range(6):
        read = await read_all(ask(world, entry, f"turn {number}", history=history))
        peers.add(read.end.usage.peer)
        history = (
            *history,
            Message("user", f"turn {number}"),
            Message("assistant", read.text),
        )
    assert len(peers) == 1
    assert len(workers) == 4


async def test_who_comes_later_is_found_soon(world) -> None:
    await world.worker()
    entry = await world.entry()
    await read_all(ask(world, entry))
    later = await world.worker()
    router = entry.role.router
    await until(lambda: later.key in [bytes(one.key) for one in router.processors])


async def test_what_was_told_once_outlives_a_suspicion(world) -> None:
    worker, entry = await world.worker(), await world.entry()
    await knows(world, entry, worker.key)
    router = entry.role.router
    (one,) = router.processors
    one.details = told = {"tiny": ModelDetails("tiny", context_tokens=4096)}
    router.suspect(one)
    assert router.processors == ()
    await until(lambda: one.is_live)
    assert one.details == told


async def test_who_failed_a_request_already_gives_it_no_hope(world, monkeypatch):
    monkeypatch.setattr(dispatcher, "HOPE_S", 0.0)
    failed, sick = await world.worker(), await world.worker()
    entry = await world.entry()
    await read_all(ask(world, entry))
    router, queue = entry.role.router, entry.role._dispatcher
    one = next(p for p in router.processors if p.key == sick.key)
    for _ in range(3):
        one.breaker(None).begin(router.now_s)
        one.breaker(None).fail(router.now_s)
    request = PromptRequest("why?", "r-1")
    place = queue.enter("ann", request, {PublicKey(failed.key)})
    queue.tick()
    queue.tick()
    assert place.error is not None
    assert "All processors failed of late" in place.error.message
    assert place.error.retry_after_s
    queue.leave(place)


async def test_the_reason_counts_those_who_are_busy(world) -> None:
    busy = await world.worker(ScriptedEngine(["x ", STALL]))
    entry = await world.entry()
    async with aclosing(ask(world, entry, "one")) as held:
        await first_text(held)
        second = await joined(world, entry, FaultyEngine())
        read = await read_all(ask(world, entry, "two"))
    (reason,) = {one.reason for one in read.progress if one.state == "serving"}
    assert reason == "the only free one"
    assert read.end.usage.peer == second.key.hex() != busy.key.hex()
