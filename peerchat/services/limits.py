"""How many prompts each user may have accepted: a window that slides.

Accepted prompts are rows of the store, so the window survives a restart and is one for
all gateways of a home, or of a PostgreSQL server. A prompt is admitted in one
transaction, alone for its user; memory holds nothing.

Time is wall-clock time that never steps back while the process runs, or the server's,
so that gateways with different clocks agree. Rows of the future, left by a clock that
was wrong, count as of now: they neither lock a user out for long nor are they given
away.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from peerchat.api import ApiError, ErrorCode, RateLimit

from .messages import RATE_LIMITED_MESSAGE
from .quick_window import Locked, QuickWindow
from .store import Store, accepted_prompts, database_ms, exclusive

logger = logging.getLogger(__name__)

REQUEST_USES_MAX = 4
"""A request that comes again, because its gateway was lost, counts once; but not more
often than gateways are lost in a row."""

LOCKED_WAITS_S = (0.002, 0.004, 0.008, 0.016, 0.03)
"""Between tries at a file that another transaction holds."""

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


@dataclass(frozen=True, slots=True)
class _Window:
    """A user's accepted prompts that still count."""

    count: int
    first_ms: int | None
    """Of the one whose end makes room."""


class Limiter:
    """At most ``max_requests`` accepted prompts of a user in any window.

    Args:
        store: where they are kept.
        max_requests: at least 1; of users without a limit of their own.
        window_minutes: more than 0.
        now_ms: Unix time; never steps back. The server's when the store has one.
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
        self._now_ms = now_ms
        self._steady_ms = SteadyClock()
        self._admissions = 0

    async def admit(
        self, user: str, max_requests: int | None = None, *, request: str = ""
    ) -> Admission:
        """Take one of the user's requests.

        Args:
            user: whose window it is.
            max_requests: the user's own limit; None: everybody's.
            request: a hash that tells it from others; the same one again is not
                counted again while it is in the window.

        Raises:
            ApiError: RATE_LIMITED (429) with `retry_after_s`; STORE_FAILED.
        """
        most = self.max_requests if max_requests is None else max_requests
        self._admissions += 1
        if admission := await self._admit_soon(user, most, request):
            return admission
        limit, row_id = await self._store.run(
            lambda c: self._admit(c, user, most, request)
        )
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

    async def status(self, user: str, max_requests: int | None = None) -> RateLimit:
        """What the user has left; takes nothing."""
        most = self.max_requests if max_requests is None else max_requests

        async def work(connection: AsyncConnection) -> RateLimit:
            await exclusive(connection, f"limit {user}")
            now_ms = await self._now(connection)
            window = await self._window(connection, user, most, now_ms)
            return self._rate_limit(window, most, now_ms)

        return await self._store.run(work)

    async def _admit(
        self, connection: AsyncConnection, user: str, most: int, request: str
    ) -> tuple[RateLimit, int | None]:
        # The time is read after the wait: of two gateways the later one is later.
        await exclusive(connection, f"limit {user}")
        now_ms = await self._now(connection)
        await self._drop_old(connection, user, now_ms)
        window = await self._window(connection, user, most, now_ms)
        known = await self._counted(connection, user, request)
        if known is not None or window.count >= most:
            return self._rate_limit(window, most, now_ms), known
        values = {"user": user, "at_ms": now_ms, "request": request}
        query = insert(accepted_prompts).values(values)
        key = (await connection.execute(query)).inserted_primary_key
        assert key is not None
        first_ms = now_ms if window.first_ms is None else window.first_ms
        window = _Window(window.count + 1, first_ms)
        return self._rate_limit(window, most, now_ms), int(key[0])

    async def _admit_soon(self, user: str, most: int, request: str) -> Admission | None:
        """The ordinary case; None leaves it to a transaction.

        While one holds the file it is waited for: if all who come meanwhile made
        transactions of their own, there would be no end of them.
        """
        quick = self._store.quick
        if quick is None or self._has_to_purge:
            return None
        for wait_s in LOCKED_WAITS_S:
            try:
                return self._admit_quickly(quick, user, most, request)
            except Locked:
                await asyncio.sleep(wait_s)
        return None

    def _admit_quickly(
        self, quick: QuickWindow, user: str, most: int, request: str
    ) -> Admission | None:
        now_ms = (self._now_ms or self._steady_ms)()
        after_ms = now_ms - self._window_ms
        admitted = quick.admit(user, most, request, now_ms, after_ms)
        if admitted is None:
            return None
        window = _Window(admitted.count, admitted.first_ms)
        limit = self._rate_limit(window, most, now_ms)
        return Admission(admitted.row_id, limit)

    @property
    def _has_to_purge(self) -> bool:
        return self._admissions % PURGE_EVERY == 1

    async def _counted(
        self, connection: AsyncConnection, user: str, request: str
    ) -> int | None:
        """The row of a request that was accepted before, used once more."""
        if not request:
            return None
        is_it = (_row.user == user, _row.request == request)
        is_left = _row.uses < REQUEST_USES_MAX
        row_id = await connection.scalar(select(_row.id).where(*is_it, is_left))
        if row_id is None:
            return None
        again = update(accepted_prompts).where(_row.id == row_id)
        await connection.execute(again.values(uses=_row.uses + 1))
        return int(row_id)

    async def _now(self, connection: AsyncConnection) -> int:
        if self._now_ms is not None:
            return self._now_ms()
        if self._store.is_shared:
            return await database_ms(connection)
        return self._steady_ms()

    async def _drop_old(
        self, connection: AsyncConnection, user: str, now_ms: int
    ) -> None:
        is_old = _row.at_ms <= now_ms - self._window_ms
        if not self._has_to_purge:
            await connection.execute(
                delete(accepted_prompts).where(is_old, _row.user == user)
            )
            return
        # Two that remove everybody's at once would wait for each other's rows.
        free = select(_row.id).where(is_old).with_for_update(skip_locked=True)
        await connection.execute(delete(accepted_prompts).where(_row.id.in_(free)))

    async def _window(
        self, connection: AsyncConnection, user: str, most: int, now_ms: int
    ) -> _Window:
        is_users = _row.user == user
        future = update(accepted_prompts).where(is_users, _row.at_ms > now_ms)
        await connection.execute(future.values(at_ms=now_ms))
        live = (is_users, _row.at_ms > now_ms - self._window_ms)
        count, first_ms = (
            await connection.execute(
                select(func.count(), func.min(_row.at_ms)).where(*live)
            )
        ).one()
        if count > most:
            # The limit was lowered: several have to go before one is free.
            newest_first = select(_row.at_ms).where(*live).order_by(_row.at_ms.desc())
            first_ms = await connection.scalar(newest_first.limit(1).offset(most - 1))
        return _Window(count, first_ms)

    def _rate_limit(self, window: _Window, most: int, now_ms: int) -> RateLimit:
        first_ms = window.first_ms
        wait_ms = 0 if first_ms is None else first_ms + self._window_ms - now_ms
        return RateLimit(
            remaining=max(0, most - window.count),
            max_requests=most,
            reset_s=math.ceil(wait_ms / 1000),
            window_minutes=self.window_minutes,
        )
