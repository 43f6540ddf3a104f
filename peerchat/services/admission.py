"""Slots, and a fair queue in front of them.

Ollama queues without limit and without a word (`engines.ollama`), so the processor
admits only as many requests as there are slots. The others wait here: bounded, in
turns between callers, and each knows its position. The order is that of start-time
fair queueing (Goyal, Vin, Cheng 1996) with every request costing the same.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

from peerchat.api import ApiError, ErrorCode

QUEUE_MAX = 64
"""Waiting requests in all; with one slot and half a minute each, the last one would
wait half an hour, and nobody does."""

QUEUE_PER_CALLER_MAX = 8
"""Waiting requests of one user; a person asks one or two things at a time."""

QUEUE_PER_PEER_MAX = 32
"""Waiting requests that one gateway brings: half, so that no gateway fills the queue
by making users up."""

DURATION_GUESS_S = 10.0
"""Of an answer, until one was measured."""

RETRY_AFTER_S_MAX = 120


class Ticket:
    """A place in the queue, later a slot; made by `Admission.enter`."""

    def __init__(self, admission: Admission, peer: str, caller: str, tag: int) -> None:
        self.peer = peer
        self.caller = caller
        self.tag = tag
        self.position = 0
        """1 for the next one; 0 once it has a slot."""
        self.is_admitted = False
        self.admitted_at_s = 0.0
        self._admission = admission
        self._changed = asyncio.Event()

    async def changed(self) -> None:
        """Wait until position or admission changed since the last call."""
        await self._changed.wait()
        self._changed.clear()

    def leave(self) -> None:
        """Free the slot, or leave the queue; idempotent."""
        self._admission.leave(self)

    def mark_seen(self) -> None:
        """The owner knows the position; only changes from here on wake it."""
        self._changed.clear()

    def notify(self) -> None:
        """Wake who waits in `changed`."""
        self._changed.set()


class Admission:
    """Hands out slots.

    Args:
        slots: requests that run at once.
        queue_max: requests that wait in all.
        on_change: called when a slot or a place was taken or given back.
    """

    def __init__(
        self,
        slots: int,
        *,
        queue_max: int = QUEUE_MAX,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.slots = max(1, slots)
        self._on_change = on_change
        self._queue_max = queue_max
        self._running: set[Ticket] = set()
        self._waiting: list[Ticket] = []
        """In the order in which they will start."""
        self._clock_tag = 0
        """Tag of the newest request that started: the queue's virtual time."""
        self._newest_tags: dict[str, int] = {}
        """By caller, only of callers that wait or run."""
        self._mean_duration_s = DURATION_GUESS_S

    @property
    def busy(self) -> int:
        """Slots in use."""
        return len(self._running)

    @property
    def queued(self) -> int:
        """Requests that wait."""
        return len(self._waiting)

    @property
    def mean_duration_s(self) -> float:
        """A slot is held for so long, on average."""
        return self._mean_duration_s

    def enter(self, peer: str, user: str = "", *, may_wait: bool = True) -> Ticket:
        """Take a slot, or a place in the queue.

        Args:
            peer: who is connected, hex; the gateway.
            user: whom the gateway asks for.
            may_wait: False for a gateway that keeps the queue itself.

        Raises:
            ApiError: BUSY, with the seconds after which to try again.
        """
        if not may_wait and len(self._running) >= self.slots:
            raise self._busy("All slots of this processor are in use")
        caller = f"{peer}/{user}"
        tag = max(self._clock_tag, self._newest_tags.get(caller, 0)) + 1
        ticket = Ticket(self, peer, caller, tag)
        if len(self._running) < self.slots:
            self._admit(ticket)
        else:
            self._check_room(peer, caller)
            self._waiting.append(ticket)
            # Sorting is stable: of equal tags, who came first is first.
            self._waiting.sort(key=lambda waiting: waiting.tag)
            self._renumber()
            ticket.mark_seen()
        self._newest_tags[caller] = tag
        self._on_change()
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Give the place or the slot back; idempotent."""
        if ticket in self._running:
            self._running.discard(ticket)
            self._measure(time.monotonic() - ticket.admitted_at_s)
            if self._waiting:
                self._admit(self._waiting.pop(0))
        elif ticket in self._waiting:
            self._waiting.remove(ticket)
        else:
            return
        self._forget(ticket.caller)
        self._renumber()
        self._on_change()

    def _admit(self, ticket: Ticket) -> None:
        self._running.add(ticket)
        self._clock_tag = max(self._clock_tag, ticket.tag)
        ticket.is_admitted = True
        ticket.position = 0
        ticket.admitted_at_s = time.monotonic()
        ticket.notify()

    def _check_room(self, peer: str, caller: str) -> None:
        if sum(t.caller == caller for t in self._waiting) >= QUEUE_PER_CALLER_MAX:
            raise self._busy("You have too many prompts waiting here")
        of_peer = sum(ticket.peer == peer for ticket in self._waiting)
        if of_peer >= QUEUE_PER_PEER_MAX or self.queued >= self._queue_max:
            raise self._busy("This processor is busy and its queue is full")

    def _busy(self, what: str) -> ApiError:
        wait_s = self._mean_duration_s * (self.queued + 1) / self.slots
        retry_after_s = max(1, min(math.ceil(wait_s), RETRY_AFTER_S_MAX))
        return ApiError(
            ErrorCode.BUSY,
            f"{what}; try again in {retry_after_s} s.",
            status=503,
            retry_after_s=retry_after_s,
        )

    def _measure(self, duration_s: float) -> None:
        self._mean_duration_s += (duration_s - self._mean_duration_s) / 8

    def _forget(self, caller: str) -> None:
        tickets = (*self._running, *self._waiting)
        if not any(ticket.caller == caller for ticket in tickets):
            self._newest_tags.pop(caller, None)

    def _renumber(self) -> None:
        for position, ticket in enumerate(self._waiting, 1):
            if ticket.position != position:
                ticket.position = position
                ticket.notify()
