"""Users of the soak: they ask, read, stop in the middle, or are gone without a word."""

from __future__ import annotations

import asyncio
import enum
from collections import Counter
from dataclasses import dataclass, field

from peerchat.api import ApiError, ErrorCode, Fragment
from peerchat.failover_answer import FailoverAnswer
from peerchat.testing.faults import Fault, share_of, whole_answer
from tests.unit.services_world import token

from .members import FREED_S, LEFT, SoakSwarm, close_peer

USERS = 32
STOP_SHARE = 0.05
GONE_SHARE = 0.02
"""Of the prompts of every second user: the others keep their clients to the end."""

EVENTS_UNTIL_LEFT_MAX = 6
"""An answer is left in the queue, before its text or in it."""

ANSWERED_S = 60.0
"""An answer that takes longer has no end."""

STOPPED_S = 5.0
"""Every hop hears of a stop at once, but this machine may be busy."""

ENDLESS_S = 3.0
"""The deadline of prompts that may meet an endless answer."""

ATTEMPTS_MAX = 12
"""More are not made at one prompt."""

PAUSE_S = 0.05
"""After an error, as a person would."""

CLEAR = frozenset(
    {
        ErrorCode.NO_PROCESSOR,
        ErrorCode.NO_GATEWAY,
        ErrorCode.BUSY,
        ErrorCode.MODEL_MISSING,
        ErrorCode.PEER_LOST,
        ErrorCode.ENGINE_FAILED,
        ErrorCode.TIMEOUT,
        ErrorCode.STOPPED,
    }
)
"""What a user may be told while everything around dies."""


class Way(enum.Enum):
    """What a user does with an answer."""

    READ = "read"
    STOP = "stop"
    GO = "go"


@dataclass
class Tally:
    """How the prompts ended."""

    asked: int = 0
    whole: int = 0
    continued: int = 0
    stopped: int = 0
    gone: int = 0
    faults: Counter[Fault] = field(default_factory=Counter)
    errors: Counter[ErrorCode] = field(default_factory=Counter)
    partial: int = 0
    """Of the errors, those of answers that broke off."""
    ends: Counter[str] = field(default_factory=Counter)
    """How members of the swarm ended."""
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        told = {code.value: count for code, count in self.errors.items()}
        met = {fault.value: count for fault, count in self.faults.items()}
        return (
            f"{self.asked} asked: {self.whole} whole, {self.continued} of them "
            f"continued, {self.stopped} stopped, {self.gone} gone; told {told}, "
            f"{self.partial} of them in the middle\nengines: {met}\n"
            f"ended: {dict(self.ends)}"
        )


