"""How many prompts each user may have accepted: a window that slides.

Accepted prompts are rows of the store, so the window survives a restart and is one for
all gateways of a home. A prompt is admitted in one transaction; memory holds nothing.

Time is wall-clock time that never steps back while the process runs. Rows of the
future, left by a clock that was wrong, count as of now: they neither lock a user out
for long nor are they given away.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from peerchat.api import ApiError, ErrorCode, RateLimit

from .messages import RATE_LIMITED_MESSAGE
from .store import Store, accepted_prompts

logger = logging.getLogger(__name__)

PURGE_EVERY = 200
"""Admissions between two removals of everybody's old rows."""

_row = accepted_prompts.c


class SteadyClock:
    """Unix milliseconds that follow the wall clock forward, never backward."""

    def __init__(self, wall_s: Callable[[], float] = time.time) -> None:
        self._wall_s = wall_s
        self._newest_ms = 0

    def __call__(self) -> int:
        self._newest_ms = max(self._newest_ms, int(self._wall_s() * 1000))
        return self._newest_ms


@dataclass(frozen=True, slots=True)
class Admission:
    """A prompt that was accepted; give it to `Limiter.take_back` if it came to
    nothing through no fault of the user."""

    row_id: int
    rate_limit: RateLimit


class Limiter:
    """At most ``max_requests`` accepted prompts of a user in any window.

    Args:
        store: where they are kept.
        max_requests: at least 1.
        window_minutes: more than 0.
        now_ms: Unix time; never steps back.
    """

    def __init__(
        self,
        store: Store,
        max_requests: int = 10,
        window_minutes: float = 1.0,
        *,
        now_ms: Callable[[], int] | None = None,
    ) -> None:
        self.max_requests = max_requests
        self.window_minutes = window_minutes
        self._window_ms = max(1, round(window_minutes * 60_000))
        self._store = store
        self._now_ms = now_ms or SteadyClock()
        self._admissions = 0

    async def admit(self, user: str) -> Admission:
        """Take one of the user's requests.

        Raises:
            ApiError: RATE_LIMITED (429) with `retry_after_s`; STORE_FAILED.
        """
        limit, row_id = await self._store.run(lambda c: self._admit(c, user))
        if row_id is None:
            raise ApiError(
                ErrorCode.RATE_LIMITED,
                RATE_LIMITED_MESSAGE,
                status=429,
                retry_after_s=limit.reset_s,
                rate_limit=limit,
            )
        return Admission(row_id, limit)

    async def take_back(self, admission: Admission) -> None:
        """The prompt was not accepted after all."""
        query = delete(accepted_prompts).where(_row.id == admission.row_id)

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(query)

        await self._store.run(work)

    async def status(self, user: str) -> RateLimit:
        """What the user has left; takes nothing."""

        async def work(connection: AsyncConnection) -> RateLimit:
            return await self._limit(connection, user, self._now_ms())

        return await self._store.run(work)

    async def _admit(
        self, connection: AsyncConnection, user: str
    ) -> tuple[RateLimit, int | None]:
        now_ms = self._now_ms()
        await self._drop_old(connection, user, now_ms)
        before = await self._limit(connection, user, now_ms)
        if before.remaining == 0:
            return before, None
        query = insert(accepted_prompts).values(user=user, at_ms=now_ms)
        key = (await connection.execute(query)).inserted_primary_key
        assert key is not None
        return await self._limit(connection, user, now_ms), int(key[0])

    async def _drop_old(
        self, connection: AsyncConnection, user: str, now_ms: int
    ) -> None:
        query = delete(accepted_prompts).where(_row.at_ms <= now_ms - self._window_ms)
        self._admissions += 1
        if self._admissions % PURGE_EVERY != 1:
            query = query.where(_row.user == user)
        await connection.execute(query)

    async def _limit(
        self, connection: AsyncConnection, user: str, now_ms: int
    ) -> RateLimit:
        is_users = _row.user == user
        future = update(accepted_prompts).where(is_users, _row.at_ms > now_ms)
        await connection.execute(future.values(at_ms=now_ms))
        start_ms = now_ms - self._window_ms
        live = (is_users, _row.at_ms > start_ms)
        count, oldest_ms = (
            await connection.execute(
                select(func.count(), func.min(_row.at_ms)).where(*live)
            )
        ).one()
        if count > self.max_requests:
            # The limit was lowered: several have to go before one is free.
            newest_first = select(_row.at_ms).where(*live).order_by(_row.at_ms.desc())
            oldest_ms = await connection.scalar(
                newest_first.limit(1).offset(self.max_requests - 1)
            )
        wait_ms = 0 if oldest_ms is None else oldest_ms - start_ms
        return RateLimit(
            remaining=max(0, self.max_requests - count),
            max_requests=self.max_requests,
            reset_s=math.ceil(wait_ms / 1000),
            window_minutes=self.window_minutes,
        )
