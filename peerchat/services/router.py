"""Knows the processors of a swarm and says which one a request goes to.

Each processor that is found is followed by a `ProcessorWatch`; what is known of it is
in its `Processor`. The choice itself is `choice.choose`.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from peerchat.api import (
    ApiError,
    Closed,
    ClosedReason,
    ErrorCode,
    PromptRequest,
    Role,
)
from peerchat.closed_text import reason_words, wait_words
from peerchat.net.errors import NetError
from peerchat.net.identity import PublicKey

from .affinity import Affinity
from .choice import Choice, choose
from .processor_state import MISSING_S, Processor, able
from .processor_watch import ProcessorWatch
from .swarm import Swarm, api_error_of
from .tasks import Tasks

logger = logging.getLogger(__name__)

PROCESSORS_MAX = 64
"""Processors that are followed; each costs a connection and a message a second."""

SETTLE_S = 3.0
"""How long a request waits for processors that are new to tell of themselves."""

LOOK_EVERY_S = 2.0
LOOK_EVERY_S_MAX = 30.0
"""Between two look-ups: often after a processor came or went, as others may follow;
half as often each time that nothing changed."""

LOOK_IN_NEED_S = 2.0
"""And when somebody waits whom nobody can serve."""

RETRY_S = 1.0
RETRY_MAX_S = 30.0
"""The DHT names a dead peer for up to twenty minutes. In need each is tried again after
the shorter time."""

RETURN_S = 30.0
"""A processor that was heard of within this time may be about to return: it restarts,
or its connection broke."""

CHARS_PER_TOKEN = 4

CLOSED_RETRY_S = 60
CLOSED_RETRY_S_MAX = 3600
"""When to ask again those who are paused, and those who open at some time: what opens
tomorrow may be followed by somebody else today."""


@dataclass(slots=True)
class _Followed:
    """A processor with what follows it."""

    processor: Processor
    watch: ProcessorWatch | None = None
    retry_s: float = 0.0
    left_s: float = float("-inf")
    """When it was lost last."""


class Router:
    """The processors of a swarm.

    Args:
        swarm: finds them.
        draw: a number from 0 to below what it is given, by chance.
    """

    def __init__(
        self, swarm: Swarm, draw: Callable[[int], int] = random.randrange
    ) -> None:
        self.affinity = Affinity()
        self.on_change: Callable[[], None] = lambda: None
        """Called at each news of a processor."""
        self._swarm = swarm
        self._draw = draw
        self._followed: dict[PublicKey, _Followed] = {}
        self._watching = Tasks()
        self._look_every_s = LOOK_EVERY_S
        self._looked_s = 0.0
        self._ticked_s: float | None = None

    @property
    def processors(self) -> Sequence[Processor]:
        """Those that are there."""
        return tuple(
            one.processor for one in self._followed.values() if one.processor.is_live
        )

    @property
    def now_s(self) -> float:
        """The clock of all that is kept here."""
        return asyncio.get_running_loop().time()

    async def close(self) -> None:
        """Follow nobody any more."""
        await self._watching.close()

    # Finding

    async def look(self, *, max_age_s: float | None = None) -> None:
        """Follow who is found; raises as `Swarm.find`.

        Args:
            max_age_s: in need: of the look-up; those who were lost are tried soon then.
        """
        retry_max_s = RETRY_MAX_S if max_age_s is None else RETRY_S
        if max_age_s is None:
            max_age_s = self._look_every_s
            self._plan_look()
        keys = await self._swarm.find(Role.PROCESSOR, max_age_s=max_age_s)
        for key in keys[:PROCESSORS_MAX]:
            followed = self._followed.get(key)
            if followed is None:
                followed = self._followed[key] = _Followed(Processor(key))
                self._look_every_s = LOOK_EVERY_S
            retry_at_s = followed.left_s + min(followed.retry_s, retry_max_s)
            if followed.watch is None and retry_at_s <= self.now_s:
                self._follow(followed)
        self._forget(set(keys))

    async def ensure(
        self,
        model: str | None,
        excluded: Collection[PublicKey] = (),
        *,
        may_hope: bool = True,
    ) -> None:
        """Return once some processor may serve the model, free or not.

        Args:
            model: which.
            excluded: who is not asked.
            may_hope: return also where one that is lost may soon be back.

        Raises:
            ApiError: NO_PROCESSOR; MODEL_MISSING when none has the model;
                DHT_UNREACHABLE.
        """
        if self._able(model, excluded):
            return
        try:
            await self.look()
            await self._settle(model, excluded)
            if not self._able(model, excluded):
                # All we knew are gone; somebody new may be announced.
                await self.look(max_age_s=LOOK_IN_NEED_S)
                await self._settle(model, excluded)
        except NetError as error:
            raise api_error_of(error) from error
        if not (may_hope and self._may_return(model, excluded)):
            self.check(model, excluded)

    def _may_return(self, model: str | None, excluded: Collection[PublicKey]) -> bool:
        """Whether one that may serve the model was here a moment ago."""
        lost = (
            one.processor
            for key, one in self._followed.items()
            if key not in excluded and not one.processor.is_live
        )
        since_s = self.now_s - RETURN_S
        return any(
            one.seen_s > since_s and one.closed is None and one.has(model)
            for one in lost
        )

    def check(self, model: str | None, excluded: Collection[PublicKey] = ()) -> None:
        """Raise `ApiError` if no processor may serve the model, free or not."""
        if self._able(model, excluded):
            return
        left = [one for one in self.processors if one.key not in excluded]
        closed = [one.closed for one in left if one.closed and one.has(model)]
        if closed:
            raise all_closed(model, closed, left)
        if model and any(not (one.is_healthy or one.models) for one in left):
            raise _engines_down(model)
        if model and left:
            raise _model_missing(model, left)
        raise no_processor()

    def _plan_look(self) -> None:
        """Look half as often from the time on when the present one is due."""
        now_s = self.now_s
        if now_s - self._looked_s >= self._look_every_s:
            self._looked_s = now_s
            self._look_every_s = min(2 * self._look_every_s, LOOK_EVERY_S_MAX)

    async def _settle(self, model: str | None, excluded: Collection[PublicKey]) -> None:
        """Wait until somebody may serve the model, or all who are followed told of
        themselves or are lost."""
        settling = {
            asyncio.ensure_future(one.watch.is_settled.wait())
            for one in self._followed.values()
            if one.watch is not None and not one.watch.is_settled.is_set()
        }
        end_s = self.now_s + SETTLE_S
        try:
            while settling and not self._able(model, excluded):
                done, settling = await asyncio.wait(
                    settling,
                    timeout=end_s - self.now_s,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if not done:
                    return
        finally:
            for task in settling:
                task.cancel()

    def _follow(self, followed: _Followed) -> None:
        watch = ProcessorWatch(self._swarm, followed.processor, self._changed)
        followed.watch = watch

        async def run() -> None:
            began_s = self.now_s
            try:
                await watch.run()
            finally:
                has_held = watch.has_told and self.now_s - began_s > MISSING_S
                longer_s = min(max(followed.retry_s * 2, RETRY_S), RETRY_MAX_S)
                followed.retry_s = 0.0 if has_held else longer_s
                followed.left_s = self.now_s
                followed.watch = None
                if watch.has_told:
                    self._look_every_s = LOOK_EVERY_S
                self.affinity.forget(bytes(followed.processor.key))

        self._watching.start(run())

    def _forget(self, found: Collection[PublicKey]) -> None:
        """Of the lost ones, those that no look-up names any more."""
        for key, one in list(self._followed.items()):
            is_idle = one.watch is None and not one.processor.running
            is_over = one.left_s + max(one.retry_s, RETURN_S) < self.now_s
            if is_idle and key not in found and is_over:
                del self._followed[key]

    def _changed(self) -> None:
        self.on_change()

    # Choosing

    def tick(self) -> None:
        """Drop who has been silent for too long; called about once a second.

        After a gap, as when the machine slept, nobody is believed to be there: the
        others have given our connections up meanwhile.
        """
        now_s = self.now_s
        was_away = self._ticked_s is not None and now_s - self._ticked_s > MISSING_S
        self._ticked_s = now_s
        for one in self.processors:
            limit_s = MISSING_S if one.pushes else 2 * MISSING_S
            if was_away or now_s - one.seen_s > limit_s:
                logger.info("processor %s is silent", one.key.hex()[:8])
                self.suspect(one)

    def suspect(self, processor: Processor) -> None:
        """Its connection seems dead: it is asked nothing before it is heard again."""
        processor.lose()
        followed = self._followed.get(processor.key)
        if followed is not None and followed.watch is not None:
            followed.watch.suspect()
        self._changed()

    def can_serve(self, model: str | None, excluded: Collection[PublicKey]) -> bool:
        """Whether a processor that may serve the model is free."""
        now_s = self.now_s
        return any(
            one.is_free and one.breaker(model).allows(now_s)
            for one in self._able(model, excluded)
        )

    def choose(
        self, request: PromptRequest, excluded: Collection[PublicKey] = ()
    ) -> tuple[Processor, Choice] | None:
        """A free processor, and why it; None if there is none."""
        now_s = self.now_s
        free = [
            one
            for one in self._able(request.model, excluded)
            if one.is_free and one.breaker(request.model).allows(now_s)
        ]
        if not free:
            return None
        candidates = [one.candidate(request.model) for one in free]
        holder = self.affinity.holder(request) if len(free) > 1 else None
        others = sum(one.has(request.model) for one in self.processors) - len(free)
        tokens = _tokens_of(request)
        choice = choose(candidates, tokens, self._draw, holder, others=others)
        return self._followed[choice.key].processor, choice

    def able_keys(
        self, model: str | None, excluded: Collection[PublicKey]
    ) -> list[PublicKey]:
        """Of the processors that may serve the model, free or not."""
        return [one.key for one in self._able(model, excluded)]

    def slots(self, model: str | None) -> int:
        """Requests for a model that run at once, at least 1."""
        return max(1, sum(one.room for one in self._able(model, ())))

    def retry_after_s(
        self, model: str | None, excluded: Collection[PublicKey] = ()
    ) -> float | None:
        """When a breaker lets one through, if all that are left are kept out by one."""
        now_s = self.now_s
        ones = self._able(model, excluded)
        if not ones or any(one.breaker(model).allows(now_s) for one in ones):
            return None
        times = [one.breaker(model).next_change_s(now_s) or now_s for one in ones]
        return min(times) - now_s

    def is_self(self, processor: Processor) -> bool:
        """Whether it is a role of this process."""
        return self._swarm.is_self(processor.key)

    def _able(
        self, model: str | None, excluded: Collection[PublicKey]
    ) -> list[Processor]:
        return able(self.processors, model, frozenset(excluded))


def _tokens_of(request: PromptRequest) -> float:
    chars = len(request.prompt) + len(request.prefix) + len(request.prefix_thinking)
    return (chars + sum(len(one.content) for one in request.history)) / CHARS_PER_TOKEN


def no_processor() -> ApiError:
    """Nobody can answer prompts."""
    return ApiError(
        ErrorCode.NO_PROCESSOR,
        "No processor answers. Start one with: peerchat serve --role processor.",
        status=503,
        retry_after_s=10,
    )


def all_closed(
    model: str | None, closed: Sequence[Closed], live: Sequence[Processor] = ()
) -> ApiError:
    """Who could answer is there and takes nothing new."""
    reasons = sorted({one.reason for one in closed}, key=list(ClosedReason).index)
    words = " or ".join(", ".join(map(reason_words, reasons)).rsplit(", ", 1))
    times = [one.opens_in_s for one in closed if one.opens_in_s is not None]
    first_s = min(times, default=None)
    when = f"the first opens in {wait_words(first_s)}" if first_s else "ask again later"
    others = _names([one for one in live if one.closed is None])
    choice = f", or choose one of: {', '.join(others)}" if model and others else ""
    whom = f"peer with {model!r}" if model else "processor"
    wait_s = CLOSED_RETRY_S if first_s is None else math.ceil(first_s)
    return ApiError(
        ErrorCode.BUSY,
        f"Every {whom} is {words}; {when}{choice}.",
        status=503,
        retry_after_s=max(1, min(wait_s, CLOSED_RETRY_S_MAX)),
    )


def _engines_down(model: str) -> ApiError:
    """Who may have the model cannot tell: its engine does not answer."""
    return ApiError(
        ErrorCode.ENGINE_DOWN,
        f"No processor serves the model {model!r} now, and the engine of at least one "
        "is down: start it, or choose another model.",
        status=503,
        retry_after_s=10,
    )


def _names(processors: Sequence[Processor]) -> list[str]:
    return sorted({name for one in processors for name in one.models or ()})[:10]


def _model_missing(model: str, live: Sequence[Processor]) -> ApiError:
    names = _names([one for one in live if one.closed is None]) or _names(live)
    choice = f"Choose one of: {', '.join(names)}" if names else "Ask without a model"
    return ApiError(
        ErrorCode.MODEL_MISSING,
        f"No processor serves the model {model!r}. {choice}.",
        status=404,
    )
