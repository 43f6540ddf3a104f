"""One request on an engine: in its time, and with a signed receipt at the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from peerchat.api import (
    AnswerEvent,
    EmbedRequest,
    Finished,
    Fragment,
    Hop,
    PromptRequest,
    Usage,
)
from peerchat.net.crypto.primitives import KeyPair
from peerchat.sanitize import StreamSanitizer

from . import receipts
from .engines.base import Engine
from .patrol import out_of_time


class EngineRun:
    """One request; call `events` once.

    Args:
        engine: what computes.
        request: what is asked; its deadline counts from now.
        key_pair: signs the receipt; None: there is none.
    """

    def __init__(
        self, engine: Engine, request: PromptRequest, key_pair: KeyPair | None
    ) -> None:
        self.began_s = time.monotonic()
        self._engine = engine
        self._request = request
        self._key_pair = key_pair
        self._hops: list[Hop] = []
        # What is signed is the text as its reader sees it.
        self._hash = receipts.AnswerHash()
        self._inert = StreamSanitizer()
        left_s = request.deadline_s
        self._end_s = None if left_s is None else self.began_s + left_s

    def note(self, what: str, detail: str = "") -> None:
        """Remember a step, for whoever looks where the time went."""
        peer = self._key_pair.public_key.hex() if self._key_pair else ""
        at_s = time.monotonic() - self.began_s
        self._hops.append(Hop("processor", peer, what, at_s, detail))

    async def events(self) -> AsyncGenerator[AnswerEvent, None]:
        """What the engine gives.

        Raises:
            ApiError: TIMEOUT at the deadline, or the engine's failure.
        """
        async with aclosing(self._source()) as source:
            while True:
                event = await self._next(source)
                if event is None:
                    return
                if isinstance(event, Fragment) and not event.is_thinking:
                    if len(self._hops) < 2:
                        self.note("first")
                    self._hash.add(self._inert.feed(event.text))
                yield event

    def finished(self, event: Finished, peer: str, queue_s: float) -> Finished:
        """The end as it goes out."""
        usage = replace(event.usage, peer=peer, queue_s=queue_s)
        self.note("finished", usage.finish_reason)
        receipt = self._receipt(usage) if self._key_pair is not None else b""
        return replace(event, usage=usage, receipt=receipt, hops=tuple(self._hops))

    async def _next(
        self, source: AsyncGenerator[AnswerEvent, None]
    ) -> AnswerEvent | None:
        if self._end_s is None:
            return await anext(source, None)
        left_s = self._end_s - time.monotonic()
        try:
            async with asyncio.timeout(max(0.0, left_s)):
                return await anext(source, None)
        except TimeoutError:
            raise out_of_time() from None

    async def _source(self) -> AsyncGenerator[AnswerEvent, None]:
        request = self._request
        if not request.inputs:
            async with aclosing(self._engine.stream(request)) as events:
                async for event in events:
                    yield event
            return
        got = await self._engine.embed(
            EmbedRequest(
                request.inputs, request.request_id, request.model, request.dimensions
            )
        )
        yield got
        usage = Usage(
            model=got.model,
            peer="",
            finish_reason="stop",
            duration_s=time.monotonic() - self.began_s,
            prompt_tokens=got.prompt_tokens,
        )
        yield Finished(usage, request.request_id)

    def _receipt(self, usage: Usage) -> bytes:
        assert self._key_pair is not None
        self._hash.add(self._inert.finish())
        statement = receipts.Statement(
            version=receipts.VERSION,
            request_id=self._request.request_id[:256],
            request_hash=receipts.request_hash(self._request),
            answer_hash=self._hash.digest(),
            model=usage.model[:256],
            prompt_tokens=usage.prompt_tokens,
            answer_tokens=usage.answer_tokens,
            finished_at_ms=int(time.time() * 1000),
            finish_reason=usage.finish_reason,
            prefix_chars=len(self._request.prefix),
        )
        return receipts.seal(statement, self._key_pair)
