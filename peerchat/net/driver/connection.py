"""An encrypted connection to a public key, over any reliable byte stream.

`Connection` joins a `ByteStream`, a `SecretStream` and, once asked for, a `Protomux`.
Datagrams travel up to a channel's handler in one call stack; only `read`, `drain` and
the ``wait_`` methods wait. Whatever a peer does wrong ends the connection, and is never
raised into the stream. Source: docs/PROTOCOL.md section 8, @hyperswarm/secret-stream.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from peerchat.net.crypto.noise import HandshakeResult
from peerchat.net.crypto.secretstream import (
    HEADER_BYTES,
    SEND_COUNTER_BYTES,
    SecretStream,
)
from peerchat.net.env import Clock, Random, Timer
from peerchat.net.errors import ConnectionLost, RemoteProtocolError
from peerchat.net.identity import Address, PublicKey
from peerchat.net.mux.protomux import Protomux
from peerchat.net.streams import ByteStream

logger = logging.getLogger(__name__)

KEEP_ALIVE_S = 5.0
"""hyperdht's connectionKeepAlive."""
OPEN_TIMEOUT_S = 20.0
"""The peer's first frame needs no round trip of ours; UDX itself gives up at 13 s."""
SILENCE_MAX_S = 30.0
"""Six keep-alives that did not come; UDX notices a lost path long before that."""
READ_QUEUE_BYTES_MAX = 256 * 1024
"""Above it the stream is paused until the application has read."""

QUEUED_MESSAGE_BYTES = 64
"""What a queued message counts on top of its bytes, so that tiny ones count too."""

_TICKS_PER_KEEP_ALIVE = 4
"""Quiet is measured in ticks, so that a write costs no look at the clock."""


