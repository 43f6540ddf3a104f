"""Looks after running answers: leaves a gateway that is silent while there are others.

Without others it is waited for: it may be the network's pause, not its death.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence

from .api import ApiError
from .failover_answer import FailoverAnswer
from .net.identity import PublicKey

LOOK_EVERY_S = 0.25


class GatewayWatch:
    """One look at all answers every quarter of a second, while there are any.

    Args:
        answers: those that run, now.
        find: the gateways of the swarm.
    """

    def __init__(
        self,
        answers: Collection[FailoverAnswer],
        find: Callable[[], Awaitable[Sequence[PublicKey]]],
    ) -> None:
        self._answers = answers
        self._find = find
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
            for answer in list(self._answers):
                gateway = answer.silent_gateway
                if gateway is not None and await self._has_others(gateway):
                    await answer.leave()

    async def _has_others(self, gateway: PublicKey) -> bool:
        try:
            return any(key != gateway for key in await self._find())
        except ApiError:
            return False
