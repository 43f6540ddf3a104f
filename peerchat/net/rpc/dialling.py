"""One attempt after the other to reach a peer that may just be coming back.

An attempt that began while the peer was dead, or elsewhere, gets nowhere for up to half
a minute, whoever waits for it. So another one begins beside it from time to time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TypeVar

from peerchat.net.errors import NetError

T = TypeVar("T")

AGAIN_S = 3.0
"""Between attempts: longer than punching a hole takes."""


async def dial(
    attempt: Callable[[], Coroutine[None, None, T]], discard: Callable[[T], None]
) -> T:
    """What the first attempt to succeed gives.

    Args:
        attempt: connects; and does what must not wait for another turn of the loop.
        discard: called with what comes of an attempt that nobody wants any more.

    Raises:
        NetError: that of the first attempt, which is the longest; the others end then.
    """
    loop = asyncio.get_running_loop()
    first = loop.create_task(attempt())
    later: asyncio.Task[T] | None = None
    try:
        while True:
            tasks = [first] if later is None else [first, later]
            done, _ = await asyncio.wait(
                tasks, timeout=AGAIN_S, return_when=asyncio.FIRST_COMPLETED
            )
            for task in tasks:
                if task in done and not _has_failed(task):
                    later = None if task is later else later
                    return task.result()
            if first in done:
                return first.result()
            if later is not None:
                await _end(later, discard)
            later = None if done else loop.create_task(attempt())
    finally:
        if later is not None:
            await _end(later, discard)
        if not first.done():
            await _end(first, discard)


def _has_failed(task: asyncio.Task[T]) -> bool:
    return isinstance(task.exception(), NetError)


async def _end(task: asyncio.Task[T], discard: Callable[[T], None]) -> None:
    """Nobody wants it any more."""
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled() and task.exception() is None:
        discard(task.result())
