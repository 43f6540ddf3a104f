"""What a guesser of passwords learns, and what the bridge believes."""

import asyncio
import math
import time

import aiohttp
import pytest

from peerchat.api import ApiError, Role
from peerchat.gateways import Gateways

from .town import PASSWORD, USER, refusals

pytestmark = pytest.mark.asyncio(loop_scope="session")

GUESSES = 200


async def member(town):
    """A certified member that may ask, with a client key of its own."""
    one = await town.intruder()
    one.with_chain(town.certificate(one.own))
    return one


async def try_password(gateways, email, password="not the password"):
    began_s = time.perf_counter()
    with pytest.raises(ApiError) as caught:
        await gateways.login(email, password)
    return caught.value, time.perf_counter() - began_s


async def test_enumeration_by_answer_and_by_time(town):
    """Somebody with an account and nobody at all are told the same, as late."""
    names = [f"known{n}@example.org" for n in range(4)]
    for name in names:
        await Gateways(town.laptop.swarm).register(name, PASSWORD)
    guesser = await member(town)
    gateways = Gateways(guesser.swarm)
    said, times = {}, {"known": [], "nobody": []}
    for n, name in enumerate(names):
        for kind, email in (("known", name), ("nobody", f"nobody{n}@example.org")):
            error, took_s = await try_password(gateways, email)
            said.setdefault(kind, set()).add((error.status, error.message))
            times[kind].append(took_s)
    assert said["known"] == said["nobody"]
    assert len(said["known"]) == 1
    # The fastest of each: what else runs on the machine only adds to it. Without the
    # hash of nobody's the ratio would be above 5.
    known, nobody = (min(took) for took in times.values())
    assert 0.5 < known / nobody < 2
    await guesser.close()


async def test_200_wrong_passwords(town, caplog):
    """Guessed by several members at once, at both gateways."""
    victim = "victim@example.org"
    await Gateways(town.laptop.swarm).register(victim, PASSWORD)
    members = [await member(town) for _ in range(4)]
    before = refusals(town.box, Role.AUTH, "login", "unauthorized")
    began_s = time.monotonic()
    async with town.unharmed():
        found = await asyncio.gather(
            *(
                try_password(Gateways(one.swarm), victim, f"guess {n:05}")
                for n in range(GUESSES // len(members))
                for one in members
            )
        )
        await town.laptop.client.login(USER, PASSWORD)
    statuses = [error.status for error, _ in found]
    assert set(statuses) == {401, 429}
    # Five are free; then each delay is twice the one before, so that the longer this
    # machine takes, the more are judged.
    judged_max = 6 + math.log2(1 + time.monotonic() - began_s)
    assert statuses.count(401) <= judged_max
    judged = refusals(town.box, Role.AUTH, "login", "unauthorized") - before
    assert judged == statuses.count(401)
    both = (town.box, town.far)
    assert sum(refusals(n, Role.GATEWAY, "login", "rate_limited") for n in both) > 100
    assert "guess 0" not in caplog.text
    for one in members:
        await one.close()


async def test_a_spoofed_address_at_the_bridge(town, caplog):
    """Each guess comes, as it says, from somewhere else; that counts for nothing."""
    await town.homes.join("front")
    front = town.homes.serving("front", frozenset({Role.BRIDGE}), ollama_port=0)
    async with front as node, aiohttp.ClientSession() as http, town.unharmed():
        statuses = []
        for n in range(16):
            spoofed = f"203.0.113.{n}"
            headers = {"X-Forwarded-For": spoofed, "X-Real-IP": spoofed}
            body = {"email": f"u{n}@example.org", "password": "guess 12345"}
            url = f"{node.http}/login"
            async with http.post(url, json=body, headers=headers) as answer:
                statuses.append(answer.status)
        assert statuses[0] == 401
        assert statuses[-1] == 429
        assert statuses.count(401) <= 11
        assert "from 127.0.0.1" in caplog.text
        assert "from 203.0.113" not in caplog.text
        # Nor does it make somebody from elsewhere a user of this machine.
        chat = {"model": "guide", "messages": [{"role": "user", "content": "hi"}]}
        far = {"X-Forwarded-For": "127.0.0.1"}
        url = f"{node.ollama}/api/chat"
        async with http.post(url, json=chat, headers=far) as answer:
            assert answer.status == 401
    assert "guess 12345" not in caplog.text
