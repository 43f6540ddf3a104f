"""Runs roles, and runs them again when they crash, with growing delay."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from peerchat.api import ApiError, Role, RoleHealth
from peerchat.net.errors import NetError

from .tasks import Tasks

logger = logging.getLogger(__name__)

BACKOFF_MIN_S = 0.5
BACKOFF_MAX_S = 60.0
STABLE_S = 60.0
"""A role that ran so long starts with the shortest delay again."""

DRAIN_S = 8.0
"""How long running answers may take when the process is told to stop: container
managers kill it after 10 s, and closing takes a moment."""


class RunnableRole(Protocol):
    """What every role is."""

    async def run(self, ready: Callable[[], None]) -> None:
        """Serve until cancelled; call ``ready`` once others can find it."""


@runtime_checkable
class Draining(Protocol):
    """What ends gently: a `Swarm`, for the roles on it, and a role of other callers."""

    async def drain(self, timeout_s: float) -> None:
        """Take nothing new, and wait for what runs, at most so long."""


class DrainingSwarm(Draining, Protocol):
    """The part of a `Swarm` that is needed."""

    async def withdraw(self) -> None:
        """Take back every announcement."""


@dataclass(slots=True)
class _Running:
    role: Role
    runnable: RunnableRole
    state: str = "starting"
    restarts: int = 0
    problem: str = ""
    first_failure: BaseException | None = None
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    """It got ready, or failed, for the first time."""
    task: asyncio.Task[None] | None = None


class Supervisor:
    """Keeps roles running.

    Args:
        swarm: is drained before the roles are stopped.
        on_change: called after every change of any role's health.
        sleep: waits for the back-off.
    """

    def __init__(
        self,
        swarm: DrainingSwarm,
        *,
        on_change: Callable[[], None] = lambda: None,
        on_restart: Callable[[Role], None] = lambda role: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._swarm = swarm
        self._on_change = on_change
        self._on_restart = on_restart
        self._sleep = sleep
        self._running: dict[Role, _Running] = {}
        self._tasks = Tasks()
        self._is_stopping = False

    async def start(self, roles: Mapping[Role, RunnableRole]) -> None:
        """Run the roles; returns when each is ready.

        Raises:
            ApiError, NetError: a role failed before it was ready for the first time;
                call `stop` then.
        """
        for role, runnable in roles.items():
            running = self._running[role] = _Running(role, runnable)
            running.task = self._tasks.start(self._keep(running))
        for running in self._running.values():
            await running.settled.wait()
            if running.first_failure is not None:
                raise running.first_failure

    def health(self) -> Sequence[RoleHealth]:
        """How each role is."""
        return tuple(_health(running) for running in self._running.values())

    async def stop(self, drain_s: float = DRAIN_S) -> None:
        """Withdraw, let running answers finish for so long, then end; idempotent."""
        if not self._is_stopping:
            self._is_stopping = True
            await self._drain(drain_s)
        await self._tasks.close()
        for running in self._running.values():
            running.state = "stopped"
        self._on_change()

    async def _drain(self, drain_s: float) -> None:
        """All callers get the same time: peers, and those of HTTP."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._swarm.withdraw())
            if drain_s <= 0:
                return
            group.create_task(self._swarm.drain(drain_s))
            for running in self._running.values():
                if isinstance(running.runnable, Draining):
                    group.create_task(running.runnable.drain(drain_s))

    async def _keep(self, running: _Running) -> None:
        backoff_s = BACKOFF_MIN_S
        loop = asyncio.get_running_loop()
        while True:
            began_s = loop.time()
            try:
                await running.runnable.run(lambda: self._ready(running))
                error: Exception = RuntimeError("it ended by itself")
            except Exception as raised:
                error = raised
            if self._is_stopping:
                return
            self._failed(running, error)
            if loop.time() - began_s >= STABLE_S:
                backoff_s = BACKOFF_MIN_S
            await self._sleep(backoff_s)
            backoff_s = min(backoff_s * 2, BACKOFF_MAX_S)

    def _ready(self, running: _Running) -> None:
        running.state = "running"
        running.problem = ""
        running.settled.set()
        self._on_change()

    def _failed(self, running: _Running, error: Exception) -> None:
        is_expected = isinstance(error, ApiError | NetError)
        is_first = not running.settled.is_set()
        if is_first:
            running.first_failure = error  # whoever started the roles tells it
            running.settled.set()
        if not (is_first and is_expected):
            logger.error(
                "role %s stopped and is started again: %s",
                running.role,
                error,
                exc_info=None if is_expected else error,
            )
        running.state = "restarting"
        running.restarts += 1
        running.problem = str(error) or type(error).__name__
        self._on_restart(running.role)
        self._on_change()


def _health(running: _Running) -> RoleHealth:
    detail = running.problem or getattr(running.runnable, "detail", "")
    return RoleHealth(running.role, running.state, running.restarts, str(detail))
