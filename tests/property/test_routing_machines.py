"""The queue stays fair and loses nobody; receipts refuse any foreign bytes."""

from __future__ import annotations

import random

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from peerchat.api import ApiError
from peerchat.continuation import REPEAT_CHARS_MIN, RepeatCutter
from peerchat.net.errors import DecodeError
from peerchat.net.identity import PublicKey
from peerchat.services.breaker import Breaker
from peerchat.services.details_wire import decode_details_untrusted, encode_details
from peerchat.services.dispatch_queue import DispatchQueue, Waiting
from peerchat.services.processor_state import Processor
from peerchat.services.receipts import open_receipt_untrusted
from peerchat.services.status_wire import decode_status_untrusted, encode_status


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["enter", "pop", "leave", "back"]),
            st.integers(0, 5),
            st.integers(1, 8),
        ),
        max_size=80,
    )
)
def test_nobody_is_lost_and_the_order_is_the_one_foretold(steps) -> None:
    queue = DispatchQueue[int](queue_max=20, per_user_max=5)
    inside: list[Waiting[int]] = []
    for number, (what, user, cost) in enumerate(steps):
        match what:
            case "enter":
                try:
                    inside.append(queue.enter(str(user), number, cost=cost, now_s=0))
                except ApiError:
                    of_user = sum(one.user == str(user) for one in inside)
                    assert of_user == 5 or len(inside) == 20
            case "pop" | "back":
                foretold = queue.order()
                taken = queue.pop(lambda _item: True)
                assert taken is (foretold[0] if foretold else None)
                if taken is not None and what == "back":
                    queue.put_back(taken)
                    assert queue.order()[0] is taken
                elif taken is not None:
                    inside.remove(taken)
            case "leave" if inside:
                assert queue.leave(inside.pop(user % len(inside)))
        assert len(queue) == len(inside)
        assert {id(one) for one in queue.order()} == {id(one) for one in inside}


@given(st.integers(0, 2**32), st.integers(2, 5))
def test_users_who_always_wait_get_equal_shares_of_cost(seed, users) -> None:
    chance = random.Random(seed)
    queue = DispatchQueue[int]()
    served = dict.fromkeys(map(str, range(users)), 0)
    for user in served:
        for _ in range(4):
            queue.enter(user, 0, cost=chance.randint(1, 8), now_s=0)
    for _ in range(600):
        one = queue.pop(lambda _item: True)
        assert one is not None
        served[one.user] += one.cost
        queue.enter(one.user, 0, cost=chance.randint(1, 8), now_s=0)
    # Deficit round robin's bound: within one request of the largest cost, and a turn.
    assert max(served.values()) - min(served.values()) <= 2 * 8


@given(st.lists(st.sampled_from(["ok", "fail", "abandon", "wait"]), max_size=60))
def test_an_open_breaker_always_lets_one_through_within_a_minute(steps) -> None:
    breaker, now_s = Breaker(), 0.0
    for step in steps:
        if step == "wait":
            now_s += 1
        elif breaker.allows(now_s):
            breaker.begin(now_s)
            match step:
                case "ok":
                    breaker.succeed()
                case "fail":
                    breaker.fail(now_s)
                case "abandon":
                    breaker.abandon()
    assert breaker.allows(now_s + 60)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_receipt_or_refused(data) -> None:
    try:
        open_receipt_untrusted(data)
    except DecodeError:
        return
    raise AssertionError("a receipt out of nothing")


@given(
    st.binary(max_size=300)
    | st.builds(
        msgspec.msgpack.encode,
        st.lists(
            st.none()
            | st.booleans()
            | st.integers(-5, 2000)
            | st.text(max_size=9)
            | st.floats()
            | st.lists(st.lists(st.text(max_size=5) | st.floats())),
            max_size=9,
        ),
    )
)
def test_any_bytes_are_a_status_or_refused(data) -> None:
    try:
        status = decode_status_untrusted(data)
    except DecodeError:
        return
    one = Processor(PublicKey(bytes(32)), pushes=True)
    one.tell(status, 1.0)
    assert 0 <= one.candidate("m").first_token_s(10) < float("inf")
    assert decode_status_untrusted(encode_status(status)) == status


@given(
    st.binary(max_size=300)
    | st.builds(
        msgspec.msgpack.encode,
        st.lists(
            st.lists(
                st.none()
                | st.integers(-5, 2**63)
                | st.text(max_size=9)
                | st.binary(max_size=40)
                | st.floats()
                | st.lists(st.text(max_size=9), max_size=9),
                max_size=13,
            ),
            max_size=4,
        ),
    )
)
def test_any_bytes_are_details_or_refused(data) -> None:
    try:
        found = decode_details_untrusted(data)
    except DecodeError:
        return
    assert decode_details_untrusted(encode_details(found.values())) == found


@given(st.text(max_size=40), st.text(max_size=40), st.integers(1, 9), st.booleans())
def test_a_repeated_beginning_is_cut_once_and_nothing_else(
    said, more, size, repeats
) -> None:
    whole = (said if repeats else "") + more
    cutter = RepeatCutter(said)
    pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    shown = "".join(map(cutter.feed, pieces)) + cutter.finish()
    is_cut = len(said) >= REPEAT_CHARS_MIN and whole.startswith(said)
    assert shown == (whole.removeprefix(said) if is_cut else whole)
