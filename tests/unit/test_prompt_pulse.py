"""Signs of life while answers run: who vanished without a word is noticed soon."""

from __future__ import annotations

import asyncio

import pytest

from peerchat.api import Fragment
from peerchat.gateways import Gateways
from peerchat.net.errors import NetError
from peerchat.services import peer_sessions, prompt_pulse, prompt_wire
from peerchat.services.prompt_pulse import GONE_BEATS, Pulse
from peerchat.testing.faults import Fault, FaultyEngine, whole_answer

from .routing_world import RoutingWorld, first_text, read_all
from .services_world import token
from .waiting import until

LONG = "a question with a long answer"


@pytest.fixture(autouse=True)
def _fast_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_pulse, "BEAT_S", 0.03)
    monkeypatch.setattr(peer_sessions, "ALIVE_S", 0.1)


@pytest.fixture
async def world(tmp_path):
    async with RoutingWorld(tmp_path) as made:
        yield made


def held() -> FaultyEngine:
    """Says its beginning, and then nothing until it is stopped."""
    return FaultyEngine(lambda _: Fault.STALL)


async def test_a_client_that_comes_back_gets_the_rest(world):
    worker = await world.worker(FaultyEngine(delay_s=0.2))
    await world.entry()
    client = world.peer()
    gateways = Gateways(client.swarm)
    answer = gateways.ask(LONG, token("ann@example.org"))
    first = await first_text(answer)
    client.dht.be_silent()
    await until(lambda: worker.engine.running == 0)
    client.dht.be_silent(False)
    read = await read_all(answer)
    assert first.text + read.text == whole_answer(LONG)
    assert read.end.usage.continued
    await gateways.close()


async def test_a_silent_gateway_is_left_for_another(world):
    await world.worker(FaultyEngine(delay_s=0.02))
    entries = [await world.entry(is_shared=True) for _ in range(2)]
    client = world.client()
    answer = client.ask(LONG, token("ann@example.org"))
    text = ""
    async for event in answer:
        if isinstance(event, Fragment):
            text += event.text
            break
    serving = next(one for one in entries if one.key == client._last_good)
    serving.peer.dht.be_silent()
    read = await read_all(answer)
    assert text + read.text == whole_answer(LONG)
    assert read.end.usage.continued
    serving.peer.dht.be_silent(False)


async def test_without_another_gateway_a_pause_is_waited_out(world):
    await world.worker(FaultyEngine(delay_s=0.02))
    entry = await world.entry()
    client = world.client()
    answer = client.ask(LONG, token("ann@example.org"))
    first = await first_text(answer)
    current = answer._current
    entry.peer.dht.be_silent()
    await until(lambda: answer.silent_gateway is not None)
    await asyncio.sleep(0)
    assert answer._current is current
    entry.peer.dht.be_silent(False)
    assert first.text + (await read_all(answer)).text == whole_answer(LONG)


async def test_who_overslept_goes_on_over_a_new_connection(world):
    await world.worker(FaultyEngine(delay_s=0.02))
    await world.entry()
    client = world.peer()
    gateways = Gateways(client.swarm)
    answer = gateways.ask(LONG, token("ann@example.org"))
    first = await first_text(answer)
    client.dht.oversleep()
    read = await read_all(answer)
    assert first.text + read.text == whole_answer(LONG)
    assert read.end.usage.continued
    await gateways.close()


async def test_when_nobody_is_heard_nobody_is_left(world):
    await world.worker(FaultyEngine(delay_s=0.02))
    entries = [await world.entry(is_shared=True) for _ in range(2)]
    client = world.client()
    answer = client.ask(LONG, token("ann@example.org"))
    first = await first_text(answer)
    current = answer._current
    asked, unreached = set(), set()
    reach = client._watch._reach

    async def probe(key):
        asked.add(key)
        try:
            await reach(key)
        except NetError:
            unreached.add(key)
            raise

    client._watch._reach = probe
    for entry in entries:
        entry.peer.dht.be_silent()
    keys = {entry.key for entry in entries}
    await until(lambda: asked == unreached == keys)
    assert answer._current is current
    for entry in entries:
        entry.peer.dht.be_silent(False)
    assert first.text + (await read_all(answer)).text == whole_answer(LONG)


async def test_a_peer_of_an_earlier_version_is_not_expected_to_beat(world, monkeypatch):
    monkeypatch.setattr(prompt_wire, "VERSION", 2)
    worker = await world.worker(held())
    await world.entry()
    client = world.client()
    answer = client.ask(LONG, token("ann@example.org"))
    await first_text(answer)
    for _ in range(3 * GONE_BEATS):
        await asyncio.sleep(prompt_pulse.BEAT_S)
    assert worker.engine.running == 1
    assert answer.silent_gateway is None
    await answer.aclose()


async def test_nothing_is_said_when_nothing_runs():
    beats, runs, silent = [], [True], asyncio.Event()
    pulse = Pulse(
        lambda: runs[0],
        lambda: beats.append(1),
        lambda: 0.001,
        silent.set,
        beats=GONE_BEATS,
    )
    pulse.begin()
    pulse.begin()
    await until(lambda: len(beats) == 3 * GONE_BEATS)
    assert not silent.is_set()  # the peer never said that it beats
    pulse.peer_beats = True
    await asyncio.wait_for(silent.wait(), 5)
    assert pulse.is_silent
    pulse.has_heard = True
    await until(lambda: not pulse.is_silent)
    runs[0] = False
    await until(lambda: pulse._timer is None)
    said = len(beats)
    runs[0] = True
    pulse.begin()
    assert not pulse.is_silent
    await until(lambda: len(beats) > said)
    runs[0] = False


async def test_a_long_path_may_be_silent_for_longer():
    pulse = Pulse(lambda: True, lambda: None, lambda: 1.0, beats=GONE_BEATS)
    pulse.peer_beats = True
    pulse._missed = GONE_BEATS
    assert not pulse.is_silent
    pulse._missed = int(8 / prompt_pulse.BEAT_S) + 1
    assert pulse.is_silent
