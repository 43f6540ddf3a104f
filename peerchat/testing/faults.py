"""Engines and processors that fail in every way that docs/FAILURES.md names.

The answer of a `FaultyEngine` is a function of the prompt alone, so that an answer that
two of them gave together can be compared with the unbroken one, byte by byte.
"""

from __future__ import annotations

import asyncio
import enum
import hashlib
from collections.abc import AsyncGenerator, Callable

from peerchat.api import AnswerEvent, Finished, Fragment, PromptRequest, Usage
from peerchat.net.driver.connection import Connection
from peerchat.net.mux.protomux import Channel
from peerchat.services import prompt_wire
from peerchat.services.engines.base import engine_failed, model_missing

from .engine import ScriptedEngine

WORDS = 24
PIECES = 6


class Fault(enum.Enum):
    """What goes wrong with one request."""

    NONE = "none"
    ERROR = "error"
    """Fails before the first byte."""
    HANG = "hang"
    """Never says anything."""
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
"""What happens to a request: a flaky engine draws lots."""


def whole_answer(prompt: str, words: int = WORDS) -> str:
    """What an unbroken answer says."""
    digest = hashlib.shake_128(prompt.encode()).digest(4 * words)
    cut = [digest[at : at + 4].hex() for at in range(0, len(digest), 4)]
    return " ".join(cut)


class FaultyEngine(ScriptedEngine):
    """Answers, or fails.

    Args:
        chance: the fault of each request.
        delay_s: before each piece: a slow one has much.
        words: in an answer.
    """

    def __init__(
        self,
        chance: Chance | Fault = Fault.NONE,
        *,
        delay_s: float = 0.0,
        words: int = WORDS,
    ) -> None:
        super().__init__()
        self.chance: Chance = chance if callable(chance) else lambda _request: chance
        self.delay_s = delay_s
        self._words = words

    async def stream(self, request: PromptRequest) -> AsyncGenerator[AnswerEvent, None]:
        """Give the rest of the answer, as far as the fault lets it."""
        model = self._model(request.model)
        self.requests.append(request)
        self.running += 1
        self.running_max = max(self.running_max, self.running)
        pieces = 0
        try:
            async for piece in self._pieces(request, self.chance(request)):
                pieces += 1
                yield Fragment(piece)
            self.finished += 1
            usage = Usage(model, "", "stop", 0.1, answer_tokens=pieces)
            yield Finished(usage, request.request_id)
        finally:
            self.running -= 1
            await self._notify()

    async def _pieces(
        self, request: PromptRequest, fault: Fault
    ) -> AsyncGenerator[str, None]:
        text = whole_answer(request.prompt, self._words)
        rest = text.removeprefix(request.prefix)
        if fault is Fault.REPEATS:
            rest = text
        size = max(1, len(text) // PIECES)
        pieces = [rest[at : at + size] for at in range(0, len(rest), size)]
        await self._fail_early(fault, request)
        for number, piece in enumerate(pieces):
            if number >= max(1, len(pieces) // 2):
                await self._fail_midway(fault)
            await asyncio.sleep(self.delay_s)
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
    """Answers every request on ``peerchat/stream`` with bytes that mean nothing."""

    def __init__(self) -> None:
        self.asked = 0

    def attach(self, connection: Connection) -> None:
        """Take the channel on this connection."""
        key = bytes(connection.public_key)

        def notify(_id: bytes | None) -> None:
            channel: Channel | None = None

            def on_message(_kind: int, payload: bytes) -> None:
                self.asked += 1
                number, _ = prompt_wire.decode_number_untrusted(payload)
                head = prompt_wire.encode(number)
                if channel is not None:
                    channel.send(prompt_wire.MessageType.FRAGMENT, head + b"\xc1junk")

            channel = connection.mux.create_channel(
                prompt_wire.PROTOCOL, key, on_message=on_message
            )
            if channel is not None:
                channel.open(prompt_wire.encode_handshake())

        connection.mux.pair(prompt_wire.PROTOCOL, key, notify)
