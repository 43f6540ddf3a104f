"""What a gateway knows of one processor, from its status and its own dealings with it.

No I/O: `now_s` comes with each call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from peerchat.api import Closed, ModelDetails
from peerchat.model_names import served_name
from peerchat.net.identity import PublicKey

from .breaker import Breaker
from .choice import Candidate
from .forecast import DURATION_GUESS_S
from .status_wire import ModelStatus, Status

MISSING_S = 3.0
"""A processor that says nothing for so long gets nothing more."""

SUSPECT_S = 0.75
"""Three beats of a busy processor that did not come."""

SUSPECT_BEATS = 2.5
"""A processor whose beats come late is given as many of its longest gaps."""

UNTOLD_SLOTS = 8
"""Requests at once for a processor that does not tell how many it takes."""

MODELS_KEPT = 64
"""Of which something is remembered; more are not asked for at one processor."""


@dataclass(slots=True, eq=False)
class Processor:
    """One processor."""

    key: PublicKey
    is_live: bool = False
    pushes: bool = False
    """Tells of each change on ``peerchat/status``, and queues nothing for us."""
    models: Mapping[str, ModelStatus] | None = None
    """None: it does not tell."""
    details: Mapping[str, ModelDetails] = field(default_factory=dict)
    """Of its models by name, as far as it tells."""
    slots: int | None = None
    busy: int = 0
    queued: int = 0
    is_healthy: bool = True
    closed: Closed | None = None
    """Why it takes nothing new."""
    engine: str = ""
    rtt_s: float = 0.0
    seen_s: float = float("-inf")
    """When it was heard of last."""
    running: int = 0
    """Prompts of this gateway that it works on."""
    _breakers: dict[str, Breaker] = field(default_factory=dict)
    """By model: one that is broken keeps no healthy one from being asked for."""
    _running_then: int = 0
    """`running` when `busy` was told."""
    _is_full: bool = False
    """It refused for lack of room since it told of itself."""
    _lacks: set[str] = field(default_factory=set)
    """Models that it said it does not have, since then."""
    _told_s: float = float("-inf")
    _gap_s: float = 0.0
    """Longest time between two statuses while it was busy, of late."""
    answer_s: float = DURATION_GUESS_S
    """A slot is held there for so long, on average."""
    _speeds: dict[str, float] = field(default_factory=dict)

    def tell(self, status: Status, now_s: float) -> None:
        """It told of itself."""
        if self.is_live and self.pushes and self.busy:
            # Of a busy one only: those that idle have longer beats.
            self._gap_s = max(now_s - self._told_s, self._gap_s * 0.9)
        self._told_s = now_s
        self.is_live = True
        self.seen_s = now_s
        self.models = {one.name: one for one in status.models}
        self.slots = status.slots
        self.busy = status.busy
        self.queued = status.queued
        self.is_healthy = status.is_healthy
        self.closed = status.closed
        self.engine = status.engine
        if status.answer_s is not None:
            self.answer_s = status.answer_s
        self._running_then = self.running
        self._is_full = False
        self._lacks.clear()

    def hear(self, now_s: float) -> None:
        """It said something, if only a fragment."""
        self.seen_s = now_s

    def lose(self) -> None:
        """It is gone, or does not answer."""
        self.is_live = False
        self._gap_s = 0.0

    def refuse(self) -> None:
        """It has no room, whatever it told."""
        self._is_full = True

    def lack(self, model: str) -> None:
        """It has not the model, whatever it told."""
        self._lacks.add(model)

    def measure(self, model: str, tokens_per_s: float | None, held_s: float) -> None:
        """An answer ended well."""
        self.answer_s += (held_s - self.answer_s) / 8
        if tokens_per_s:
            known = self._speeds.get(model, tokens_per_s)
            self._speeds[model] = known + (tokens_per_s - known) / 4
            while len(self._speeds) > MODELS_KEPT:
                self._speeds.pop(next(iter(self._speeds)))

    def breaker(self, model: str | None) -> Breaker:
        """That of a model; without a name, of the one that it answers with then."""
        models = self.models or {}
        known = self._named(model) if model else next(iter(models.values()), None)
        name = known.name if known else model or ""
        breaker = self._breakers.get(name)
        if breaker is None:
            breaker = self._breakers[name] = Breaker()
            while len(self._breakers) > MODELS_KEPT:
                self._breakers.pop(next(iter(self._breakers)))
        return breaker

    def suspect_after_s(self) -> float:
        """Silence of a busy processor after which it is likely gone."""
        return min(MISSING_S, max(SUSPECT_S, self._gap_s * SUSPECT_BEATS))

    @property
    def room(self) -> int:
        """Requests that it takes at once, as far as is known."""
        return self.slots or UNTOLD_SLOTS

    @property
    def occupied(self) -> int:
        """Slots in use now: what was told, and what was sent or ended since."""
        if self._is_full:
            return self.room
        return max(self.running, self.busy + self.running - self._running_then)

    @property
    def is_free(self) -> bool:
        """Whether a request may be sent to it."""
        if self.pushes:
            return self.occupied < self.room
        # It queues what is beyond its slots, and tells of itself seldom.
        return self.running < self.room and not self._is_full

    def has(self, model: str | None) -> bool:
        """Whether asking it for the model makes sense."""
        if model and model in self._lacks:
            return False
        return not model or self.models is None or self._named(model) is not None

    def candidate(self, model: str | None) -> Candidate:
        """What a choice needs to know of it."""
        known = self._named(model) if model and self.models else None
        name = known.name if known else model or ""
        speed = known.tokens_per_s if known else None
        return Candidate(
            self.key,
            self.room,
            self.occupied,
            self.queued,
            self.rtt_s,
            (known.load_s if known else None) or 0.0,
            speed or self._speeds.get(name),
            self.answer_s,
        )

    def _named(self, model: str) -> ModelStatus | None:
        models = self.models or {}
        name = served_name(model, models)
        return None if name is None else models[name]


def able(
    processors: Iterable[Processor],
    model: str | None,
    excluded: frozenset[PublicKey] | set[PublicKey] = frozenset(),
) -> list[Processor]:
    """Those that may be asked, full ones included; sick engines only if all are.

    A processor that does not tell its models comes in only when none is known to have
    the model.
    """
    found = [
        one
        for one in processors
        if one.is_live
        and one.closed is None
        and one.key not in excluded
        and one.has(model)
    ]
    found = [one for one in found if one.is_healthy] or found
    if model:
        return [one for one in found if one.models is not None] or found
    return found
