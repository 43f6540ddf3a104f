"""What `peerchat doctor` says of a private swarm."""

from __future__ import annotations

import dataclasses
from contextlib import asynccontextmanager

import pytest

from peerchat.api import ApiError, ErrorCode, Role
from peerchat.cli.doctor_swarm import check_swarm
from peerchat.services.certifier import own_certificate
from peerchat.services.swarm import Swarm
from peerchat.services.trust import Trust
from peerchat.swarm_files import swarm_dir
from tests.unit.private_world import HomeOf, World


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path)


async def member_of(owner: HomeOf, home: HomeOf) -> str:
    """Its key, once it is in."""
    line, _ = await owner.swarms.invite("team")
    async with owner.enrolment():
        await home.swarms.join(line)
    return own_certificate(home.membership()).peer.hex()


async def findings(home: HomeOf, **more) -> dict[str, tuple[bool | None, str]]:
    settings = dataclasses.replace(home.settings, swarm="team")
    how = {"open_dht": home.open_dht, "now_s": home.clock, **more}
    return {
        one.name: (one.is_ok, one.detail) for one in await check_swarm(settings, **how)
    }


async def test_without_a_swarm_there_is_nothing_to_say(world: World):
    assert await check_swarm(world.home("alone").settings) == []


async def test_a_member_in_order(world: World):
    owner, home = await world.owner(), world.home("member")
    await member_of(owner, home)
    found = await findings(home)
    assert {name: is_ok for name, (is_ok, _) in found.items()} == {
        "modes": True,
        "record": None,  # there is none before the first change
        "member": True,
        "peers": None,  # nobody serves
    }
    assert "roles: none" in found["member"][1]


async def test_who_is_online(world: World):
    owner, home = await world.owner(), world.home("member")
    await member_of(owner, home)
    dht, own = world.network.node(), owner.identity
    trust = Trust(dht, owner.homes, "team", own, now_s=world.clock)
    swarm = Swarm(dht, trust.identity, trust=trust)
    await swarm.serve(Role.GATEWAY, {})
    await swarm.serve(Role.AUTH, {})
    is_ok, words = (await findings(home))["peers"]
    assert (is_ok, "nobody is online as processor" in words) == (None, True)
    await swarm.serve(Role.PROCESSOR, {})
    is_ok, words = (await findings(home))["peers"]
    assert (is_ok, words) == (True, "online: gateway 1, auth 1, processor 1")
    await swarm.close()


async def test_who_was_removed_is_told(world: World):
    owner, home = await world.owner(), world.home("member")
    await owner.swarms.revoke("team", await member_of(owner, home))
    found = await findings(home)
    assert found["member"] == (False, "This home was removed from the swarm team.")
    assert found["record"][0]


async def test_an_expired_certificate_and_a_clock_that_is_behind(world: World):
    owner, home = await world.owner(), world.home("member")
    await member_of(owner, home)
    now_s = world.clock.at_s
    world.clock.at_s = now_s + 3 * 365 * 24 * 3600
    assert "has expired" in (await findings(home))["member"][1]
    world.clock.at_s = now_s - 3600
    is_ok, words = (await findings(home))["clock"]
    assert (is_ok, "60 minutes or more behind" in words) == (False, True)


async def test_files_that_others_can_read(world: World):
    owner = await world.owner()
    path = swarm_dir(owner.settings.home, "team") / "swarm.json"
    path.chmod(0o644)
    is_ok, words = (await findings(owner))["modes"]
    assert (is_ok, "chmod 600" in words) == (False, True)


async def test_a_record_that_nobody_has_and_a_network_that_is_not_there(world: World):
    owner = await world.owner()
    await owner.swarms.rotate("team")
    elsewhere = World(world.folder / "elsewhere").network.node()

    @asynccontextmanager
    async def other(_hints):
        yield elsewhere

    is_ok, words = (await findings(owner, open_dht=other))["record"]
    assert (is_ok, "no DHT node has the swarm record" in words) == (False, True)

    @asynccontextmanager
    async def none(_hints):
        raise ApiError(ErrorCode.DHT_UNREACHABLE, "No DHT node answers.", status=503)
        yield

    assert "out of date" in (await findings(owner, open_dht=none))["record"][1]
