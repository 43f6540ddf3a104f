"""The serving end of ``peerchat/stream``: requests in, answers out.

Each request runs in a task that draws events from a handler and sends them as far as
the caller's credit goes. When the caller cancels, or the connection goes, the task is
cancelled, which closes the handler's generator at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from peerchat.api import (
    AnswerEvent,
    ApiError,
    Embeddings,
    ErrorCode,
    Finished,
    Fragment,
    Progress,
    PromptRequest,
    ToolCalls,
)
from peerchat.net.driver.connection import Connection
from peerchat.net.errors import DecodeError
from peerchat.settings import PROMPT_BYTES_MAX

from .prompt_bodies import Body, CreditBody, RequestBody
from .prompt_events import (
    embeddings_bodies,
    end_body,
    error_body,
    fragment_body,
    progress_body,
    tool_calls_bodies,
)
from .prompt_pulse import GONE_BEATS, Pulse
from .prompt_requests import check_request, image_bytes_of, request_of
from .prompt_wire import (
    BEATS_FROM,
    CREDIT_INITIAL_BYTES,
    CREDIT_MAX_BYTES,
    FRAGMENT_BYTES_MAX,
    FRAGMENT_CHARS_MAX,
    HISTORY_SHARE,
    IMAGES_BYTES_MAX,
    PREFIX_SHARE,
    PROTOCOL,
    REQUEST_OVERHEAD_BYTES,
    REQUESTS_MAX,
    MessageType,
    decode_body_untrusted,
    decode_handshake_untrusted,
    decode_number_untrusted,
    encode,
    encode_handshake,
)

CREDIT_TIMEOUT_S = 60.0
"""A caller that takes nothing for so long loses the answer: it holds a slot."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as far as this hop knows."""

    peer: str
    """Public key of the connected peer, hex; proven by the connection."""
    token: str = ""
    """Session token; never to be logged."""
    user: str = ""
    """What the peer calls the user it asks for; only to share fairly."""

    def __repr__(self) -> str:
        return f"Caller(peer={self.peer[:8]}…, user={self.user!r})"


PromptHandler = Callable[[PromptRequest, Caller], AsyncIterator[AnswerEvent]]
"""Answers one request: events that end with ``Finished``, or an `ApiError`."""


