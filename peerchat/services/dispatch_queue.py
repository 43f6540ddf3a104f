"""Who waits at a gateway, and who is next: bounded, and fair between users.

Deficit round robin (Shreedhar, Varghese 1996): users take turns, each turn gives a user
a quantum, and what a request costs is taken from it, so that a user of long prompts
gets no more than one of short ones. A request that no free processor can take is passed
over, not waited for. No clock, no I/O: `now_s` comes with each call.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from peerchat.api import ApiError, ErrorCode

QUEUE_MAX = 256
"""Waiting requests in all; more would wait longer than anybody does."""

QUEUE_PER_USER_MAX = 8
"""Waiting requests of one user; a person asks one or two things at a time."""

QUANTUM = 1
COST_MAX = 8
COST_PROMPT_BYTES = 16 * 1024
"""A prompt costs one turn, and one more for each of these, up to `COST_MAX`."""

RETRY_AFTER_S_MAX = 120

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class Waiting(Generic[T]):
    """One request in the queue; ``item`` is the caller's own."""

    user: str
    item: T
    cost: int = 1
    entered_s: float = 0.0


@dataclass(slots=True)
class _Turn(Generic[T]):
    """One user's waiting requests and what is left of the user's turn."""

    entries: deque[Waiting[T]] = field(default_factory=deque)
    deficit: int = 0
    is_on: bool = False
    """Its turn has begun: the quantum was given."""


class DispatchQueue(Generic[T]):
    """The waiting requests of one gateway.

    Args:
        queue_max: in all.
        per_user_max: of one user.
    """

    def __init__(
        self,
        *,
        queue_max: int = QUEUE_MAX,
        per_user_max: int = QUEUE_PER_USER_MAX,
    ) -> None:
        self._queue_max = queue_max
        self._per_user_max = per_user_max
        self._turns: dict[str, _Turn[T]] = {}
        self._ring: deque[str] = deque()
        """Users who wait, the one whose turn it is first."""
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def enter(
        self, user: str, item: T, *, cost: int = 1, now_s: float, turn_s: float = 1.0
    ) -> Waiting[T]:
        """Wait.

        Args:
            user: whose turn it takes.
            item: comes out again.
            cost: turns that it takes, see `cost_of`.
            now_s: the clock.
            turn_s: between one request's start and the next one's, to say when to try
                again.

        Raises:
            ApiError: BUSY (503) when the queue, or the user's share of it, is full.
        """
        turn = self._turns.get(user)
        if turn is not None and len(turn.entries) >= self._per_user_max:
            raise self._full("You have too many prompts waiting", turn_s)
        if self._size >= self._queue_max:
            raise self._full("All processors are busy and the queue is full", turn_s)
        waiting = Waiting(user, item, max(1, min(cost, COST_MAX)), now_s)
        self._turn(user).entries.append(waiting)
        self._size += 1
        return waiting

    def put_back(self, waiting: Waiting[T]) -> None:
        """It was taken and could not be served: it is next again, at no cost."""
        turn = self._turns.get(waiting.user)
        if turn is None:
            turn = self._turn(waiting.user)
        self._ring.remove(waiting.user)
        self._ring.appendleft(waiting.user)
        turn.entries.appendleft(waiting)
        turn.deficit = max(turn.deficit, 0) + waiting.cost
        turn.is_on = True
        self._size += 1

    def leave(self, waiting: Waiting[T]) -> bool:
        """It waits no longer; False when it did not wait."""
        turn = self._turns.get(waiting.user)
        if turn is None or waiting not in turn.entries:
            return False
        self._remove(waiting, turn)
        return True

    def pop(self, can_start: Callable[[T], bool]) -> Waiting[T] | None:
        """Take the next request that can be started, in turns; None if none can."""
        ready = {
            user: entry
            for user in self._ring
            if (entry := self._first(user, can_start)) is not None
        }
        while ready:
            # Who cannot start keeps place and turn: slots that come free one by one
            # would else go to the same user each time.
            user = next(user for user in self._ring if user in ready)
            turn, entry = self._turns[user], ready[user]
            if not turn.is_on:
                turn.is_on = True
                turn.deficit += QUANTUM
            if turn.deficit < entry.cost:
                self._next_turn(user, turn)
                continue
            turn.deficit -= entry.cost
            self._remove(entry, turn)
            return entry
        return None

    def order(self) -> list[Waiting[T]]:
        """Everybody in the order in which they would start if all could."""
        found: list[Waiting[T]] = []
        ring = deque(
            (turn, deque(turn.entries))
            for turn in (self._turns[user] for user in self._ring)
        )
        left = {id(turn): (turn.deficit, turn.is_on) for turn, _ in ring}
        while ring:
            turn, entries = ring[0]
            deficit, is_on = left[id(turn)]
            deficit += 0 if is_on else QUANTUM
            while entries and entries[0].cost <= deficit:
                deficit -= entries[0].cost
                found.append(entries.popleft())
            left[id(turn)] = (deficit, False)
            ring.popleft()
            if entries:
                ring.append((turn, entries))
        return found

    def entries(self) -> Iterable[Waiting[T]]:
        """Everybody, in no order."""
        for turn in list(self._turns.values()):
            yield from list(turn.entries)

    def _turn(self, user: str) -> _Turn[T]:
        turn = self._turns.get(user)
        if turn is None:
            turn = self._turns[user] = _Turn()
            self._ring.append(user)
        return turn

    def _first(self, user: str, can_start: Callable[[T], bool]) -> Waiting[T] | None:
        entries = self._turns[user].entries
        return next((one for one in entries if can_start(one.item)), None)

    def _next_turn(self, user: str, turn: _Turn[T]) -> None:
        turn.is_on = False
        self._ring.remove(user)
        self._ring.append(user)

    def _remove(self, waiting: Waiting[T], turn: _Turn[T]) -> None:
        turn.entries.remove(waiting)
        self._size -= 1
        if not turn.entries:
            # Who waits for nothing keeps no claim: else credit could be saved up.
            del self._turns[waiting.user]
            self._ring.remove(waiting.user)

    def _full(self, what: str, turn_s: float) -> ApiError:
        wait_s = (self._size + 1) * turn_s
        retry_after_s = max(1, min(math.ceil(wait_s), RETRY_AFTER_S_MAX))
        return ApiError(
            ErrorCode.BUSY,
            f"{what}; try again in {retry_after_s} s.",
            status=503,
            retry_after_s=retry_after_s,
        )


def cost_of(prompt_bytes: int) -> int:
    """Turns that a request with so many bytes of prompt and history takes."""
    return min(COST_MAX, 1 + prompt_bytes // COST_PROMPT_BYTES)
