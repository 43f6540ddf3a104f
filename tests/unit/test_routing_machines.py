"""The machines of the gateway's routing: queue, breaker, choice, affinity and so on."""

from __future__ import annotations

from collections import Counter

import pytest

from peerchat.api import ApiError, ErrorCode, Hop, Message, PromptRequest
from peerchat.net.crypto.primitives import KeyPair
from peerchat.net.errors import DecodeError
from peerchat.net.identity import PublicKey
from peerchat.services import receipts
from peerchat.services.affinity import Affinity
from peerchat.services.breaker import (
    OPEN_S,
    OPEN_S_MAX,
    REST_S,
    REST_S_MAX,
    Breaker,
    BreakerState,
)
from peerchat.services.choice import Candidate, choose
from peerchat.services.dispatch_queue import QUEUE_MAX, DispatchQueue, cost_of
from peerchat.services.forecast import (
    DURATION_GUESS_S,
    MODELS_KEPT,
    Durations,
    Forecast,
    taken_slots,
)
from peerchat.services.limit_owner import owners
from peerchat.services.processor_state import MISSING_S, SUSPECT_S, Processor
from peerchat.services.status_wire import ModelStatus, Status
from peerchat.services.traces import STEPS_MAX, Traces


def key(number: int) -> PublicKey:
    return PublicKey(bytes([number]) * 32)


def yes(_item: str) -> bool:
    return True


def enter(queue: DispatchQueue[str], *items: str, cost: int = 1) -> None:
    for item in items:
        queue.enter(item[0], item, cost=cost, now_s=0)


def drained(queue: DispatchQueue[str]) -> list[str]:
    found = []
    while (one := queue.pop(yes)) is not None:
        found.append(one.item)
    return found


# The queue


def test_users_take_turns_whoever_came_first() -> None:
    queue = DispatchQueue[str]()
    enter(queue, "a1", "a2", "a3", "b1", "c1", "b2")
    assert [one.item for one in queue.order()] == ["a1", "b1", "c1", "a2", "b2", "a3"]
    assert drained(queue) == ["a1", "b1", "c1", "a2", "b2", "a3"]
    assert len(queue) == 0


def test_a_long_prompt_costs_turns() -> None:
    queue = DispatchQueue[str]()
    enter(queue, "a1", "a2", cost=3)
    enter(queue, "b1", "b2", "b3", "b4")
    expected = ["b1", "b2", "a1", "b3", "b4", "a2"]
    assert [one.item for one in queue.order()] == expected
    assert drained(queue) == expected
    assert cost_of(0) == 1
    assert cost_of(10**9) == 8


def test_what_cannot_start_is_passed_over() -> None:
    queue = DispatchQueue[str]()
    enter(queue, "a1 big", "a2", "b1 big", "b2")
    small = queue.pop(lambda item: "big" not in item)
    assert small is not None
    assert small.item == "a2"
    assert queue.pop(lambda _item: False) is None
    assert len(queue) == 3


def test_put_back_is_next_again() -> None:
    queue = DispatchQueue[str]()
    enter(queue, "a1", "b1", "a2")
    taken = queue.pop(yes)
    assert taken is not None
    queue.put_back(taken)
    assert drained(queue) == ["a1", "b1", "a2"]


def test_bounds_are_told_at_once() -> None:
    queue = DispatchQueue[str](queue_max=3, per_user_max=2)
    enter(queue, "a1", "a2")
    with pytest.raises(ApiError, match="too many prompts") as caught:
        enter(queue, "a3")
    assert caught.value.code is ErrorCode.BUSY
    assert caught.value.status == 503
    enter(queue, "b1")
    with pytest.raises(ApiError, match="queue is full") as caught:
        enter(queue, "c1")
    assert caught.value.retry_after_s


def test_who_is_refused_is_told_when_to_try_again() -> None:
    queue = DispatchQueue[str](queue_max=1)
    queue.enter("a", "a1", now_s=0)
    with pytest.raises(ApiError, match="try again in 5 s") as caught:
        queue.enter("b", "b1", now_s=0, turn_s=2.5)
    assert caught.value.retry_after_s == 5


def test_leaving() -> None:
    queue = DispatchQueue[str]()
    one = queue.enter("a", "a1", now_s=0)
    assert queue.leave(one)
    assert not queue.leave(one)
    assert queue.pop(yes) is None


# The forecast


