"""Looks after running answers: ends those whose time is over, whose processor stalls or
seems gone. One look at all of them every fifth of a second, instead of timers for each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from peerchat.api import Answer, ApiError, ErrorCode

from .processor_state import Processor
from .tasks import Tasks

LOOK_EVERY_S = 0.2

FIRST_SHARE = 3
"""As many times longer may the first fragment take: models load, prompts are read."""


class Watchdog:
    """Over one answer of one processor.

    Args:
        answer: closed when the dog bites.
        processor: who gives it.
        end_s: when the request's time is over.
        stall_s: longest silence once text came.
        may_leave: whether somebody else could go on.
    """

    def __init__(
        self,
        answer: Answer,
        processor: Processor,
        *,
        end_s: float,
        stall_s: float,
        may_leave: Callable[[], bool],
    ) -> None:
        self.verdict: ApiError | None = None
        """Why the answer was closed."""
        self.waiting_since_s: float | None = None
        """None while the reader is busy: it is not the processor's silence then."""
        self.has_first = False
        self.answer = answer
        self._processor = processor
        self._end_s = end_s
        self._stall_s = stall_s
        self._may_leave = may_leave

    def judge(self, now_s: float) -> bool:
        """Whether the answer is to be closed; `verdict` says why."""
        if self.verdict is None:
            self.verdict = self._late(now_s) or self._silent(now_s)
            return self.verdict is not None
        return False

    def is_late(self, now_s: float) -> bool:
        """Whether the request's time is over."""
        return now_s >= self._end_s

    def _late(self, now_s: float) -> ApiError | None:
        return out_of_time() if self.is_late(now_s) else None

    def _silent(self, now_s: float) -> ApiError | None:
        if self.waiting_since_s is None:
            return None
        one = self._processor
        silent_s = now_s - self.waiting_since_s
        unheard_s = min(silent_s, now_s - one.seen_s)
        limit_s = self._stall_s * (1 if self.has_first else FIRST_SHARE)
        is_gone = one.pushes and unheard_s > one.suspect_after_s()
        if not (is_gone or silent_s > limit_s) or not self._may_leave():
            return None
        if is_gone:
            return ApiError(
                ErrorCode.PEER_LOST,
                f"The processor {one.key.hex()[:8]} is silent.",
                status=502,
            )
        return ApiError(
            ErrorCode.TIMEOUT,
            f"The processor {one.key.hex()[:8]} stalled for {silent_s:.0f} s.",
            status=504,
        )


class Patrol:
    """All watchdogs of a gateway."""

    def __init__(self) -> None:
        self._dogs: set[Watchdog] = set()
        self._closing = Tasks()
        self._is_needed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._dogs)

    def add(self, dog: Watchdog) -> None:
        """Watch from now on."""
        self._dogs.add(dog)
        self._is_needed.set()

    def remove(self, dog: Watchdog) -> None:
        """The answer is over."""
        self._dogs.discard(dog)

    async def run(self) -> None:
        """Look again and again while there is anything to look at."""
        while True:
            if not self._dogs:
                self._is_needed.clear()
                await self._is_needed.wait()
            await asyncio.sleep(LOOK_EVERY_S)
            self.look()

    def look(self) -> None:
        """Close what has to be closed."""
        now_s = asyncio.get_running_loop().time()
        for dog in list(self._dogs):
            if dog.judge(now_s):
                self._closing.start(dog.answer.aclose())

    async def close(self) -> None:
        """Wait for what is being closed."""
        await self._closing.close()


def out_of_time() -> ApiError:
    """The request took longer than it may."""
    return ApiError(
        ErrorCode.TIMEOUT,
        "The request's time is over before its answer; ask for less.",
        status=504,
    )
