"""One connection to a peer that may just be coming back.

An attempt that began while the peer was dead, or elsewhere, gets nowhere for up to half
a minute, whoever waits for it. So another one begins beside it from time to time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from peerchat.net.driver.connection import Connection
from peerchat.net.errors import NetError

AGAIN_S = 3.0
"""Between attempts: longer than punching a hole takes."""


async def dial(connect: Callable[[], Awaitable[Connection]]) -> Connection:
    """The connection of the first attempt to succeed.

    Args:
        connect: makes one attempt.

    Raises:
        NetError: that of the first attempt, which is the longest; the others end then.
    """
    first = asyncio.ensure_future(_attempt(connect))
    later: asyncio.Task[Connection] | None = None
    try:
        while True:
            tasks = [first] if later is None else [first, later]
            done, _ = await asyncio.wait(
                tasks, timeout=AGAIN_S, return_when=asyncio.FIRST_COMPLETED
            )
            for task in tasks:
                if task in done and (found := _found(task)) is not None:
                    later = None if task is later else later
                    return found
            if first in done:
                return first.result()
            await _end(later)
            later = asyncio.ensure_future(_attempt(connect)) if not done else None
    finally:
        await _end(later)
        if not first.done():
            await _end(first)


async def _attempt(connect: Callable[[], Awaitable[Connection]]) -> Connection:
    return await connect()


def _found(task: asyncio.Task[Connection]) -> Connection | None:
    try:
        return task.result()
    except NetError:
        return None


async def _end(task: asyncio.Task[Connection] | None) -> None:
    """Nobody wants it any more."""
    if task is None:
        return
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled() and task.exception() is None:
        task.result().destroy()
