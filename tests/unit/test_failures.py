"""docs/FAILURES.md row by row: what a row says fails here when it does not hold.

`ROWS` says which tests are a row's. Here are those about processors; about askers and
gateways that vanish, test_failures_vanished.py; all at once, tests/soak.
"""

from __future__ import annotations

import asyncio
import importlib
import re
from contextlib import aclosing
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from peerchat import gateway_tries, reaching
from peerchat.api import ApiError, ErrorCode, Role, ToolCall, ToolCalls
from peerchat.continuation import REPEAT_CHARS_MIN
from peerchat.contribution import Hours
from peerchat.services import (
    breaker,
    dispatch_queue,
    dispatcher,
    limits,
    patrol,
    peer_sessions,
    processor_state,
    prompt_pulse,
    prompt_server,
    relay,
    router,
    supervisor,
    user_limits,
)
from peerchat.services import gateway as gateway_role
from peerchat.services.bridge import presence
from peerchat.services.engines import signs
from peerchat.services.engines.base import engine_failed, model_missing
from peerchat.services.failures import KINDS
from peerchat.services.processor_watch import ProcessorWatch
from peerchat.settings import STALL_S
from peerchat.testing.engine import STALL, ScriptedEngine
from peerchat.testing.faults import (
    Fault,
    FaultyEngine,
    Lots,
    MalformedProcessor,
    whole_answer,
)

from .routing_world import RoutingWorld, ask, first_text, joined, knows, read_all
from .waiting import until

HERE, ROUTING, GONE = "test_failures", "test_routing", "test_failures_vanished"
MACHINES, PULSE = "test_routing_machines", "test_prompt_pulse"
FAIR, AWAY, REACHING = "test_routing_fairness", "test_away", "test_reaching"
SESSIONS = "test_rpc_sessions"
STOP = "test_bridge_stop"
HTTP, OPENAI = "test_bridge_presence", "test_bridge_openai"
CALLS = "test_engine_forced_calls"
STREAM, GATEWAY, CLIENT = "test_prompt_stream", "test_services_gateway", "test_client"

