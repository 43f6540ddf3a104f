"""Gives requests a free processor each, in the queue's order, and places until then.

What happens when is `dispatch_queue`'s to say, who is free `router`'s; here the two
meet, and those who wait are woken.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Collection
from dataclasses import dataclass

from peerchat.api import ApiError, ErrorCode, PromptRequest
from peerchat.net.identity import PublicKey

from .breaker import Breaker
from .dispatch_queue import COST_MAX, DispatchQueue, Waiting, cost_of
from .forecast import Durations, Forecast, taken_slots
from .processor_state import Processor
from .router import Router

logger = logging.getLogger(__name__)

TELL_S = 0.05
"""Places are counted anew no more often than this."""

RETELL_S = 1.0
"""And so often while anybody waits: estimates count down."""

HOPE_S = 10.0
"""A request that nobody can serve any more waits so long for somebody who can: a role
that is stopped has 8 s for what runs, and is back some 2 s later."""


Wanted = tuple[str | None, frozenset[PublicKey]]
"""A model and whom not to ask: who wants the same can be served by the same."""


@dataclass(slots=True, eq=False)
class Lease:
    """A slot of a processor, held until `Dispatcher.release`."""

    processor: Processor
    reason: str
    expected_s: float
    began_s: float
    breaker: Breaker
    """Judges by how the answer ends."""
    model: str | None = None
    """That was asked for."""
    is_held: bool = True


class Place:
    """One request's place; wait for `changed` until it has a lease or an error."""

    def __init__(
        self, request: PromptRequest, excluded: Collection[PublicKey], now_s: float
    ) -> None:
        self.request = request
        self.excluded = excluded
        """Processors that are not asked again; the owner may add to it."""
        self.entered_s = now_s
        self.position = 0
        self.estimate_s: float | None = None
        self.lease: Lease | None = None
        self.error: ApiError | None = None
        self.hopeless_since_s: float | None = None
        self._changed = asyncio.Event()

    @property
    def wanted(self) -> Wanted:
        """Who may serve it."""
        return self.request.model, frozenset(self.excluded)

    def tell(self, position: int, wait_s: float | None) -> None:
        """Where it stands, and about how long it will wait; whole seconds do."""
        estimate_s = None if wait_s is None else float(max(1, math.ceil(wait_s)))
        if (position, estimate_s) != (self.position, self.estimate_s):
            self.position, self.estimate_s = position, estimate_s
            self.notify()

    async def changed(self) -> None:
        """Wait until anything changed since the last call."""
        await self._changed.wait()
        self._changed.clear()

    def notify(self) -> None:
        """Wake who waits in `changed`."""
        self._changed.set()


