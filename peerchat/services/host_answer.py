"""A running answer across two threads: made on the node's loop, read on the app's.

The node's side reads ahead by a bounded number of events; the app's side fetches all
that is there at once. So a fast answer costs few switches of thread, and a slow reader
holds the sender back through every hop.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from peerchat.api import AnswerEvent, ApiError, ErrorCode

from .tasks import Tasks

if TYPE_CHECKING:
    from peerchat.failover_answer import FailoverAnswer

logger = logging.getLogger(__name__)

T = TypeVar("T")

READ_AHEAD_MAX = 256
"""Events that wait for the app: a second of the fastest model."""

CLOSE_TIMEOUT_S = 5.0


class Reading:
    """The node's side; every method runs on the node's loop.

    Args:
        begin: makes the answer; may raise `ApiError`.
        on_event: hears of each event.
        on_end: called once, with the failure if there is one.
    """

    def __init__(
        self,
        tasks: Tasks,
        begin: Callable[[], FailoverAnswer],
        on_event: Callable[[AnswerEvent], None],
        on_end: Callable[[ApiError | None], None],
    ) -> None:
        self._begin = begin
        self._on_event = on_event
        self._on_end = on_end
        self._ready: deque[AnswerEvent] = deque()
        self._changed = asyncio.Event()
        self._taken = asyncio.Event()
        self._is_over = False
        self._error: ApiError | None = None
        self._task = tasks.start(self._read())

    async def take(self) -> list[AnswerEvent]:
        """All events that are there, at least one; empty at the end.

        Raises:
            ApiError: the answer failed, and everything before was taken.
        """
        while not self._ready and not self._is_over:
            self._changed.clear()
            await self._changed.wait()
        events = list(self._ready)
        self._ready.clear()
        self._taken.set()
        if not events and self._error is not None:
            raise self._error
        return events

    async def stop(self) -> None:
        """Close the answer on every hop."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _read(self) -> None:
        error: ApiError | None = None
        try:
            async with self._begin() as answer:
                async for event in answer:
                    self._on_event(event)
                    self._ready.append(event)
                    self._changed.set()
                    while len(self._ready) >= READ_AHEAD_MAX:
                        self._taken.clear()
                        await self._taken.wait()
        except ApiError as failure:
            error = failure
        except asyncio.CancelledError:
            error = ApiError(ErrorCode.STOPPED, "The answer was stopped.", status=503)
            raise
        except Exception:
            error = ApiError(
                ErrorCode.INTERNAL, "The node failed on this request; see the log."
            )
            raise
        finally:
            self._error = error
            self._is_over = True
            self._changed.set()
            self._on_end(error)


class HostAnswer:
    """The app's side; an `api.Answer`, used on one loop."""

    def __init__(
        self,
        request_id: str,
        reading: concurrent.futures.Future[Reading],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.request_id = request_id
        self._starting = reading
        self._loop = loop
        self._events: deque[AnswerEvent] = deque()
        self._is_closed = False

    def __aiter__(self) -> AsyncIterator[AnswerEvent]:
        return self

    async def __anext__(self) -> AnswerEvent:
        while not self._events:
            if self._is_closed:
                raise StopAsyncIteration
            reading = await asyncio.wrap_future(self._starting)
            events = await asyncio.wrap_future(run_in(self._loop, reading.take()))
            self._events.extend(events)
            if not self._events:
                raise StopAsyncIteration
        return self._events.popleft()

    async def aclose(self) -> None:
        """Stop on every hop; returns once that is done. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        self._events.clear()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                reading = await asyncio.wrap_future(self._starting)
                await asyncio.wrap_future(run_in(self._loop, reading.stop()))
        except TimeoutError:
            logger.warning("request %s did not close in time", self.request_id)
        except ApiError:
            return  # the node is closed, and everything with it


def run_in(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]
) -> concurrent.futures.Future[T]:
    """Run ``work`` on the node's loop; raises `ApiError` when that has ended."""
    try:
        return asyncio.run_coroutine_threadsafe(work, loop)
    except RuntimeError:
        work.close()
        raise ApiError(
            ErrorCode.STOPPED, "The node is closed; start peerchat again.", status=503
        ) from None
