"""Ends members of the swarm in every way, and starts others in their place."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from peerchat.net.crypto.primitives import KeyPair

from .members import Member, SoakSwarm
from .users import Tally

WORKER_EVERY_S = 1.0
ENTRY_EVERY_S = 2.5

LEAVE_S = 0.5
"""A member that is stopped in order lets its answers end for so long."""

WAYS = ("killed", "killed", "silent", "stopped")

Start = Callable[[KeyPair | None], Awaitable[None]]


class Chaos:
    """Two hands: one for processors and one for gateways. The first of each lives on.

    Args:
        seed: decides who ends, how, and who comes.
    """

    def __init__(self, swarm: SoakSwarm, seed: str, tally: Tally) -> None:
        self._swarm = swarm
        self._seed = seed
        self._tally = tally

    async def run(self, until_s: float) -> None:
        """Go on until it is time."""
        swarm = self._swarm
        async with asyncio.TaskGroup() as group:
            for members, start, every_s in (
                (swarm.workers, swarm.start_worker, WORKER_EVERY_S),
                (swarm.entries, swarm.start_entry, ENTRY_EVERY_S),
            ):
                group.create_task(self._end_some(members, start, every_s, until_s))

    async def _end_some(
        self, members: list[Member], start: Start, every_s: float, until_s: float
    ) -> None:
        rng = random.Random(f"{self._seed} {every_s}")
        clock = asyncio.get_running_loop()
        while clock.time() + every_s < until_s:
            await asyncio.sleep(every_s)
            member = members.pop(rng.randrange(1, len(members)))
            way = rng.choice(WAYS)
            await self._end(member, way)
            # One that is started again is known to everybody; another one is not.
            await start(member.key_pair if rng.random() < 0.5 else None)
            self._swarm.forget_the_dead()

    async def _end(self, member: Member, way: str) -> None:
        name = member.role.metrics.role.value
        self._tally.ends[f"{name} {way}"] += 1
        if way == "stopped":
            await member.peer.swarm.withdraw()
            await member.peer.swarm.drain(LEAVE_S)
        elif way == "silent":
            member.peer.dht.be_silent()
        else:
            member.peer.dht.kill()
        # Whoever lost those that asked it computes for nobody.
        if way != "stopped" and not await member.has_stopped():
            self._tally.wrong.append(f"a {name} that was {way} goes on")
        member.peer.dht.kill()
        await member.close()