class Connection:
    """One connection; open for writing from the start.

    Args:
        stream: carries the frames; this connection becomes its receiver.
        handshake: keys and names, from Noise.
        clock, random: of the environment.
        keep_alive_s: an empty message is sent after this much quiet; 0: never.
    """

    def __init__(
        self,
        stream: ByteStream,
        handshake: HandshakeResult,
        *,
        clock: Clock,
        random: Random,
        keep_alive_s: float = KEEP_ALIVE_S,
    ) -> None:
        self.public_key: PublicKey = handshake.public_key
        self.remote_public_key: PublicKey = handshake.remote_public_key
        self.handshake_hash = handshake.handshake_hash
        self.is_initiator = handshake.is_initiator
        self.clock = clock
        self.is_closed = False
        """True as soon as nothing can be sent or heard any more."""
        self.error: Exception | None = None
        """Why it closed, unless both sides wanted it."""
        self.times_heard = 0
        """Grows with all that the peer says; who waits for it to speak compares."""
        self._stream = stream
        self._secret = SecretStream(
            tx_key=handshake.tx_key,
            rx_key=handshake.rx_key,
            handshake_hash=handshake.handshake_hash,
            is_initiator=handshake.is_initiator,
            header=random.token_bytes(HEADER_BYTES),
            send_counter=random.token_bytes(SEND_COUNTER_BYTES),
        )
        self._frame = self._secret.frame
        self._mux: Protomux | None = None
        self._is_delivering = False
        """Messages go straight to Protomux, nothing older is queued."""
        self._on_message: Callable[[bytes], None] | None = None
        self._queue: deque[bytes] = deque()
        self._queue_bytes = 0
        self._has_remote_ended = False
        self._has_ended = False
        self._pause_count = 0
        self._is_queue_paused = False
        self._is_uncork_pending = False
        self._is_opened = False
        self._is_finished = False
        self._is_writable = True
        self._waiters: set[asyncio.Future[None]] = set()
        self._close_callbacks: list[Callable[[], None]] = []
        self._keep_alive_s = keep_alive_s
        self._ticks_unwritten = 0
        self._ticks_unheard = 0
        self._does_peer_keep_alive = False
        self._timer: Timer = clock.call_at(
            clock.now() + OPEN_TIMEOUT_S, self._opening_took_too_long
        )
        self._tick_timer: Timer | None = None
        if keep_alive_s > 0:
            self._arm_tick()
        stream.write(self._secret.hello)
        stream.set_receiver(self)

    # What is known of the peer and the path.

    @property
    def remote_address(self) -> Address | None:
        """Where the peer's packets come from."""
        return self._stream.remote_address

    @property
    def rtt_s(self) -> float | None:
        """Smoothed round-trip time, once measured."""
        return self._stream.rtt_s

    @property
    def buffered(self) -> int:
        """Bytes written and not yet acknowledged by the peer."""
        return self._stream.buffered

    @property
    def is_opened(self) -> bool:
        """Whether the peer has proven, with its first frame, to hold the keys."""
        return self._is_opened

    @property
    def mux(self) -> Protomux:
        """Protomux over this connection; from the first use on it gets all messages.

        What came before is handed over a turn later, so that the caller can create
        and pair channels first.
        """
        if self._mux is None:
            self._mux = Protomux(self.write, self._set_paused)
            if self.is_closed:
                self._mux.halt()
            if self._is_finished:
                self._mux.shut_down()
            self.clock.call_soon(self._deliver_queue)
        return self._mux

    # Writing.

    def write(self, data: bytes) -> bool:
        """Send one message; False asks to `drain` before more.

        Closed or ended connections drop it and say False.

        Raises:
            LocalProtocolError: the message is longer than a frame can hold.
        """
        if self.is_closed or self._has_ended:
            return False
        self._ticks_unwritten = 0
        self._is_writable = self._stream.write(self._frame(data))
        return self._is_writable

    def flush(self) -> None:
        """Send at once what was written: for what somebody waits for, such as the first
        word of an answer. Much of it costs a system call for each."""
        if not self.is_closed:
            self._stream.flush()

    async def drain(self) -> None:
        """Wait until the stream takes more; raises `ConnectionLost` when it cannot."""
        while not self._is_writable and not self.is_closed:
            await self._wait()
        if self.is_closed:
            raise self._lost()

    def send_message(self, data: bytes) -> None:
        """Send an unordered, unreliable datagram; larger than the MTU: ValueError."""
        if not self.is_closed:
            self._stream.send_message(self._secret.box(data))

    def set_message_receiver(self, receiver: Callable[[bytes], None] | None) -> None:
        """Who gets the peer's unordered datagrams; without one they are dropped."""
        self._on_message = receiver

    def end(self) -> None:
        """Say that no more will be sent; the peer may go on."""
        if self.is_closed or self._has_ended:
            return
        self._has_ended = True
        self._stream.end()

    def destroy(self, error: Exception | None = None) -> None:
        """Close both ways at once; unsent bytes are dropped. Idempotent.

        Callbacks and waiters hear of it in the next turn.
        """
        if self.is_closed:
            return
        self._mark_closed(error)
        self._stream.destroy(error)

    # Reading.

    async def read(self) -> bytes | None:
        """The next message, None after the last; not together with `mux`.

        Raises:
            ConnectionLost: the connection broke before the peer ended it.
        """
        while not self._queue:
            if self.is_closed and not self._has_remote_ended:
                raise self._lost()
            if self._has_remote_ended or self.is_closed:
                return None
            await self._wait()
        data = self._queue.popleft()
        self._queue_bytes -= len(data) + QUEUED_MESSAGE_BYTES
        self._resume_queue_maybe()
        return data

    def pause_reading(self) -> None:
        """Take no more from the stream until as many `resume_reading` calls came."""
        self._pause_count += 1
        if self._pause_count == 1:
            self._stream.pause_reading()

    def resume_reading(self) -> None:
        """Undo one `pause_reading`."""
        self._pause_count -= 1
        if self._pause_count == 0 and not self.is_closed:
            self._stream.resume_reading()

    # Its beginning and end.

    async def wait_opened(self) -> None:
        """Wait for `is_opened`; raises `ConnectionLost` when it never will be."""
        while not self._is_opened:
            if self.is_closed:
                raise self._lost()
            await self._wait()

    async def wait_closed(self) -> None:
        """Wait for the end, whatever its reason; see `error`."""
        while not self._is_finished:
            await self._wait()

    def add_close_callback(self, callback: Callable[[], None]) -> None:
        """Call once when the connection is gone; at once when it is already."""
        if self._is_finished:
            callback()
        else:
            self._close_callbacks.append(callback)

    # ByteStreamReceiver.

    def data_received(self, data: bytes) -> None:
        """Bytes of the stream."""
        if self.is_closed:
            return
        self._ticks_unheard = 0
        self.times_heard += 1
        try:
            messages = self._secret.receive_untrusted(data)
            if not self._is_opened and self._secret.is_set_up:
                self._mark_opened()
            if messages:
                self._take(messages)
        except RemoteProtocolError as error:
            self._violated(error)
        except Exception:
            logger.exception("a handler failed; closing the connection")
            self.destroy(ConnectionLost("internal error"))

    def end_received(self) -> None:
        """The peer ended its direction."""
        self._has_remote_ended = True
        self._wake()
        if self._mux is not None:
            # Half-open channels make no sense: Protomux answers an end with an end.
            self.end()

    def message_received(self, data: bytes) -> None:
        """An unordered datagram; one that does not open is dropped, as it may be."""
        if self.is_closed or self._on_message is None:
            return
        try:
            self._on_message(self._secret.unbox_untrusted(data))
        except RemoteProtocolError:
            logger.debug("dropped an unordered datagram that does not open")
        except Exception:
            logger.exception("a datagram handler failed; closing the connection")
            self.destroy(ConnectionLost("internal error"))

    def writable(self) -> None:
        """The stream takes more."""
        self._is_writable = True
        self._wake()
        if self._mux is None or self.is_closed:
            return
        try:
            self._mux.stream_writable()
        except Exception:
            logger.exception("a handler failed; closing the connection")
            self.destroy(ConnectionLost("internal error"))

    def stream_closed(self, error: Exception | None) -> None:
        """The stream is gone."""
        if not self.is_closed:
            self._mark_closed(error)

    # Inside.

    def _take(self, messages: list[bytes]) -> None:
        if b"" in messages:
            self._does_peer_keep_alive = True
            messages = [message for message in messages if message]
        if self._is_delivering:
            self._give_to_mux(messages)
            return
        self._queue.extend(messages)
        self._queue_bytes += sum(map(len, messages))
        self._queue_bytes += len(messages) * QUEUED_MESSAGE_BYTES
        if self._queue_bytes > READ_QUEUE_BYTES_MAX and not self._is_queue_paused:
            self._is_queue_paused = True
            self.pause_reading()
        self._wake()

    def _give_to_mux(self, messages: list[bytes]) -> None:
        """Handle messages that came together, and send their answers together.

        A single small message is answered at once. With more in hand, what the tasks
        woken by them send in the next turn joins the same Protomux batch as well.
        """
        mux = self._mux
        assert mux is not None
        mux.cork()
        try:
            for message in messages:
                mux.receive_untrusted(message)
                if self.is_closed:
                    return
        finally:
            # A batch frame is many messages in one: its first two bytes are zero.
            is_many = len(messages) > 1 or (messages and messages[0][:2] == b"\0\0")
            if not is_many or self._is_uncork_pending:
                mux.uncork()
            else:
                self._is_uncork_pending = True
                self.clock.call_soon(self._uncork)

    def _uncork(self) -> None:
        self._is_uncork_pending = False
        if self._mux is not None:
            self._mux.uncork()

    def _deliver_queue(self) -> None:
        """Protomux takes over what was queued before it existed."""
        messages = list(self._queue)
        self._queue.clear()
        self._queue_bytes = 0
        self._is_delivering = True
        try:
            if messages and not self.is_closed:
                self._give_to_mux(messages)
        except RemoteProtocolError as error:
            self._violated(error)
        except Exception:
            logger.exception("a handler failed; closing the connection")
            self.destroy(ConnectionLost("internal error"))
        self._resume_queue_maybe()
        if self._has_remote_ended:
            self.end()

    def _resume_queue_maybe(self) -> None:
        if self._is_queue_paused and self._queue_bytes <= READ_QUEUE_BYTES_MAX // 2:
            self._is_queue_paused = False
            self.resume_reading()

    def _set_paused(self, is_paused: bool) -> None:
        if is_paused:
            self.pause_reading()
        else:
            self.resume_reading()

    def _mark_opened(self) -> None:
        self._is_opened = True
        self._timer.cancel()
        self._wake()

    def _violated(self, error: RemoteProtocolError) -> None:
        logger.info("closing a connection, its peer broke the protocol: %s", error)
        self.destroy(ConnectionLost(f"protocol violation: {error}"))

    def _opening_took_too_long(self) -> None:
        self.destroy(ConnectionLost("timed out"))

    def _arm_tick(self) -> None:
        tick_s = self._keep_alive_s / _TICKS_PER_KEEP_ALIVE
        self._tick_timer = self.clock.call_at(self.clock.now() + tick_s, self._tick)

    def _tick(self) -> None:
        self._arm_tick()
        self._ticks_unwritten += 1
        self._ticks_unheard += 1
        if self._ticks_unwritten > _TICKS_PER_KEEP_ALIVE:
            self.write(b"")
        silence_s = self._ticks_unheard * self._keep_alive_s / _TICKS_PER_KEEP_ALIVE
        is_expected = self._does_peer_keep_alive and not self._has_remote_ended
        if is_expected and not self._pause_count and silence_s > SILENCE_MAX_S:
            self.destroy(ConnectionLost("timed out"))

    def _cancel_tick(self) -> None:
        if self._tick_timer is not None:
            self._tick_timer.cancel()
            self._tick_timer = None

    def _mark_closed(self, error: Exception | None) -> None:
        self.is_closed = True
        self.error = error
        self._timer.cancel()
        self._cancel_tick()
        if self._mux is not None:
            self._mux.halt()
        self.clock.call_soon(self._finish)

    def _finish(self) -> None:
        """Tell everybody; not in the call that closed, which may be one of theirs."""
        self._is_finished = True
        self._wake()
        callbacks, self._close_callbacks = self._close_callbacks, []
        if self._mux is not None:
            callbacks.insert(0, self._mux.shut_down)
        for callback in callbacks:
            try:
                callback()
            except Exception:
                logger.exception("a close callback failed")

    def _lost(self) -> ConnectionLost:
        if isinstance(self.error, ConnectionLost):
            return ConnectionLost(self.error.reason)
        return ConnectionLost("closed" if self.error is None else str(self.error))

    async def _wait(self) -> None:
        """Until anything changed; callers look again."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()