class Dispatcher:
    """The queue of one gateway in front of its processors."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._queue = DispatchQueue[Place]()
        self._waiting: dict[Place, Waiting[Place]] = {}
        self._leases: set[Lease] = set()
        self._durations = Durations()
        self._telling: asyncio.TimerHandle | None = None
        self._tell_at_s = 0.0
        router.on_change = self.pump

    @property
    def queued(self) -> int:
        """Requests that wait."""
        return len(self._queue)

    def enter(
        self,
        user: str,
        request: PromptRequest,
        excluded: Collection[PublicKey] = (),
        *,
        is_urgent: bool = False,
    ) -> Place:
        """A place for a request; it has its lease at once if somebody is free.

        Args:
            user: whose turn it takes.
            request: for the model and the conversation.
            excluded: processors that are not asked.
            is_urgent: an answer that was begun goes before everybody.

        Raises:
            ApiError: BUSY (503) when the queue is full.
        """
        now_s = self._router.now_s
        place = Place(request, excluded, now_s)
        if is_urgent:
            waiting = Waiting(user, place, 1, now_s)
            self._queue.put_back(waiting)
        else:
            waiting = self._queue.enter(
                user,
                place,
                cost=_cost(request),
                now_s=now_s,
                turn_s=self._durations.mean_s(request.model)
                / self._router.slots(request.model),
            )
        self._waiting[place] = waiting
        self._tell_soon()
        self.pump()
        return place

    def put_back(self, place: Place) -> None:
        """Its processor had no room after all: it is next again."""
        assert place.lease is not None
        self._end(place.lease)
        place.lease = None
        self._queue.put_back(self._waiting[place])
        self._tell_soon()
        self.pump()

    def leave(self, place: Place) -> None:
        """The request is over; idempotent. Frees what it holds."""
        waiting = self._waiting.pop(place, None)
        if waiting is not None and self._queue.leave(waiting):
            self._tell_soon()
        if place.lease is not None:
            self.release(place.lease)

    def release(self, lease: Lease) -> None:
        """Free the slot; idempotent."""
        if lease.is_held:
            self._end(lease)
            self._durations.measure(lease.model, self._router.now_s - lease.began_s)
            self.pump()

    def _end(self, lease: Lease) -> None:
        lease.is_held = False
        lease.processor.running -= 1
        self._leases.discard(lease)

    def pump(self) -> None:
        """Give leases to all who can have one now."""
        if not len(self._queue):
            return
        known: dict[Wanted, bool] = {}

        def can_start(place: Place) -> bool:
            wanted = place.wanted
            if wanted not in known:
                known[wanted] = self._router.can_serve(*wanted)
            return known[wanted]

        while (waiting := self._queue.pop(can_start)) is not None:
            self._grant(waiting.item)
            known.clear()
            self._tell_soon()

    def tick(self) -> None:
        """Give up on requests that nobody can serve; called about once a second."""
        now_s = self._router.now_s
        is_hopeless: dict[Wanted, bool] = {}
        for waiting in list(self._queue.entries()):
            place = waiting.item
            wanted = place.wanted
            if wanted not in is_hopeless:
                is_hopeless[wanted] = self._problem(*wanted) is not None
            if not is_hopeless[wanted]:
                place.hopeless_since_s = None
            elif place.hopeless_since_s is None:
                place.hopeless_since_s = now_s
            elif now_s - place.hopeless_since_s >= HOPE_S:
                self._queue.leave(waiting)
                # One of its own: what is raised gets the request's id and limit.
                place.error = self._problem(*wanted)
                place.notify()
                self._tell_soon()
        self.pump()  # a breaker may let one through

    def has_hopeless(self) -> bool:
        """Whether anybody waits whom nobody can serve."""
        return any(
            one.item.hopeless_since_s is not None for one in self._queue.entries()
        )

    def _problem(
        self, model: str | None, excluded: frozenset[PublicKey]
    ) -> ApiError | None:
        try:
            self._router.check(model, excluded)
        except ApiError as error:
            return error
        wait_s = self._router.retry_after_s(model, excluded)
        if wait_s is not None and wait_s > HOPE_S:
            return _all_sick(wait_s)
        return None

    def _grant(self, place: Place) -> None:
        found = self._router.choose(place.request, place.excluded)
        assert found is not None
        processor, choice = found
        processor.running += 1
        now_s = self._router.now_s
        breaker = processor.breaker(place.request.model)
        breaker.begin(now_s)
        place.lease = Lease(
            processor,
            choice.reason,
            choice.expected_s,
            now_s,
            breaker,
            place.request.model,
        )
        self._leases.add(place.lease)
        place.position = 0
        place.notify()

    def _tell_soon(self) -> None:
        self._tell_in(TELL_S)

    def _tell_in(self, delay_s: float) -> None:
        if not len(self._queue):
            return
        loop = asyncio.get_running_loop()
        at_s = loop.time() + delay_s
        if self._telling is not None:
            if self._tell_at_s <= at_s:
                return
            self._telling.cancel()
        self._tell_at_s = at_s
        self._telling = loop.call_at(at_s, self._tell)

    def _tell(self) -> None:
        self._telling = None
        forecast = self._forecast()
        able: dict[Wanted, list[PublicKey]] = {}
        for position, waiting in enumerate(self._queue.order(), 1):
            place = waiting.item
            wanted = place.wanted
            if wanted not in able:
                able[wanted] = self._router.able_keys(*wanted)
            if not able[wanted]:
                continue  # it is in no queue, and may be refused yet
            mean_s = self._durations.mean_s(place.request.model)
            place.tell(position, forecast.begin(able[wanted], mean_s))
        self._tell_in(RETELL_S)

    def _forecast(self) -> Forecast:
        now_s = self._router.now_s
        ours: dict[PublicKey, list[float]] = {}
        for lease in self._leases:
            left_s = self._durations.left_s(lease.model, now_s - lease.began_s)
            ours.setdefault(lease.processor.key, []).append(left_s)
        return Forecast(
            {
                one.key: (
                    taken_slots(ours.get(one.key, ()), one.occupied, one.answer_s),
                    one.room - one.occupied,
                )
                for one in self._router.processors
            }
        )


def _cost(request: PromptRequest) -> int:
    chars = len(request.prompt) + sum(len(one.content) for one in request.history)
    chars += sum(map(len, request.inputs))
    return COST_MAX if request.images else cost_of(chars)


def _all_sick(wait_s: float) -> ApiError:
    retry_after_s = max(1, math.ceil(wait_s))
    return ApiError(
        ErrorCode.ENGINE_FAILED,
        f"All processors failed of late; try again in {retry_after_s} s.",
        status=503,
        retry_after_s=retry_after_s,
    )
