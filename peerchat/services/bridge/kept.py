"""A value that is asked for once and given to everyone who asks soon after."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """Holds what an expensive call gave; callers at the same time wait for one call."""

    def __init__(self, kept_s: float) -> None:
        self._kept_s = kept_s
        self._lock = asyncio.Lock()
        self._value: T | None = None
        self._until_s = 0.0

    async def get(self, call: Callable[[], Awaitable[T]]) -> T:
        """The value; what ``call`` raises is raised and not kept."""
        loop = asyncio.get_running_loop()
        async with self._lock:
            if self._value is None or loop.time() >= self._until_s:
                self._value = await call()
                self._until_s = loop.time() + self._kept_s
            return self._value
