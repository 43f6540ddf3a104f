"""Everything at once: 32 users, sick engines, processors and gateways that are killed.

``PEERCHAT_SOAK_S`` says how long new prompts are sent (8 unless set). The seed is in
the name of the test and decides who fails; ``PEERCHAT_SOAK_SEED`` takes another one.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
from collections import Counter
from dataclasses import dataclass, field

import pytest

from peerchat.api import ApiError, ErrorCode, Fragment
from peerchat.testing.faults import Fault, FaultyEngine, whole_answer
from tests.unit.routing_world import Entry, RoutingWorld, Worker
from tests.unit.services_world import token

SOAK_S = float(os.environ.get("PEERCHAT_SOAK_S", "8"))
SEED = int(os.environ.get("PEERCHAT_SOAK_SEED", "1"))
USERS = 32
KILL_EVERY_S = 0.8
DEAD_NAMED = 12
"""Dead peers of a role that the DHT still names."""

CLEAR = frozenset(
    {
        ErrorCode.NO_PROCESSOR,
        ErrorCode.NO_GATEWAY,
        ErrorCode.BUSY,
        ErrorCode.PEER_LOST,
        ErrorCode.ENGINE_FAILED,
        ErrorCode.TIMEOUT,
        ErrorCode.STOPPED,
    }
)
"""What a user may be told while everything around dies."""


@dataclass
class Tally:
    """How the prompts ended."""

    whole: int = 0
    continued: int = 0
    errors: Counter[ErrorCode] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def chance_of(rng: random.Random):
    def draw(_request) -> Fault:
        lot = rng.random()
        if lot < 0.10:
            return Fault.ERROR
        return Fault.DROP if lot < 0.15 else Fault.NONE

    return draw


async def use(world: RoutingWorld, user: int, until_s: float, tally: Tally) -> None:
    """One user: a prompt after the other, each read to its end."""
    client, clock = world.client(), asyncio.get_running_loop()
    number = 0
    while clock.time() < until_s:
        number += 1
        prompt, text, usage = f"user {user} asks {number}", "", None
        answer = client.ask(prompt, token(f"u{user}@example.org"))
        try:
            async with asyncio.timeout(60):
                async for event in answer:
                    if isinstance(event, Fragment):
                        text += event.text
                    usage = getattr(event, "usage", usage)
        except ApiError as error:
            tally.errors[error.code] += 1
            if not whole_answer(prompt).startswith(text) or error.code not in CLEAR:
                tally.wrong.append(f"{prompt}: {error.code} after {text!r}")
            await asyncio.sleep(0.05)
        else:
            tally.whole += 1
            tally.continued += bool(usage and usage.continued)
            if text != whole_answer(prompt):
                tally.wrong.append(f"{prompt}: {text!r}")


async def kill(
    world: RoutingWorld,
    rng: random.Random,
    workers: list[Worker],
    entries: list[Entry],
    until_s: float,
) -> None:
    """Kill a processor or a gateway, and start another one in its place."""
    clock = asyncio.get_running_loop()
    while clock.time() < until_s:
        await asyncio.sleep(KILL_EVERY_S)
        forget_the_dead(world)
        if rng.random() < 0.7:
            workers.pop(0).peer.dht.kill()
            workers.append(await worker_of(world, rng))
        else:
            entries.pop(0).peer.dht.kill()
            entries.append(await entry_of(world))


def forget_the_dead(world: RoutingWorld) -> None:
    """As the DHT does, sooner or later: here once a dozen are named."""
    for named in world.network.topics.values():
        dead = [key for key, dht in named.items() if dht.is_dead]
        for key in dead[:-DEAD_NAMED]:
            del named[key]


async def worker_of(world: RoutingWorld, rng: random.Random) -> Worker:
    return await world.worker(FaultyEngine(chance_of(rng), delay_s=0.003), slots=4)


async def entry_of(world: RoutingWorld) -> Entry:
    return await world.entry(max_requests=1_000_000, is_shared=True, stall_s=2.0)


async def until(claim, timeout_s: float) -> bool:
    """Whether it becomes true in time."""
    for _ in range(int(timeout_s / 0.05)):
        if claim():
            return True
        await asyncio.sleep(0.05)
    return False


def is_at_rest(workers: list[Worker], entries: list[Entry]) -> bool:
    """Gauges are back where they began."""
    has_work = any(one.engine.running or one.role.busy for one in workers)
    has_waiting = any(one.role._dispatcher.queued for one in entries)
    routers = [one.role.router for one in entries]
    has_asked = any(each.running for one in routers for each in one.processors)
    return not (has_work or has_waiting or has_asked)


@pytest.mark.timeout(SOAK_S * 2 + 120)
@pytest.mark.parametrize("seed", [SEED])
async def test_every_prompt_ends_well_or_in_clear_words(tmp_path, seed: int) -> None:
    rng, tally = random.Random(seed), Tally()
    tasks_before = len(asyncio.all_tasks())
    async with RoutingWorld(tmp_path) as world:
        workers = [await worker_of(world, rng) for _ in range(4)]
        entries = [await entry_of(world) for _ in range(3)]
        until_s = asyncio.get_running_loop().time() + SOAK_S
        async with asyncio.TaskGroup() as group:
            group.create_task(kill(world, rng, workers, entries, until_s))
            for user in range(USERS):
                group.create_task(use(world, user, until_s, tally))
        assert await until(lambda: is_at_rest(workers, entries), 20)
    gc.collect()
    assert await until(lambda: len(asyncio.all_tasks()) == tasks_before, 5)
    print(f"seed {seed}: {tally.whole} whole, {tally.continued} of them continued")
    print(f"told: {dict(tally.errors)}")
    assert tally.wrong == []
    assert tally.whole > USERS
    assert tally.continued > 0
    assert sum(tally.errors.values()) <= tally.whole / 10
