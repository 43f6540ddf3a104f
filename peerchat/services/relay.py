"""Takes one prompt through the queue to a processor, and on to the next ones.

Before the first text a failure is unseen by the asker. After it, the next processor
goes on with what was said. What a failure means is in `failures`, what was said in
`continuation`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from peerchat.api import (
    AnswerEvent,
    ApiError,
    ErrorCode,
    Finished,
    Progress,
    PromptRequest,
    Role,
)
from peerchat.continuation import Said, broke_off
from peerchat.net.identity import PublicKey
from peerchat.settings import STALL_S

from .dispatcher import Dispatcher, Lease, Place
from .failures import Kind, kind_of, none_left, worst
from .patrol import Patrol, Watchdog, out_of_time
from .prompt_bodies import HOPS_MAX
from .router import Router
from .routing_counts import RoutingCounts
from .swarm import Swarm
from .traces import Trace

logger = logging.getLogger(__name__)

TRIES_MAX = 8
"""Processors that fail one request before it is given up."""

BOUNCES_MAX = 8
"""Processors that tell of a slot and have none, before the asker hears of it."""

DEADLINE_S = 600.0
"""Of a request that brings none."""


@dataclass(frozen=True, slots=True)
class Routing:
    """What all requests of a gateway share."""

    swarm: Swarm
    router: Router
    dispatcher: Dispatcher
    patrol: Patrol
    counts: RoutingCounts
    stall_s: float = STALL_S


@dataclass(slots=True)
class _Way:
    """How far one request is."""

    said: Said
    began_s: float
    end_s: float
    excluded: set[PublicKey] = field(default_factory=set)
    lost: set[PublicKey] = field(default_factory=set)
    """Of them, those whose connection broke, or who were stopped: they may return."""
    may_ask_again: bool = True
    has_come: bool = False
    """The present one said something of the answer."""
    failures: list[ApiError] = field(default_factory=list)
    moves: int = 0
    """Failures after which somebody else was asked."""
    bounces: int = 0
    queue_s: float = 0.0
    first_s: float | None = None


class Relay:
    """One prompt on its way; call `run` once."""

    def __init__(self, routing: Routing, user: str, trace: Trace) -> None:
        self._routing = routing
        self._router = routing.router
        self._dispatcher = routing.dispatcher
        self._user = user
        self._trace = trace
        self._way: _Way | None = None

    @property
    def has_text(self) -> bool:
        """Something of the answer went out."""
        return self._way is not None and self._way.said.has_any

    async def run(self, request: PromptRequest) -> AsyncGenerator[AnswerEvent, None]:
        """The events of the processors that answer.

        Raises:
            ApiError: nobody answers; the failure that says most.
        """
        now_s = self._router.now_s
        end_s = now_s + min(request.deadline_s or DEADLINE_S, DEADLINE_S)
        self._way = way = _Way(Said(request), now_s, end_s)
        while True:
            place = await self._enter(way)
            try:
                async with aclosing(self._try(way, place)) as events:
                    async for event in events:
                        yield event
                        if isinstance(event, Finished):
                            return
            finally:
                self._dispatcher.leave(place)

    async def _enter(self, way: _Way) -> Place:
        """Take a place in the queue, or give up."""
        try:
            await self._ensure(way)
            rest = way.said.rest(way.end_s - self._router.now_s)
            return self._dispatcher.enter(
                self._user, rest, way.excluded, is_urgent=bool(way.failures)
            )
        except ApiError as error:
            raise self._given_up(way, error) from error

    async def _ensure(self, way: _Way) -> None:
        """Wait until somebody may serve the request; also who was lost before, once
        for each time that something was said.

        That a connection broke says little of its peer: after a sleep of this machine
        they all break. And who was stopped may be started again.
        """
        may_ask_again = bool(way.lost) and way.may_ask_again
        try:
            await self._router.ensure(
                way.said.model, way.excluded, may_hope=not may_ask_again
            )
        except ApiError:
            if not may_ask_again:
                raise
            way.may_ask_again = False
            way.excluded -= way.lost
            await self._router.ensure(way.said.model, way.excluded)

    async def _try(self, way: _Way, place: Place) -> AsyncGenerator[AnswerEvent, None]:
        """Wait for a processor and ask it; returns without an end if it failed."""
        while True:
            async with aclosing(self._wait(way, place)) as news:
                async for progress in news:
                    yield progress
            lease = place.lease
            assert lease is not None
            if way.failures:
                self._count_move(way)
                yield Progress(
                    "retrying", peer=lease.processor.key.hex(), reason=lease.reason
                )
            try:
                async with aclosing(self._ask(way, place.request, lease)) as events:
                    async for event in events:
                        yield event
                return
            except ApiError as error:
                if not self._has_bounced(way, lease, error):
                    self._failed(way, lease, error)
                    return
            self._dispatcher.put_back(place)

    def _count_move(self, way: _Way) -> None:
        if way.moves == len(way.failures):
            return  # whoever was asked next had no room
        way.moves = len(way.failures)
        counts = self._routing.counts
        if way.said.has_any:
            counts.continued()
        else:
            counts.failed_over()

    async def _wait(self, way: _Way, place: Place) -> AsyncGenerator[Progress, None]:
        began_s, noted = self._router.now_s, 0
        try:
            while place.lease is None:
                if place.error is not None:
                    raise self._given_up(way, place.error)
                if place.position != noted:
                    noted = place.position
                    self._note("queued", detail=f"place {place.position}")
                if place.position:
                    yield Progress(
                        "queued", place.position, estimate_s=place.estimate_s
                    )
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(way.end_s):
                        await place.changed()
                if self._router.now_s >= way.end_s and place.lease is None:
                    raise self._given_up(way, out_of_time())
        finally:
            way.queue_s += self._router.now_s - began_s

    async def _ask(
        self, way: _Way, request: PromptRequest, lease: Lease
    ) -> AsyncGenerator[AnswerEvent, None]:
        one = lease.processor
        swarm, patrol = self._routing.swarm, self._routing.patrol
        left_s = max(0.0, way.end_s - self._router.now_s)
        answer = swarm.ask(
            one.key,
            replace(request, deadline_s=left_s),
            role=Role.PROCESSOR,
            user=self._user,
        )
        elsewhere = way.excluded | {one.key}
        dog = Watchdog(
            answer,
            one,
            end_s=way.end_s,
            stall_s=self._routing.stall_s,
            may_leave=lambda: self._router.can_serve(way.said.model, elsewhere),
        )
        self._note("chosen", lease, f"{lease.reason}, {lease.expected_s:.2f} s")
        way.has_come = False
        patrol.add(dog)
        loop = asyncio.get_running_loop()
        is_judged = False
        try:
            while True:
                dog.waiting_since_s = loop.time()
                event = await anext(answer, None)
                dog.waiting_since_s = None
                if event is None:
                    raise dog.verdict or _ended_early()
                if isinstance(event, Finished):
                    for held in way.said.held_back():
                        yield held
                    is_judged = True
                    yield self._end(way, lease, event)
                    return
                if isinstance(event, Progress):
                    yield self._progress(way, lease, event)
                    continue
                dog.has_first = way.has_come = way.may_ask_again = True
                shown = way.said.passed(event)
                if shown is None:
                    continue
                if way.first_s is None:
                    way.first_s = self._router.now_s
                    self._note("first", lease)
                yield shown
        except ApiError:
            is_judged = True  # by who catches it
            raise
        finally:
            patrol.remove(dog)
            if not is_judged:
                lease.breaker.abandon()
            await answer.aclose()

    def _progress(self, way: _Way, lease: Lease, event: Progress) -> Progress:
        """The processor's news, with why it was taken; its model is the answer's."""
        way.said.passed(event)
        peer = lease.processor.key.hex()
        return replace(event, peer=peer, reason=lease.reason)

    def _end(self, way: _Way, lease: Lease, event: Finished) -> Finished:
        now_s = self._router.now_s
        one, usage = lease.processor, event.usage
        lease.breaker.succeed()
        one.measure(usage.model, usage.tokens_per_s, now_s - lease.began_s)
        self._router.affinity.note(way.said.request, bytes(one.key))
        usage = replace(
            usage,
            peer=one.key.hex(),
            path="self" if self._router.is_self(one) else "direct",
            queue_s=way.queue_s + (usage.queue_s or 0.0),
        )
        first_s = None if way.first_s is None else way.first_s - way.began_s
        usage = way.said.whole(usage, now_s - way.began_s, first_s)
        offset_s = lease.began_s - self._trace.began_s
        hops = [replace(hop, at_s=hop.at_s + offset_s) for hop in event.hops]
        self._trace.extend(hops)
        self._note("finished", lease, usage.finish_reason)
        return replace(event, usage=usage, hops=tuple(self._trace.hops[-HOPS_MAX:]))

    def _has_bounced(self, way: _Way, lease: Lease, error: ApiError) -> bool:
        """Whether a processor that keeps no queue for us was full after all, or is
        stopping and there is nobody else: it may be back soon."""
        one = lease.processor
        is_full = error.code is ErrorCode.BUSY
        is_stopping = error.code is ErrorCode.STOPPED and not way.has_come
        if not (is_full or is_stopping) or not one.pushes:
            return False
        others = way.excluded | {one.key}
        if is_stopping and self._router.able_keys(way.said.model, others):
            return False
        way.bounces += 1
        if way.bounces > BOUNCES_MAX:
            return False
        one.refuse()
        lease.breaker.refuse(self._router.now_s)
        self._routing.counts.bounced()
        self._note("full", lease)
        return True

    def _failed(self, way: _Way, lease: Lease, error: ApiError) -> None:
        """Learn from a failure; raises it when nobody else is to be asked."""
        one = lease.processor
        key = one.key.hex()[:8]
        request_id = self._trace.request_id
        logger.info("request %s: processor %s: %s", request_id, key, error.message)
        self._note("failed", lease, f"{error.code}: {error.message}")
        is_late = error.code is ErrorCode.TIMEOUT and self._router.now_s >= way.end_s
        kind = kind_of(error, is_continued=bool(way.failures))
        if kind is Kind.HARD and not is_late:
            if lease.breaker.fail(self._router.now_s):
                self._routing.counts.breaker_opened()
        else:
            lease.breaker.abandon()
        if error.code in (ErrorCode.BUSY, ErrorCode.STOPPED):
            one.refuse()
        if error.code is ErrorCode.MODEL_MISSING and way.said.model:
            one.lack(way.said.model)
        way.failures.append(error)
        way.excluded.add(one.key)
        if error.code in (ErrorCode.PEER_LOST, ErrorCode.STOPPED):
            way.lost.add(one.key)
        if error.code is ErrorCode.PEER_LOST:
            self._router.suspect(one)
        if kind is Kind.FINAL or is_late or len(way.failures) >= TRIES_MAX:
            raise self._given_up(way, error)
        if way.said.has_any and not way.said.can_continue:
            raise self._given_up(way, error)

    def _given_up(self, way: _Way, error: ApiError) -> ApiError:
        """The failure to tell the asker."""
        no_room = (ErrorCode.NO_PROCESSOR, ErrorCode.MODEL_MISSING, ErrorCode.BUSY)
        if way.failures and error.code in no_room:
            error = worst(way.failures)
        self._note("gave up", detail=error.message)
        return broke_off(error) if way.said.has_any else none_left(error)

    def _note(self, what: str, lease: Lease | None = None, detail: str = "") -> None:
        peer = lease.processor.key.hex() if lease is not None else ""
        self._trace.add(what, self._router.now_s, peer=peer, detail=detail)


def _ended_early() -> ApiError:
    return ApiError(ErrorCode.ENGINE_FAILED, "The answer broke off.", status=502)
