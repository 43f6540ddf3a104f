"""What a gateway knows of accounts: which sessions were ended, and own limits.

A token is valid by itself for 24 hours; this table is what makes it end sooner. It is
filled from auth peers or, where the gateway has the accounts' own store, from there. A
gateway that never heard of any change accepts no token: it cannot know which are over.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from peerchat.api import ApiError, ErrorCode

from .account_messages import CHANGES_MAX, AccountChange, ChangesReply
from .account_table import FORGET_MS, Status, changed_since
from .accounts import SESSION_ENDED
from .store import Store
from .tokens import Claims

logger = logging.getLogger(__name__)

KNOWN_MAX = 100_000
"""Accounts with an own limit or ended sessions; some 30 MB."""

PAGES_MAX = KNOWN_MAX // CHANGES_MAX
"""Answers of one round; a peer that always has more is wrong."""

OVERLAP_MS = 5 * 60 * 1000
"""Asked for again each time: transactions take their time before they end, and clocks
of machines differ."""

RETRY_S = (1.0, 2.0, 5.0)
"""After a round that failed; then as often as it is."""


class ChangeSource(Protocol):
    """Gives what happened to accounts."""

    async def changes(self, since_ms: int, after: str) -> Sequence[ChangesReply]:
        """One page of each that keeps accounts; raises `ApiError` when nobody does."""


class StoreChanges:
    """The accounts of the store that gateway and auth share."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def changes(self, since_ms: int, after: str) -> Sequence[ChangesReply]:
        """One page; raises `ApiError` with STORE_FAILED."""
        found = await self._store.run(
            lambda c: changed_since(c, since_ms, after, CHANGES_MAX)
        )
        return [ChangesReply.of(found)]


class KnownAccounts:
    """The table, and what keeps it fresh.

    Args:
        source: where changes come from.
        refresh_s: how long an ended session may live on here, at most.
        now_s: Unix time.
    """

    def __init__(
        self,
        source: ChangeSource,
        refresh_s: float,
        *,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._source = source
        self._refresh_s = refresh_s
        self._now_s = now_s
        self._known: dict[str, AccountChange] = {}
        self._since_ms = 0
        self._refreshed_s: float | None = None
        self._lock = asyncio.Lock()
        self._ready = asyncio.Event()

    def __len__(self) -> int:
        return len(self._known)

    @property
    def is_ready(self) -> bool:
        """Whether any round went well."""
        return self._refreshed_s is not None

    def check(self, claims: Claims) -> None:
        """Return when the session of a valid token goes on.

        Raises:
            ApiError: UNAUTHORIZED (401) when it was ended; NO_AUTH (503) as long as
                nothing is known.
        """
        if not self.is_ready:
            raise ApiError(
                ErrorCode.NO_AUTH,
                "This gateway has not heard from an auth peer yet; try again.",
                status=503,
                retry_after_s=5,
            )
        known = self._known.get(claims.email)
        if known is None:
            return
        if claims.epoch < known.epoch or known.status != Status.ACTIVE:
            raise ApiError(ErrorCode.UNAUTHORIZED, SESSION_ENDED, status=401)

    def max_requests(self, email: str) -> int | None:
        """The account's own limit; None: there is none."""
        known = self._known.get(email)
        return known.max_requests if known is not None else None

    async def wait_ready(self, timeout_s: float) -> bool:
        """Wait for the first round that goes well; False: not in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._ready.wait()
        return self.is_ready

    async def run(self) -> None:
        """Stay fresh until cancelled."""
        failures = 0
        while True:
            try:
                await self.refresh()
                failures, wait_s = 0, self._refresh_s
            except ApiError as error:
                level = logging.DEBUG if failures else logging.WARNING
                logger.log(level, "changes of accounts: %s", error.message)
                wait_s = RETRY_S[min(failures, len(RETRY_S) - 1)]
                failures += 1
            await asyncio.sleep(min(wait_s, self._refresh_s))

    async def refresh(self) -> None:
        """One round now; raises `ApiError` when nobody could be asked."""
        async with self._lock:
            since_ms = self._since_ms
            if self._is_stale():
                since_ms = 0
            since_ms = await self._fetch(since_ms)
            self._since_ms = max(0, since_ms - OVERLAP_MS)
            self._refreshed_s = self._now_s()
            self._forget()
            self._ready.set()

    async def _fetch(self, since_ms: int) -> int:
        """Take every page; gives the time from which the next round goes on."""
        newest_ms, after = 2**62, ""
        for _ in range(PAGES_MAX):
            pages = await self._source.changes(since_ms, after)
            for page in pages:
                newest_ms = min(newest_ms, page.now)
                for change in page.changes:
                    self._take(change)
            more = [page for page in pages if page.has_more and page.changes]
            if not more:
                return newest_ms
            # Those that are further on repeat themselves, which does no harm.
            last = min(
                (page.changes[-1] for page in more),
                key=lambda change: (change.changed_ms, change.email),
            )
            if (last.changed_ms, last.email) <= (since_ms, after):
                break
            since_ms, after = last.changed_ms, last.email
        logger.warning("there is no end of changes of accounts; some are not known")
        return since_ms

    def _take(self, change: AccountChange) -> None:
        known = self._known.get(change.email)
        if known is None or known.changed_ms <= change.changed_ms:
            self._known[change.email] = change

    def _is_stale(self) -> bool:
        """Whether changes may have left what sources still tell of."""
        now_s = self._now_s()
        then_s = self._refreshed_s
        return then_s is None or not 0 <= (now_s - then_s) * 1000 < FORGET_MS / 2

    def _forget(self) -> None:
        """Drop what matters no more, and the oldest when there are too many."""
        old_ms = int(self._now_s() * 1000) - FORGET_MS
        for email in [
            email
            for email, known in self._known.items()
            if known.max_requests is None and known.changed_ms < old_ms
        ]:
            del self._known[email]
        excess = len(self._known) - KNOWN_MAX
        if excess <= 0:
            return
        logger.warning("more than %d accounts with limits; forgot some", KNOWN_MAX)
        by_age = sorted(self._known.values(), key=lambda known: known.changed_ms)
        for known in by_age[:excess]:
            del self._known[known.email]