class PromptStreamServer:
    """Serves one handler on any number of connections.

    Args:
        handler: called for each request; its generator is closed in every case.
        prompt_bytes_max: longest prompt, UTF-8.
        requests_max: running requests on one connection.
        credit_timeout_s: how long a caller may take nothing.
    """

    def __init__(
        self,
        handler: PromptHandler,
        *,
        prompt_bytes_max: int = PROMPT_BYTES_MAX,
        requests_max: int = REQUESTS_MAX,
        credit_timeout_s: float = CREDIT_TIMEOUT_S,
    ) -> None:
        self.handler = handler
        self.prompt_bytes_max = prompt_bytes_max
        self.request_bytes_max = (
            prompt_bytes_max * (1 + HISTORY_SHARE + PREFIX_SHARE)
            + REQUEST_OVERHEAD_BYTES
        )
        self.requests_max = requests_max
        self.credit_timeout_s = credit_timeout_s
        self.is_draining = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def active(self) -> int:
        """How many answers run now."""
        return len(self._tasks)

    def attach(self, connection: Connection) -> None:
        """Accept the channel on this connection from now on."""
        key = bytes(connection.public_key)

        def notify(_id: bytes | None) -> None:
            _ServerChannel(self, connection)

        connection.mux.pair(PROTOCOL, key, notify)

    async def drain(self, timeout_s: float) -> None:
        """Refuse what is new, and wait for what runs, at most so long."""
        self.is_draining = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)

    async def close(self) -> None:
        """Cut every answer off and wait until the handlers are closed."""
        self.is_draining = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def run(self, answer: _RunningAnswer) -> asyncio.Task[None]:
        """Own the task of one answer."""
        task = asyncio.get_running_loop().create_task(answer.run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class _ServerChannel:
    """One caller's channel and the answers that run on it."""

    def __init__(self, server: PromptStreamServer, connection: Connection) -> None:
        self._server = server
        self._peer = bytes(connection.remote_public_key).hex()
        self._connection = connection
        self._answers: dict[int, _RunningAnswer] = {}
        self._newest = 0
        self._pulse = Pulse(
            lambda: bool(self._answers),
            lambda: self.send(MessageType.BEAT, encode(0)),
            lambda: connection.rtt_s,
            self._lose_all,
            beats=GONE_BEATS,
        )
        channel = connection.mux.create_channel(
            PROTOCOL,
            bytes(connection.public_key),
            on_open=self._on_open,
            on_message=self._on_message,
            on_close=self._on_close,
        )
        self._channel = channel
        if channel is not None:
            channel.open(encode_handshake())

    def send(self, kind: MessageType, payload: bytes) -> None:
        """Send unless the channel is gone."""
        channel = self._channel
        if channel is not None and not channel.is_closed:
            self._pulse.has_sent = True
            channel.send(kind, payload)

    def flush(self) -> None:
        """Send at once what was sent; see `Connection.flush`."""
        self._connection.flush()

    def forget(self, number: int) -> None:
        """The answer is over."""
        self._answers.pop(number, None)

    def _on_open(self, handshake: bytes) -> None:
        try:
            version = decode_handshake_untrusted(handshake)
            self._pulse.peer_beats = version >= BEATS_FROM
        except DecodeError as error:
            self._refuse(error)

    def _on_close(self, _is_remote: bool) -> None:
        answers, self._answers = self._answers, {}
        for answer in answers.values():
            answer.cancel()

    def _lose_all(self) -> None:
        """The caller seems gone: nothing is computed for it any more.

        If it comes back it is told, and goes on elsewhere or here.
        """
        for answer in list(self._answers.values()):
            answer.lose()

    def _on_message(self, kind: int, payload: bytes) -> None:
        self._pulse.has_heard = True
        try:
            number, data = decode_number_untrusted(payload)
            if kind == MessageType.REQUEST:
                self._on_request(number, data)
            elif kind == MessageType.CANCEL:
                self._on_cancel(number)
            elif kind == MessageType.CREDIT:
                self._on_credit(number, data)
        except DecodeError as error:
            self._refuse(error)

    def _refuse(self, error: DecodeError) -> None:
        """Break with a peer that does not keep to the protocol."""
        log.warning("%s…: bad message on %s: %s", self._peer[:8], PROTOCOL, error)
        if self._channel is not None:
            self._channel.close()
        self._on_close(False)

    def _on_request(self, number: int, data: bytes) -> None:
        if number <= self._newest:
            raise DecodeError(f"request number {number} was used before")
        self._newest = number
        try:
            body = self._checked(data)
            request = request_of(body)
            check_request(request, self._server.prompt_bytes_max)
        except ApiError as error:
            self.send(MessageType.ERROR, encode(number, error_body(error)))
            return
        caller = Caller(self._peer, body.token, body.user)
        answer = _RunningAnswer(self, self._server, number, request, caller)
        self._answers[number] = answer
        self._pulse.begin()
        answer.start()

    def _checked(self, data: bytes) -> RequestBody:
        server = self._server
        if server.is_draining:
            raise _stopped()
        if len(self._answers) >= server.requests_max:
            raise ApiError(
                ErrorCode.BUSY,
                f"{server.requests_max} requests run on this connection already; "
                "wait for one of them.",
                status=503,
                retry_after_s=1,
            )
        too_large = _invalid("The request is too large; shorten the history.")
        if len(data) > server.request_bytes_max + IMAGES_BYTES_MAX:
            raise too_large
        try:
            body = decode_body_untrusted(data, RequestBody)
        except DecodeError as error:
            raise _invalid(f"Invalid request format: {error}") from None
        # Only images may fill what is there for images.
        if len(data) - image_bytes_of(body) > server.request_bytes_max:
            raise too_large
        return body

    def _on_cancel(self, number: int) -> None:
        answer = self._answers.pop(number, None)
        if answer is not None:
            answer.cancel()

    def _on_credit(self, number: int, data: bytes) -> None:
        if len(data) > FRAGMENT_BYTES_MAX:
            raise DecodeError("credit message is too long")
        granted_bytes = decode_body_untrusted(data, CreditBody).granted_bytes
        answer = self._answers.get(number)
        if answer is not None:
            answer.add_credit(granted_bytes)


class _RunningAnswer:
    """One request: draws from the handler as far as the credit goes."""

    def __init__(
        self,
        channel: _ServerChannel,
        server: PromptStreamServer,
        number: int,
        request: PromptRequest,
        caller: Caller,
    ) -> None:
        self._channel = channel
        self._server = server
        self._number = number
        self._request = request
        self._caller = caller
        self._credit_bytes = CREDIT_INITIAL_BYTES
        self._has_credit = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._has_begun = False
        """Something of the answer was sent: people wait for that most of all."""
        self._is_unwanted = False
        """The caller cancelled or is gone."""
        self._is_lost = False
        """The caller was not heard of."""

    def start(self) -> None:
        """Begin; the server owns the task."""
        self._task = self._server.run(self)

    def cancel(self) -> None:
        """Stop the handler; nothing more is sent."""
        self._is_unwanted = True
        if self._task is not None:
            self._task.cancel()

    def lose(self) -> None:
        """Stop the handler; whoever asked is told, should it come back."""
        self._is_lost = True
        if self._task is not None:
            self._task.cancel()

    def add_credit(self, granted_bytes: int) -> None:
        """The caller consumed so much."""
        credit = min(self._credit_bytes + granted_bytes, CREDIT_MAX_BYTES)
        self._credit_bytes = credit
        self._has_credit.set()

    async def run(self) -> None:
        """Answer, and report every failure to the caller."""
        try:
            finished = await self._stream()
            self._send(MessageType.END, encode(self._number, end_body(finished)))
        except ApiError as error:
            self._send_error(error)
        except asyncio.CancelledError:
            self._send_error(_silent() if self._is_lost else _stopped())
            raise
        except Exception:
            log.exception("Request %s failed", self._request.request_id)
            self._send_error(
                ApiError(
                    ErrorCode.INTERNAL,
                    "The peer failed on this request; its log says why.",
                )
            )
        finally:
            self._channel.forget(self._number)

    async def _stream(self) -> Finished:
        """Send all events but the last. The handler is closed before this returns, so
        that whoever reads the end finds its slot free."""
        events = self._server.handler(self._request, self._caller)
        try:
            async for event in events:
                match event:
                    case Fragment():
                        await self._send_fragment(event)
                    case Progress():
                        body = progress_body(event)
                        self._send(MessageType.PROGRESS, encode(self._number, body))
                    case ToolCalls():
                        for calls in tool_calls_bodies(event):
                            await self._send_data(MessageType.TOOL_CALLS, calls)
                    case Embeddings():
                        for vectors in embeddings_bodies(event):
                            await self._send_data(MessageType.EMBEDDINGS, vectors)
                    case Finished():
                        return event
        finally:
            await close_events(events)
        raise ApiError(
            ErrorCode.ENGINE_FAILED, "The answer broke off without an end.", status=502
        )

    async def _send_fragment(self, event: Fragment) -> None:
        text = event.text
        for start in range(0, len(text), FRAGMENT_CHARS_MAX):
            piece = text[start : start + FRAGMENT_CHARS_MAX]
            body = fragment_body(Fragment(piece, event.is_thinking))
            await self._send_data(MessageType.FRAGMENT, body)

    async def _send_data(self, kind: MessageType, body: Body) -> None:
        payload = encode(self._number, body)
        if self._credit_bytes < len(payload):
            await self._wait_for_credit(len(payload))
        self._credit_bytes -= len(payload)
        self._send(kind, payload)
        if not self._has_begun:
            self._has_begun = True
            self._channel.flush()

    async def _wait_for_credit(self, size: int) -> None:
        try:
            async with asyncio.timeout(self._server.credit_timeout_s):
                while self._credit_bytes < size:
                    self._has_credit.clear()
                    await self._has_credit.wait()
        except TimeoutError:
            raise ApiError(
                ErrorCode.TIMEOUT,
                "The answer was not read for too long and was given up; ask again.",
                status=504,
            ) from None

    def _send_error(self, error: ApiError) -> None:
        error.request_id = error.request_id or self._request.request_id
        self._send(MessageType.ERROR, encode(self._number, error_body(error)))

    def _send(self, kind: MessageType, payload: bytes) -> None:
        if not self._is_unwanted:
            self._channel.send(kind, payload)


async def close_events(events: AsyncIterator[AnswerEvent]) -> None:
    """Close an iterator of events if it is one that can be closed."""
    aclose = getattr(events, "aclose", None)
    if aclose is not None:
        await aclose()


def _stopped() -> ApiError:
    return ApiError(
        ErrorCode.STOPPED,
        "The peer is shutting down; ask another one.",
        status=503,
        retry_after_s=1,
    )


def _silent() -> ApiError:
    return ApiError(
        ErrorCode.STOPPED,
        "Nothing was heard of the asker, so its answer was stopped; ask again.",
        status=503,
        retry_after_s=1,
    )


def _invalid(message: str) -> ApiError:
    return ApiError(ErrorCode.INVALID_REQUEST, message, status=400)
