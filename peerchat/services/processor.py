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
    Closed,
    ClosedReason,
    ErrorCode,
    Finished,
    Fragment,
    ModelInfo,
    Progress,
    PromptRequest,
    Role,
)
from peerchat.closed_text import closed_words
from peerchat.net.crypto.primitives import KeyPair
from peerchat.net.driver.connection import Connection
from peerchat.sanitize import display_line
from peerchat.settings import Settings

from .admission import Admission, Ticket
from .details_wire import encode_details
from .embed_messages import (
    EmbedData,
    EmbedReply,
    embed_reply,
    embed_request,
)
from .engine_look import EngineLook
from .engine_run import EngineRun
from .engines.base import Engine
from .messages import (
    ANSWER_BYTES_MAX,
    PingReply,
    PromptData,
    PromptFailure,
    decode_untrusted,
)
from .metrics import RoleMetrics
from .model_catalog import ModelCatalog
from .model_messages import ClosedEntry
from .owner_terms import OwnerTerms
from .processor_figures import ProcessorFigures
from .prompt_requests import check_request
from .prompt_stream import Caller, PromptHandler
from .service import Method
from .status_publisher import StatusPublisher
from .status_wire import ModelStatus, Status, closing_of

LOOK_EVERY_S = 1.0
"""Whether the engine went or came."""

ENGINE_TROUBLE = frozenset({ErrorCode.ENGINE_DOWN, ErrorCode.MODEL_MISSING})
"""Failures after which the engine is asked anew what it is."""

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
        attach: Callable[[Connection], None] | None = None,
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
    embedders: tuple[str, ...] = ()
    """Those of ``models`` that do not chat."""
    slots: int = 1
    busy: int = 0
    queued: int = 0
    engine: str = ""
    detail: str = ""
    closed: ClosedEntry | msgspec.UnsetType = msgspec.UNSET


