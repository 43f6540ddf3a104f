"""A circuit breaker: keeps a sick model of a processor out, and lets it back in.

Closed: requests pass. Open: none do, for two seconds that double with each failure of a
trial. Half-open: one request is let through, and decides. Only hard failures count. One
that is full is not sick: it rests, for longer with each refusal in a row. No clock:
`now_s` comes with each call.
"""

from __future__ import annotations

import enum
from collections import deque

FAILURES_IN_A_ROW = 3
WINDOW = 10
FAILED_SHARE = 0.5
"""Of the last `WINDOW` requests: opens the breaker as `FAILURES_IN_A_ROW` does."""

OPEN_S = 2.0
OPEN_S_MAX = 60.0

REST_S = 0.1
REST_S_MAX = 3.0
"""At first another gateway may just have been faster; later the engine is likely busy
with others' work, whatever its processor tells of slots."""


class BreakerState(enum.Enum):
    """Whether requests pass."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """Of one model of one processor."""

    def __init__(self) -> None:
        self._outcomes: deque[bool] = deque(maxlen=WINDOW)
        self._in_a_row = 0
        self._open_s = OPEN_S
        self._until_s: float | None = None
        """Open or half-open; the latter from then on."""
        self._is_trying = False
        self._rest_s = REST_S
        self._rests_until_s = float("-inf")

    def state(self, now_s: float) -> BreakerState:
        """Where it stands."""
        if self._until_s is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now_s < self._until_s else BreakerState.HALF_OPEN

    def allows(self, now_s: float) -> bool:
        """Whether a request may go there now."""
        if now_s < self._rests_until_s:
            return False
        match self.state(now_s):
            case BreakerState.CLOSED:
                return True
            case BreakerState.OPEN:
                return False
            case BreakerState.HALF_OPEN:
                return not self._is_trying

    def begin(self, now_s: float) -> None:
        """A request goes there; half-open, it is the trial."""
        if self.state(now_s) is BreakerState.HALF_OPEN:
            self._is_trying = True

    def abandon(self) -> None:
        """A request ended and says nothing of the processor: stopped, say."""
        self._is_trying = False

    def refuse(self, now_s: float) -> None:
        """There was no room for a request."""
        self._is_trying = False
        self._rests_until_s = now_s + self._rest_s
        self._rest_s = min(2 * self._rest_s, REST_S_MAX)

    def succeed(self) -> None:
        """A request went well."""
        self._rest_s = REST_S
        self._in_a_row = 0
        self._outcomes.append(True)
        if self._is_trying:
            self._outcomes.clear()
            self._open_s = OPEN_S
            self._until_s = None
        self._is_trying = False

    def fail(self, now_s: float) -> bool:
        """A request failed for a reason that is the processor's; whether that opens."""
        self._in_a_row += 1
        self._outcomes.append(False)
        if self._is_trying:
            self._is_trying = False
            self._open_s = min(self._open_s * 2, OPEN_S_MAX)
        elif self._until_s is not None or not self._is_sick():
            return False
        self._until_s = now_s + self._open_s
        return True

    def next_change_s(self, now_s: float) -> float | None:
        """When it will let one through; None when nothing is pending."""
        until_s = max(self._until_s or now_s, self._rests_until_s)
        return until_s if until_s > now_s else None

    def _is_sick(self) -> bool:
        if self._in_a_row >= FAILURES_IN_A_ROW:
            return True
        failed = self._outcomes.count(False)
        return len(self._outcomes) == WINDOW and failed >= WINDOW * FAILED_SHARE
