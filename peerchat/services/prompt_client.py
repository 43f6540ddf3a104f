"""The asking end of ``peerchat/stream``: requests out, answers in.

An answer is iterated by one task. What that task consumes is granted to the sender
again, so that a slow reader slows the engine down and fills no memory. All text is
made inert here, at the door.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from typing import Protocol

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
from peerchat.net.mux.protomux import Channel
from peerchat.sanitize import StreamSanitizer

from .prompt_bodies import (
    CreditBody,
    EmbeddingsBody,
    EndBody,
    ErrorBody,
    FragmentBody,
    ProgressBody,
    ToolCallsBody,
)
from .prompt_events import (
    embeddings_of,
    end_of,
    error_of,
    progress_of,
    tool_calls_of,
)
from .prompt_pulse import ASKING_BEATS, LOST_BEATS, Pulse
from .prompt_requests import needs_version_2, request_body
from .prompt_wire import (
    ANSWER_BYTES_MAX,
    BEATS_FROM,
    CREDIT_INITIAL_BYTES,
    DATA_BYTES_MAX,
    FRAGMENT_BYTES_MAX,
    PROTOCOL,
    REQUESTS_MAX,
    MessageType,
    decode_body_untrusted,
    decode_handshake_untrusted,
    decode_number_untrusted,
    encode,
    encode_handshake,
)

OPEN_TIMEOUT_S = 10.0
"""A peer answers an open at once or rejects it; silence counts as not supported."""

GRANT_BYTES = CREDIT_INITIAL_BYTES // 4
"""Consumed bytes are granted in lots of this size: few messages, and the sender
never waits while the reader keeps up."""

log = logging.getLogger(__name__)


class Session(Protocol):
    """What is needed of an `RpcSession`; a held one does not linger out."""

    @property
    def connection(self) -> Connection: ...

    def hold(self) -> None: ...

    def release(self) -> None: ...


class PromptStreamClient:
    """Asks the peer at the other end of one session; make one for each session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._channel: Channel | None = None
        self._is_supported: asyncio.Future[bool] | None = None
        self._answers: dict[int, RemoteAnswer] = {}
        self._newest = 0
        self._version = 1
        self._pulse = Pulse(
            lambda: bool(self._answers),
            lambda: self._send(MessageType.BEAT, encode(0)),
            lambda: session.connection.rtt_s,
            beats=LOST_BEATS,
            says_every=ASKING_BEATS,
        )

    @property
    def active(self) -> int:
        """How many answers run now."""
        return len(self._answers)

    @property
    def is_silent(self) -> bool:
        """Whether the peer, which should say that it is there, says nothing."""
        return self._pulse.is_silent

    @property
    def is_open(self) -> bool:
        """Whether `is_supported` has said yes, and the peer is there."""
        known = self._is_supported
        is_known = known is not None and known.done() and known.result()
        channel = self._channel
        return is_known and channel is not None and not channel.is_closed

    async def is_supported(self) -> bool:
        """Whether the peer speaks this channel: it opened or rejected it. Opens it at
        the first call; a connection that closes meanwhile says no."""
        if self._is_supported is None:
            self._is_supported = asyncio.get_running_loop().create_future()
            self._open(self._is_supported)
        waiting = self._is_supported
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                return await asyncio.shield(waiting)
        except TimeoutError:
            return False

    def ask(
        self, request: PromptRequest, token: str = "", *, user: str = ""
    ) -> RemoteAnswer:
        """Send a request; only after `is_supported` said yes.

        Args:
            request: what to answer.
            token: the session token, for a gateway.
            user: tells a gateway's users apart for a processor's queue.

        Failures of any kind are raised by the answer's iteration.
        """
        answer = RemoteAnswer(self, request.request_id)
        try:
            self._send_request(request, token, user, answer)
        except ApiError as error:
            answer.fail(error)
        return answer

    def close(self) -> None:
        """Close the channel; running answers fail as with a lost peer."""
        if self._channel is not None and not self._channel.is_closed:
            self._channel.close()
        self._on_close(False)

    def send_cancel(self, number: int) -> None:
        """Tell the peer that nobody waits for this answer."""
        self._send(MessageType.CANCEL, encode(number))

    def send_credit(self, number: int, granted_bytes: int) -> None:
        """Let the peer send more of this answer."""
        self._send(MessageType.CREDIT, encode(number, CreditBody(granted_bytes)))

    def forget(self, number: int) -> None:
        """The answer is over; idempotent."""
        if self._answers.pop(number, None) is not None:
            self._session.release()

    def _open(self, is_supported: asyncio.Future[bool]) -> None:
        connection = self._session.connection
        self._channel = connection.mux.create_channel(
            PROTOCOL,
            bytes(connection.remote_public_key),
            on_open=self._on_open,
            on_message=self._on_message,
            on_close=self._on_close,
        )
        if self._channel is None:
            is_supported.set_result(False)
        else:
            self._channel.open(encode_handshake())

    def _send_request(
        self, request: PromptRequest, token: str, user: str, answer: RemoteAnswer
    ) -> None:
        if self._channel is None or self._channel.is_closed:
            raise _peer_lost()
        if len(self._answers) >= REQUESTS_MAX:
            raise ApiError(
                ErrorCode.BUSY,
                f"{REQUESTS_MAX} requests to this peer run already; try again soon.",
                status=503,
                retry_after_s=1,
            )
        if self._version < 2 and needs_version_2(request):
            raise _too_old(request)
        body = request_body(request, token, user)
        self._newest += 1
        answer.number = self._newest
        self._answers[answer.number] = answer
        self._session.hold()
        self._pulse.begin()
        self._send(MessageType.REQUEST, encode(answer.number, body))
        self._session.connection.flush()

    def _send(self, kind: MessageType, payload: bytes) -> None:
        if self._channel is not None and not self._channel.is_closed:
            self._pulse.has_sent = True
            self._channel.send(kind, payload)

    def _on_open(self, handshake: bytes) -> None:
        try:
            self._version = decode_handshake_untrusted(handshake)
            self._pulse.peer_beats = self._version >= BEATS_FROM
        except DecodeError as error:
            self._refuse(error)
        else:
            self._decide(True)

    def _on_close(self, _is_remote: bool) -> None:
        self._decide(False)
        for answer in list(self._answers.values()):
            answer.fail(_peer_lost())

    def _decide(self, is_supported: bool) -> None:
        waiting = self._is_supported
        if waiting is not None and not waiting.done():
            waiting.set_result(is_supported)

    def _on_message(self, kind: int, payload: bytes) -> None:
        self._pulse.has_heard = True
        try:
            number, data = decode_number_untrusted(payload)
            answer = self._answers.get(number)
            # Unknown types are for later versions; unknown numbers were cancelled.
            if answer is not None:
                self._dispatch(answer, kind, data, len(payload))
        except DecodeError as error:
            self._refuse(error)

    def _dispatch(
        self, answer: RemoteAnswer, kind: int, data: bytes, size: int
    ) -> None:
        is_data = kind in (MessageType.TOOL_CALLS, MessageType.EMBEDDINGS)
        if size > (DATA_BYTES_MAX if is_data else FRAGMENT_BYTES_MAX):
            raise DecodeError(f"message of {size} bytes")
        match kind:
            case MessageType.FRAGMENT:
                body = decode_body_untrusted(data, FragmentBody)
                answer.add(Fragment(body.text, body.is_thinking), size)
            case MessageType.TOOL_CALLS:
                calls = decode_body_untrusted(data, ToolCallsBody)
                answer.add(tool_calls_of(calls), size)
            case MessageType.EMBEDDINGS:
                vectors = decode_body_untrusted(data, EmbeddingsBody)
                answer.add(embeddings_of(vectors), size)
            case MessageType.PROGRESS:
                answer.add_progress(
                    progress_of(decode_body_untrusted(data, ProgressBody))
                )
            case MessageType.END:
                answer.finish(end_of(decode_body_untrusted(data, EndBody)))
            case MessageType.ERROR:
                answer.fail(error_of(decode_body_untrusted(data, ErrorBody)))

    def _refuse(self, error: DecodeError) -> None:
        """Break with a peer that does not keep to the protocol."""
        key = bytes(self._session.connection.remote_public_key).hex()
        log.warning("%s…: bad message on %s: %s", key[:8], PROTOCOL, error)
        self.close()


