"""Roles that crash, and a process that ends."""

import asyncio

import pytest

from peerchat.api import ApiError, ErrorCode, Role
from peerchat.services.supervisor import BACKOFF_MAX_S, Supervisor


class Quiet:
    """A swarm that remembers what it was told."""

    def __init__(self):
        self.calls = []

    async def withdraw(self):
        self.calls.append("withdraw")

    async def drain(self, timeout_s):
        self.calls.append(f"drain {timeout_s:g}")


class Scripted:
    """A role that crashes so often, then runs."""

    def __init__(self, crashes, swarm=None, *, is_ready_first=True):
        self.crashes = crashes
        self.swarm = swarm
        self.is_ready_first = is_ready_first
        self.detail = "fine"
        self.runs = 0

    async def run(self, ready):
        self.runs += 1
        if self.is_ready_first:
            ready()
        if self.runs <= self.crashes:
            raise RuntimeError(f"crash {self.runs}")
        ready()
        try:
            await asyncio.Event().wait()
        finally:
            if self.swarm is not None:
                self.swarm.calls.append("ended")


async def test_a_crashed_role_is_started_again_with_growing_delay():
    delays, healthy = [], asyncio.Event()
    restarted = []

    async def sleep(delay_s):
        delays.append(delay_s)

    def changed():
        health = supervisor.health()[0]
        if health.state == "running" and health.restarts == 10:
            healthy.set()

    supervisor = Supervisor(
        Quiet(), on_change=changed, on_restart=restarted.append, sleep=sleep
    )
    role = Scripted(10)
    await supervisor.start({Role.AUTH: role})
    async with asyncio.timeout(5):
        await healthy.wait()
    assert delays == [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert max(delays) == BACKOFF_MAX_S
    assert restarted == [Role.AUTH] * 10
    assert supervisor.health()[0].detail == "fine"
    await supervisor.stop()


async def test_health_shows_why_a_role_is_down():
    parked = asyncio.Event()

    async def sleep(_delay_s):
        await parked.wait()

    supervisor = Supervisor(Quiet(), sleep=sleep)
    await supervisor.start({Role.GATEWAY: Scripted(99)})
    await asyncio.sleep(0)
    health = supervisor.health()[0]
    assert (health.state, health.detail) == ("restarting", "crash 1")
    await supervisor.stop()
    assert supervisor.health()[0].state == "stopped"


async def test_a_role_that_never_got_ready_fails_the_start():
    supervisor = Supervisor(Quiet())
    with pytest.raises(RuntimeError, match="crash 1"):
        await supervisor.start({Role.AUTH: Scripted(9, is_ready_first=False)})
    await supervisor.stop()


async def test_a_role_that_ends_by_itself_has_crashed():
    class Ends:
        async def run(self, ready):
            ready()

    waited = asyncio.Event()

    async def sleep(_delay_s):
        waited.set()
        await asyncio.Event().wait()

    supervisor = Supervisor(Quiet(), sleep=sleep)
    await supervisor.start({Role.AUTH: Ends()})
    await waited.wait()
    assert supervisor.health()[0].restarts == 1
    await supervisor.stop()


async def test_stopping_withdraws_then_drains_then_ends():
    swarm = Quiet()
    supervisor = Supervisor(swarm)
    await supervisor.start({Role.AUTH: Scripted(0, swarm)})
    await supervisor.stop(10)
    await supervisor.stop(10)
    assert swarm.calls == ["withdraw", "drain 10", "ended"]


async def test_roles_with_callers_of_their_own_are_drained_with_the_swarm():
    class Serving(Scripted):
        async def drain(self, timeout_s):
            self.swarm.calls.append(f"drain role {timeout_s:g}")

    swarm = Quiet()
    supervisor = Supervisor(swarm)
    await supervisor.start({Role.BRIDGE: Serving(0, swarm)})
    await supervisor.stop(10)
    assert swarm.calls == ["withdraw", "drain 10", "drain role 10", "ended"]


async def test_without_time_nothing_is_drained():
    swarm = Quiet()
    supervisor = Supervisor(swarm)
    await supervisor.start({Role.AUTH: Scripted(0, swarm)})
    await supervisor.stop(0)
    assert swarm.calls == ["withdraw", "ended"]


async def test_an_expected_failure_at_the_start_is_told_once(caplog):
    class Refused:
        async def run(self, ready):
            raise ApiError(ErrorCode.INTERNAL, "port 3000 is taken")

    supervisor = Supervisor(Quiet())
    with pytest.raises(ApiError, match="port 3000"):
        await supervisor.start({Role.BRIDGE: Refused()})
    await supervisor.stop()
    assert caplog.records == []


async def test_an_expected_failure_is_logged_without_a_traceback(caplog):
    class Refused:
        async def run(self, ready):
            ready()
            raise ApiError(ErrorCode.INTERNAL, "port 3000 is taken")

    supervisor = Supervisor(Quiet())
    await supervisor.start({Role.BRIDGE: Refused()})
    await supervisor.stop()
    (record,) = caplog.records
    assert "is started again: port 3000" in record.getMessage()
    assert record.exc_info is None
