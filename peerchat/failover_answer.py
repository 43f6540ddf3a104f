"""An answer that survives the loss of a gateway.

Before the first fragment another gateway is asked the same. After it, the other one is
asked to go on with what was said.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, replace
from types import AsyncGeneratorType, TracebackType
from typing import Protocol, Self, cast

from .api import (
    Answer,
    AnswerEvent,
    ApiError,
    ErrorCode,
    Finished,
    Fragment,
    Progress,
)
from .continuation import Said
from .net.identity import PublicKey


class GatewayAnswer(Answer, Protocol):
    """An answer of one gateway."""

    @property
    def is_silent(self) -> bool:
        """Whether the gateway seems gone, before its connection notices."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One gateway that was asked."""

    gateway: PublicKey
    answer: GatewayAnswer


Hops = AsyncGenerator[Attempt, ApiError | None]
"""Gives one attempt after the other; is sent the failure of the one before."""


class FailoverAnswer:
    """An `Answer`; also a context manager that closes it.

    One task iterates. `aclose` may be called from any task of the same loop, and ends
    the iteration.
    """

    def __init__(
        self,
        said: Said,
        hops: Hops,
        on_end: Callable[[FailoverAnswer], None],
        on_event: Callable[[AnswerEvent], None] | None = None,
    ) -> None:
        self.request_id = said.request.request_id
        self._said = said
        self._hops = hops
        self._on_end = on_end
        self._on_event = on_event
        self._current: Attempt | None = None
        self._verdict: ApiError | None = None
        """Why the current attempt was left."""
        self._is_closed = False
        self._events = cast(AsyncGeneratorType[AnswerEvent, None], self._run())

    def __aiter__(self) -> AsyncIterator[AnswerEvent]:
        return self._events

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop: closes the request on every hop. Idempotent, also after the end."""
        self._is_closed = True
        self._on_end(self)
        await self._close_current()
        if not self._events.ag_running:
            await self._events.aclose()
            await self._hops.aclose()

    @property
    def silent_gateway(self) -> PublicKey | None:
        """Who answers, if it seems gone."""
        current = self._current
        return current.gateway if current and current.answer.is_silent else None

    async def leave(self) -> None:
        """Go on at the next gateway, as if this one's connection were lost."""
        if self._current is not None:
            self._verdict = _lost()
            await self._current.answer.aclose()

    def _is_stopped(self) -> bool:
        return self._is_closed

    async def _close_current(self) -> None:
        current, self._current = self._current, None
        if current is not None:
            await current.answer.aclose()

    async def _run(self) -> AsyncGenerator[AnswerEvent, None]:
        failure: ApiError | None = None
        clock = asyncio.get_running_loop().time
        began_s = clock()
        first_s: float | None = None
        try:
            while not self._is_stopped():
                # Raises the failure when there is nobody left to ask.
                self._current = await self._hops.asend(failure)
                if self._is_stopped():
                    return
                if failure is not None:
                    yield Progress("retrying")
                self._verdict = None
                try:
                    async for came in self._current.answer:
                        for event in self._shown(came):
                            if first_s is None and isinstance(event, Fragment):
                                first_s = clock() - began_s
                            if isinstance(event, Finished):
                                event = self._whole(event, clock() - began_s, first_s)
                            if self._on_event is not None:
                                self._on_event(event)
                            yield event
                    failure = self._verdict
                    if failure is None:
                        return
                except ApiError as error:
                    if self._is_stopped():
                        return
                    failure = error
                await self._close_current()
        finally:
            self._on_end(self)
            await self._close_current()
            with contextlib.suppress(RuntimeError):
                await self._hops.aclose()

    def _shown(self, came: AnswerEvent) -> list[AnswerEvent]:
        """What is new of an event, and before the end what was held back."""
        if isinstance(came, Finished):
            return [*self._said.held_back(), came]
        event = self._said.passed(came)
        return [] if event is None else [event]

    def _whole(
        self, end: Finished, duration_s: float, first_s: float | None
    ) -> Finished:
        return replace(end, usage=self._said.whole(end.usage, duration_s, first_s))


def _lost() -> ApiError:
    return ApiError(
        ErrorCode.PEER_LOST, "The gateway is silent; ask again.", status=502
    )
