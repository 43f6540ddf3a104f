"""Sends an answer piece by piece, in whatever shape, to a caller who may be gone.

The head goes out with the first piece, so that a failure before it has a status of its
own; a caller who waits long gets the head anyway. A caller who is gone, or
takes nothing more, is given up, and the answer with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

from aiohttp import web

from peerchat.api import AnswerEvent, AnswerPart, ApiError, Finished
from peerchat.failover_answer import FailoverAnswer

from .exchange import exchange
from .presence import WRITE_TIMEOUT_S, until_gone
from .whole import stopped

KEEP_ALIVE_S = 15.0
"""A sign of life this often keeps proxies from closing a stream that waits."""


class Dialect(Protocol):
    """An API's way to write an answer."""

    content_type: str
    keep_alive: bytes
    """Means nothing; empty where the API has no such thing."""

    def event(self, event: AnswerEvent) -> bytes:
        """One event for the line; empty when it is not told."""

    def error(self, error: ApiError) -> bytes:
        """A failure after the head went out."""


async def send_stream(
    request: web.Request,
    answer: FailoverAnswer,
    dialect: Dialect,
    headers: Mapping[str, str],
) -> tuple[web.StreamResponse, Finished | ApiError]:
    """Stream an answer, and tell how it ended.

    Raises:
        ApiError: it failed before its first piece, while a plain answer with a status
            of its own is still possible.
    """
    stream = _Stream(request, dialect, headers)
    # Writing to a caller that has gone is no error of ours; the answer is closed.
    try:
        async with asyncio.TaskGroup() as group:
            besides = [
                group.create_task(stream.show_signs()),
                group.create_task(stream.watch()),
            ]
            end = await stream.send(answer)
            for task in besides:
                task.cancel()
        if stream.is_open:
            await stream.response.write_eof()
    except* (ConnectionError, TimeoutError):
        stream.abort()
        end = stopped(answer.request_id)
    if isinstance(end, ApiError) and not stream.is_open:
        raise end
    return stream.response, end


class _Stream:
    def __init__(
        self, request: web.Request, dialect: Dialect, headers: Mapping[str, str]
    ) -> None:
        self._request = request
        self._dialect = dialect
        self._lock = asyncio.Lock()
        self._written = 0
        self._has_said = False
        head = {
            **headers,
            "Content-Type": dialect.content_type,
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",
        }
        self.response = web.StreamResponse(headers=head)

    @property
    def is_open(self) -> bool:
        """The head went out."""
        return self.response.prepared

    async def send(self, answer: FailoverAnswer) -> Finished | ApiError:
        """Write everything up to the end, or the failure if the head went out."""
        try:
            async for event in answer:
                self._has_said = self._has_said or isinstance(event, AnswerPart)
                await self._write(self._dialect.event(event))
                if isinstance(event, Finished):
                    return event
            raise stopped(answer.request_id)
        except ApiError as error:
            if self.is_open:
                error.request_id = error.request_id or answer.request_id
                await self._write(self._dialect.error(error))
            return error

    async def end(self, error: ApiError) -> web.StreamResponse:
        """Tell a failure that did not come from the answer, and end."""
        error.is_partial = self._has_said
        try:
            await self._write(self._dialect.error(error))
            await self.response.write_eof()
        except (ConnectionError, TimeoutError):
            self.abort()
        return self.response

    async def show_signs(self) -> None:
        """Write something that means nothing whenever there was nothing for a while."""
        while self._dialect.keep_alive:
            written = self._written
            await asyncio.sleep(KEEP_ALIVE_S)
            if written == self._written:
                await self._write(self._dialect.keep_alive)

    async def watch(self) -> None:
        """Raise `ConnectionError` once the caller is gone without a word."""
        await until_gone(self._request.transport)
        raise ConnectionResetError

    def abort(self) -> None:
        """Let go of a caller without waiting for it."""
        if self._request.transport is not None:
            self._request.transport.abort()

    async def _write(self, data: bytes) -> None:
        if not data:
            return
        async with asyncio.timeout(WRITE_TIMEOUT_S), self._lock:
            if not self.is_open:
                await self.response.prepare(self._request)
                exchange.get().end_stream = self.end
            await self.response.write(data)
        self._written += 1
