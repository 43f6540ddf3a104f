"""Private swarms in the app's node: made, joined, switched, left, on loopback."""

import asyncio
import dataclasses
import os

import pytest

from peerchat.api import ApiError, Fragment, Phase
from tests.driver.private_homes import EMAIL, SERVED
from tests.driver.test_host_runtime import PASSWORD, Watched, pretend_other_process


async def ask(host, text="What is peerchat?"):
    events = [event async for event in host.ask(text)]
    return "".join(one.text for one in events if isinstance(one, Fragment))


async def test_a_swarm_made_in_the_app_is_alive_and_lets_others_in(homes):
    box = homes.settings("box", "")
    async with Watched(box) as one, Watched(homes.settings("laptop", "")) as other:
        for watched in (one, other):
            await watched.until(lambda s: s.phase is Phase.READY and s.mode == "solo")
        swarms = one.host.private_swarms
        with pytest.raises(ApiError, match="create one"):
            await swarms.invite()
        view = await swarms.create_swarm("Club", "")
        assert (view.name, view.is_owner, view.is_current) == ("club", True, True)
        state = one.host.state()
        assert (state.phase, state.mode, state.swarm) == (
            Phase.READY,
            "private",
            "club",
        )
        assert state.is_swarm_admin
        assert state.account is None
        assert {health.role for health in state.roles} == SERVED
        await one.host.register(EMAIL, PASSWORD)
        assert await ask(one.host)

        line = await swarms.invite(name="Bob")
        preview = await other.host.private_swarms.read_invite(line)
        assert preview.swarm == "club"
        joined = await other.host.private_swarms.join_swarm(line)
        assert (joined.is_admin, joined.roles) == (False, ())
        state = other.host.state()
        assert (state.mode, state.roles, state.is_swarm_admin) == ("private", (), False)
        await other.host.register("bob@example.org", PASSWORD)
        assert await ask(other.host)
        assert [one.state for one in await swarms.invites()] == ["used"]
        members = {member.name: member for member in await swarms.members()}
        await swarms.revoke_member(members["Bob"].peer)
        with pytest.raises(ApiError):
            await ask(other.host)
        state = await other.until(lambda s: s.phase is Phase.FAILED)
        assert "removed" in state.problem
        assert await ask(one.host)

        # Back to solo, and into the swarm again: threads and listeners stay.
        await one.host.private_swarms.use_swarm("")
        await one.until(lambda s: s.mode == "solo" and s.account is not None)
        assert await ask(one.host)
        await one.host.private_swarms.use_swarm("club")
        await one.until(lambda s: s.mode == "private" and s.account is not None)
        assert await ask(one.host)
        assert one.threads == {"peerchat node"}
        assert len(one.host._state._listeners) == 1


async def test_an_app_that_cannot_reach_the_swarm_goes_on_trying(homes):
    given = dataclasses.replace(homes.settings("box", ""), bootstrap=("127.0.0.1:9",))
    async with Watched(given) as one:
        await one.until(lambda s: s.phase is Phase.READY)
        view = await one.host.private_swarms.create_swarm("club")
        assert view.is_current
        assert one.host.state().phase is Phase.OFFLINE
        await one.host.private_swarms.use_swarm("")
        await one.until(lambda s: s.phase is Phase.READY and s.mode == "solo")
        with pytest.raises(ApiError, match="no swarm named"):
            await one.host.private_swarms.use_swarm("nowhere")


async def test_an_app_beside_a_serve_of_its_home_serves_nothing(homes):
    await homes.create()
    async with homes.serving("box") as box:
        pretend_other_process(box)
        async with Watched(homes.settings("box")) as one:
            state = await one.until(lambda s: s.phase is Phase.READY)
            assert state.roles == ()
            assert state.is_swarm_admin
            assert await one.host.private_swarms.invite()
        pretend_other_process(box, os.getpid())


async def test_an_app_closes_while_it_switches(homes):
    async with Watched(homes.settings("box", "")) as one:
        await one.until(lambda s: s.phase is Phase.READY)
        going = asyncio.ensure_future(one.host.private_swarms.create_swarm("club"))
        await one.until(lambda s: s.mode == "private")
        await one.host.close()
        with pytest.raises(ApiError, match="closed"):
            await asyncio.wait_for(going, 20)