ROWS = {
    "all slots of a processor taken": (
        (ROUTING, "test_a_processor_never_gets_more_than_its_slots"),
        (ROUTING, "test_what_found_no_room_after_all_is_next_again"),
    ),
    "a processor tells of a free slot and has none": (
        (FAIR, "test_a_busy_engine_is_asked_seldom_and_the_user_is_told"),
        (MACHINES, "test_one_without_room_rests_longer_each_time_until_it_answers"),
    ),
    "the gateway's queue is full": (
        (ROUTING, "test_a_full_queue_refuses_at_once"),
        (MACHINES, "test_bounds_are_told_at_once"),
    ),
    "no processor, or none with the model": (
        (ROUTING, "test_what_nobody_answered_is_given_back_to_the_owner"),
        (HERE, "test_a_model_that_nobody_has_is_told"),
        (HERE, "test_a_model_that_nobody_has_counts_nothing"),
        (HERE, "test_who_waits_is_served_by_who_comes"),
    ),
    "all with the model are paused, outside their hours or out of tokens": (
        (HERE, "test_when_all_are_closed_the_asker_hears_when_they_open"),
        (HERE, "test_who_waits_in_vain_is_told_soon"),
    ),
    "no processor lists the model, and an engine is down": (
        (HERE, "test_a_model_may_be_at_an_engine_that_is_down"),
    ),
    "a processor lists a model and has it not": (
        (HERE, "test_before_the_first_byte_another_is_asked_unseen"),
    ),
    "the only processor restarts, or is lost for a moment": (
        (GONE, "test_the_only_processor_that_restarts_is_waited_for"),
        (GONE, "test_the_only_processor_that_is_stopped_goes_on_later"),
        (GONE, "test_who_is_there_is_asked_while_others_say_nothing"),
    ),
    "a processor is paused, outside its hours, or closing": (
        (HERE, "test_who_takes_nothing_new_is_passed_over"),
        (ROUTING, "test_a_paused_processor_finishes_and_takes_nothing_new"),
        (GATEWAY, "test_a_draining_service_finishes_what_runs"),
    ),
    "the bridge is told to stop": (
        (STOP, "test_a_running_answer_may_end"),
        (STOP, "test_a_stream_that_is_cut_off_says_so_in_its_api"),
        (STOP, "test_an_answer_in_one_piece_that_is_cut_off_is_503"),
        (STOP, "test_nothing_new_is_taken_and_the_port_is_free"),
    ),
    "engine error before the first byte": (
        (HERE, "test_before_the_first_byte_another_is_asked_unseen"),
        (HERE, "test_eight_processors_are_asked_and_no_more"),
    ),
    "an engine fails now and then": (
        (HERE, "test_failures_now_and_then_are_unseen"),
        (ROUTING, "test_a_sick_processor_is_kept_out_and_let_back_in"),
        (MACHINES, "test_half_of_ten_opens_it_and_an_abandoned_trial_does_not_block"),
    ),
    "hang before the first byte": (
        (HERE, "test_a_hang_before_the_first_byte_is_left_for_one_that_is_free"),
    ),
    "unreadable bytes from a processor": (
        (HERE, "test_after_unreadable_bytes_the_next_one_answers_the_same_request"),
    ),
    "engine or connection breaks in mid-answer": (
        (HERE, "test_a_break_in_mid_answer_goes_on_elsewhere"),
        (ROUTING, "test_killed_in_the_middle_another_goes_on"),
    ),
    "a processor is killed or cut off in mid-answer": (
        (ROUTING, "test_killed_in_the_middle_another_goes_on"),
        (GONE, "test_a_silent_processor_is_left_for_one_that_is_free"),
        (GONE, "test_a_silent_processor_is_waited_for_where_nobody_else_is_free"),
        (GONE, "test_a_silent_processor_is_lost_with_its_connection"),
    ),
    "an answer stalls": (
        (ROUTING, "test_a_stalled_answer_goes_on_elsewhere"),
        (ROUTING, "test_a_stall_is_waited_out_where_nobody_else_is_free"),
    ),
    "the next processor says the beginning again": (
        (ROUTING, "test_a_stalled_answer_goes_on_elsewhere"),
    ),
    "it breaks after function calls were shown": (
        (HERE, "test_function_calls_are_never_replayed"),
        (GONE, "test_function_calls_are_not_replayed_by_another_gateway"),
    ),
    "nobody can go on": (
        (HERE, "test_when_nobody_can_go_on_the_part_is_marked"),
        (HERE, "test_who_is_left_to_a_sick_processor_is_told_soon"),
        (ROUTING, "test_who_failed_a_request_already_gives_it_no_hope"),
    ),
    "endless answer": (
        (ROUTING, "test_the_deadline_ends_it"),
        (HERE, "test_every_request_has_a_deadline"),
    ),
    "slow, but alive": (
        (HERE, "test_slow_but_alive_is_left_alone"),
        (CALLS, "test_a_long_call_shows_signs_of_work"),
    ),
    "a connection to a processor is dead at its other end": (
        (AWAY, "test_a_gateway_that_overslept_takes_new_connections"),
        (AWAY, "test_a_prompt_on_a_dead_connection_is_asked_again_on_another"),
        (SESSIONS, "test_a_dead_connection_is_replaced_and_what_ran_over_it_fails"),
        (SESSIONS, "test_a_connection_that_speaks_meanwhile_is_kept"),
    ),
    "a gateway is dead before it is asked": (
        (CLIENT, "test_a_gateway_that_says_nothing_is_overtaken"),
        (REACHING, "test_a_dead_one_is_overtaken_and_told_of"),
        (REACHING, "test_only_so_many_at_once"),
    ),
    "the only gateway restarts, or is lost for a moment": (
        (CLIENT, "test_the_only_gateway_is_waited_for"),
        (CLIENT, "test_a_gateway_that_refuses_is_not_waited_for"),
    ),
    "a gateway dies before the first byte": (
        (GONE, "test_a_gateway_dies_before_the_first_byte"),
    ),
    "a gateway dies or falls silent in mid-answer": (
        (ROUTING, "test_a_gateway_dies_and_another_goes_on_and_counts_once"),
        (PULSE, "test_a_silent_gateway_is_left_for_another"),
        (PULSE, "test_without_another_gateway_a_pause_is_waited_out"),
        (PULSE, "test_who_overslept_goes_on_over_a_new_connection"),
        (PULSE, "test_when_nobody_is_heard_nobody_is_left"),
        (GONE, "test_a_silent_gateway_is_lost_with_its_connection"),
    ),
    "the request itself is wrong": (
        (HERE, "test_a_wrong_request_is_asked_of_nobody_and_counts_nothing"),
        (GATEWAY, "test_a_wrong_prompt_does_not_count"),
    ),
    "a gateway knows nothing of the account": (
        (CLIENT, "test_another_gateway_may_have_the_account"),
        (CLIENT, "test_a_prompt_goes_on_to_a_gateway_that_knows_the_token"),
        (CLIENT, "test_a_token_that_is_worth_nothing_is_shown_to_few"),
        (CLIENT, "test_a_wrong_password_is_not_tried_elsewhere"),
        (CLIENT, "test_the_gateway_of_the_account_is_waited_for"),
        (CLIENT, "test_who_does_not_know_the_account_is_not_taken_at_its_word"),
    ),
    "the user's limit is reached": (
        (ROUTING, "test_one_limit_across_gateways_and_the_bound_when_the_owner_dies"),
        (GATEWAY, "test_whole_answers_until_the_limit"),
        (CLIENT, "test_a_refused_prompt_is_not_asked_elsewhere"),
    ),
    "the gateway that counts a user dies": (
        (AWAY, "test_an_owner_that_is_gone_is_asked_once_and_counts_when_it_is_back"),
        (AWAY, "test_what_goes_on_does_not_wait_for_who_counts"),
        (AWAY, "test_it_ends_when_who_counts_says_no"),
        (ROUTING, "test_one_limit_across_gateways_and_the_bound_when_the_owner_dies"),
    ),
    "the user stops": (
        (GONE, "test_a_stop_frees_every_hop"),
        (ROUTING, "test_stop_while_waiting_frees_the_place_and_the_slot"),
    ),
    "the user is gone": ((GONE, "test_who_is_gone_gets_nothing_generated"),),
    "the user vanished without a word": (
        (GONE, "test_who_vanished_without_a_word_gets_nothing_generated"),
        (GONE, "test_who_vanished_and_never_beats_is_lost_with_the_connection"),
        (HTTP, "test_who_vanishes_in_mid_stream_is_given_up"),
    ),
    "the user is there and reads nothing": (
        (STREAM, "test_without_credit_the_source_stands_still"),
        (STREAM, "test_a_caller_that_reads_nothing_loses_the_answer"),
        (HTTP, "test_who_rests_gets_the_whole_answer_afterwards"),
        (OPENAI, "test_a_caller_who_reads_no_more_is_given_up"),
    ),
    "the user was away for longer than that and comes back": (
        (PULSE, "test_a_client_that_comes_back_gets_the_rest"),
    ),
}
"""Rows by how their first cells begin, and the tests of each."""

