"""The requests that a bridge works on, and how they end when it stops."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from peerchat.api import ApiError, ErrorCode
from peerchat.logs import request_id

RETRY_AFTER_S = 5
"""Another bridge, or this one again, is there by then."""


class Running:
    """Requests by the scopes they run in; cutting them off is ending the scopes."""

    def __init__(self) -> None:
        self.is_stopping = False
        """Nothing new is taken."""
        self._scopes: set[asyncio.Timeout] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    @contextlib.asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Work on a request.

        Raises:
            ApiError: STOPPED, because nothing new is taken, or it was cut off.
        """
        if self.is_stopping:
            raise _stopping()
        scope = asyncio.timeout(None)
        self._scopes.add(scope)
        self._idle.clear()
        try:
            async with scope:
                yield
        except TimeoutError:
            if not scope.expired():
                raise
            raise _stopping() from None
        finally:
            self._scopes.discard(scope)
            if not self._scopes:
                self._idle.set()

    async def drain(self, timeout_s: float) -> None:
        """Take nothing new, and wait for what runs, at most so long."""
        self.is_stopping = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()

    def cut_off(self) -> None:
        """Take nothing new, and end what runs with an error; idempotent."""
        self.is_stopping = True
        now_s = asyncio.get_running_loop().time()
        for scope in self._scopes:
            if not scope.expired():
                scope.reschedule(now_s)


def _stopping() -> ApiError:
    return ApiError(
        ErrorCode.STOPPED,
        "The bridge is shutting down; ask again soon.",
        status=503,
        request_id=request_id.get(),
        retry_after_s=RETRY_AFTER_S,
    )
