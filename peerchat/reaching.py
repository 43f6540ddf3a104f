"""Peers in the order in which they can be reached: happy eyeballs (RFC 8305).

A DHT names dead peers for up to twenty minutes, and each costs seconds until it is
known to be dead. So the next one is tried beside one that says nothing soon.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable

from .api import ApiError
from .net.errors import NetError
from .net.identity import PublicKey

PATIENCE_S = 0.5
"""Before the next peer is tried as well; RFC 8305 has 0.25 s for two addresses of one
host, but a hole is punched in more round trips than a TCP connection takes."""

AT_ONCE_MAX = 4


async def reached(
    keys: Iterable[PublicKey],
    reach: Callable[[PublicKey], Awaitable[None]],
    on_lost: Callable[[PublicKey], None] = lambda _key: None,
    is_ready: Callable[[PublicKey], bool] = lambda _key: False,
) -> AsyncGenerator[PublicKey, None]:
    """Give each peer once it is reached; close it when enough are known.

    Args:
        keys: best first; one is taken when its turn has come.
        reach: returns once the peer says something; NetError or ApiError if it does
            not.
        on_lost: called with each that cannot be reached, or was overtaken by one that
            was tried after it.
        is_ready: whether a peer may be given at once.
    """
    waiting = iter(keys)
    tasks: dict[asyncio.Task[None], PublicKey] = {}
    overtaken: set[asyncio.Task[None]] = set()
    is_more = True
    try:
        while True:
            if is_more and len(tasks) < AT_ONCE_MAX and not _any_done(tasks):
                key = next(waiting, None)
                is_more = key is not None
                if key is not None and is_ready(key):
                    overtaken.update(tasks)
                    yield key
                    continue
                if key is not None:
                    tasks[asyncio.ensure_future(_awaited(reach(key)))] = key
            if not tasks:
                return
            is_room = is_more and len(tasks) < AT_ONCE_MAX
            done, _ = await asyncio.wait(
                tasks,
                timeout=PATIENCE_S if is_room else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in [one for one in tasks if one in done]:
                begun = list(tasks)
                key = tasks.pop(task)
                if _is_reached(task):
                    overtaken.update(begun[: begun.index(task)])
                    yield key
                else:
                    on_lost(key)
    finally:
        for task, key in tasks.items():
            # One that has answered meanwhile cannot be cancelled, and is not lost.
            if task.cancel() and task in overtaken:
                on_lost(key)
        await asyncio.gather(*tasks, return_exceptions=True)


async def _awaited(work: Awaitable[None]) -> None:
    await work


def _any_done(tasks: Iterable[asyncio.Task[None]]) -> bool:
    return any(task.done() for task in tasks)


def _is_reached(task: asyncio.Task[None]) -> bool:
    try:
        task.result()
    except (NetError, ApiError):
        return False
    return True
