"""Who of those that a look-up gave is of the private swarm: found out beside all else.

Anybody who sees a topic in the DHT can announce peers under it that let everyone
connect and never say a word. Asked one after the other, those would hold a caller up
for minutes. So all are looked at together, the first good one is enough to go on, and
those that show nothing in time are dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence

from peerchat.api import Role
from peerchat.net.errors import NetError
from peerchat.net.identity import PublicKey

PROOF_TIMEOUT_S = 3.0
"""A hello is the first message of a peer. Whoever needs longer than this, to be reached
included, comes after those that do not."""

AT_ONCE = 16
"""Connections being made; a few rounds see all that a look-up gives."""


class Proving:
    """Looks at peers in tasks of its own.

    Args:
        prove: returns when a peer showed that it has a role; raises `NetError`.
        drop: takes a peer that did not out of what is found.
    """

    def __init__(
        self,
        prove: Callable[[PublicKey, Role], Awaitable[None]],
        drop: Callable[[Role, PublicKey], None],
    ) -> None:
        self._prove = prove
        self._drop = drop
        self._room = asyncio.Semaphore(AT_ONCE)
        self._looking: dict[PublicKey, asyncio.Task[None]] = {}
        """At most what look-ups of all roles gave."""

    def look_at(self, role: Role, keys: Iterable[PublicKey]) -> None:
        """Begin with those that are not being looked at."""
        loop = asyncio.get_running_loop()
        for key in keys:
            if key not in self._looking:
                self._looking[key] = loop.create_task(self._look(role, key))

    async def wait_for_one(
        self, keys: Sequence[PublicKey], is_good: Callable[[PublicKey], bool]
    ) -> None:
        """Return once one of the peers is good, or none is being looked at."""
        while not any(map(is_good, keys)):
            tasks = [self._looking[key] for key in keys if key in self._looking]
            if not tasks:
                return
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)

    async def close(self) -> None:
        """Look at nobody any more."""
        tasks = list(self._looking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(self, role: Role, key: PublicKey) -> None:
        try:
            async with self._room, asyncio.timeout(PROOF_TIMEOUT_S):
                await self._prove(key, role)
        except (NetError, TimeoutError):
            self._drop(role, key)
        finally:
            self._looking.pop(key, None)
