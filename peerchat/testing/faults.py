"""Engines and processors that fail in every way that docs/FAILURES.md names.

The answer of a `FaultyEngine` is a function of the prompt alone, so that an answer that
two of them gave together can be compared with the unbroken one, byte by byte. What goes
wrong is one `Fault` for all, or what a function such as `Lots` says of each request.
"""

from __future__ import annotations

import asyncio
import enum
import hashlib
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

from peerchat.api import AnswerEvent, Finished, Fragment, PromptRequest, Usage
from peerchat.net.driver.connection import Connection
from peerchat.net.mux.protomux import Channel
from peerchat.services import prompt_wire
from peerchat.services.engines.base import engine_failed, model_missing
from peerchat.services.prompt_events import fragment_body

from .engine import ScriptedEngine

WORDS = 24
PIECES = 6

SLOW_S = 0.15
"""Before each piece of a slow answer."""


class Fault(enum.Enum):
    """What goes wrong with one request."""

    NONE = "none"
    ERROR = "error"
    """Fails before the first byte."""
    FLAKY = "flaky"
    """Fails so at every second request to the engine, and answers the others."""
    HANG = "hang"
    """Never says anything."""
    SLOW = "slow"
    """Says each piece late, but all of them."""
    DROP = "drop"
    """Breaks in the middle."""
    STALL = "stall"
    """Stops in the middle and says nothing more."""
    MALFORMED = "malformed"
    """What it gives cannot be read."""
    ENDLESS = "endless"
    """Never ends."""
    REPEATS = "repeats"
    """Says a given beginning again."""
    WRONG_MODEL = "wrong model"
    """Has not the model that it lists."""


Chance = Callable[[PromptRequest], Fault]
"""What happens to a request."""


class Lots:
    """Draws what happens to each attempt at a prompt; one for all engines of a swarm.

    A lot depends on the seed, the prompt and how many engines were asked for it before,
    never on which engine is asked, or when: a prompt meets the same faults again under
    the same seed, whatever else goes on.

    Args:
        seed: of all lots.
        shares: of each fault; what is left goes well.
    """

    def __init__(self, seed: int, shares: Mapping[Fault, float]) -> None:
        self._seed = seed
        self._shares = dict(shares)
        self._attempts = Counter[str]()

    def __call__(self, request: PromptRequest) -> Fault:
        """The next lot of the request's prompt."""
        attempt = self._attempts[request.prompt]
        self._attempts[request.prompt] += 1
        return self.of(request.prompt, attempt)

    def of(self, prompt: str, attempt: int) -> Fault:
        """What happens to an attempt, the first being 0."""
        lot = share_of(f"{self._seed} {attempt} {prompt}")
        for fault, share in self._shares.items():
            lot -= share
            if lot < 0:
                return fault
        return Fault.NONE

    def drawn(self, prompt: str) -> list[Fault]:
        """What happened to it so far."""
        return [self.of(prompt, attempt) for attempt in range(self._attempts[prompt])]

    def forget(self, prompt: str) -> None:
        """Nobody asks it any more."""
        self._attempts.pop(prompt, None)