DOCUMENT = Path(__file__).parents[2] / "docs" / "FAILURES.md"


@pytest.fixture
async def world(tmp_path):
    async with RoutingWorld(tmp_path) as made:
        yield made


@pytest.fixture
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gateways look after those who wait many times a second."""
    monkeypatch.setattr(gateway_role, "FOLLOW_EVERY_S", 0.02)


async def running(engine) -> None:
    """The engine works on its first request."""
    await engine.wait_for(lambda one: one.running)


def known(entry, worker):
    """What the gateway knows of the processor."""
    (found,) = (one for one in entry.role.router.processors if one.key == worker.key)
    return found


async def malformed(world, broken: MalformedProcessor) -> None:
    """A processor that gives bytes that mean nothing."""
    peer = world.peer()
    peer.swarm.attach_members(Role.PROCESSOR, broken.attach)

    async def pong(_body: bytes, _peer: str) -> object:
        return {"status": "healthy", "service": "processor", "slots": 8}

    await peer.swarm.serve(Role.PROCESSOR, {"ping": pong})


async def refused(answer) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await read_all(answer)
    return caught.value


# The table


def test_each_row_has_its_tests() -> None:
    table = [line for line in DOCUMENT.read_text().splitlines() if line[:2] == "| "]
    cells = [line.split("|")[1].strip() for line in table[1:]]
    begins = [re.split(r" \(|: ", cell)[0] for cell in cells]
    assert begins == list(ROWS)
    for module, test in (one for tests in ROWS.values() for one in tests):
        found = importlib.import_module(f".{module}", __package__)
        assert callable(getattr(found, test, None)), (module, test)


def test_the_figures_are_those_of_the_code() -> None:
    beat_s = prompt_pulse.BEAT_S
    told = {
        "256": dispatch_queue.QUEUE_MAX,
        "8 a user": dispatch_queue.QUEUE_PER_USER_MAX,
        "who waits already, for 10 s": dispatcher.HOPE_S,
        "heard of within 30 s": router.RETURN_S,
        "met within 60 s": gateway_tries.MET_S,
        "anew for 10 s": gateway_tries.HOPE_S,
        "8 in all": relay.TRIES_MAX,
        "after 3 times": patrol.FIRST_SHARE,
        "`stall_s`, 20 s": STALL_S,
        "at least 8 characters": REPEAT_CHARS_MIN,
        "600 s, or": relay.DEADLINE_S,
        "after 2 s (one of an earlier": prompt_pulse.GONE_BEATS * beat_s,
        "60 s without": prompt_server.CREDIT_TIMEOUT_S,
        "after 10 s without an acknow": presence.GONE_S,
        "up to 4 gateways": limits.REQUEST_USES_MAX,
        "may end for 8 s": supervisor.DRAIN_S,
        "sign of work every 5 s": signs.EVERY_S,
        "for 2 s, doubled": breaker.OPEN_S,
        "up to 60 s": breaker.OPEN_S_MAX,
        "nothing for 0.5 s": reaching.PATIENCE_S,
        "4 at once": reaching.AT_ONCE_MAX,
        "asked after 3 s": processor_state.MISSING_S,
        "answer within 1 s": peer_sessions.ALIVE_S,
        "waited for 1 s, once": user_limits.ASK_TIMEOUT_S,
    }
    text = DOCUMENT.read_text()
    for words, figure in told.items():
        assert words in text
        (said,) = re.findall(r"\d+(?:\.\d+)?", words)
        assert float(said) == figure, words
    assert presence.WRITE_TIMEOUT_S == prompt_server.CREDIT_TIMEOUT_S
    probed_s = presence.PROBE_AFTER_S + presence.PROBES_MAX * presence.PROBE_EVERY_S
    assert probed_s == presence.GONE_S
    assert text.count("0.75 s") == 2
    assert processor_state.SUSPECT_S == prompt_pulse.LOST_BEATS * beat_s == 0.75
    assert (breaker.FAILURES_IN_A_ROW, breaker.WINDOW * breaker.FAILED_SHARE) == (3, 5)


def test_every_code_has_its_kind() -> None:
    assert set(KINDS) == set(ErrorCode)


def test_lots_are_the_same_under_the_same_seed() -> None:
    shares = {Fault.ERROR: 0.1, Fault.DROP: 0.05}
    lots = Lots(1, shares)
    drawn = [lots.of(f"p{n}", attempt) for n in range(1000) for attempt in range(3)]
    again = Lots(1, shares)
    assert drawn == [again.of(f"p{n}", a) for n in range(1000) for a in range(3)]
    assert 0.08 < drawn.count(Fault.ERROR) / 3000 < 0.12
    assert 0.035 < drawn.count(Fault.DROP) / 3000 < 0.065


# Nobody to answer


async def test_a_model_that_nobody_has_is_told(world) -> None:
    worker, entry = await world.worker(), await world.entry()
    error = await refused(ask(world, entry, model="no such"))
    assert (error.code, error.status) == (ErrorCode.MODEL_MISSING, 404)
    assert worker.engine.requests == []


async def test_a_model_that_nobody_has_is_told_where_all_are_closed(world) -> None:
    worker, entry = await world.worker(), await world.entry()
    await knows(world, entry, worker.key)
    worker.role.set_paused(True)
    await until(lambda: known(entry, worker).closed)
    error = await refused(ask(world, entry, model="no such"))
    assert error.code is ErrorCode.MODEL_MISSING
    assert error.message.endswith(f"Choose one of: {worker.engine.model_names[0]}.")


async def test_a_model_that_nobody_has_counts_nothing(world) -> None:
    await world.worker()
    entry = await world.entry(max_requests=5)
    await refused(ask(world, entry, "one", model="no such"))
    assert (await read_all(ask(world, entry, "two"))).end.rate_limit.remaining == 4


@pytest.mark.usefixtures("_often")
async def test_who_waits_in_vain_is_told_soon(world, monkeypatch) -> None:
    monkeypatch.setattr(dispatcher, "HOPE_S", 0.1)
    worker = await world.worker(ScriptedEngine(["x ", STALL]))
    entry = await world.entry(max_requests=5)
    async with aclosing(ask(world, entry, "one")) as held:
        await first_text(held)
        reading = asyncio.create_task(read_all(ask(world, entry, "two")))
        await until(lambda: entry.role._dispatcher.queued)
        worker.role.set_paused(True)
        with pytest.raises(ApiError) as caught:
            await reading
    error = caught.value
    assert (error.code, error.status) == (ErrorCode.BUSY, 503)
    assert error.retry_after_s == router.CLOSED_RETRY_S
    assert error.rate_limit.remaining == 4  # "one" was accepted


@pytest.mark.parametrize("model", ["scripted", None])
async def test_when_all_are_closed_the_asker_hears_when_they_open(world, model) -> None:
    paused, outside = await world.worker(), await world.worker()
    spent = await world.worker(tokens_per_day=1)
    entry = await world.entry(max_requests=5)
    await knows(world, entry, *(one.key for one in (paused, outside, spent)))
    await close(paused, "paused")
    await until(lambda: known(entry, paused).closed)
    await close(outside, "outside its hours")
    await until(lambda: known(entry, outside).closed)
    spent.role._terms.spend(1)
    await until(lambda: known(entry, spent).closed)
    error = await refused(ask(world, entry, model=model))
    whom = "peer with 'scripted'" if model else "processor"
    assert error.message.startswith(
        f"Every {whom} is paused by its owner, outside its hours or out of tokens for "
        "today; the first opens in "
    )
    assert (error.code, error.status) == (ErrorCode.BUSY, 503)
    assert 60 < error.retry_after_s <= router.CLOSED_RETRY_S_MAX
    paused.role.set_paused(False)
    await until(lambda: not known(entry, paused).closed)
    # The refusal counted nothing.
    assert (await read_all(ask(world, entry))).end.rate_limit.remaining == 4


async def test_a_model_may_be_at_an_engine_that_is_down(world) -> None:
    engine = ScriptedEngine()
    engine.is_up = False
    await world.worker(engine)
    entry = await world.entry()
    error = await refused(ask(world, entry, model="any"))
    assert (error.code, error.status) == (ErrorCode.ENGINE_DOWN, 503)


@pytest.mark.usefixtures("_often")
async def test_who_waits_is_served_by_who_comes(world, monkeypatch) -> None:
    monkeypatch.setattr(gateway_role, "LOOK_IN_NEED_S", 0.1)
    worker = await world.worker(ScriptedEngine(["x ", STALL]))
    entry = await world.entry()
    async with aclosing(ask(world, entry, "one")) as held:
        await first_text(held)
        reading = asyncio.create_task(read_all(ask(world, entry, "two")))
        await until(lambda: entry.role._dispatcher.queued)
        worker.role.set_paused(True)
        await until(entry.role._dispatcher.has_hopeless)
        await world.worker()
        assert (await reading).text == whole_answer("two")


@pytest.mark.parametrize("why", ["paused", "outside its hours", "closing"])
async def test_who_takes_nothing_new_is_passed_over(world, monkeypatch, why) -> None:
    go_on = asyncio.Event()
    closed, entry = await world.worker(), await world.entry(max_requests=5)
    second = await joined(world, entry, ScriptedEngine([go_on, "whole"]))
    # What the gateway knows is old.
    monkeypatch.setattr(ProcessorWatch, "_tell", lambda *_told, **_: None)
    one = known(entry, closed)
    one._is_full = True
    reading = [asyncio.create_task(read_all(ask(world, entry, "first")))]
    await running(second.engine)
    one._is_full = False
    await close(closed, why)
    reading.append(asyncio.create_task(read_all(ask(world, entry, "second"))))
    await until(lambda: one._is_full)
    go_on.set()
    _, read = await asyncio.gather(*reading)
    assert (read.text, read.end.usage.continued) == ("whole", 0)
    assert read.end.rate_limit.remaining == 3
    assert closed.engine.requests == []
    met = [hop.what for hop in read.end.hops if hop.peer == closed.key.hex()]
    assert met == ["chosen", "failed" if why == "closing" else "full"]
    # It is well: its breaker counts nothing.
    assert not one.breaker(None)._outcomes


async def close(worker, why: str) -> None:
    """Let a processor take nothing new."""
    if why == "paused":
        worker.role.set_paused(True)
    elif why == "closing":
        await worker.peer.swarm.drain(0)
    else:
        later = datetime.now().astimezone() + timedelta(hours=2)
        hours = Hours(later.time(), (later + timedelta(hours=1)).time())
        worker.role._terms.contribution._hours = hours


# Before the first byte


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
    worker = await world.worker(sick)
    entry = await world.entry(max_requests=5)
    reading = asyncio.create_task(read_all(ask(world, entry)))
    await running(sick)
    await joined(world, entry, FaultyEngine())
    go_on.set()
    read = await reading
    assert read.text == whole_answer("why?")
    assert read.end.usage.continued == 0
    assert read.end.rate_limit.remaining == 4
    assert (entry.counted("failovers"), entry.counted("continuations")) == (1, 0)
    is_hard = failure.code is ErrorCode.ENGINE_FAILED
    assert list(known(entry, worker).breaker(None)._outcomes) == [False] * is_hard


async def test_eight_processors_are_asked_and_no_more(world) -> None:
    workers = [await world.worker(FaultyEngine(Fault.ERROR)) for _ in range(9)]
    entry = await world.entry()
    await knows(world, entry, *(worker.key for worker in workers))
    error = await refused(ask(world, entry))
    assert error.code is ErrorCode.ENGINE_FAILED
    assert "out of order" in error.message
    assert not error.is_partial
    assert sum(len(worker.engine.requests) for worker in workers) == 8


async def test_failures_now_and_then_are_unseen(world) -> None:
    flaky = await world.worker(FaultyEngine(Fault.FLAKY), slots=4)
    entry = await world.entry(max_requests=100)
    assert (await refused(ask(world, entry, "a"))).code is ErrorCode.ENGINE_FAILED
    assert (await read_all(ask(world, entry, "b"))).text == whole_answer("b")
    await joined(world, entry, FaultyEngine())
    router, sick = entry.role.router, known(entry, flaky).breaker(None)
    assert entry.counted("breaker_openings") == 0
    number = 0
    while sick.allows(router.now_s):
        number += 1
        read = await read_all(ask(world, entry, f"p{number}"))
        assert read.text == whole_answer(f"p{number}")
        assert read.end.usage.continued == 0
    assert entry.counted("breaker_openings") == 1
    # Half of its last ten: it is kept out for a while.
    assert sick._outcomes.count(False) >= 5
    assert read.end.rate_limit.remaining == 100 - 2 - number


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


@pytest.mark.parametrize("said", ["", whole_answer("why?")[:50]], ids=["", "later"])
async def test_after_unreadable_bytes_the_next_one_answers_the_same_request(
    world, said: str
) -> None:
    broken = MalformedProcessor(said, is_held=True)
    await malformed(world, broken)
    entry = await world.entry(max_requests=5)
    reading = asyncio.create_task(read_all(ask(world, entry)))
    await until(lambda: broken.asked)
    second = await joined(world, entry, FaultyEngine())
    broken.release()
    read = await reading
    assert read.text == whole_answer("why?")
    assert read.end.usage.continued == bool(said)
    assert read.end.usage.peer == second.key.hex()
    assert read.end.rate_limit.remaining == 4
    (request,) = second.engine.requests
    assert (request.request_id, request.prefix) == ("r-why", said)
    assert broken.asked == 1


# In the middle


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
    assert (entry.counted("failovers"), entry.counted("continuations")) == (0, 1)
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


@pytest.mark.usefixtures("_often")
async def test_who_is_left_to_a_sick_processor_is_told_soon(world, monkeypatch) -> None:
    monkeypatch.setattr(dispatcher, "HOPE_S", 0.1)
    go_on = asyncio.Event()
    await world.worker(ScriptedEngine(["half ", go_on, engine_failed("It died.")]))
    entry = await world.entry()
    answer = ask(world, entry)
    await first_text(answer)
    sick = known(entry, await joined(world, entry, FaultyEngine()))
    # It may be tried again in a minute; the first one is well, but failed this prompt.
    sick.breaker(None)._until_s = entry.role.router.now_s + breaker.OPEN_S_MAX
    go_on.set()
    async with asyncio.timeout(10):
        error = await refused(answer)
    assert error.is_partial
    assert "try again in 60 s" in error.message


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
    engines = [FaultyEngine(Fault.SLOW, slow_s=0.15) for _ in range(2)]
    await world.worker(engines[0])
    entry = await world.entry(stall_s=0.5)
    await joined(world, entry, engines[1])
    read = await read_all(ask(world, entry))
    assert read.text == whole_answer("why?")
    assert read.end.usage.continued == 0
    assert sum(len(engine.requests) for engine in engines) == 1


async def test_every_request_has_a_deadline(world) -> None:
    worker, entry = await world.worker(), await world.entry()
    await read_all(ask(world, entry, "a"))
    await read_all(ask(world, entry, "b", deadline_s=3600.0))
    for request in worker.engine.requests:
        assert 590 < request.deadline_s <= 600


async def test_a_wrong_request_is_asked_of_nobody_and_counts_nothing(world) -> None:
    worker = await world.worker()
    entry = await world.entry(max_requests=5)
    error = await refused(ask(world, entry, " "))
    assert (error.code, error.status) == (ErrorCode.INVALID_REQUEST, 400)
    assert worker.engine.requests == []
    assert (await read_all(ask(world, entry))).end.rate_limit.remaining == 4
