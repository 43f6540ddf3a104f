"""One connection's protomux-rpc channel: requests both ways.

Source: docs/PROTOCOL.md section 10; npm protomux-rpc 1.10.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from peerchat.net.driver.connection import Connection
from peerchat.net.env import Timer
from peerchat.net.errors import (
    ConnectionLost,
    LocalProtocolError,
    RemoteProtocolError,
    RequestTimeout,
    RpcClosed,
    RpcRemoteError,
)
from peerchat.net.identity import PublicKey
from peerchat.net.mux import rpc

from .runner import Runner

logger = logging.getLogger(__name__)

REQUESTS_MAX = 256
"""Handlers of one session that may wait at once; four times what the bench keeps up."""
QUEUED_BYTES_PAUSE = 1024 * 1024
"""Requests that wait for a handler; above it the connection is not read."""
QUEUED_REQUEST_BYTES = 256
"""What a queued request counts on top of its value."""
VALUE_BYTES_MAX = 8 * 1024 * 1024
"""Of a request's value; as much as the reference puts into one batch."""
RUNNING_BYTES_MAX = 16 * 1024 * 1024
"""Values of the requests that handlers work on: two of the largest; above it no
further handler is started."""
METHOD_CHARS_SHOWN_MAX = 256
"""Of an unknown method's name, in the answer that says so."""
ERROR_CHARS_MAX = 4096
"""Of an exception's message; nobody reads more."""
CLOSE_TIMEOUT_S = 5.0
"""How long a peer may take to end its side after this side ended."""

Handler = Callable[[bytes, "RpcSession"], Awaitable[bytes | None]]
"""Takes the value (empty when there is none); what it raises is told to the peer."""