class RemoteAnswer:
    """An answer that another peer gives; an `api.Answer`."""

    def __init__(self, client: PromptStreamClient, request_id: str) -> None:
        self.request_id = request_id
        self.number = 0
        """Its number on the channel; 0 when it was never sent."""
        self._client = client
        self._queue: deque[tuple[AnswerEvent, int]] = deque()
        self._wake = asyncio.Event()
        self._error: ApiError | None = None
        self._is_over = False
        """Nothing more arrives: ended, failed or closed."""
        self._unread_bytes = 0
        self._ungranted_bytes = 0
        self._total_bytes = 0
        self._text = StreamSanitizer()
        self._thinking = StreamSanitizer()

    def __aiter__(self) -> AsyncIterator[AnswerEvent]:
        return self

    async def __anext__(self) -> AnswerEvent:
        try:
            while (event := self._next()) is None:
                self._wake.clear()
                await self._wake.wait()
        except asyncio.CancelledError:
            self._stop()
            raise
        return event

    @property
    def is_silent(self) -> bool:
        """Whether the peer seems gone, before its connection notices."""
        return not self._is_over and self._client.is_silent

    async def aclose(self) -> None:
        """Stop: the peer closes its side of the answer at once. Idempotent."""
        self._stop()

    def add(self, event: Fragment | ToolCalls | Embeddings, size: int) -> None:
        """Something of the answer; ``size`` is what it takes of the credit."""
        self._unread_bytes += size
        self._total_bytes += size
        if self._unread_bytes + self._ungranted_bytes > CREDIT_INITIAL_BYTES:
            raise DecodeError("the peer sent more than it was granted")
        if self._total_bytes > ANSWER_BYTES_MAX:
            raise DecodeError(f"an answer of more than {ANSWER_BYTES_MAX} bytes")
        self._queue.append((event, size))
        self._wake.set()

    def add_progress(self, event: Progress) -> None:
        """News of the request; only the newest of several unread ones is kept."""
        if self._queue and isinstance(self._queue[-1][0], Progress):
            self._queue.pop()
        self._queue.append((event, 0))
        self._wake.set()

    def finish(self, event: Finished) -> None:
        """The answer is complete."""
        self._queue.append((event, 0))
        self._end()

    def fail(self, error: ApiError) -> None:
        """Raised once what came before is read."""
        if not self._is_over:
            error.request_id = error.request_id or self.request_id
            self._error = error
            self._end()

    def _next(self) -> AnswerEvent | None:
        """The next event to show, None to wait; raises at the end."""
        while self._queue:
            event, size = self._queue.popleft()
            self._consume(size)
            match event:
                case Fragment():
                    shown = self._made_inert(event)
                    if shown.text:
                        return shown
                case Finished():
                    return self._held_back(event) or event
                case Progress() | ToolCalls() | Embeddings():
                    return event
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        if self._is_over:
            raise StopAsyncIteration
        return None

    def _made_inert(self, event: Fragment) -> Fragment:
        sanitizer = self._thinking if event.is_thinking else self._text
        return Fragment(sanitizer.feed(event.text), event.is_thinking)

    def _held_back(self, end: Finished) -> Fragment | None:
        """What the sanitizers kept for a sequence that never came; then the end."""
        for sanitizer, is_thinking in ((self._thinking, True), (self._text, False)):
            text = sanitizer.finish()
            if text:
                self._queue.append((end, 0))
                return Fragment(text, is_thinking)
        return None

    def _consume(self, size: int) -> None:
        self._unread_bytes -= size
        self._ungranted_bytes += size
        if self._ungranted_bytes >= GRANT_BYTES and not self._is_over:
            self._client.send_credit(self.number, self._ungranted_bytes)
            self._ungranted_bytes = 0

    def _stop(self) -> None:
        if not self._is_over:
            self._client.send_cancel(self.number)
        self._queue.clear()
        self._error = None
        self._end()

    def _end(self) -> None:
        self._is_over = True
        self._client.forget(self.number)
        self._wake.set()


def _too_old(request: PromptRequest) -> ApiError:
    """Told as a missing model: another peer may well do."""
    what = "embed" if request.inputs else "take images, tools or a begun answer"
    return ApiError(
        ErrorCode.MODEL_MISSING,
        f"The peer runs an older peerchat that cannot {what}; ask another one.",
        status=404,
    )


def _peer_lost() -> ApiError:
    return ApiError(
        ErrorCode.PEER_LOST,
        "The connection to the peer was lost; ask again.",
        status=502,
    )
