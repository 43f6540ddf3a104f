"""How often something costly may be tried: by one source, and by all together."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable


class Attempts:
    """A sliding window of attempts; holds no more of them than it allows.

    Args:
        by_source: of one source in the window.
        overall: of everybody in it.
        window_s: how long an attempt counts.
        now_s: monotonic clock.
    """

    def __init__(
        self,
        by_source: int,
        overall: int,
        window_s: float,
        *,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._by_source = by_source
        self._overall = overall
        self._window_s = window_s
        self._now_s = now_s
        self._attempts: deque[tuple[float, str]] = deque()
        self._sources: Counter[str] = Counter()

    def is_allowed(self, source: str) -> bool:
        """Whether one more may be made now; if so, it counts."""
        now_s = self._now_s()
        while self._attempts and self._attempts[0][0] <= now_s - self._window_s:
            _, old = self._attempts.popleft()
            self._sources[old] -= 1
            if not self._sources[old]:
                del self._sources[old]
        is_full = len(self._attempts) >= self._overall
        if is_full or self._sources[source] >= self._by_source:
            return False
        self._attempts.append((now_s, source))
        self._sources[source] += 1
        return True
