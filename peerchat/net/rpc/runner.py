"""Runs request handlers as tasks, and spends no task on one that never waits.

One task, the runner, takes requests off a queue and awaits their handlers in place.
When a handler waits for something, the runner's task becomes that handler's own, and
another runner is started for the rest of the queue. So a batch of requests that are
answered at once costs one task switch, and slow handlers still run side by side, each
in a real task with working timeouts and cancellation. (Handlers that share a runner
share its `contextvars` context.)
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator

logger = logging.getLogger(__name__)

Job = Callable[[], Coroutine[object, object, None]]


class _Watched:
    """Awaits a coroutine, and says so the first time it waits."""

    __slots__ = ("_coroutine", "_on_wait")

    def __init__(
        self,
        coroutine: Coroutine[object, object, None],
        on_wait: Callable[[], None],
    ) -> None:
        self._coroutine = coroutine
        self._on_wait = on_wait

    def __await__(self) -> Generator[object, None, None]:
        coroutine = self._coroutine
        try:
            awaited = coroutine.send(None)
        except StopIteration:
            return
        self._on_wait()
        while True:
            try:
                yield awaited
            except BaseException as error:
                try:
                    awaited = coroutine.throw(error)
                except StopIteration:
                    return
            else:
                try:
                    awaited = coroutine.send(None)
                except StopIteration:
                    return


class Runner:
    """A queue of jobs and the tasks that work on it.

    Args:
        jobs_max: how many may wait for something at once; the rest stays queued.
        before_job: what it returns before each job is awaited, to hold the queue
            back; usually None.
    """

    def __init__(
        self,
        jobs_max: int,
        before_job: Callable[[], Awaitable[None] | None] = lambda: None,
    ) -> None:
        self._jobs_max = jobs_max
        self._before_job = before_job
        self._queue: deque[Job] = deque()
        self._waiting = 0
        self._has_runner = False
        self._is_closed = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def queued(self) -> int:
        """Jobs that nobody has begun."""
        return len(self._queue)

    @property
    def running(self) -> int:
        """Jobs that wait for something."""
        return self._waiting

    def submit(self, job: Job) -> None:
        """Run ``job`` soon; after `close` it is dropped."""
        if not self._is_closed:
            self._queue.append(job)
            self._start_maybe()

    def close(self) -> None:
        """Cancel what runs and drop what is queued; see `wait_closed`."""
        self._is_closed = True
        self._queue.clear()
        current = asyncio.current_task()
        for task in self._tasks:
            # A handler may close its own session, and must live to tell.
            if task is not current:
                task.cancel()

    async def wait_closed(self) -> None:
        """Wait until no task is left; call `close` first."""
        current = asyncio.current_task()
        while tasks := [task for task in self._tasks if task is not current]:
            await asyncio.wait(tasks)

    def _start_maybe(self) -> None:
        if self._queue and not self._has_runner and self._waiting < self._jobs_max:
            self._has_runner = True
            task = asyncio.get_running_loop().create_task(self._run())
            self._tasks.add(task)
            task.add_done_callback(self._done)

    async def _run(self) -> None:
        queue = self._queue
        is_runner = True

        def on_wait() -> None:
            nonlocal is_runner
            is_runner = False
            self._has_runner = False
            self._waiting += 1
            self._start_maybe()

        try:
            while queue and not self._is_closed:
                if (obstacle := self._before_job()) is not None:
                    await obstacle
                    continue
                await _Watched(queue.popleft()(), on_wait)
                if not is_runner:
                    self._waiting -= 1
                    if self._has_runner:
                        return
                    is_runner = self._has_runner = True
        except BaseException:
            if not is_runner:
                self._waiting -= 1
            raise
        finally:
            if is_runner:
                self._has_runner = False
                if not self._is_closed:
                    self._start_maybe()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a request handler's task failed", exc_info=error)
        if not self._is_closed:
            self._start_maybe()
