"""Follows one processor: its status as it pushes it, else a ping each second."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from peerchat.api import ApiError, ModelDetails, Role
from peerchat.net.errors import DecodeError, NetError, RequestTimeout
from peerchat.net.rpc.session import RpcSession
from peerchat.replies import ping_of, reply_untrusted

from .details_wire import DETAILS, decode_details_untrusted
from .engines.base import EMBED
from .processor_state import Processor
from .status_wire import (
    PROTOCOL,
    STATUS,
    ModelStatus,
    Status,
    decode_status_untrusted,
    encode_handshake,
)
from .swarm import Swarm

logger = logging.getLogger(__name__)

PING_EVERY_S = 1.0
PING_TIMEOUT_S = 3.0
OPEN_TIMEOUT_S = 3.0
"""A peer answers an open at once or rejects it."""


class ProcessorWatch:
    """One processor for as long as it can be reached.

    Args:
        swarm: the way to it.
        processor: what is told of it goes in there.
        on_change: called at each news of it.
    """

    def __init__(
        self, swarm: Swarm, processor: Processor, on_change: Callable[[], None]
    ) -> None:
        self.processor = processor
        self.is_settled = asyncio.Event()
        """It told of itself, or is lost."""
        self.has_told = False
        """It was there."""
        self._swarm = swarm
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._is_closed = asyncio.Event()
        self._has_opened = asyncio.Event()
        self._is_suspect = asyncio.Event()

    def suspect(self) -> None:
        """It is silent, or we were away: see whether the connection still works."""
        self.is_settled.clear()
        self._is_suspect.set()

    async def run(self) -> None:
        """Follow it until it is lost."""
        # Told once a connection: kept while that holds, however long it is silent.
        self.processor.details = {}
        try:
            while await self._follow_once():
                pass
        except (NetError, ApiError) as error:
            logger.info("processor %s: %s", self.processor.key.hex()[:8], error)
            self._swarm.drop(Role.PROCESSOR, self.processor.key)
        finally:
            self.processor.lose()
            self.is_settled.set()
            self._on_change()

    async def _follow_once(self) -> bool:
        """Follow it over one connection; whether that was replaced by another."""
        key = self.processor.key
        self._is_closed, self._has_opened = asyncio.Event(), asyncio.Event()
        session = await self._swarm.session(key, role=Role.PROCESSOR)
        guard = self._loop.create_task(self._guard())
        try:
            await self._follow(session)
        finally:
            guard.cancel()
            await asyncio.gather(guard, return_exceptions=True)
            session.release()
        return session.is_closed and self._swarm.is_connected(key)

    async def _guard(self) -> None:
        """Whenever it is suspect, ask it; a connection that is dead is replaced then,
        and one to a peer that cannot be reached is left to end by itself."""
        while True:
            await self._is_suspect.wait()
            self._is_suspect.clear()
            try:
                await self._swarm.reach(self.processor.key, role=Role.PROCESSOR)
            except (NetError, ApiError):
                self.is_settled.set()

    async def _follow(self, session: RpcSession) -> None:
        connection = session.connection
        channel = connection.mux.create_channel(
            PROTOCOL,
            bytes(connection.remote_public_key),
            on_open=lambda _handshake: self._has_opened.set(),
            on_message=lambda kind, payload: self._heard(session, kind, payload),
            on_close=lambda _is_remote: self._is_closed.set(),
        )
        if channel is not None:
            channel.open(encode_handshake())
            try:
                await self._opened()
                if self._has_opened.is_set():
                    await self._is_closed.wait()
                    return
            finally:
                if not channel.is_closed:
                    channel.close()
        await self._ping(session)

    async def _opened(self) -> None:
        """Wait until the peer opened the channel, or rejected it."""
        waits = [
            self._loop.create_task(one.wait())
            for one in (self._has_opened, self._is_closed)
        ]
        try:
            await asyncio.wait(
                waits, timeout=OPEN_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            for one in waits:
                one.cancel()

    def _heard(self, session: RpcSession, kind: int, payload: bytes) -> None:
        try:
            if kind == STATUS:
                self._heard_status(session, payload)
            elif kind == DETAILS:
                self.processor.details = decode_details_untrusted(payload)
            # Other kinds are of a later version.
        except DecodeError as error:
            key = self.processor.key.hex()[:8]
            logger.warning("%s…: bad message on %s: %s", key, PROTOCOL, error)
            self._is_closed.set()

    def _heard_status(self, session: RpcSession, payload: bytes) -> None:
        status = decode_status_untrusted(payload)
        self.processor.pushes = True
        self.processor.rtt_s = session.connection.rtt_s or 0.0
        self._tell(status)

    async def _ping(self, session: RpcSession) -> None:
        """Ask a peer that does not push, until it is gone."""
        self.processor.pushes = False
        gone = asyncio.Event()
        session.connection.add_close_callback(gone.set)
        while not session.is_closed:
            began_s = time.perf_counter()  # uvloop's own clock has only milliseconds
            try:
                reply = await self._swarm.request(
                    self.processor.key, "ping", {}, PING_TIMEOUT_S, role=Role.PROCESSOR
                )
            except RequestTimeout:
                await self._swarm.reach(self.processor.key, role=Role.PROCESSOR)
                continue
            self.processor.rtt_s = time.perf_counter() - began_s
            self._pinged(reply)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PING_EVERY_S):
                    await gone.wait()

    def _pinged(self, reply: object) -> None:
        said = ping_of(reply_untrusted(reply))
        tells = isinstance(reply, dict) and "models" in reply
        models = [ModelStatus(model.name) for model in said.models]
        self.processor.details = {
            model.name: ModelDetails(
                model.name,
                context_tokens=model.context_tokens,
                capabilities=frozenset({EMBED} if model.is_embedder else ()),
            )
            for model in said.models
        }
        self._tell(
            Status(
                models,
                max(1, said.slots or 1),
                said.busy or 0,
                is_healthy=said.is_healthy,
            ),
            tells_models=tells,
            tells_slots=said.slots is not None,
        )

    def _tell(
        self, status: Status, *, tells_models: bool = True, tells_slots: bool = True
    ) -> None:
        self.has_told = True
        self.processor.tell(status, self._loop.time())
        if not tells_models:
            self.processor.models = None
        if not tells_slots:
            self.processor.slots = None
        self.is_settled.set()
        self._on_change()
