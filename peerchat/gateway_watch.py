"""Looks after running answers: leaves a gateway that is silent while another is not.

The silent one is asked too, over a new connection where that must be: after a sleep, or
in a new network, only the old connection is dead. When nobody is heard, it is the
network that pauses, and the answer waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import aclosing

from .api import ApiError
from .failover_answer import FailoverAnswer
from .net.identity import PublicKey
from .reaching import reached

LOOK_EVERY_S = 0.1
PROBED_MAX = 3
"""Other gateways that are asked whether they are there."""


class GatewayWatch:
    """One look at all answers every tenth of a second, while there are any.

    Args:
        answers: those that run, now.
        find: the gateways of the swarm, best first.
        reach: returns once a gateway says that it is there, and raises if it cannot.
    """

    def __init__(
        self,
        answers: Collection[FailoverAnswer],
        find: Callable[[], Awaitable[Sequence[PublicKey]]],
        reach: Callable[[PublicKey], Awaitable[None]],
    ) -> None:
        self._answers = answers
        self._find = find
        self._reach = reach
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """There is an answer to look after; idempotent."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Look no more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if not self._answers:
                return
            told = (answer.silent_gateway for answer in self._answers)
            silent = {gateway for gateway in told if gateway is not None}
            if silent and await self._somebody_there(silent) not in (None, *silent):
                await self._leave(silent)

    async def _somebody_there(self, silent: set[PublicKey]) -> PublicKey | None:
        """Whoever answers first; one who is silent has lost its old connection then."""
        try:
            others = [key for key in await self._find() if key not in silent]
        except ApiError:
            others = []
        asked = [*others[:PROBED_MAX], *silent]
        async with aclosing(reached(asked, self._reach)) as found:
            return await anext(found, None)

    async def _leave(self, silent: set[PublicKey]) -> None:
        for answer in list(self._answers):
            if answer.silent_gateway in silent:  # and not heard meanwhile
                await answer.leave()
