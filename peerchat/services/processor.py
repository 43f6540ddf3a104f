"""The role ``processor``: runs prompts on an engine, as many at once as it has slots.

Streams over ``peerchat/stream`` and answers whole by the unary method
``processRequest``, which is all that Node.js gateways know (docs/PROTOCOL.md sections
11 and 12).
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol

import msgspec

from peerchat.api import (
    AnswerEvent,
    ApiError,
    EmbedRequest,
    ErrorCode,
    Finished,
    Fragment,
    ModelInfo,
    Progress,
    PromptRequest,
    Role,
    Usage,
)
from peerchat.sanitize import display_line
from peerchat.settings import Settings

from .admission import Admission, Ticket
from .engines.base import Engine, EngineHealth
from .messages import (
    ANSWER_BYTES_MAX,
    PingReply,
    PromptData,
    PromptFailure,
    decode_untrusted,
)
from .metrics import RoleMetrics
from .prompt_requests import check_request
from .prompt_stream import Caller, PromptHandler
from .service import Method

HEALTH_FRESH_S = 5.0
"""A ping tells what was found out so recently; many gateways ping one processor."""

log = logging.getLogger(__name__)


class Serving(Protocol):
    """A role that is announced and answers, until it is closed: a `Service`."""

    @property
    def public_key(self) -> bytes: ...

    async def close(self) -> None: ...


class ServingSwarm(Protocol):
    """What the role needs of the `Swarm`."""

    async def serve(
        self,
        role: Role,
        methods: Mapping[str, Method],
        prompts: PromptHandler | None = None,
    ) -> Serving: ...


class ProcessData(PromptData, frozen=True, omit_defaults=True):
    """What ``processRequest`` takes; the id is ours, to follow a request."""

    request_id: str = msgspec.field(default="", name="requestId")


class ProcessReply(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer."""

    prompt: str
    response: str
    processed_at: str
    request_id: str = msgspec.field(name="requestId")
    model: str


class ProcessorPing(PingReply, frozen=True):
    """A ping's answer, with what gateways route by."""

    models: tuple[str, ...] = ()
    slots: int = 1
    busy: int = 0
    queued: int = 0
    engine: str = ""
    detail: str = ""


