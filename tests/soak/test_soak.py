"""Everything at once: 32 users, sick engines, processors and gateways that are killed.

Two equal phases: memory is measured when all rest after the first one and again after
the second. ``PEERCHAT_SOAK_S`` says how long both take together (20 unless set).
``PEERCHAT_SOAK_SEED`` decides what happens to each prompt and who is killed; a prompt
that fails is told with the faults that it met: it meets them again under that seed.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest

from peerchat.services.store import open_store
from peerchat.testing.faults import Fault, Lots

from . import memory
from .chaos import Chaos
from .members import SoakSwarm
from .users import USERS, Tally, User

SOAK_S = float(os.environ.get("PEERCHAT_SOAK_S", "20"))
SEED = int(os.environ.get("PEERCHAT_SOAK_SEED", "1"))

SHARES = {
    Fault.ERROR: 0.10,
    Fault.DROP: 0.05,
    Fault.HANG: 0.003,
    Fault.STALL: 0.003,
    Fault.SLOW: 0.01,
    Fault.MALFORMED: 0.01,
    Fault.ENDLESS: 0.003,
    Fault.REPEATS: 0.03,
    Fault.WRONG_MODEL: 0.01,
}
"""All together make the engines flaky."""

REST_S = 30.0
"""Until all is quiet: a connection that was lost without a word is noticed in 13 s."""


async def comes_to(nothing: Callable[[], object]) -> None:
    """Return once it gives nothing; says at last what it gave."""
    clock = asyncio.get_running_loop()
    until_s = clock.time() + REST_S
    while left := nothing():
        assert clock.time() < until_s, f"left when all rest: {left}"
        await asyncio.sleep(0.2)


async def phase(
    swarm: SoakSwarm,
    users: list[User],
    seed: str,
    tally: Tally,
    others: Counter[type],
) -> None:
    """Let users ask while members of the swarm end; returns when all rest."""
    until_s = asyncio.get_running_loop().time() + SOAK_S / 2
    async with asyncio.TaskGroup() as group:
        group.create_task(Chaos(swarm, seed, tally).run(until_s))
        for user in users:
            group.create_task(user.use(until_s))
    assert not tally.wrong, "\n".join(tally.wrong)
    await comes_to(lambda: memory.gauges_up(swarm))
    for user in users:
        # An answer that went on elsewhere counts once, one that nobody gave never.
        assert user.whole <= await user.used() <= user.asked, user.email
    await comes_to(lambda: memory.objects_left(others))
    swarm.forget_pieces()


@pytest.fixture(autouse=True)
def _only_errors_are_logged():
    """Pytest keeps what is logged, and with it the objects that a warning is about."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.timeout(SOAK_S * 2 + 240)
@pytest.mark.parametrize("seed", [SEED])
async def test_every_prompt_ends_well_or_in_clear_words(
    tmp_path, caplog, seed: int
) -> None:
    print(f"PEERCHAT_SOAK_SEED={seed} PEERCHAT_SOAK_S={SOAK_S:g}", flush=True)
    tasks_before = len(asyncio.all_tasks())
    tally, others = Tally(), memory.objects()
    async with AsyncExitStack() as stack:
        store = await open_store(tmp_path / "limits.db")
        stack.push_async_callback(store.close)
        swarm = SoakSwarm(tmp_path, store, Lots(seed, SHARES))
        stack.push_async_callback(swarm.close)
        await swarm.start()
        users = [User(swarm, number, seed, tally) for number in range(USERS)]
        for user in users:
            stack.push_async_callback(user.close)
        await phase(swarm, users, f"{seed} first", tally, others)
        before = memory.heap()
        # With the one before in it, as that will be in the last.
        before, asked, rss_before = memory.heap(), tally.asked, memory.rss_mib()
        await phase(swarm, users, f"{seed} second", tally, others)
        asked, after = tally.asked - asked, memory.heap()
        grown = after.total() - before.total()
        print(tally)
        print(
            f"left of {asked} prompts: {grown / asked:.0f} bytes each, {grown} in all"
        )
        print(f"resident: {rss_before:.1f} MiB, then {memory.rss_mib():.1f}")
        most = asked * memory.LEAK_BYTES + memory.SLACK_BYTES
        assert grown <= most, memory.growth(before, after)
    await comes_to(lambda: len(asyncio.all_tasks()) - tasks_before)
    assert caplog.messages == []
    assert tally.whole > 2 * USERS
    assert tally.continued > 0
    assert sum(tally.errors.values()) <= tally.whole / 10
