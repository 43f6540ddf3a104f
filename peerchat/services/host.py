"""`NodeHost`: the node in a thread of its own, as the app sees it.

Why a thread: docs/decisions/0003-node-thread.md. Calls go in as coroutines that run on
the node's loop, states come out as immutable values. Going into another swarm ends
the node that runs and starts another one; thread and listeners stay.

What a node is made of takes most of a second to load. That is done in the thread, so
that the app can be seen before.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import logging
import threading
import uuid
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from peerchat.api import (
    Account,
    AnswerEvent,
    ApiError,
    ErrorCode,
    Finished,
    Message,
    NodeState,
    PeerView,
    Phase,
)
from peerchat.settings import Settings

from .host_answer import HostAnswer, Reading, run_in
from .host_state import HostState, first_state
from .host_swarms import HostSwarms
from .tasks import Tasks

if TYPE_CHECKING:
    from peerchat.failover_answer import FailoverAnswer

    from .node_runtime import NodeRuntime

logger = logging.getLogger(__name__)

T = TypeVar("T")

REFRESH_S = 5.0
"""Between two rounds of pings for the panels."""

RETRY_MIN_S = 1.0
RETRY_MAX_S = 60.0

DRAIN_S = 5.0
"""For the answers of others; this and everything else ends within `CLOSE_S`."""

CLOSE_S = 15.0


class NodeHost:
    """An `api.Node` over a `NodeRuntime` in a second thread.

    Args:
        settings: of this process; it serves nobody but itself.
        make_runtime: makes the node; the real one unless told.
        retry_min_s: first delay before an unreachable DHT is tried again.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        make_runtime: Callable[[Callable[[], None]], NodeRuntime] | None = None,
        retry_min_s: float = RETRY_MIN_S,
    ) -> None:
        self._given = settings
        """As the process was started; swarms may be switched since."""
        self._settings = settings
        self._make_runtime = make_runtime or self._new_runtime
        self._retry_min_s = retry_min_s
        self._loop = _new_loop()
        self._thread = threading.Thread(
            target=self._run_thread, name="peerchat node", daemon=True
        )
        self._stop = asyncio.Event()
        self._tasks = Tasks()
        self._runtime: NodeRuntime | None = None
        self._work: asyncio.Task[None] | None = None
        """Connects and keeps fresh what runs now."""
        self._is_settled = asyncio.Event()
        """It is ready, offline or has failed for the first time."""
        self._switching = asyncio.Lock()
        self._ending = asyncio.Lock()
        self._state = HostState(self._loop, first_state(settings))
        self._is_started = False
        self._swarms = HostSwarms(self)

    # What the app calls, on its own thread

    def start(self) -> None:
        """Begin in the background and return at once."""
        if not self._is_started:
            self._is_started = True
            self._thread.start()

    def state(self) -> NodeState:
        """The newest state."""
        return self._state.now

    def subscribe(self, listener: Callable[[NodeState], None]) -> Callable[[], None]:
        """Hear of every new state, on the node's thread; returns the undo."""
        return self._state.subscribe(listener)

    @property
    def private_swarms(self) -> HostSwarms:
        """Create, join, invite, revoke."""
        return self._swarms

    async def register(self, email: str, password: str, code: str = "") -> Account:
        """Make an account and log in; some swarms want a registration code."""
        return await self.call(self._register(email, password, code))

    async def login(self, email: str, password: str) -> Account:
        """Log in; raises `ApiError`."""
        return await self.call(self._login(email, password))

    async def change_password(self, old: str, new: str) -> None:
        """Also ends every older session, but not this one."""
        await self.call(self._change_password(old, new))

    async def logout_everywhere(self) -> None:
        """End every session of this account, this one too."""
        await self.call(self._logout_everywhere())

    async def use_local_account(self) -> Account:
        """Go on as the local user; only in solo mode."""
        return await self.call(self._use_local_account())

    async def logout(self) -> None:
        """Forget the login of this home."""
        await self.call(self._logout())

    def ask(
        self,
        prompt: str,
        *,
        model: str | None = None,
        history: Sequence[Message] = (),
    ) -> HostAnswer:
        """Begin an answer.

        Raises:
            ApiError: the node is closed; other failures come from the iteration.
        """
        request_id = uuid.uuid4().hex
        turns = tuple(history)

        def begin() -> FailoverAnswer:
            client = self._ready().client
            if not client.token:
                raise ApiError(
                    ErrorCode.UNAUTHORIZED, "Not logged in: log in first.", status=401
                )
            return client.gateways.ask(
                prompt,
                client.token,
                model=model,
                history=turns,
                request_id=request_id,
            )

        async def read() -> Reading:
            self._state.set(requests=self._state.now.requests + 1)
            return Reading(self._tasks, begin, self._note, self._note_end)

        return HostAnswer(request_id, run_in(self._loop, read()), self._loop)

    async def set_paused(self, is_paused: bool) -> None:
        """Let this home's processor take nothing new, or take it again."""
        await self.call(self._set_paused(is_paused))

    async def refresh_peers(self) -> Sequence[PeerView]:
        """Look everybody up and ping them now."""
        return await self.call(self._refresh())

    async def close(self) -> None:
        """Withdraw announcements and stop the thread; idempotent."""
        if not self._is_started:
            self._is_started = True
            self._loop.close()
            self._state.now = dataclasses.replace(self._state.now, phase=Phase.CLOSED)
            return
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stop.set)
        await asyncio.to_thread(self._thread.join, CLOSE_S)
        if self._thread.is_alive():
            logger.error("the node did not end within %.0f s", CLOSE_S)

    async def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run on the node's loop; raises ApiError while there is none."""
        if not self._is_started:
            work.close()
            raise _not_ready(self._state.now)
        future: concurrent.futures.Future[T] = run_in(self._loop, work)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # The node's loop ended, and with it what ran there.
            closed = dataclasses.replace(self._state.now, phase=Phase.CLOSED)
            raise _not_ready(closed) from None

    # The node's thread

    def _run_thread(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._main())
        except Exception as error:
            logger.exception("the node's thread failed")
            self._state.set_now(phase=Phase.FAILED, problem=str(error))
        else:
            self._state.set_now(phase=Phase.CLOSED, problem="")

    async def _main(self) -> None:
        self._work = self._tasks.start(self._live())
        await self._stop.wait()
        await self._end()
        await self._tasks.close()
        self._state.close()

    async def _end(self) -> None:
        """End what runs now; whoever comes second waits for the first."""
        async with self._ending:
            if self._work is not None:
                self._work.cancel()
                await asyncio.wait([self._work])
            runtime, self._runtime = self._runtime, None
            if runtime is None:
                return
            try:
                async with asyncio.timeout(CLOSE_S - 2):
                    await runtime.close(drain_s=DRAIN_S)
            except TimeoutError:
                logger.warning("closing took too long; left the rest behind")

    @property
    def settings(self) -> Settings:
        """Those of the swarm that the node is in."""
        return self._runtime.settings if self._runtime else self._settings

    @property
    def runtime(self) -> NodeRuntime | None:
        """The node, while it runs."""
        return self._runtime

    async def switch(self, swarm: str) -> None:
        """Go into a private swarm, or solo; returns when it is known how that went.

        Raises:
            ApiError: it cannot run there at all. Offline is no failure: it goes on
                trying.
        """
        async with self._switching:
            self._settings = _settings_in(self._given, swarm)
            self._state.move(self._settings, phase=Phase.CONNECTING)
            await self._end()
            if self._stop.is_set():
                raise _not_ready(
                    dataclasses.replace(self._state.now, phase=Phase.CLOSED)
                )
            self._is_settled.clear()
            self._work = self._tasks.start(self._live())
            await self._is_settled.wait()
            if self._state.now.phase is Phase.FAILED:
                raise _not_ready(self._state.now)

    async def _live(self) -> None:
        delay_s = self._retry_min_s
        try:
            while not await self._try_to_connect():
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, RETRY_MAX_S)
        finally:
            self._is_settled.set()
        if self._runtime is not None:
            await self._check_login()
            await self._keep_fresh()

    async def _try_to_connect(self) -> bool:
        """Whether there is no use in trying again: it is ready, or has failed."""
        self._state.set_now(phase=Phase.CONNECTING)
        try:
            await self._connect()
        except ApiError as error:
            if error.code is ErrorCode.DHT_UNREACHABLE:
                self._state.set_now(phase=Phase.OFFLINE, problem=error.message)
                self._is_settled.set()
                return False
            self._state.set_now(phase=Phase.FAILED, problem=error.message)
        except Exception as error:
            logger.exception("the node could not start")
            self._state.set_now(
                phase=Phase.FAILED,
                problem=f"Unexpected {type(error).__name__}; the log says why.",
            )
        return True

    async def _connect(self) -> None:
        runtime = self._make_runtime(self._health_changed)
        await runtime.start()
        self._runtime = runtime
        self._state.set_now(
            phase=Phase.READY,
            problem="",
            mode=runtime.mode,
            swarm=runtime.settings.swarm,
            is_swarm_admin=runtime.trust is not None and runtime.trust.is_admin,
            account=runtime.client.account,
            engine=runtime.engine,
            bootstrap=runtime.bootstrap,
            is_paused=runtime.is_paused,
            roles=tuple(runtime.health()),
        )

    def _new_runtime(self, on_change: Callable[[], None]) -> NodeRuntime:
        from .node_runtime import NodeRuntime

        return NodeRuntime(self._settings, is_app=True, on_change=on_change)

    async def _set_paused(self, is_paused: bool) -> None:
        runtime = self._ready()
        try:
            await runtime.set_paused(is_paused)
        finally:  # it may be saved and not taken
            self._state.set(is_paused=runtime.is_paused)

    async def _check_login(self) -> None:
        """Ask whether the login of an earlier run still holds, and what is left."""
        client = self._ready().client
        if client.account is None:
            return
        try:
            verified = await client.verify()
        except ApiError as error:
            if error.code is ErrorCode.UNAUTHORIZED:
                await self._logout()
        else:
            self._state.set(rate_limit=verified.rate_limit)

    async def _keep_fresh(self) -> None:
        while True:
            try:
                await self._refresh()
            except ApiError as error:
                if error.code is ErrorCode.DHT_UNREACHABLE:
                    self._state.set_now(phase=Phase.OFFLINE, problem=error.message)
                elif self._is_out():
                    self._state.set_now(phase=Phase.FAILED, problem=error.message)
            except Exception:
                logger.exception("the peers could not be refreshed")
            await asyncio.sleep(REFRESH_S)

    def _is_out(self) -> bool:
        """Whether the private swarm does not let this home in any more."""
        trust = self._ready().trust
        return trust is not None and bool(trust.problem)

    async def _refresh(self) -> Sequence[PeerView]:
        from peerchat.net.errors import NetError

        from .swarm import api_error_of

        runtime = self._ready()
        client = runtime.client
        try:
            peers = await client.peers()
            models = await client.models()
        except NetError as error:
            raise api_error_of(error) from error
        self._state.set(
            phase=Phase.READY,
            problem="",
            peers=tuple(peers),
            models=tuple(one for one in models if not one.is_embedder),
            roles=tuple(runtime.health()),
            is_paused=runtime.is_paused,
            rate_limit=self._state.now.rate_limit or client.rate_limit,
            dht_nodes=_node_count(runtime.dht.statistics()),
        )
        return peers

    # Calls, on the node's loop

    def _ready(self) -> NodeRuntime:
        if self._runtime is None:
            raise _not_ready(self._state.now)
        return self._runtime

    async def _register(self, email: str, password: str, code: str) -> Account:
        await self._ready().client.register(email, password, code)
        return await self._login(email, password)

    async def _change_password(self, old: str, new: str) -> None:
        await self._ready().client.change_password(old, new)

    async def _logout_everywhere(self) -> None:
        await self._ready().client.logout_everywhere()
        self._state.set(account=None, rate_limit=None)

    async def _login(self, email: str, password: str) -> Account:
        client = self._ready().client
        account = await client.login(email, password)
        self._state.set(account=account, rate_limit=client.rate_limit)
        return account

    async def _use_local_account(self) -> Account:
        account = await self._ready().use_local_account()
        self._state.set(account=account)
        return account

    async def _logout(self) -> None:
        await self._ready().client.logout()
        self._state.set(account=None, rate_limit=None)

    # States

    def _health_changed(self) -> None:
        if self._runtime is not None:
            self._state.set(roles=tuple(self._runtime.health()))

    def _note(self, event: AnswerEvent) -> None:
        if isinstance(event, Finished):
            state, usage = self._state.now, event.usage
            self._state.set(
                rate_limit=event.rate_limit or state.rate_limit,
                answer_tokens=state.answer_tokens + (usage.answer_tokens or 0),
                tokens_per_s=usage.tokens_per_s or state.tokens_per_s,
            )

    def _note_end(self, error: ApiError | None) -> None:
        if error is None or error.code is ErrorCode.STOPPED:
            return
        state = self._state.now
        self._state.set(
            failures=state.failures + 1,
            rate_limit=error.rate_limit or state.rate_limit,
        )


def _new_loop() -> asyncio.AbstractEventLoop:
    """uvloop's where it exists."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _settings_in(given: Settings, swarm: str) -> Settings:
    """The settings of the process, for a private swarm or for none."""
    if swarm:
        return dataclasses.replace(given, swarm=swarm, is_open=False)
    return dataclasses.replace(given, swarm="", is_open=False, bootstrap=None)


def _not_ready(state: NodeState) -> ApiError:
    if state.phase is Phase.FAILED:
        return ApiError(ErrorCode.STORE_FAILED, state.problem, status=503)
    if state.phase is Phase.OFFLINE:
        return ApiError(ErrorCode.DHT_UNREACHABLE, state.problem, status=503)
    if state.phase is Phase.CLOSED:
        return ApiError(ErrorCode.STOPPED, "The node is closed.", status=503)
    return ApiError(
        ErrorCode.STOPPED, "Still connecting; try again in a moment.", status=503
    )


def _node_count(statistics: object) -> int:
    """Nodes in the routing table, where the DHT tells."""
    count = getattr(getattr(statistics, "dht", None), "nodes", 0)
    return int(count)
