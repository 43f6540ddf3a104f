"""Passes one prompt to a processor, and to the next one until the first text came."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from peerchat.api import (
    AnswerEvent,
    AnswerPart,
    ApiError,
    ErrorCode,
    Finished,
    Progress,
    PromptRequest,
    Role,
)
from peerchat.net.errors import NetError

from .router import Processor, Router, no_processor
from .swarm import Swarm, api_error_of

logger = logging.getLogger(__name__)

SILENCE_S = 600.0
"""Longest wait for the next event: a model may load, and queue news come between."""

NOT_ANOTHERS_BUSINESS = frozenset({ErrorCode.INVALID_REQUEST, ErrorCode.UNAUTHORIZED})
"""Failures that the next processor would only repeat."""

LOST = frozenset({ErrorCode.PEER_LOST, ErrorCode.TIMEOUT})


class Relay:
    """One prompt on its way; call `run` once."""

    def __init__(self, swarm: Swarm, router: Router, user: str) -> None:
        self.has_text = False
        """Text went out: no other processor may begin anew."""
        self._swarm = swarm
        self._router = router
        self._user = user

    async def run(self, request: PromptRequest) -> AsyncGenerator[AnswerEvent, None]:
        """The events of the processor that answers.

        Raises:
            ApiError: nobody answers; the failure that says most.
        """
        failures: list[ApiError] = []
        for processor in await self._candidates(request):
            if failures:
                yield Progress("retrying", peer=processor.key.hex())
            try:
                async with aclosing(self._ask(processor, request)) as events:
                    async for event in events:
                        yield event
                return
            except ApiError as error:
                if self.has_text or error.code in NOT_ANOTHERS_BUSINESS:
                    raise
                logger.info(
                    "request %s: processor %s: %s",
                    request.request_id,
                    processor.key.hex()[:8],
                    error.message,
                )
                failures.append(error)
        raise _worst(failures)

    async def _candidates(self, request: PromptRequest) -> list[Processor]:
        try:
            return await self._router.candidates(request.model)
        except NetError as error:
            raise api_error_of(error) from error

    async def _ask(
        self, processor: Processor, request: PromptRequest
    ) -> AsyncGenerator[AnswerEvent, None]:
        key = processor.key
        answer = self._swarm.ask(key, request, role=Role.PROCESSOR, user=self._user)
        processor.running += 1
        try:
            while True:
                async with asyncio.timeout(SILENCE_S):
                    event = await anext(answer, None)
                if event is None:
                    raise ApiError(
                        ErrorCode.ENGINE_FAILED, "The answer broke off.", status=502
                    )
                if isinstance(event, Finished):
                    yield replace(event, usage=replace(event.usage, peer=key.hex()))
                    return
                yield event
                self.has_text = self.has_text or isinstance(event, AnswerPart)
        except TimeoutError:
            raise ApiError(
                ErrorCode.TIMEOUT, "The processor fell silent; ask again.", status=504
            ) from None
        except ApiError as error:
            self._learn(processor, error)
            if self.has_text and error.code is ErrorCode.PEER_LOST:
                raise ApiError(
                    ErrorCode.PEER_LOST,
                    f"The processor {key.hex()[:8]} was lost in the middle of its "
                    "answer; ask again.",
                    status=502,
                ) from error
            raise
        finally:
            processor.running -= 1
            await answer.aclose()

    def _learn(self, processor: Processor, error: ApiError) -> None:
        if error.code in LOST or error.code is ErrorCode.STOPPED:
            self._router.drop(processor)
        elif error.code is ErrorCode.BUSY:
            self._router.note_busy(processor)


def _worst(failures: list[ApiError]) -> ApiError:
    """The failure to tell: an engine's own words say more than a lost connection."""
    telling = [one for one in failures if one.code not in LOST]
    if telling:
        return telling[-1]
    return failures[-1] if failures else no_processor()
