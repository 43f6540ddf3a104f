"""What happened to the last requests, step by step, for whoever asked them."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from peerchat.api import Hop

KEPT_MAX = 1000
"""Requests; with all their steps about 2 MiB."""

STEPS_MAX = 64
"""Of one request; the first and the newest are kept."""


@dataclass(slots=True)
class Trace:
    """One request's way so far."""

    request_id: str
    user: str
    began_s: float
    hops: list[Hop] = field(default_factory=list)

    def add(self, what: str, now_s: float, *, peer: str = "", detail: str = "") -> None:
        """Note a step of this gateway."""
        at_s = max(0.0, now_s - self.began_s)
        self.extend([Hop("gateway", peer, what, at_s, detail)])

    def extend(self, hops: list[Hop]) -> None:
        """Note steps that others tell of."""
        self.hops.extend(hops)
        if len(self.hops) > STEPS_MAX:
            del self.hops[STEPS_MAX // 2 : len(self.hops) - STEPS_MAX // 2]


class Traces:
    """The newest `KEPT_MAX` requests."""

    def __init__(self, kept_max: int = KEPT_MAX) -> None:
        self._kept_max = kept_max
        self._kept: OrderedDict[tuple[str, str], Trace] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def begin(self, user: str, request_id: str, now_s: float) -> Trace:
        """A request came; one that comes again goes on with its trace."""
        key = (user, request_id)
        trace = self._kept.get(key)
        if trace is None:
            trace = self._kept[key] = Trace(request_id, user, now_s)
        self._kept.move_to_end(key)
        while len(self._kept) > self._kept_max:
            self._kept.popitem(last=False)
        return trace

    def find(self, user: str, request_id: str) -> Trace | None:
        """The user's own request; nobody sees another's."""
        return self._kept.get((user, request_id))
