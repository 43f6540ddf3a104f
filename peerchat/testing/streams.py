"""Streams and encrypted connections inside one process, with real back-pressure.

They need nothing but a running event loop, on real or virtual time.
"""

# ruff: noqa: SLF001 -- the two ends of a pair are one thing.

from __future__ import annotations

import asyncio

from peerchat.net.crypto.noise import HandshakeResult, HandshakeState, Pattern
from peerchat.net.crypto.primitives import DHT_NAMESPACES, DhtCommand, KeyPair
from peerchat.net.driver.connection import KEEP_ALIVE_S, Connection
from peerchat.net.env import Clock, Random
from peerchat.net.errors import ConnectionLost
from peerchat.net.identity import Address
from peerchat.net.streams import ByteStreamReceiver

from .network import SeededRandom, SimClock

HIGH_WATER_BYTES = 64 * 1024
LOW_WATER_BYTES = 16 * 1024
MESSAGE_BYTES_MAX = 1150
"""Of an unordered message, about what a UDX packet holds."""
RTT_S = 0.0005


class MemoryStream:
    """One end of a `memory_stream_pair`; what is written arrives a turn later."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.peer: MemoryStream
        self.is_closed = False
        self.pieces: list[int] = []
        """Lengths of what the receiver got, for tests of coalescing."""
        self._receiver: ByteStreamReceiver | None = None
        self._inbox: list[bytes] = []
        self._inbox_bytes = 0
        self._messages: list[bytes] = []
        self._is_paused = False
        self._is_held = False
        self._is_scheduled = False
        self._has_ended = False
        self._has_delivered_end = False
        self._is_writer_waiting = False

    def set_receiver(self, receiver: ByteStreamReceiver) -> None:
        self._receiver = receiver
        self._schedule()

    def write(self, data: bytes) -> bool:
        if self.is_closed or self._has_ended:
            return False
        peer = self.peer
        peer._inbox.append(data)
        peer._inbox_bytes += len(data)
        peer._schedule()
        self._is_writer_waiting |= peer._inbox_bytes > HIGH_WATER_BYTES
        return not self._is_writer_waiting

    def flush(self) -> None:
        """What is written arrives in the next turn anyway."""

    def send_message(self, data: bytes) -> None:
        if len(data) > MESSAGE_BYTES_MAX:
            raise ValueError(f"message of {len(data)} bytes is larger than the MTU")
        if not self.is_closed:
            self.peer._messages.append(data)
            self.peer._schedule()

    def end(self) -> None:
        self._has_ended = True
        self.peer._schedule()

    def destroy(self, error: Exception | None = None) -> None:
        if self.is_closed:
            return
        self._close(error)
        self.peer._lose()

    def pause_reading(self) -> None:
        self._is_paused = True

    def resume_reading(self) -> None:
        self._is_paused = False
        self._schedule()

    def hold(self, is_held: bool) -> None:
        """Let nothing arrive in either direction, or all that was held."""
        for end in (self, self.peer):
            end._is_held = is_held
            end._schedule()

    @property
    def buffered(self) -> int:
        return self.peer._inbox_bytes

    @property
    def rtt_s(self) -> float | None:
        return RTT_S

    @property
    def remote_address(self) -> Address | None:
        return self.peer.address

    def deliver(self) -> None:
        """Hand over now what would arrive in the next turn."""
        self._is_scheduled = False
        receiver = self._receiver
        if receiver is None or self.is_closed or self._is_held:
            return
        messages, self._messages = self._messages, []
        for message in messages:
            receiver.message_received(message)
        if self._inbox and not self._is_paused:
            data = b"".join(self._inbox)
            self._inbox.clear()
            self._inbox_bytes = 0
            self.pieces.append(len(data))
            receiver.data_received(data)
            self.peer._wake_writer()
        self._deliver_end(receiver)

    def _deliver_end(self, receiver: ByteStreamReceiver) -> None:
        if self.is_closed or self._inbox or not self.peer._has_ended:
            return
        if not self._has_delivered_end:
            self._has_delivered_end = True
            receiver.end_received()
        if self._has_ended and self.peer._has_delivered_end and not self.is_closed:
            self._close(None)
            self.peer._close(None)

    def _wake_writer(self) -> None:
        if self._is_writer_waiting and self.peer._inbox_bytes <= LOW_WATER_BYTES:
            self._is_writer_waiting = False
            if self._receiver is not None and not self.is_closed:
                self._receiver.writable()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self.deliver)

    def _lose(self) -> None:
        if not self.is_closed:
            self._close(ConnectionLost("reset by peer"))

    def _close(self, error: Exception | None) -> None:
        self.is_closed = True
        self._inbox.clear()
        if self._receiver is not None:
            self._receiver.stream_closed(error)


def memory_stream_pair(
    address_a: Address = Address("127.0.0.1", 1),  # noqa: B008, immutable
    address_b: Address = Address("127.0.0.1", 2),  # noqa: B008
) -> tuple[MemoryStream, MemoryStream]:
    """Two ends of one in-order stream."""
    a, b = MemoryStream(address_a), MemoryStream(address_b)
    a.peer, b.peer = b, a
    return a, b


def handshake_pair(
    key_pair_a: KeyPair, key_pair_b: KeyPair, random: Random
) -> tuple[HandshakeResult, HandshakeResult]:
    """What HyperDHT's Noise IK gives to the initiator ``a`` and the responder ``b``."""
    prologue = DHT_NAMESPACES[DhtCommand.PEER_HANDSHAKE]
    initiator = HandshakeState(
        Pattern.IK,
        is_initiator=True,
        static=key_pair_a,
        ephemeral=KeyPair.generate(random.token_bytes(32)),
        prologue=prologue,
        remote_static=key_pair_b.public_key,
    )
    responder = HandshakeState(
        Pattern.IK,
        is_initiator=False,
        static=key_pair_b,
        ephemeral=KeyPair.generate(random.token_bytes(32)),
        prologue=prologue,
    )
    responder.read_message_untrusted(initiator.write_message())
    initiator.read_message_untrusted(responder.write_message())
    return initiator.result(), responder.result()


def memory_connection_pair(
    key_pair_a: KeyPair,
    key_pair_b: KeyPair,
    *,
    clock: Clock | None = None,
    random: Random | None = None,
    keep_alive_s: float = KEEP_ALIVE_S,
) -> tuple[Connection, Connection]:
    """Two opened connections, ``a`` being the initiator; needs a running loop.

    Args:
        clock: the running loop's when left out.
        random: seeded and always the same when left out.
        keep_alive_s: of both.
    """
    clock = clock or SimClock()
    random = random or SeededRandom("memory connection")
    result_a, result_b = handshake_pair(key_pair_a, key_pair_b, random)
    stream_a, stream_b = memory_stream_pair()
    a = Connection(
        stream_a, result_a, clock=clock, random=random, keep_alive_s=keep_alive_s
    )
    b = Connection(
        stream_b, result_b, clock=clock, random=random, keep_alive_s=keep_alive_s
    )
    stream_a.deliver()
    stream_b.deliver()
    return a, b