class ProcessorRole:
    """Serves an engine to gateways.

    Args:
        swarm: announces the role and takes its requests.
        engine: what computes; it is the caller's to close.
        settings: slots and the longest prompt.
        metrics: where to count; its own when left out.
    """

    def __init__(
        self,
        swarm: ServingSwarm,
        engine: Engine,
        settings: Settings,
        *,
        metrics: RoleMetrics | None = None,
    ) -> None:
        self.metrics = metrics or RoleMetrics(Role.PROCESSOR)
        self._swarm = swarm
        self._engine = engine
        self._prompt_bytes_max = settings.prompt_bytes_max
        self._admission = Admission(settings.slots)
        self._key = ""
        self._health = EngineHealth(is_up=False, detail="not looked at yet")
        self._models: tuple[ModelInfo, ...] = ()
        self._looked_at_s = -HEALTH_FRESH_S
        self._looking = asyncio.Lock()
        self.metrics.gauge("slots", "Prompts run at once.", lambda: self.slots)
        self.metrics.gauge("slots_busy", "Prompts running.", lambda: self.busy)
        self.metrics.gauge("queue_length", "Prompts waiting.", lambda: self.queued)

    @property
    def slots(self) -> int:
        """Prompts that run at once."""
        return self._admission.slots

    @property
    def busy(self) -> int:
        """Prompts that run now."""
        return self._admission.busy

    @property
    def queued(self) -> int:
        """Prompts that wait."""
        return self._admission.queued

    @property
    def detail(self) -> str:
        """The engine's state in one line, for health."""
        return self._health.detail

    async def run(self, ready: Callable[[], None]) -> None:
        """Serve until cancelled, which cuts running answers off.

        Whoever stops the process calls `Swarm.drain` first, so that they can end.
        """
        methods: dict[str, Method] = {
            "ping": self.ping,
            "processRequest": self.process_request,
        }
        serving = await self._swarm.serve(Role.PROCESSOR, methods, self.answer)
        self._key = bytes(serving.public_key).hex()
        try:
            await self._look()
            ready()
            await asyncio.get_running_loop().create_future()
        finally:
            await serving.close()

    async def answer(
        self, request: PromptRequest, caller: Caller
    ) -> AsyncGenerator[AnswerEvent, None]:
        """Stream an answer: queue positions, then what the engine gives.

        Raises:
            ApiError: BUSY when the queue is full, or the engine's failure.
        """
        began_s = time.monotonic()
        check_request(request, self._prompt_bytes_max)
        with self.metrics.request("answer") as counted:
            ticket = self._admission.enter(caller.peer, caller.user)
            try:
                async for progress in self._wait_for_slot(ticket):
                    yield progress
                queue_s = time.monotonic() - began_s
                yield Progress("serving", peer=self._key, model=request.model or "")
                is_first = True
                async with aclosing(self._run(request)) as events:
                    async for event in events:
                        if is_first and isinstance(event, Fragment):
                            is_first = False
                            self.metrics.first_fragment(time.monotonic() - began_s)
                        if isinstance(event, Finished):
                            # Who has the end reads no further: no cancel.
                            counted.outcome = "ok"
                        yield self._counted(event, queue_s)
            finally:
                ticket.leave()

    async def process_request(
        self, body: bytes, peer: str
    ) -> ProcessReply | PromptFailure:
        """The unary method: the whole answer, or ``error`` with the reason."""
        request_id = str(uuid.uuid4())
        try:
            data = decode_untrusted(body, ProcessData)
            request_id = display_line(data.request_id, 64) or request_id
            request = PromptRequest(
                data.prompt, request_id, data.model or None, options=data.options
            )
            return await self._whole(request, Caller(peer))
        except ApiError as error:
            return PromptFailure(
                error=True, message=error.message, request_id=request_id
            )

    async def ping(self, _body: bytes, _peer: str) -> ProcessorPing:
        """Whether prompts can be answered, and what gateways choose by."""
        await self._look()
        return ProcessorPing(
            status="healthy" if self._health.is_up else "unhealthy",
            timestamp=int(time.time() * 1000),
            service=Role.PROCESSOR.value,
            models=tuple(model.name for model in self._models),
            slots=self.slots,
            busy=self.busy,
            queued=self.queued,
            engine=self._engine.name,
            detail="" if self._health.is_up else "engine down",
        )

    async def models(self) -> tuple[ModelInfo, ...]:
        """What is served here."""
        await self._look()
        return self._models

    async def _wait_for_slot(self, ticket: Ticket) -> AsyncGenerator[Progress, None]:
        while not ticket.is_admitted:
            yield Progress("queued", position=ticket.position, peer=self._key)
            await ticket.changed()

    async def _whole(self, request: PromptRequest, caller: Caller) -> ProcessReply:
        parts: list[str] = []
        size = 0
        async with aclosing(self.answer(request, caller)) as events:
            async for event in events:
                match event:
                    case Fragment(text, is_thinking=False):
                        parts.append(text)
                        size += len(text.encode("utf-8", "replace"))
                        if size > ANSWER_BYTES_MAX:
                            raise _too_long()
                    case Finished():
                        return ProcessReply(
                            prompt=request.prompt,
                            response="".join(parts),
                            processed_at=_iso_now(),
                            request_id=request.request_id,
                            model=event.usage.model,
                        )
        raise ApiError(ErrorCode.ENGINE_FAILED, "The answer broke off.", status=502)

    async def _run(self, request: PromptRequest) -> AsyncGenerator[AnswerEvent, None]:
        """What the engine gives: an answer, or vectors for texts."""
        if not request.inputs:
            async with aclosing(self._engine.stream(request)) as events:
                async for event in events:
                    yield event
            return
        began_s = time.monotonic()
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
            duration_s=time.monotonic() - began_s,
            prompt_tokens=got.prompt_tokens,
        )
        yield Finished(usage, request.request_id)

    def _counted(self, event: AnswerEvent, queue_s: float) -> AnswerEvent:
        """The event as it goes out: the end says who gave the answer."""
        if not isinstance(event, Finished):
            return event
        usage = replace(event.usage, peer=self._key, queue_s=queue_s)
        self.metrics.tokens(usage.prompt_tokens, kind="prompt")
        self.metrics.tokens(usage.answer_tokens)
        return replace(event, usage=usage)

    async def _look(self) -> None:
        """Ask the engine how it is, unless it was asked just now."""
        async with self._looking:
            if time.monotonic() - self._looked_at_s < HEALTH_FRESH_S:
                return
            before = self._health
            self._health = await self._engine.health()
            try:
                self._models = await self._served()
            except ApiError:
                self._models = ()
            self._looked_at_s = time.monotonic()
        if before.is_up != self._health.is_up:
            level = logging.INFO if self._health.is_up else logging.WARNING
            log.log(level, "engine %s: %s", self._engine.name, self._health.detail)

    async def _served(self) -> tuple[ModelInfo, ...]:
        """Models that chat, then those that only give vectors."""
        models = list(await self._engine.models())
        names = {model.name for model in models}
        models += [
            ModelInfo(name, self._engine.name)
            for name in await self._engine.embedders()
            if name not in names
        ]
        return tuple(models)


def _too_long() -> ApiError:
    return ApiError(
        ErrorCode.ENGINE_FAILED,
        f"The answer is longer than {ANSWER_BYTES_MAX} bytes; ask for less.",
        status=502,
    )


def _iso_now() -> str:
    """As JavaScript's ``Date.toISOString``."""
    now = datetime.now(UTC)
    return now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