def test_durations_are_those_of_the_model() -> None:
    durations = Durations()
    assert durations.mean_s("any") == DURATION_GUESS_S
    for _ in range(100):
        durations.measure("slow", 60.0)
        durations.measure("fast:latest", 2.0)
    assert durations.mean_s("slow") == pytest.approx(60.0)
    assert durations.mean_s("fast") == pytest.approx(2.0)
    assert 2 < durations.mean_s("other") < 60
    assert durations.left_s("slow", 50.0) == pytest.approx(10.0)
    assert durations.left_s("slow", 100.0) == pytest.approx(10.0)  # longer than usual
    for number in range(200):
        durations.measure(f"m{number}", 1.0)
    assert len(durations._means_s) == MODELS_KEPT


def test_the_waiting_are_put_into_the_slots_in_their_order() -> None:
    one, two = key(1), key(2)
    forecast = Forecast({one: ([4.0, 9.0], 0), two: ([1.0], 0)})
    both = [one, two]
    begins = [forecast.begin(both, 5.0) for _ in range(4)]
    assert begins == [1.0, 4.0, 6.0, 9.0]
    # Who needs another processor is not held up by them.
    assert Forecast({one: ([4.0], 0), two: ([1.0], 0)}).begin([one], 5.0) == 4.0
    assert forecast.begin([key(3)], 1.0) is None
    assert Forecast({one: ([4.0], 2)}).begin([one], 1.0) == 0.0


@pytest.mark.parametrize("served", ["tiny", "tiny:latest"])
@pytest.mark.parametrize("asked", ["tiny", "tiny:latest"])
def test_a_processor_has_a_model_by_either_name(served: str, asked: str) -> None:
    one = Processor(key(1))
    one.tell(Status([ModelStatus(served)], slots=1), now_s=0)
    assert one.has(asked)
    assert not one.has(f"{asked}2")
    assert one.breaker(asked) is one.breaker(served)


def test_what_a_processor_tells_makes_no_forecast_dear() -> None:
    taken = taken_slots([1.0], 10**6, 3.0)
    assert taken[:2] == [1.0, 3.0]
    forecast = Forecast({key(1): (taken, 10**6)})
    assert len(forecast._slots[key(1)]) == QUEUE_MAX


# The breaker


def test_opens_after_three_in_a_row_and_lets_one_through() -> None:
    breaker = Breaker()
    for _ in range(2):
        breaker.fail(0)
    breaker.succeed()
    for _ in range(2):
        breaker.fail(0)
    assert breaker.allows(0)
    breaker.fail(0)
    assert breaker.state(0) is BreakerState.OPEN
    assert breaker.next_change_s(0) == OPEN_S
    assert not breaker.allows(OPEN_S - 0.1)
    assert breaker.state(OPEN_S) is BreakerState.HALF_OPEN
    breaker.begin(OPEN_S)
    assert not breaker.allows(OPEN_S)
    breaker.succeed()
    assert breaker.state(OPEN_S) is BreakerState.CLOSED


def test_each_failed_trial_doubles_the_time_up_to_a_minute() -> None:
    breaker = Breaker()
    for _ in range(3):
        breaker.fail(0)
    now_s, waits = 0.0, []
    for _ in range(7):
        until_s = breaker.next_change_s(now_s)
        assert until_s is not None
        waits.append(until_s - now_s)
        now_s = until_s
        breaker.begin(now_s)
        breaker.fail(now_s)
    assert waits == [2, 4, 8, 16, 32, OPEN_S_MAX, OPEN_S_MAX]


def test_half_of_ten_opens_it_and_an_abandoned_trial_does_not_block() -> None:
    breaker = Breaker()
    for _ in range(5):
        breaker.succeed()
        breaker.fail(1)
    assert breaker.state(1) is BreakerState.OPEN
    breaker.begin(3)
    breaker.abandon()
    assert breaker.allows(3)


# The choice


def idle(number: int, **figures: object) -> Candidate:
    return Candidate(key(number), slots=4, occupied=0, **figures)  # type: ignore[arg-type]


def busy(number: int, occupied: int = 4) -> Candidate:
    return Candidate(key(number), slots=4, occupied=occupied)


def test_the_idle_peer_is_picked() -> None:
    for first in range(5):
        for second in range(4):
            draws = iter((first, second))
            peers = [busy(n, occupied) for n, occupied in enumerate((1, 2, 3, 3, 4))]
            found = choose([*peers, idle(9)], 10, lambda _n, d=draws: next(d))
            assert found.key == key(9)
            assert found.reason == "soonest of 6, idle"