class ProcessorRole:
    """Serves an engine to gateways.

    Args:
        swarm: announces the role and takes its requests.
        engine: what computes; it is the caller's to close.
        settings: slots, the longest prompt, and the owner's terms.
        metrics: where to count; its own when left out.
        key_pair: of the role: signs receipts; without it there are none.
    """

    def __init__(
        self,
        swarm: ServingSwarm,
        engine: Engine,
        settings: Settings,
        *,
        metrics: RoleMetrics | None = None,
        key_pair: KeyPair | None = None,
    ) -> None:
        self.metrics = metrics or RoleMetrics(Role.PROCESSOR)
        self._swarm = swarm
        self._engine = engine
        self._key_pair = key_pair
        self._prompt_bytes_max = settings.prompt_bytes_max
        self._publisher = StatusPublisher(self.status, self._encoded_details)
        self._terms = OwnerTerms(settings, self._publisher.changed)
        self._admission = Admission(settings.slots, on_change=self._publisher.changed)
        self._figures = ProcessorFigures()
        self._look = EngineLook(engine, self._terms.contribution)
        self._catalog = ModelCatalog(engine, self._publisher.tell_details)
        self._key = ""
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
        return self.problem or self._look.health.detail

    @property
    def problem(self) -> str:
        """Why prompts are not answered now, and what to do; empty when they are."""
        is_paused = self.closed == Closed(ClosedReason.PAUSED)
        more = " (peerchat resume ends it)" if is_paused else ""
        return f"{self._closed_because}{more}" or self._look.problem

    @property
    def closed(self) -> Closed | None:
        """Why nothing new is taken; None when it is."""
        return self._terms.closed

    @property
    def _closed_because(self) -> str:
        closed = self.closed
        return closed_words(closed) if closed else ""

    async def run(self, ready: Callable[[], None]) -> None:
        """Serve until cancelled, which cuts running answers off.

        Whoever stops the process calls `Swarm.drain` first, so that they can end.
        """
        methods: dict[str, Method] = {
            "ping": self.ping,
            "processRequest": self.process_request,
            "embed": self.embed,
        }
        self._terms.begin()
        serving = await self._swarm.serve(
            Role.PROCESSOR, methods, self.answer, attach=self._publisher.attach
        )
        self._key = bytes(serving.public_key).hex()
        try:
            await self._look.look()
            self._catalog.serve(self._look.models)
            self._publisher.changed()  # A gateway may have come before the look.
            ready()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._catalog.run())
                group.create_task(self._look_around())
                group.create_task(self._terms.follow())
        finally:
            self._publisher.close()
            self._terms.end()
            await serving.close()

    def status(self) -> Status:
        """What gateways are told."""
        look, closed = self._look, self.closed
        models: list[ModelStatus] = self._figures.of(
            look.names, time.monotonic(), look.loaded, look.loaded_age_s
        )
        return Status(
            models,
            slots=self.slots,
            busy=self.busy,
            queued=self.queued,
            is_healthy=self._look.health.is_up,
            is_paused=closed is not None,
            engine=self._engine.name,
            answer_s=self._admission.mean_duration_s,
            closing=closing_of(closed),
        )

    async def answer(
        self, request: PromptRequest, caller: Caller
    ) -> AsyncGenerator[AnswerEvent, None]:
        """Stream an answer: queue positions, then what the engine gives.

        Raises:
            ApiError: BUSY when the queue is full, or the engine's failure.
        """
        check_request(request, self._prompt_bytes_max)
        request = self._named(request)
        with self.metrics.request("answer") as counted:
            ticket = self._admit(caller)
            run = EngineRun(self._engine, request, self._key_pair)
            try:
                async for progress in self._wait_for_slot(ticket):
                    yield progress
                run.note("admitted")
                queue_s = time.monotonic() - run.began_s
                yield Progress("serving", peer=self._key, model=request.model or "")
                is_first = True
                async with aclosing(run.events()) as events:
                    async for event in events:
                        if is_first and isinstance(event, Fragment):
                            is_first = False
                            first_s = time.monotonic() - run.began_s
                            self.metrics.first_fragment(first_s)
                        if isinstance(event, Finished):
                            # Who has the end reads no further: no cancel.
                            counted.outcome = "ok"
                            event = run.finished(event, self._key, queue_s)
                            self._learn(event)
                        yield event
            except ApiError as error:
                if error.code in ENGINE_TROUBLE:
                    self._look.forget()
                raise
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

    async def embed(self, body: bytes, peer: str) -> EmbedReply | PromptFailure:
        """The unary method: vectors of texts, or ``error`` with the reason."""
        request_id = str(uuid.uuid4())
        try:
            request = embed_request(decode_untrusted(body, EmbedData), request_id)
            async with aclosing(self.answer(request, Caller(peer))) as events:
                return await embed_reply(request, events)
        except ApiError as error:
            return PromptFailure(
                error=True, message=error.message, request_id=request_id
            )

    async def ping(self, _body: bytes, _peer: str) -> ProcessorPing:
        """Whether prompts can be answered, and what gateways choose by."""
        await self._look.look()
        is_up, closed = self._look.health.is_up, self.closed
        return ProcessorPing(
            status="healthy" if is_up and not closed else "unhealthy",
            timestamp=int(time.time() * 1000),
            service=Role.PROCESSOR.value,
            models=tuple(self._look.names),
            embedders=tuple(m.name for m in self._look.models if m.is_embedder),
            slots=self.slots,
            busy=self.busy,
            queued=self.queued,
            engine=self._engine.name,
            detail=self._closed_because or ("" if is_up else "engine down"),
            closed=ClosedEntry.of(closed) or msgspec.UNSET,
        )

    async def models(self) -> tuple[ModelInfo, ...]:
        """What is served here."""
        await self._look.look()
        return self._look.models

    def set_paused(self, is_paused: bool) -> None:
        """Take nothing new, or take it again; remembered in the home.

        Raises:
            ApiError: STORE_FAILED.
        """
        self._terms.set_paused(is_paused)

    def _named(self, request: PromptRequest) -> PromptRequest:
        """The request for a model that is given; None stays the engine's choice."""
        names = self._look.names
        if request.model is None:
            has_any = names and not request.inputs
            return replace(request, model=names[0]) if has_any else request
        if not self._terms.contribution.offers(request.model):
            raise ApiError(
                ErrorCode.MODEL_MISSING,
                f"This processor does not offer {request.model!r}.",
                status=404,
            )
        return request

    def _admit(self, caller: Caller) -> Ticket:
        if reason := self._closed_because:
            raise ApiError(
                ErrorCode.BUSY,
                f"This processor takes nothing new: {reason}; ask another one.",
                status=503,
                retry_after_s=60,
            )
        may_wait = not self._publisher.is_told(caller.peer)
        return self._admission.enter(caller.peer, caller.user, may_wait=may_wait)

    async def _look_around(self) -> None:
        """Notice when the engine comes, goes or has other models."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            has_changed = await self._look.look()
            self._catalog.serve(self._look.models)
            if has_changed:
                self._publisher.changed()

    def _encoded_details(self) -> bytes:
        return encode_details(self._catalog.details)

    def _learn(self, event: Finished) -> None:
        usage = event.usage
        self.metrics.tokens(usage.prompt_tokens, kind="prompt")
        self.metrics.tokens(usage.answer_tokens)
        self._figures.learn(usage, time.monotonic())
        if self._look.loaded is not None and usage.model not in self._look.loaded:
            self._look.forget()  # It was loaded just now; gateways are to hear of it.
        self._terms.spend(usage.answer_tokens or 0)

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
