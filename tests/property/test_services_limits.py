"""The limiter against a model, across restarts and clocks that jump."""

import asyncio
import math
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from peerchat.api import ApiError
from peerchat.services.limits import Limiter, SteadyClock
from peerchat.services.store import open_store

WINDOW_S = 60

steps = st.lists(
    st.one_of(
        st.tuples(st.just("admit"), st.sampled_from("ab")),
        st.tuples(st.just("wait"), st.integers(0, 90_000)),
        st.tuples(st.just("status"), st.sampled_from("ab")),
        st.tuples(st.just("take back"), st.sampled_from("ab")),
        st.tuples(st.just("restart"), st.integers(1, 4)),
        st.tuples(st.just("own limit"), st.one_of(st.none(), st.integers(1, 5))),
    ),
    max_size=40,
)


class Model:
    """What the limiter must say, in the plainest words."""

    def __init__(self):
        self.accepted = {"a": [], "b": []}

    def live(self, user, now_ms):
        return [at for at in self.accepted[user] if now_ms - at < WINDOW_S * 1000]

    def expected(self, user, now_ms, most):
        live = sorted(self.live(user, now_ms))
        remaining = max(0, most - len(live))
        first = live[max(0, len(live) - most)] if live else None
        wait_ms = 0 if first is None else first + WINDOW_S * 1000 - now_ms
        return remaining, math.ceil(wait_ms / 1000)


async def opened(folder, most, clock):
    store = await open_store(folder / "limits.db")
    return store, Limiter(store, most, WINDOW_S / 60, now_ms=clock)


async def replay(todo, folder):
    now_ms, most, model = 1_700_000_000_000, 3, Model()

    def clock():
        return now_ms

    store, limiter = await opened(folder, most, clock)
    newest = {}
    own = {"a": None, "b": None}
    """Only a's changes."""

    def limit_of(user):
        return most if own[user] is None else own[user]

    for what, argument in todo:
        if what == "wait":
            now_ms += argument
        elif what == "restart":
            await store.close()
            most = argument
            store, limiter = await opened(folder, most, clock)
        elif what == "own limit":
            own["a"] = argument
        elif what == "status":
            limit = await limiter.status(argument, own[argument])
            expected = model.expected(argument, now_ms, limit_of(argument))
            assert (limit.remaining, limit.reset_s) == expected
        elif what == "take back":
            if argument in newest:
                admission, at_ms = newest.pop(argument)
                await limiter.take_back(admission)
                if at_ms in model.accepted[argument]:
                    model.accepted[argument].remove(at_ms)
        else:
            is_free = len(model.live(argument, now_ms)) < limit_of(argument)
            try:
                admission = await limiter.admit(argument, own[argument])
            except ApiError as error:
                limit = error.rate_limit
                is_refused = error.retry_after_s == limit.reset_s > 0
            else:
                is_refused = False
                model.accepted[argument].append(now_ms)
                newest[argument] = (admission, now_ms)
                limit = admission.rate_limit
            assert is_refused != is_free
            expected = model.expected(argument, now_ms, limit_of(argument))
            assert (limit.remaining, limit.reset_s) == expected
    await store.close()


@settings(max_examples=25, deadline=None, print_blob=True)
@given(steps)
def test_limiter_is_the_model(todo):
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(replay(todo, Path(folder)))


@given(st.lists(st.floats(0, 1e9)))
def test_the_clock_never_steps_back(times):
    readings = iter(times)
    clock = SteadyClock(lambda: next(readings))
    seen = [clock() for _ in times]
    assert seen == sorted(seen)


def test_rows_of_the_future_count_as_of_now():
    async def main(folder):
        store = await open_store(folder / "limits.db")
        year_ms = 365 * 24 * 3600 * 1000
        ahead = Limiter(store, 2, 1.0, now_ms=lambda: 1_000_000 + year_ms)
        await ahead.admit("a")
        await ahead.admit("a")
        now_ms = 1_000_000
        limiter = Limiter(store, 2, 1.0, now_ms=lambda: now_ms)
        limit = await limiter.status("a")
        assert (limit.remaining, limit.reset_s) == (0, 60)
        now_ms += 60_000
        assert (await limiter.admit("a")).rate_limit.remaining == 1
        await store.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder)))


def test_many_at_once_get_no_more_than_the_limit():
    async def main(folder):
        stores = [await open_store(folder / "limits.db") for _ in range(2)]
        limiters = [Limiter(store, 5) for store in stores]
        results = await asyncio.gather(
            *(limiters[n % 2].admit("a") for n in range(20)), return_exceptions=True
        )
        assert sum(not isinstance(one, ApiError) for one in results) == 5
        for store in stores:
            await store.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder)))