def test_who_is_alone_is_not_called_so_while_others_are_busy() -> None:
    reasons = [choose([idle(1)], 10, lambda _n: 0, others=n).reason for n in (0, 2)]
    assert reasons == ["the only one", "the only free one"]


def test_two_are_drawn_among_equals_and_the_less_loaded_wins() -> None:
    peers = [Candidate(key(n), slots=100, occupied=n) for n in range(10)]
    draws = iter((7, 0))  # 7 and 8
    assert choose(peers, 10, lambda _n: next(draws)).key == key(7)


def test_equals_share_the_work() -> None:
    peers = [idle(n) for n in range(4)]
    number = iter(range(10**6))
    taken = Counter(
        choose(peers, 10, lambda n: (next(number) * 7919 // 3) % n).key
        for _ in range(400)
    )
    assert len(taken) == 4
    assert min(taken.values()) > 40


def test_speed_distance_and_loading_count() -> None:
    slow, fast = idle(1, tokens_per_s=1.0), idle(2, tokens_per_s=50.0)
    assert choose([slow, fast], 500, lambda _n: 0).key == key(2)
    far, near = idle(1, rtt_s=0.4), idle(2, rtt_s=0.01)
    assert choose([far, near], 10, lambda _n: 0).key == key(2)
    cold, warm = idle(1, load_s=5.0), busy(2, 2)
    assert choose([cold, warm], 10, lambda _n: 0).key == key(2)


def test_who_knows_the_conversation_is_taken_unless_much_slower() -> None:
    peers = [idle(1), Candidate(key(2), slots=4, occupied=1)]
    found = choose(peers, 10, lambda _n: 0, holder=bytes(key(2)))
    assert (found.key, found.reason) == (key(2), "knows the conversation")
    peers = [idle(1), busy(2, 3)]
    assert choose(peers, 10, lambda _n: 0, holder=bytes(key(2))).key == key(1)


# Affinity


def asked(prompt: str, *turns: str) -> PromptRequest:
    roles = ("user", "assistant")
    history = tuple(Message(roles[i % 2], text) for i, text in enumerate(turns))
    return PromptRequest(prompt, "r", history=history)


def test_the_next_turn_finds_who_answered_the_last_one() -> None:
    affinity = Affinity()
    affinity.note(asked("one"), b"x")
    assert affinity.holder(asked("two", "one", "answer")) == b"x"
    assert affinity.holder(asked("one")) == b"x"
    assert affinity.holder(asked("two")) is None
    assert affinity.holder(asked("two", "other", "answer")) is None
    affinity.note(asked("two", "one", "answer"), b"y")
    assert affinity.holder(asked("3", "one", "answer", "two", "b")) == b"y"
    affinity.forget(b"y")
    assert affinity.holder(asked("3", "one", "answer", "two", "b")) == b"x"


def test_the_oldest_conversation_is_forgotten() -> None:
    affinity = Affinity(kept_max=2)
    for text in ("a", "b", "c"):
        affinity.note(asked(text), text.encode())
    assert len(affinity) == 2
    assert affinity.holder(asked("a")) is None


# What is known of a processor


def told(processor: Processor, now_s: float, busy: int) -> None:
    processor.pushes = True
    processor.tell(Status([], slots=4, busy=busy), now_s)


def test_the_long_beat_of_idleness_makes_nobody_slow_to_suspect() -> None:
    one = Processor(key(1))
    for now_s in range(5):
        told(one, now_s, busy=0)
    told(one, 4.3, busy=1)
    told(one, 4.55, busy=1)
    assert one.suspect_after_s() == SUSPECT_S


def test_who_is_late_while_busy_is_given_time() -> None:
    one = Processor(key(1))
    told(one, 0, busy=1)
    told(one, 0.8, busy=1)
    assert one.suspect_after_s() == pytest.approx(2.0)
    told(one, 5, busy=1)
    assert one.suspect_after_s() == MISSING_S
    for step in range(60):
        told(one, 5 + step / 4, busy=1)
    assert one.suspect_after_s() == SUSPECT_S


def test_slots_taken_since_it_told_of_itself_count() -> None:
    one = Processor(key(1))
    told(one, 0, busy=3)
    assert one.is_free
    one.running += 1
    assert (one.occupied, one.is_free) == (4, False)
    told(one, 1, busy=4)
    one.running -= 1
    assert one.is_free
    one.refuse()
    assert not one.is_free
    told(one, 2, busy=3)
    assert one.is_free


def test_one_without_room_rests_longer_each_time_until_it_answers() -> None:
    breaker, now_s, rests = Breaker(), 0.0, []
    for _ in range(8):
        breaker.begin(now_s)
        breaker.refuse(now_s)
        assert not breaker.allows(now_s)
        until_s = breaker.next_change_s(now_s)
        assert until_s is not None
        assert breaker.allows(until_s)
        rests.append(until_s - now_s)
        now_s = until_s
    assert rests[0] == pytest.approx(REST_S)
    assert rests == sorted(rests)
    assert rests[-1] == pytest.approx(REST_S_MAX)
    assert breaker.state(now_s) is BreakerState.CLOSED  # it is not sick
    breaker.succeed()
    breaker.refuse(now_s)
    assert breaker.next_change_s(now_s) == pytest.approx(now_s + REST_S)
    assert breaker.next_change_s(now_s + 1) is None


# Owners of limits


def test_all_gateways_see_the_same_owner_and_few_move() -> None:
    gateways = [key(n) for n in range(5)]
    users = [f"user{n}@example.org" for n in range(200)]
    first = {user: owners(user, gateways)[0] for user in users}
    assert first == {user: owners(user, reversed(gateways))[0] for user in users}
    assert set(first.values()) == set(gateways)
    for user in users:
        left = owners(user, gateways[1:])
        assert left == [one for one in owners(user, gateways) if one != gateways[0]]


# Traces


def test_traces_are_the_users_own_and_bounded() -> None:
    traces = Traces(kept_max=2)
    trace = traces.begin("ann", "r1", 10.0)
    trace.add("chosen", 10.5, peer="ab", detail="idle")
    assert trace.hops == [Hop("gateway", "ab", "chosen", 0.5, "idle")]
    assert traces.begin("ann", "r1", 11.0) is trace
    assert traces.find("bob", "r1") is None
    for _ in range(200):
        trace.add("queued", 12.0)
    assert len(trace.hops) == STEPS_MAX
    assert trace.hops[0].what == "chosen"
    traces.begin("ann", "r2", 0)
    traces.begin("ann", "r3", 0)
    assert traces.find("ann", "r1") is None
    assert len(traces) == 2


# Receipts


def statement(**changes: object) -> receipts.Statement:
    fields: dict[str, object] = {
        "version": 1,
        "request_id": "r1",
        "request_hash": receipts.request_hash(PromptRequest("why?", "r1")),
        "answer_hash": receipts.answer_hash("because"),
        "model": "tiny",
        "prompt_tokens": 3,
        "answer_tokens": 1,
        "finished_at_ms": 1_900_000_000_000,
        "finish_reason": "stop",
        **changes,
    }
    return receipts.Statement(**fields)  # type: ignore[arg-type]


def test_a_receipt_holds_and_any_change_breaks_it() -> None:
    pair = KeyPair.from_seed(bytes(32))
    sealed = receipts.seal(statement(), pair)
    receipt = receipts.open_receipt_untrusted(sealed)
    assert receipt.statement == statement()
    assert receipt.key == pair.public_key
    assert receipt.begin_in("because") == 0
    assert receipt.begin_in("because!") is None
    for index in range(len(sealed)):
        changed = bytearray(sealed)
        changed[index] ^= 1
        with pytest.raises(DecodeError):
            receipts.open_receipt_untrusted(bytes(changed))


def test_the_receipt_of_a_continued_answer_is_of_its_end() -> None:
    pair = KeyPair.from_seed(bytes(32))
    end = statement(answer_hash=receipts.answer_hash("cause"), prefix_chars=2)
    receipt = receipts.open_receipt_untrusted(receipts.seal(end, pair))
    assert receipt.begin_in("because") == 2


def test_the_hash_of_a_request_is_of_what_was_asked() -> None:
    request = PromptRequest("why?", "r1", "model")
    same = PromptRequest("why?", "r2", prefix="be", deadline_s=3)
    assert receipts.request_hash(request) == receipts.request_hash(same)
    for other in (
        asked("why?", "a"),
        PromptRequest("why?", "r1", images=(b"x",)),
        PromptRequest("why?", "r1", response_format="json"),
        PromptRequest("why? ", "r1"),
    ):
        assert receipts.request_hash(request) != receipts.request_hash(other)
