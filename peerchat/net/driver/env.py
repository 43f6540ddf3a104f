"""The production `Env`: the running loop's clock, the system's chance, real sockets."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable

from peerchat.net.env import Env

from .sockets import SystemDatagrams


class LoopClock:
    """The running loop's own clock, whichever loop that is."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def call_at(
        self, when_s: float, callback: Callable[[], None]
    ) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_at(when_s, callback)

    def call_soon(self, callback: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_soon(callback)

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)

    def unix_ms(self) -> int:
        return time.time_ns() // 1_000_000


class SystemRandom:
    """The operating system's randomness."""

    def __init__(self) -> None:
        self._random = secrets.SystemRandom()

    def token_bytes(self, length: int) -> bytes:
        return secrets.token_bytes(length)

    def randbelow(self, bound: int) -> int:
        return secrets.randbelow(bound)

    def uniform(self, low: float, high: float) -> float:
        return self._random.uniform(low, high)


def system_env() -> Env:
    """The environment of a program that runs for real."""
    return Env(LoopClock(), SystemRandom(), SystemDatagrams())