def share_of(text: str) -> float:
    """A number from 0 to below 1 that is the same for the same text."""
    digest = hashlib.blake2b(text.encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big") / 2**48


def whole_answer(prompt: str, words: int = WORDS) -> str:
    """What an unbroken answer says."""
    digest = hashlib.shake_128(prompt.encode()).digest(4 * words)
    cut = [digest[at : at + 4].hex() for at in range(0, len(digest), 4)]
    return " ".join(cut)


class FaultyEngine(ScriptedEngine):
    """Answers, or fails.

    Args:
        chance: the fault of each request.
        delay_s: before each piece.
        slow_s: before each piece of a slow answer.
        words: in an answer.
    """

    def __init__(
        self,
        chance: Chance | Fault = Fault.NONE,
        *,
        delay_s: float = 0.0,
        slow_s: float = SLOW_S,
        words: int = WORDS,
    ) -> None:
        super().__init__()
        self.chance: Chance = chance if callable(chance) else lambda _request: chance
        self.delay_s = delay_s
        self._slow_s = slow_s
        self._words = words
        self._asked = 0

    async def stream(self, request: PromptRequest) -> AsyncGenerator[AnswerEvent, None]:
        """Give the rest of the answer, as far as the fault lets it."""
        model = self._model(request.model)
        self.requests.append(request)
        self._asked += 1
        self.running += 1
        self.running_max = max(self.running_max, self.running)
        pieces, has_finished = 0, False
        try:
            await self._notify()
            async with aclosing(self._pieces(request, self._fault(request))) as rest:
                async for piece in rest:
                    pieces += 1
                    yield Fragment(piece)
            has_finished = True
            usage = Usage(model, "", "stop", 0.1, answer_tokens=pieces)
            yield Finished(usage, request.request_id)
        finally:
            self.running -= 1
            self.finished += has_finished
            self.stopped += not has_finished
            await self._notify()

    def _fault(self, request: PromptRequest) -> Fault:
        fault = self.chance(request)
        if fault is not Fault.FLAKY:
            return fault
        return Fault.ERROR if self._asked % 2 else Fault.NONE

    async def _pieces(
        self, request: PromptRequest, fault: Fault
    ) -> AsyncGenerator[str, None]:
        text = whole_answer(request.prompt, self._words)
        # An endless one said all there is, and more.
        is_said = request.prefix.startswith(text)
        rest = "" if is_said else text.removeprefix(request.prefix)
        if fault is Fault.REPEATS:
            rest = text
        size = max(1, len(text) // PIECES)
        delay_s = self._slow_s if fault is Fault.SLOW else self.delay_s
        pieces = [rest[at : at + size] for at in range(0, len(rest), size)]
        await self._fail_early(fault, request)
        for number, piece in enumerate(pieces):
            if number >= max(1, len(pieces) // 2):
                await self._fail_midway(fault)
            await asyncio.sleep(delay_s)
            yield piece
        while fault is Fault.ENDLESS:
            await asyncio.sleep(max(self.delay_s, 0.001))
            yield "on and "

    async def _fail_early(self, fault: Fault, request: PromptRequest) -> None:
        match fault:
            case Fault.ERROR:
                raise engine_failed("The engine is out of order.")
            case Fault.MALFORMED:
                raise engine_failed("The engine answered with something unreadable.")
            case Fault.WRONG_MODEL:
                raise model_missing(f"There is no model {request.model!r} after all.")
            case Fault.HANG:
                await asyncio.get_running_loop().create_future()

    async def _fail_midway(self, fault: Fault) -> None:
        match fault:
            case Fault.DROP:
                raise engine_failed("The engine died.")
            case Fault.STALL:
                await asyncio.get_running_loop().create_future()


class MalformedProcessor:
    """Answers every request on ``peerchat/stream`` with bytes that mean nothing.

    Args:
        says: a beginning that can be read.
        is_held: only `release` lets the bytes out.
    """

    def __init__(self, says: str = "", *, is_held: bool = False) -> None:
        self.asked = 0
        self._says = says
        self._is_held = is_held
        self._held: list[Callable[[], None]] = []

    def attach(self, connection: Connection) -> None:
        """Take the channel on this connection."""
        key = bytes(connection.public_key)

        def notify(_id: bytes | None) -> None:
            channel = connection.mux.create_channel(
                prompt_wire.PROTOCOL,
                key,
                on_message=lambda kind, payload: self._answer(channel, kind, payload),
            )
            if channel is not None:
                channel.open(prompt_wire.encode_handshake())

        connection.mux.pair(prompt_wire.PROTOCOL, key, notify)

    def release(self) -> None:
        """Let out what was held."""
        held, self._held = self._held, []
        for send in held:
            send()

    def _answer(self, channel: Channel | None, kind: int, payload: bytes) -> None:
        if channel is None or kind != prompt_wire.MessageType.REQUEST:
            return
        self.asked += 1
        number, _ = prompt_wire.decode_number_untrusted(payload)
        fragment = prompt_wire.MessageType.FRAGMENT
        if self._says:
            body = fragment_body(Fragment(self._says))
            channel.send(fragment, prompt_wire.encode(number, body))

        def send() -> None:
            channel.send(fragment, prompt_wire.encode(number) + b"\xc1junk")

        self._held.append(send)
        if not self._is_held:
            self.release()
