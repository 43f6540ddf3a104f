"""Which processor a prompt goes to, and to which one after that.

What is known of a processor comes from its ``ping``: ours tell models, slots and load;
Node.js ones only that they are there. Kept for seconds, and completed by what this
gateway itself has under way.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from peerchat.api import ApiError, ErrorCode, Role
from peerchat.net.errors import NetError
from peerchat.net.identity import PublicKey
from peerchat.replies import ping_of, reply_untrusted

from .swarm import Swarm

logger = logging.getLogger(__name__)

FRESH_S = 5.0
"""How long a ping's answer is believed."""

PING_TIMEOUT_S = 3.0

PROCESSORS_MAX = 64
"""Candidates of one prompt; nobody waits for more failures than a few of them."""

TRIES_MAX = 8
"""Processors that one prompt is offered to."""


@dataclass(slots=True)
class Processor:
    """What is known of one processor."""

    key: PublicKey
    models: tuple[str, ...] | None = None
    """None: it does not tell."""
    slots: int = 1
    busy: int = 0
    rtt_s: float = 0.0
    is_healthy: bool = True
    pinged_s: float = float("-inf")
    running: int = 0
    """Prompts of this gateway that it works on."""

    def load(self) -> float:
        """Share of its slots in use, as far as we know; 1 and more is full."""
        return max(self.busy, self.running) / max(1, self.slots)

    def may_have(self, model: str | None) -> bool:
        """Whether asking it for the model makes sense."""
        if not model or self.models is None:
            return True
        # Ollama's names have a tag, and leave out ":latest" where people type them.
        return model in self.models or f"{model}:latest" in self.models


class Router:
    """Knows the processors of a swarm."""

    def __init__(self, swarm: Swarm) -> None:
        self._swarm = swarm
        self._known: dict[PublicKey, Processor] = {}

    @property
    def processors(self) -> Sequence[Processor]:
        """Those that were found lately."""
        return tuple(self._known.values())

    async def candidates(self, model: str | None) -> list[Processor]:
        """Live processors for a prompt, the best first; at least one.

        Raises:
            ApiError: NO_PROCESSOR; MODEL_MISSING when none has the model.
            DhtUnreachable: nobody can be looked up.
        """
        live = await self._live()
        if not live:
            # All we knew are gone; somebody new may be announced.
            live = await self._live()
        if not live:
            raise no_processor()
        able = [one for one in live if one.may_have(model)]
        if not able:
            raise _model_missing(model or "", live)
        able.sort(key=lambda one: _rank(one, model))
        return able[:TRIES_MAX]

    def drop(self, processor: Processor) -> None:
        """It failed: ask somebody else until it answers again."""
        self._swarm.drop(Role.PROCESSOR, processor.key)
        processor.pinged_s = float("-inf")

    def note_busy(self, processor: Processor) -> None:
        """It refused for lack of room; believe so until the next ping."""
        processor.busy = max(processor.busy, processor.slots)

    async def _live(self) -> list[Processor]:
        keys = (await self._swarm.find(Role.PROCESSOR))[:PROCESSORS_MAX]
        self._known = {
            key: self._known.get(key) or Processor(key)
            for key in [*keys, *(k for k, p in self._known.items() if p.running)]
        }
        known = [self._known[key] for key in keys]
        now_s = asyncio.get_running_loop().time()
        stale = [one for one in known if now_s - one.pinged_s > FRESH_S]
        async with asyncio.TaskGroup() as group:
            for one in stale:
                group.create_task(self._ping(one))
        return [one for one in known if one.pinged_s > float("-inf")]

    async def _ping(self, processor: Processor) -> None:
        began_s = time.perf_counter()  # uvloop's own clock has only milliseconds
        try:
            reply = await self._swarm.request(
                processor.key, "ping", {}, PING_TIMEOUT_S, role=Role.PROCESSOR
            )
            said = ping_of(reply_untrusted(reply))
        except (NetError, ApiError) as error:
            logger.info("processor %s: %s", processor.key.hex()[:8], error)
            self.drop(processor)
            return
        tells = isinstance(reply, dict) and "models" in reply
        processor.models = tuple(m.name for m in said.models) if tells else None
        processor.slots = said.slots or 1
        processor.busy = said.busy or 0
        processor.is_healthy = said.is_healthy
        processor.pinged_s = asyncio.get_running_loop().time()
        processor.rtt_s = time.perf_counter() - began_s


def _rank(one: Processor, model: str | None) -> tuple[bool, bool, bool, float, float]:
    is_guess = bool(model) and one.models is None
    return (not one.is_healthy, is_guess, one.load() >= 1, one.load(), one.rtt_s)


def no_processor() -> ApiError:
    """Nobody can answer prompts."""
    return ApiError(
        ErrorCode.NO_PROCESSOR,
        "No processor answers. Start one with: peerchat serve --role processor.",
        status=503,
        retry_after_s=10,
    )


def _model_missing(model: str, live: Sequence[Processor]) -> ApiError:
    names = sorted({name for one in live for name in one.models or ()})[:10]
    choice = f"Choose one of: {', '.join(names)}" if names else "Ask without a model"
    return ApiError(
        ErrorCode.MODEL_MISSING,
        f"No processor serves the model {model!r}. {choice}.",
        status=404,
    )
