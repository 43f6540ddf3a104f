"""Who can be reached first, without waiting for the dead."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from peerchat import reaching
from peerchat.net.errors import PeerUnreachable
from peerchat.net.identity import PublicKey
from peerchat.reaching import AT_ONCE_MAX, reached
from peerchat.testing.loop import run_virtual
from tests.scripted_swarm import key

NEVER = None


class Peers:
    """Says something after a time; a negative one is a failure after that time."""

    def __init__(self, *times_s: float | None) -> None:
        self.times_s = {key(n + 1): time_s for n, time_s in enumerate(times_s)}
        self.asked: list[PublicKey] = []
        self.lost: list[PublicKey] = []
        self.running = 0

    async def reach(self, one: PublicKey) -> None:
        self.asked.append(one)
        time_s = self.times_s[one]
        self.running += 1
        try:
            await asyncio.sleep(1e6 if time_s is NEVER else abs(time_s))
        finally:
            self.running -= 1
        if time_s < 0:
            raise PeerUnreachable("gone")

    async def first(self, count: int = 1) -> tuple[list[PublicKey], float]:
        clock = asyncio.get_running_loop().time
        began_s, found = clock(), []
        async with aclosing(
            reached(list(self.times_s), self.reach, self.lost.append)
        ) as keys:
            async for one in keys:
                found.append(one)
                if len(found) == count:
                    break
        return found, clock() - began_s


def test_the_best_one_is_waited_for_a_little() -> None:
    peers = Peers(0.4, 0.0)
    assert run_virtual(peers.first) == ([key(1)], pytest.approx(0.4))
    assert peers.asked == [key(1)]
    assert peers.lost == []


def test_a_dead_one_is_overtaken_and_told_of() -> None:
    peers = Peers(NEVER, 0.1)
    found, took_s = run_virtual(peers.first)
    assert found == [key(2)]
    assert took_s == pytest.approx(reaching.PATIENCE_S + 0.1)
    assert peers.lost == [key(1)]
    assert peers.running == 0


def test_who_was_tried_only_a_moment_is_not_lost() -> None:
    patience_s = reaching.PATIENCE_S
    peers = Peers(patience_s + 0.1, NEVER)
    assert run_virtual(peers.first)[0] == [key(1)]
    assert peers.asked == [key(1), key(2)]
    assert (peers.lost, peers.running) == ([], 0)


def test_who_answers_at_the_same_time_is_not_lost() -> None:
    peers = Peers(reaching.PATIENCE_S + 0.1, 0.1)
    assert len(run_virtual(peers.first)[0]) == 1
    assert peers.lost == []


def test_a_ready_one_overtakes_too() -> None:
    peers = Peers(NEVER, NEVER)

    async def look() -> None:
        ready = [key(2)]
        keys = reached(
            list(peers.times_s), peers.reach, peers.lost.append, ready.__contains__
        )
        async with aclosing(keys):
            assert await anext(keys) == key(2)

    run_virtual(look)
    assert peers.lost == [key(1)]


def test_a_slow_one_still_gets_its_turn() -> None:
    peers = Peers(3.0, 0.1)
    assert run_virtual(lambda: peers.first(2))[0] == [key(2), key(1)]
    assert peers.lost == []


def test_a_failure_is_followed_at_once() -> None:
    peers = Peers(-0.1, -0.1, 0.1)
    assert run_virtual(peers.first) == ([key(3)], pytest.approx(0.3))
    assert peers.lost == [key(1), key(2)]


def test_only_so_many_at_once() -> None:
    peers = Peers(*[-20.0] * 3 * AT_ONCE_MAX)

    async def look() -> int:
        task = asyncio.ensure_future(peers.first())
        await asyncio.sleep(15)
        running = peers.running
        assert (await task)[0] == []
        return running

    assert run_virtual(look) == AT_ONCE_MAX
    assert len(peers.lost) == 3 * AT_ONCE_MAX


def test_who_is_ready_is_not_asked() -> None:
    peers = Peers(NEVER, NEVER)

    async def look() -> list[PublicKey]:
        keys = reached(list(peers.times_s), peers.reach, is_ready=lambda _key: True)
        return [one async for one in keys]

    assert run_virtual(look) == [key(1), key(2)]
    assert peers.asked == []


def test_what_is_no_loss_is_raised() -> None:
    async def broken(_key: PublicKey) -> None:
        raise ValueError("a bug")

    async def look() -> None:
        async for _ in reached([key(1)], broken):
            pass

    with pytest.raises(ValueError, match="a bug"):
        run_virtual(look)
