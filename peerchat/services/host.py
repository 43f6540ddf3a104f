"""`NodeHost`: the node in a thread of its own, as the app sees it.

Why a thread: docs/decisions/0003-node-thread.md. Calls go in as coroutines that run on
the node's loop, states come out as immutable values.
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
from typing import Any, TypeVar

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
from peerchat.failover_answer import FailoverAnswer
from peerchat.net.errors import NetError
from peerchat.settings import Settings

from .host_answer import HostAnswer, Reading, run_in
from .host_swarms import HostSwarms
from .node_runtime import NodeRuntime
from .swarm import api_error_of
from .tasks import Tasks

logger = logging.getLogger(__name__)

T = TypeVar("T")

REFRESH_S = 5.0
"""Between two rounds of pings for the panels."""

PUSH_S = 0.1
"""States are told no more often than this, but for a new phase, which is told at once:
ten a second look alive, and more would only keep the app's thread busy."""

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
        self._settings = settings
        self._make_runtime = make_runtime or (
            lambda on_change: NodeRuntime(settings, on_change=on_change)
        )
        self._retry_min_s = retry_min_s
        self._loop = _new_loop()
        self._thread = threading.Thread(
            target=self._run_thread, name="peerchat node", daemon=True
        )
        self._stop = asyncio.Event()
        self._tasks = Tasks()
        self._runtime: NodeRuntime | None = None
        self._state = NodeState(mode="solo" if settings.is_solo else "open")
        self._listeners: list[Callable[[NodeState], None]] = []
        self._listeners_lock = threading.Lock()
        self._push: asyncio.TimerHandle | None = None
        self._is_started = False
        self._swarms = HostSwarms()

    # What the app calls, on its own thread

    def start(self) -> None:
        """Begin in the background and return at once."""
        if not self._is_started:
            self._is_started = True
            self._thread.start()

    def state(self) -> NodeState:
        """The newest state."""
        return self._state

    def subscribe(self, listener: Callable[[NodeState], None]) -> Callable[[], None]:
        """Hear of every new state, on the node's thread; returns the undo."""
        with self._listeners_lock:
            self._listeners.append(listener)

        def undo() -> None:
            with self._listeners_lock, suppress(ValueError):
                self._listeners.remove(listener)

        return undo

    @property
    def private_swarms(self) -> HostSwarms:
        """Create, join, invite, revoke."""
        return self._swarms

    async def register(self, email: str, password: str, code: str = "") -> Account:
        """Make an account and log in; some swarms want a registration code."""
        return await self._call(self._register(email, password, code))

    async def login(self, email: str, password: str) -> Account:
        """Log in; raises `ApiError`."""
        return await self._call(self._login(email, password))

    async def change_password(self, old: str, new: str) -> None:
        """Also ends every older session, but not this one."""
        await self._call(self._change_password(old, new))

    async def logout_everywhere(self) -> None:
        """End every session of this account, this one too."""
        await self._call(self._logout_everywhere())

    async def use_local_account(self) -> Account:
        """Go on as the local user; only in solo mode."""
        return await self._call(self._use_local_account())

    async def logout(self) -> None:
        """Forget the login of this home."""
        await self._call(self._logout())

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
            self._set(requests=self._state.requests + 1)
            return Reading(self._tasks, begin, self._note, self._note_end)

        return HostAnswer(request_id, run_in(self._loop, read()), self._loop)

    async def refresh_peers(self) -> Sequence[PeerView]:
        """Look everybody up and ping them now."""
        return await self._call(self._refresh())

    async def close(self) -> None:
        """Withdraw announcements and stop the thread; idempotent."""
        if not self._is_started:
            self._is_started = True
            self._loop.close()
            self._state = dataclasses.replace(self._state, phase=Phase.CLOSED)
            return
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stop.set)
        await asyncio.to_thread(self._thread.join, CLOSE_S)
        if self._thread.is_alive():
            logger.error("the node did not end within %.0f s", CLOSE_S)

    async def _call(self, work: Coroutine[Any, Any, T]) -> T:
        if not self._is_started:
            work.close()
            raise _not_ready(self._state)
        future: concurrent.futures.Future[T] = run_in(self._loop, work)
        return await asyncio.wrap_future(future)

    # The node's thread

    def _run_thread(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._main())
        except Exception as error:
            logger.exception("the node's thread failed")
            self._set_now(phase=Phase.FAILED, problem=str(error))
        else:
            self._set_now(phase=Phase.CLOSED, problem="")

    async def _main(self) -> None:
        work = self._tasks.start(self._live())
        await self._stop.wait()
        work.cancel()
        await asyncio.wait([work])
        await self._tasks.close()
        runtime, self._runtime = self._runtime, None
        if runtime is not None:
            try:
                async with asyncio.timeout(CLOSE_S - 2):
                    await runtime.close(drain_s=DRAIN_S)
            except TimeoutError:
                logger.warning("closing took too long; left the rest behind")
        if self._push is not None:
            self._push.cancel()

    async def _live(self) -> None:
        delay_s = self._retry_min_s
        while True:
            self._set_now(phase=Phase.CONNECTING)
            try:
                await self._connect()
            except ApiError as error:
                if error.code is not ErrorCode.DHT_UNREACHABLE:
                    self._set_now(phase=Phase.FAILED, problem=error.message)
                    return
                self._set_now(phase=Phase.OFFLINE, problem=error.message)
            except Exception as error:
                logger.exception("the node could not start")
                self._set_now(
                    phase=Phase.FAILED,
                    problem=f"Unexpected {type(error).__name__}; the log says why.",
                )
                return
            else:
                break
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, RETRY_MAX_S)
        await self._check_login()
        await self._keep_fresh()

    async def _connect(self) -> None:
        runtime = self._make_runtime(self._health_changed)
        await runtime.start()
        self._runtime = runtime
        self._set_now(
            phase=Phase.READY,
            problem="",
            mode=runtime.mode,
            account=runtime.client.account,
            engine=runtime.engine,
            bootstrap=runtime.bootstrap,
            roles=tuple(runtime.health()),
        )

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
            self._set(rate_limit=verified.rate_limit)

    async def _keep_fresh(self) -> None:
        while True:
            try:
                await self._refresh()
            except ApiError as error:
                if error.code is ErrorCode.DHT_UNREACHABLE:
                    self._set_now(phase=Phase.OFFLINE, problem=error.message)
            except Exception:
                logger.exception("the peers could not be refreshed")
            await asyncio.sleep(REFRESH_S)

    async def _refresh(self) -> Sequence[PeerView]:
        runtime = self._ready()
        client = runtime.client
        try:
            peers = await client.peers()
            models = await client.models()
        except NetError as error:
            raise api_error_of(error) from error
        self._set(
            phase=Phase.READY,
            problem="",
            peers=tuple(peers),
            models=tuple(models),
            roles=tuple(runtime.health()),
            rate_limit=self._state.rate_limit or client.rate_limit,
            dht_nodes=_node_count(runtime.dht.statistics()),
        )
        return peers

    # Calls, on the node's loop

    def _ready(self) -> NodeRuntime:
        if self._runtime is None:
            raise _not_ready(self._state)
        return self._runtime

    async def _register(self, email: str, password: str, code: str) -> Account:
        if code:
            raise _not_yet("Registration codes")
        await self._ready().client.register(email, password)
        return await self._login(email, password)

    async def _change_password(self, old: str, new: str) -> None:
        raise _not_yet("Changing a password")

    async def _logout_everywhere(self) -> None:
        raise _not_yet("Logging out everywhere")

    async def _login(self, email: str, password: str) -> Account:
        client = self._ready().client
        account = await client.login(email, password)
        self._set(account=account, rate_limit=client.rate_limit)
        return account

    async def _use_local_account(self) -> Account:
        account = await self._ready().use_local_account()
        self._set(account=account)
        return account

    async def _logout(self) -> None:
        await self._ready().client.logout()
        self._set(account=None, rate_limit=None)

    # States

    def _health_changed(self) -> None:
        if self._runtime is not None:
            self._set(roles=tuple(self._runtime.health()))

    def _note(self, event: AnswerEvent) -> None:
        if isinstance(event, Finished):
            state, usage = self._state, event.usage
            self._set(
                rate_limit=event.rate_limit or state.rate_limit,
                answer_tokens=state.answer_tokens + (usage.answer_tokens or 0),
                tokens_per_s=usage.tokens_per_s or state.tokens_per_s,
            )

    def _note_end(self, error: ApiError | None) -> None:
        if error is None or error.code is ErrorCode.STOPPED:
            return
        state = self._state
        self._set(
            failures=state.failures + 1,
            rate_limit=error.rate_limit or state.rate_limit,
        )

    def _set(self, **changes: object) -> None:
        """Replace parts of the state; tell soon."""
        before = self._state
        self._state = dataclasses.replace(before, **changes)  # type: ignore[arg-type]
        if self._state.phase is not before.phase:
            self._tell()
        elif self._push is None and self._state != before:
            self._push = self._loop.call_later(PUSH_S, self._tell)

    def _set_now(self, **changes: object) -> None:
        self._state = dataclasses.replace(self._state, **changes)  # type: ignore[arg-type]
        self._tell()

    def _tell(self) -> None:
        if self._push is not None:
            self._push.cancel()
            self._push = None
        with self._listeners_lock:
            listeners = tuple(self._listeners)
        for listener in listeners:
            try:
                listener(self._state)
            except Exception:
                logger.exception("a listener of the node's state failed")


def _new_loop() -> asyncio.AbstractEventLoop:
    """uvloop's where it exists."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _not_yet(what: str) -> ApiError:
    return ApiError(
        ErrorCode.INVALID_REQUEST, f"{what} is not available yet.", status=501
    )


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
