"""Gateways that slept, owners of limits that are gone: nobody waits for the dead."""

from __future__ import annotations

import asyncio

import pytest

from peerchat.api import ApiError, ErrorCode, PromptRequest, Role
from peerchat.net.errors import PeerUnreachable
from peerchat.net.identity import PublicKey
from peerchat.services import gateway, peer_sessions, user_limits
from peerchat.testing.faults import whole_answer

from .routing_world import RoutingWorld, ask, first_text, knows, read_all
from .services_world import token
from .waiting import until

USER = "ann@example.org"


@pytest.fixture
async def world(tmp_path, monkeypatch):
    monkeypatch.setattr(gateway, "FOLLOW_EVERY_S", 0.02)
    monkeypatch.setattr(user_limits, "FOLLOW_EVERY_S", 0.02)
    monkeypatch.setattr(user_limits, "LOOK_AGAIN_S", 0.02)
    monkeypatch.setattr(user_limits, "ASK_TIMEOUT_S", 0.1)
    monkeypatch.setattr(user_limits, "CONNECT_TIMEOUT_S", 0.1)
    monkeypatch.setattr(peer_sessions, "ALIVE_S", 0.05)
    async with RoutingWorld(tmp_path) as made:
        yield made


async def owner_and_other(world):
    """Two gateways with windows of their own, and the one that counts the user."""
    entries = [await world.entry(f"own-{n}.db", max_requests=4) for n in range(2)]
    await read_all(ask(world, entries[0], "one"))
    limits = [entry.role._limits for entry in entries]
    left = [(await one.own_status(USER, None)).remaining for one in limits]
    owner = entries[left.index(3)]
    other = entries[left.index(4)]
    await read_all(ask(world, other, "two"))
    assert (await owner.role._limits.own_status(USER, None)).remaining == 2
    return owner, other


async def test_a_gateway_that_overslept_takes_new_connections(world) -> None:
    worker, entry = await world.worker(), await world.entry()
    await knows(world, entry, worker.key)
    entry.peer.dht.oversleep()
    entry.role.router._ticked_s -= 60
    read = await read_all(ask(world, entry))
    assert read.text == whole_answer("why?")


async def test_after_a_gap_nobody_is_believed_to_be_there(world) -> None:
    worker, entry = await world.worker(), await world.entry()
    await knows(world, entry, worker.key)
    router = entry.role.router
    router._ticked_s -= 60
    router.tick()
    assert router.processors == ()
    await knows(world, entry, worker.key)


async def test_a_prompt_on_a_dead_connection_is_asked_again_on_another(world) -> None:
    worker, entry = await world.worker(), await world.entry()
    await read_all(ask(world, entry))
    entry.peer.dht.oversleep()  # and nothing shows how long it slept
    answer = ask(world, entry, "again?")
    reading = asyncio.ensure_future(read_all(answer))
    await until(lambda: any(one.running for one in entry.role.router.processors))
    entry.role.router._ticked_s -= 60
    assert (await reading).text == whole_answer("again?")
    assert worker.engine.running == 0


async def test_a_gateway_that_was_lost_is_asked_over_no_old_connection(world) -> None:
    await world.worker()
    entry, swarm = await world.entry(), world.peer().swarm
    await read_all(swarm.ask(entry.key, PromptRequest("why?", "r-1"), token(USER)))
    assert swarm.is_connected(entry.key)
    swarm.drop(Role.GATEWAY, entry.key)
    assert not swarm.is_connected(entry.key)
    await swarm.reach(entry.key)
    assert swarm.is_connected(entry.key)


async def test_an_owner_that_is_gone_is_asked_once_and_counts_when_it_is_back(
    world,
) -> None:
    await world.worker(slots=4)
    owner, other = await owner_and_other(world)
    limits = other.role._limits
    owner.peer.dht.be_silent()
    await read_all(ask(world, other, "three"))
    assert list(limits._away) == [owner.key]
    asked = []
    request = other.peer.swarm.request

    async def noted(key, *args, **kwargs):
        asked.append(key)
        return await request(key, *args, **kwargs)

    other.peer.swarm.request = noted
    await read_all(ask(world, other, "four"))
    assert owner.key not in asked
    owner.peer.dht.be_silent(False)
    await until(lambda: not limits._away)
    await until(lambda: owner.key in other.peer.swarm._found["gateway"].keys)
    await read_all(ask(world, other, "five"))
    assert owner.key in asked


async def test_the_dead_are_looked_for_once_at_a_time_and_none_starves(
    world, monkeypatch
) -> None:
    monkeypatch.setattr(user_limits, "LOOK_AGAIN_S", 0.0)
    monkeypatch.setattr(user_limits, "LOOKED_FOR_AT_ONCE", 2)
    limits = (await world.entry()).role._limits
    dead, back = [PublicKey(bytes([n]) * 32) for n in (1, 2)], PublicKey(b"\3" * 32)
    looked_for: list[PublicKey] = []
    is_dead = asyncio.Event()

    async def reach(owner: PublicKey) -> None:
        looked_for.append(owner)
        if owner in dead:
            await is_dead.wait()
            raise PeerUnreachable("no packet gets through")

    limits._swarm.reach = reach
    for owner in (*dead, back):
        limits._note_away(owner)
    await until(lambda: len(looked_for) == 2)
    for _ in range(3):
        limits._look_for_away()
    assert looked_for == dead
    is_dead.set()
    await until(lambda: back not in limits._away)
    assert list(limits._away) == dead


class HeldLimits:
    """The owner takes its time to say whether a prompt is accepted."""

    def __init__(self, entry, error: ApiError | None = None) -> None:
        self.is_asked, self.go_on = asyncio.Event(), asyncio.Event()
        limits = entry.role._limits
        admit = limits.admit

        async def held(*args):
            self.is_asked.set()
            await self.go_on.wait()
            if error is not None:
                raise error
            return await admit(*args)

        limits.admit = held


async def test_what_goes_on_does_not_wait_for_who_counts(world) -> None:
    await world.worker()
    entry = await world.entry()
    limits = HeldLimits(entry)
    beginning = whole_answer("why?")[:20]
    answer = ask(world, entry, prefix=beginning)
    first = await first_text(answer)
    assert limits.is_asked.is_set()
    limits.go_on.set()
    read = await read_all(answer)
    assert beginning + first.text + read.text == whole_answer("why?")
    assert read.end.rate_limit is not None


async def test_it_ends_when_who_counts_says_no(world) -> None:
    worker = await world.worker()
    entry = await world.entry()
    refusal = ApiError(ErrorCode.RATE_LIMITED, "No more.", status=429, retry_after_s=5)
    limits = HeldLimits(entry, refusal)
    limits.go_on.set()
    answer = ask(world, entry, prefix=whole_answer("why?")[:20])
    with pytest.raises(ApiError) as caught:
        await read_all(answer)
    assert caught.value.code is ErrorCode.RATE_LIMITED
    await until(lambda: worker.engine.running == 0)


async def test_a_new_prompt_waits_for_who_counts(world) -> None:
    worker = await world.worker()
    entry = await world.entry()
    limits = HeldLimits(entry)
    reading = asyncio.ensure_future(read_all(ask(world, entry)))
    await limits.is_asked.wait()
    await asyncio.sleep(0)
    assert worker.engine.running == 0
    limits.go_on.set()
    assert (await reading).text == whole_answer("why?")
