"""A stand-alone secret stream: Noise XX over a byte stream, then a `Connection`.

HyperDHT brings the keys of its own handshake; over any other stream, say TCP, the two
sides exchange three framed Noise messages with an empty prologue first.
Source: docs/PROTOCOL.md section 8; @hyperswarm/secret-stream 6.9 lib/handshake.js.
"""

from __future__ import annotations

import asyncio

from peerchat.net.crypto.noise import HandshakeState, Pattern
from peerchat.net.crypto.primitives import SEED_BYTES, KeyPair
from peerchat.net.crypto.secretstream import LENGTH_BYTES
from peerchat.net.env import Clock, Random
from peerchat.net.errors import ConnectionLost, RemoteProtocolError
from peerchat.net.streams import ByteStream

from .connection import KEEP_ALIVE_S, OPEN_TIMEOUT_S, Connection

HANDSHAKE_BYTES_MAX = 512
"""The longest XX message is 96 bytes; more before the end of it is not Noise."""


class _Handshake:
    """Receives until the handshake is complete, then hands over."""

    def __init__(self, stream: ByteStream, noise: HandshakeState) -> None:
        self._stream = stream
        self._noise = noise
        self._pending = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self._pending += data
        try:
            while not self._noise.is_complete and self._has_message():
                self._advance_untrusted()
        except RemoteProtocolError as error:
            self._fail(ConnectionLost(f"Noise handshake failed: {error}"))
            return
        if self._noise.is_complete:
            # The rest waits for the connection, which is made in a later turn.
            self._stream.pause_reading()
            if not self.done.done():
                self.done.set_result(None)
        elif len(self._pending) > HANDSHAKE_BYTES_MAX:
            self._fail(ConnectionLost("Noise handshake failed: message too long"))

    def take_rest(self) -> bytes:
        """Bytes that came after the last message of the handshake."""
        return self._pending

    def end_received(self) -> None:
        self._fail(ConnectionLost("ended during the handshake"))

    def message_received(self, data: bytes) -> None:
        """Unordered messages before the handshake are dropped, as in the reference."""

    def writable(self) -> None: ...

    def stream_closed(self, error: Exception | None) -> None:
        self._fail(error or ConnectionLost("closed during the handshake"))

    def start(self) -> None:
        if self._noise.is_initiator:
            self._write()

    def _has_message(self) -> bool:
        length = int.from_bytes(self._pending[:LENGTH_BYTES], "little")
        return len(self._pending) >= LENGTH_BYTES + length > LENGTH_BYTES

    def _advance_untrusted(self) -> None:
        stop = LENGTH_BYTES + int.from_bytes(self._pending[:LENGTH_BYTES], "little")
        message, self._pending = self._pending[LENGTH_BYTES:stop], self._pending[stop:]
        self._noise.read_message_untrusted(message)
        if not self._noise.is_complete:
            self._write()

    def _write(self) -> None:
        message = self._noise.write_message()
        self._stream.write(len(message).to_bytes(LENGTH_BYTES, "little") + message)

    def _fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


async def open_noise_stream(
    stream: ByteStream,
    *,
    is_initiator: bool,
    key_pair: KeyPair,
    clock: Clock,
    random: Random,
    keep_alive_s: float = KEEP_ALIVE_S,
) -> Connection:
    """Shake hands over ``stream`` and return the encrypted connection.

    Raises:
        ConnectionLost: the peer did not complete the handshake; the stream is
            destroyed.
    """
    noise = HandshakeState(
        Pattern.XX,
        is_initiator=is_initiator,
        static=key_pair,
        ephemeral=KeyPair.generate(random.token_bytes(SEED_BYTES)),
    )
    handshake = _Handshake(stream, noise)
    handshake.start()
    stream.set_receiver(handshake)
    try:
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            await handshake.done
    except TimeoutError as error:
        stream.destroy()
        raise ConnectionLost("timed out") from error
    except BaseException:
        stream.destroy()
        raise
    connection = Connection(
        stream, noise.result(), clock=clock, random=random, keep_alive_s=keep_alive_s
    )
    if rest := handshake.take_rest():
        connection.data_received(rest)
    stream.resume_reading()
    return connection
