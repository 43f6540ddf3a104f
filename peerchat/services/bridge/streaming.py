"""Sends an answer piece by piece, in whatever shape, to a caller who may be gone.

The head goes out with the first piece, so that a failure before it has a status of its
own; a caller who waits long gets the head anyway. A caller who takes nothing more is
given up, and the answer with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Mapping
from typing import Protocol

from aiohttp import web

from peerchat.api import AnswerEvent, AnswerPart, ApiError, Finished
from peerchat.failover_answer import FailoverAnswer

from .exchange import exchange
from .whole import stopped

KEEP_ALIVE_S = 15.0
"""A sign of life this often keeps proxies from closing a stream that waits."""

WRITE_TIMEOUT_S = 10.0
"""A caller whose buffers stay full for so long reads no more."""

PROBE_AFTER_S = 10
PROBE_EVERY_S = 5
PROBES_MAX = 3
"""A caller who vanished without a word is found after 25 s, also in silence."""


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
            signs = group.create_task(stream.show_signs())
            end = await stream.send(answer)
            signs.cancel()
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


def watch_caller(request: web.Request) -> None:
    """Have the system find out when the caller is gone without a word.

    Then the connection is lost, and with it the task that serves the request.
    """
    transport = request.transport
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    wanted = (
        ("TCP_USER_TIMEOUT", int(WRITE_TIMEOUT_S * 1000)),
        ("TCP_KEEPIDLE", PROBE_AFTER_S),
        ("TCP_KEEPINTVL", PROBE_EVERY_S),
        ("TCP_KEEPCNT", PROBES_MAX),
    )
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in wanted:
            # Not every system has all of them.
            if (option := getattr(socket, name, None)) is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