class RpcSession:
    """Requests to and from one peer over one connection.

    Args:
        connection: an open connection; its `mux` is taken.
        server_key: names the channel: the public key of the side that serves.
        handlers: by method; looked at on every request, so it may change.
        capability: a secret that the peer must know, or the connection is destroyed.
        on_idle: called when no request is pending and nobody holds the session.
        on_close: called once with the session.
        value_bytes_max: larger request values are answered with an error.

    Raises:
        RpcClosed: the connection is closed, or has such a channel already.
    """

    def __init__(
        self,
        connection: Connection,
        server_key: bytes,
        *,
        handlers: Mapping[str, Handler],
        capability: bytes | None = None,
        on_idle: Callable[[RpcSession], None] | None = None,
        on_close: Callable[[RpcSession], None] | None = None,
        value_bytes_max: int = VALUE_BYTES_MAX,
    ) -> None:
        self.connection = connection
        self.is_closed = False
        self._handlers = handlers
        self._capability = capability
        self._on_idle = on_idle
        self._on_close = on_close
        self._value_bytes_max = value_bytes_max
        self._holds = 0
        self._next_id = 1
        self._pending: dict[int, tuple[asyncio.Future[bytes | None], float]] = {}
        self._timer: Timer | None = None
        self._timer_at_s = 0.0
        self._queued_bytes = 0
        self._running_bytes = 0
        self._has_room = asyncio.Event()
        """Set when a handler ends; whoever waits for room looks again."""
        self._is_paused = False
        self._is_drained = True
        self._runner = Runner(REQUESTS_MAX, self._hold_back)
        channel = connection.mux.create_channel(
            rpc.PROTOCOL,
            server_key,
            on_open=self._opened,
            on_message=self._received,
            on_close=self._channel_closed,
        )
        if channel is None:
            raise RpcClosed("the connection is closed or has an RPC channel already")
        self._channel = channel
        channel.open(rpc.encode_handshake(self._proof(is_own=True)))

    @property
    def remote_public_key(self) -> PublicKey:
        """Who is at the other end."""
        return self.connection.remote_public_key

    @property
    def pending(self) -> int:
        """Requests of this side that are not answered yet."""
        return len(self._pending)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is pending and nobody holds it."""
        return not self._pending and not self._holds

    async def request(
        self, method: str, value: bytes | None, *, timeout_s: float
    ) -> bytes | None:
        """Call a method of the peer; None stands for an empty value.

        Raises:
            RpcRemoteError: the peer answered with an error.
            RpcClosed: the connection closed first.
            RequestTimeout: no answer in ``timeout_s``; the peer is not told.
            LocalProtocolError: the value does not fit a frame.
        """
        if self.is_closed:
            raise RpcClosed("the connection is closed")
        request_id = self._next_id
        self._next_id = request_id + 1
        self._channel.send(rpc.REQUEST, rpc.encode_request(request_id, method, value))
        future: asyncio.Future[bytes | None]
        future = asyncio.get_running_loop().create_future()
        deadline_s = self.connection.clock.now() + timeout_s
        self._pending[request_id] = (future, deadline_s)
        if self._timer is None or deadline_s < self._timer_at_s:
            self._arm(deadline_s)
        try:
            return await future
        finally:
            self._pending.pop(request_id, None)
            if not self._pending:
                self._became_idle()

    def event(self, method: str, value: bytes | None) -> None:
        """Call a method without waiting for an answer; `RpcClosed` when closed."""
        if self.is_closed:
            raise RpcClosed("the connection is closed")
        self._channel.send(rpc.REQUEST, rpc.encode_request(rpc.EVENT_ID, method, value))

    def hold(self) -> None:
        """Keep a pooled session open while nothing is pending, until `release`."""
        self._holds += 1

    def release(self) -> None:
        """Undo one `hold`."""
        self._holds -= 1
        self._became_idle()

    def close(self) -> None:
        """End the channel and its connection; pending requests fail. Idempotent."""
        self._channel.close()

    async def wait_closed(self) -> None:
        """Wait until the connection is gone and every handler ended."""
        await self.connection.wait_closed()
        await self._runner.wait_closed()

    # What the channel calls.

    def _opened(self, handshake: bytes) -> None:
        expected = self._proof(is_own=False)
        if expected is not None:
            rpc.verify_handshake_untrusted(handshake, expected)

    def _received(self, message_type: int, payload: bytes) -> None:
        if message_type == rpc.RESPONSE:
            self._on_response(payload)
        elif message_type == rpc.REQUEST:
            self._on_request(payload)

    def _channel_closed(self, is_remote: bool) -> None:
        self.is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        for future, _ in self._pending.values():
            if not future.done():
                future.set_exception(RpcClosed("the connection closed"))
        self._runner.close()
        # As in the reference, an RPC connection does not outlive its channel.
        connection = self.connection
        if is_remote:
            connection.destroy()
        else:
            connection.end()
            connection.clock.call_at(
                connection.clock.now() + CLOSE_TIMEOUT_S, connection.destroy
            )
        if self._on_close is not None:
            self._on_close(self)

    # Requests of this side.

    def _on_response(self, payload: bytes) -> None:
        request_id, result = rpc.decode_response_untrusted(payload)
        future, _ = self._pending.get(request_id, (None, 0.0))
        if future is None or future.done():
            return  # timed out or cancelled on this side
        if isinstance(result, rpc.Failure):
            message = result.message if result.cause is None else result.cause
            future.set_exception(RpcRemoteError(message, result.code))
            return
        try:
            future.set_result(rpc.decode_value_untrusted(result))
        except RemoteProtocolError as error:
            future.set_exception(RpcRemoteError(str(error), rpc.DECODE_ERROR))

    def _arm(self, when_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at_s = when_s
        self._timer = self.connection.clock.call_at(when_s, self._expire)

    def _expire(self) -> None:
        """One timer serves all requests: fail the late ones, wait for the next."""
        self._timer = None
        now_s = self.connection.clock.now()
        next_s = None
        for future, deadline_s in self._pending.values():
            if deadline_s > now_s:
                next_s = deadline_s if next_s is None else min(next_s, deadline_s)
            elif not future.done():
                future.set_exception(RequestTimeout("the peer did not answer in time"))
        if next_s is not None:
            self._arm(next_s)

    def _became_idle(self) -> None:
        if self.is_idle and not self.is_closed and self._on_idle is not None:
            self._on_idle(self)

    # Requests of the peer.

    def _on_request(self, payload: bytes) -> None:
        request_id, method, raw = rpc.decode_request_untrusted(payload)
        handler = self._handlers.get(method)
        if handler is None:
            text = f"Unknown method '{method[:METHOD_CHARS_SHOWN_MAX]}'"
            self._refuse(request_id, rpc.Failure(text, rpc.UNKNOWN_METHOD))
            return
        try:
            value = rpc.decode_value_untrusted(raw) or b""
            if len(value) > self._value_bytes_max:
                raise RemoteProtocolError(
                    f"value of {len(value)} bytes, at most {self._value_bytes_max}"
                )
        except RemoteProtocolError as error:
            text = "Could not decode request"
            self._refuse(request_id, rpc.Failure(text, rpc.DECODE_ERROR, str(error)))
            return
        self._enqueued(len(value))
        self._runner.submit(partial(self._answer, request_id, handler, value))

    def _refuse(self, request_id: int, failure: rpc.Failure) -> None:
        """Answer in turn: whoever reads no answers must not pile up refusals."""
        if request_id == rpc.EVENT_ID:
            return

        async def answer() -> None:
            self._dequeued(0)
            self._fail(request_id, failure)

        self._enqueued(0)
        self._runner.submit(answer)

    def _enqueued(self, value_bytes: int) -> None:
        self._queued_bytes += value_bytes + QUEUED_REQUEST_BYTES
        if self._queued_bytes > QUEUED_BYTES_PAUSE and not self._is_paused:
            self._is_paused = True
            self.connection.pause_reading()

    def _dequeued(self, value_bytes: int) -> None:
        self._queued_bytes -= value_bytes + QUEUED_REQUEST_BYTES
        if self._is_paused and self._queued_bytes <= QUEUED_BYTES_PAUSE // 2:
            self._is_paused = False
            self.connection.resume_reading()

    async def _answer(self, request_id: int, handler: Handler, value: bytes) -> None:
        self._dequeued(len(value))
        self._running_bytes += len(value)
        try:
            result = await handler(value, self)
            if request_id != rpc.EVENT_ID:
                response = rpc.encode_response(request_id, result)
                self._is_drained = self._channel.send(rpc.RESPONSE, response)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            self._fail(request_id, self._request_error(error))
        except Exception as error:
            if isinstance(error, LocalProtocolError):
                logger.exception("an answer could not be sent")
            self._fail(request_id, self._request_error(error))
        finally:
            self._running_bytes -= len(value)
            self._has_room.set()

    def _request_error(self, error: BaseException) -> rpc.Failure:
        text = str(error)[:ERROR_CHARS_MAX] or type(error).__name__
        code = getattr(error, "code", "")
        return rpc.Failure(
            "Request failed",
            rpc.REQUEST_ERROR,
            text.encode("utf-8", "replace").decode(),
            code if isinstance(code, str) else "",
        )

    def _fail(self, request_id: int, failure: rpc.Failure) -> None:
        if request_id != rpc.EVENT_ID:
            self._is_drained = self._channel.send(
                rpc.RESPONSE, rpc.encode_failure(request_id, failure)
            )

    def _hold_back(self) -> Awaitable[None] | None:
        """A peer that does not read its answers gets no more of them."""
        if self._running_bytes > RUNNING_BYTES_MAX:
            return self._wait_room()
        return None if self._is_drained else self._wait_drained()

    async def _wait_room(self) -> None:
        self._has_room.clear()
        await self._has_room.wait()

    async def _wait_drained(self) -> None:
        with contextlib.suppress(ConnectionLost):
            await self.connection.drain()
        self._is_drained = True

    def _proof(self, *, is_own: bool) -> bytes | None:
        if self._capability is None:
            return None
        connection = self.connection
        return rpc.capability_proof(
            self._capability,
            connection.handshake_hash,
            is_initiator=connection.is_initiator == is_own,
        )