class User:
    """Asks one prompt after the other.

    Args:
        number: of this user.
        seed: decides with a prompt's text what is done with its answer.
    """

    def __init__(self, swarm: SoakSwarm, number: int, seed: int, tally: Tally) -> None:
        self.email = f"u{number}@example.org"
        self.token = token(self.email)
        self.asked = self.whole = 0
        self._swarm = swarm
        self._number = number
        self._seed = seed
        self._tally = tally
        self._checks: set[asyncio.Task[None]] = set()
        """Of answers that were stopped: that they end everywhere."""
        self._peer, self._gateways = swarm.client()

    async def use(self, until_s: float) -> None:
        """Ask until it is time."""
        clock = asyncio.get_running_loop()
        while clock.time() < until_s:
            self.asked += 1
            self._tally.asked += 1
            prompt = f"user {self._number} asks {self.asked}"
            way = self._way(prompt)
            if way is not Way.READ:
                prompt += f", {LEFT}"
            await self._ask(prompt, way)
            self._tally.faults.update(self._swarm.lots.drawn(prompt))
            self._swarm.lots.forget(prompt)
        if self._checks:
            await asyncio.wait(self._checks)

    async def used(self) -> int:
        """How many prompts were counted."""
        verified = await self._gateways.verify(self.token)
        limit = verified.rate_limit
        assert limit is not None
        return limit.max_requests - limit.remaining

    async def close(self) -> None:
        """Leave in order."""
        await self._gateways.close()
        await close_peer(self._peer)

    async def _ask(self, prompt: str, way: Way) -> None:
        answer = self._gateways.ask(prompt, self.token, deadline_s=self._limit(prompt))
        events_max = None if way is Way.READ else self._patience(prompt)
        text: list[str] = []
        try:
            async with asyncio.timeout(ANSWERED_S):
                is_left = await self._read(answer, text, events_max)
        except TimeoutError:
            self._blame(prompt, f"has no end after {''.join(text)!r}")
            await answer.aclose()
        except ApiError as error:
            self._told(prompt, "".join(text), error)
            await asyncio.sleep(PAUSE_S)
        else:
            if not is_left:
                self._finished(prompt, "".join(text))
            elif way is Way.STOP:
                await self._stop(prompt, answer)
            else:
                await self._go(prompt, answer)

    async def _read(
        self, answer: FailoverAnswer, text: list[str], events_max: int | None
    ) -> bool:
        """Read to the end; whether it is left before that."""
        count = 0
        async for event in answer:
            count += 1
            if isinstance(event, Fragment):
                text.append(event.text)
            usage = getattr(event, "usage", None)
            self._tally.continued += bool(usage and usage.continued)
            if count == events_max:
                return True
        return False

    async def _stop(self, prompt: str, answer: FailoverAnswer) -> None:
        """Whoever stops goes on asking: the gateway hears of it all the time."""
        self._tally.stopped += 1
        await answer.aclose()
        freed = self._check_freed(prompt, answer.request_id, "stopped", STOPPED_S)
        task = asyncio.create_task(freed)
        self._checks.add(task)
        task.add_done_callback(self._checks.discard)

    async def _go(self, prompt: str, answer: FailoverAnswer) -> None:
        self._tally.gone += 1
        self._peer.dht.be_silent()
        await self._check_freed(prompt, answer.request_id, "was gone", FREED_S)
        self._peer.dht.kill()
        await self.close()
        self._peer, self._gateways = self._swarm.client()

    async def _check_freed(
        self, prompt: str, request_id: str, why: str, timeout_s: float
    ) -> None:
        if not await self._swarm.working.is_freed(request_id, timeout_s):
            self._blame(prompt, f"is worked on after its asker {why}")

    def _told(self, prompt: str, text: str, error: ApiError) -> None:
        self._tally.errors[error.code] += 1
        self._tally.partial += error.is_partial
        whole = whole_answer(prompt)
        is_endless = self._is_endless(prompt) and text.startswith(whole)
        if error.code not in CLEAR or not error.message:
            self._blame(prompt, f"ends in {error!r}")
        if not (whole.startswith(text) or is_endless):
            self._blame(prompt, f"says {text!r} before {error!r}")
        if error.is_partial != bool(text):
            self._blame(prompt, f"is partial: {error.is_partial}, after {text!r}")

    def _finished(self, prompt: str, text: str) -> None:
        self.whole += 1
        self._tally.whole += 1
        whole = whole_answer(prompt)
        is_endless = self._is_endless(prompt) and text.startswith(whole)
        if text != whole and not is_endless:
            self._blame(prompt, f"says {text!r}")

    def _is_endless(self, prompt: str) -> bool:
        """Whether an engine may have said more than there is to say."""
        return Fault.ENDLESS in self._swarm.lots.drawn(prompt)

    def _blame(self, prompt: str, what: str) -> None:
        drawn = [fault.value for fault in self._swarm.lots.drawn(prompt)]
        self._tally.wrong.append(f"{prompt!r}, which met {drawn}, {what}")

    def _way(self, prompt: str) -> Way:
        lot = share_of(f"{self._seed} way {prompt}")
        if lot < STOP_SHARE:
            return Way.STOP
        gone_share = GONE_SHARE * (self._number % 2)
        return Way.GO if lot < STOP_SHARE + gone_share else Way.READ

    def _patience(self, prompt: str) -> int:
        """Events that are read before the answer is left."""
        lot = share_of(f"{self._seed} patience {prompt}")
        return 1 + int(lot * EVENTS_UNTIL_LEFT_MAX)

    def _limit(self, prompt: str) -> float | None:
        of = self._swarm.lots.of
        faults = [of(prompt, attempt) for attempt in range(ATTEMPTS_MAX)]
        return ENDLESS_S if Fault.ENDLESS in faults else None
