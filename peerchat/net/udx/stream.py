"""One UDX stream without I/O: the two halves, their headers, timers and closing.

The peer's packets go in at `UdxStream.receive_packet_untrusted`; then ask for what
became of them (`take_data`, `take_messages`, `has_remote_ended`, `is_closed`), and
for what to put on the wire (`datagrams_to_send`). Wire: docs/PROTOCOL.md section 6.
"""

from __future__ import annotations

from dataclasses import dataclass

from peerchat.net.errors import LocalProtocolError, RemoteProtocolError
from peerchat.net.serial import SERIAL_MASK, unwrap

from . import packet as wire
from .congestion import CongestionControl, Cubic
from .receive import HELD_PACKETS_MAX, RWND_MAX, ReceiveHalf
from .rtt import RttEstimator
from .send import SendHalf

SILENCE_MAX_S = 13.0
"""libudx gives up a peer that owes an acknowledgement and is silent for this long."""

MESSAGES_MAX = 256
"""Unreliable messages kept for a reader that does not take them; later ones are lost,
as the network may lose any. A read batch seldom holds more datagrams."""

ACK_DELAY_S = 0.003
"""A lone packet in order is acknowledged so late, unless something is sent meanwhile:
an answer mostly is, and every datagram costs both ends a system call and a wake-up. As
RFC 9000 13.2 the second one, and what is out of order, is acknowledged at once."""

RESET = "reset by peer"
TIMED_OUT = "timed out"
DESTROYED = "destroyed"

_CARRIES_SEQ = wire.TYPE_DATA | wire.TYPE_END


@dataclass(frozen=True, slots=True)
class StreamStatistics:
    """Counters since the stream began; packets are datagrams of any type."""

    packets_received: int
    packets_sent: int
    packets_ignored: int
    """Implausible, as a stranger's would be, or without room."""
    bytes_received: int
    bytes_sent: int
    """Whole UDP payloads, headers and retransmissions included."""
    retransmits: int
    timeouts: int
    in_flight: int
    rtt_s: float | None
    cwnd: int
    mtu: int


class UdxStream:
    """The machine; not usable for sending before `connect`."""

    __slots__ = (
        "_ack_at",
        "_congestion",
        "_has_destroy_to_send",
        "_has_heartbeat_to_send",
        "_messages_in",
        "_messages_out",
        "_must_ack",
        "_receive",
        "_rtt",
        "_rwnd_told",
        "_send",
        "_silent_since",
        "_wl_ack",
        "_wl_seq",
        "bytes_received",
        "bytes_sent",
        "close_reason",
        "is_closed",
        "local_id",
        "packets_ignored",
        "packets_received",
        "packets_sent",
        "remote_id",
    )

    def __init__(
        self,
        local_id: int,
        *,
        initial_seq: int = 0,
        initial_ack: int = 0,
        window_bytes_max: int = RWND_MAX,
        congestion: CongestionControl | None = None,
    ) -> None:
        self.local_id = local_id
        self.remote_id: int | None = None
        self.is_closed = False
        self.close_reason: str | None = None
        """Once closed: None when both sides ended, else a short word."""
        self.packets_received = self.packets_sent = self.packets_ignored = 0
        self.bytes_received = self.bytes_sent = 0
        self._rtt = RttEstimator()
        self._congestion = congestion or Cubic()
        self._send = SendHalf(initial_seq, self._rtt, self._congestion)
        # Until its first packet the peer is taken to have the usual window.
        self._send.rwnd = RWND_MAX
        self._receive = ReceiveHalf(initial_ack, window_bytes_max)
        self._rwnd_told = window_bytes_max
        self._wl_seq = initial_ack - 1
        self._wl_ack = initial_seq - 1
        self._messages_in: list[bytes] = []
        self._messages_out: list[bytes] = []
        self._must_ack = False
        self._ack_at: float | None = None
        """When one packet is acknowledged at the latest, if that can wait."""
        self._has_heartbeat_to_send = False
        self._has_destroy_to_send = False
        self._silent_since: float | None = None

    # -- what the owner wants

    def connect(self, remote_id: int) -> None:
        """Name the peer's stream id; what arrived before is acknowledged next."""
        if self.remote_id is not None:
            raise LocalProtocolError("the UDX stream is connected already")
        self.remote_id = remote_id

    def change_remote(self, remote_id: int) -> None:
        """The peer is at the end of another path from now on."""
        if self.remote_id is None:
            raise LocalProtocolError("the UDX stream is not connected yet")
        self.remote_id = remote_id
        self._send.path_changed()

    def write(self, data: bytes) -> None:
        """Queue bytes; on a closed stream they are dropped."""
        if self._send.is_ending:
            raise LocalProtocolError("write after end")
        if data and not self.is_closed:
            self._send.write(data)

    def send_message(self, data: bytes) -> None:
        """Queue an unreliable datagram.

        Raises:
            ValueError: it does not fit the smallest mtu of the path.
        """
        if len(data) > self.message_bytes_max:
            raise ValueError(
                f"a message of {len(data)} bytes; at most {self.message_bytes_max} fit"
            )
        if not self.is_closed and len(self._messages_out) < MESSAGES_MAX:
            self._messages_out.append(data)

    def end(self) -> None:
        """Half-close after what is queued; idempotent."""
        self._send.is_ending = True

    def destroy(self) -> None:
        """Close both ways at once, and tell the peer; idempotent."""
        if not self.is_closed:
            self._close(DESTROYED)
            self._has_destroy_to_send = True

    # -- what came of the peer's packets

    @property
    def has_data(self) -> bool:
        return self._receive.ready_bytes > 0

    @property
    def has_remote_ended(self) -> bool:
        """The peer ended and every byte before that was taken."""
        return self._receive.has_ended and not self._receive.ready_bytes

    @property
    def has_messages(self) -> bool:
        return bool(self._messages_in)

    @property
    def is_ending(self) -> bool:
        """`end` was called."""
        return self._send.is_ending

    def take_data(self) -> bytes:
        """All bytes in order by now; the peer hears of the room if it matters."""
        data = self._receive.take()
        # RFC 9293 3.8.6.2.2: speak up when a good part of the window reopened.
        gained = self._receive.rwnd - self._rwnd_told
        if gained >= self._receive.window_bytes_max // 4:
            self._must_ack = True
        if self._receive.has_ended:
            self._close_when_both_ended()
        return data

    def forget_data(self) -> None:
        """Nobody will take what arrived: the stream is closed, and all know it."""
        self._receive.clear()
        self._messages_in.clear()

    def take_messages(self) -> list[bytes]:
        """Unreliable messages in the order of their arrival."""
        messages, self._messages_in = self._messages_in, []
        return messages

    # -- figures

    @property
    def buffered(self) -> int:
        """Bytes written and not acknowledged."""
        return self._send.unsent_bytes + self._send.outstanding_bytes

    @property
    def unsent_bytes(self) -> int:
        return self._send.unsent_bytes

    @property
    def rtt_s(self) -> float | None:
        return self._rtt.srtt_s

    @property
    def message_bytes_max(self) -> int:
        """The longest message that `send_message` takes now."""
        return self._send.payload_bytes_max

    def statistics(self) -> StreamStatistics:
        return StreamStatistics(
            packets_received=self.packets_received,
            packets_sent=self.packets_sent,
            packets_ignored=self.packets_ignored + self._receive.dropped,
            bytes_received=self.bytes_received,
            bytes_sent=self.bytes_sent,
            retransmits=self._send.retransmits,
            timeouts=self._send.timeouts,
            in_flight=self._send.in_flight,
            rtt_s=self._rtt.srtt_s,
            cwnd=int(self._congestion.cwnd),
            mtu=self._send.mtu,
        )

    # -- in

    def receive_packet_untrusted(self, packet: bytes, now: float) -> None:
        """Take one packet for this stream.

        The header is not authenticated, so what is implausible is ignored and counted
        rather than held against the peer.

        Raises:
            RemoteProtocolError: not a UDX packet at all.
        """
        _, kind, data_offset, _, rwnd, seq, ack = wire.unpack_header_untrusted(packet)
        self.packets_received += 1
        self.bytes_received += len(packet)
        send = self._send
        receive = self._receive
        seq = unwrap(seq, receive.next_seq)
        ack = unwrap(ack, send.una)
        # RFC 5961 5.2 in spirit: no ack of what was never sent, no seq far outside
        # the window.
        if ack > send.next_seq or abs(seq - receive.next_seq) > HELD_PACKETS_MAX:
            self.packets_ignored += 1
            return
        if self.is_closed:
            self._answer_late(kind)
            return
        if kind & wire.TYPE_DESTROY:
            # A replayed or forged one is behind what has arrived (libudx does so too).
            if seq >= receive.next_seq and ack >= send.una:
                self._close(RESET)
            return
        self._silent_since = None
        if seq > self._wl_seq or (seq == self._wl_seq and ack >= self._wl_ack):
            # RFC 9293 3.10.7.4: only newer packets move the send window.
            self._wl_seq, self._wl_ack = seq, ack
            send.rwnd = rwnd
        if kind & wire.TYPE_SACK:
            self._receive_sack(packet, data_offset, ack, now)
            payload_at = wire.HEADER_BYTES + data_offset if data_offset else len(packet)
        else:
            if ack > send.una:
                send.acknowledge(ack, (), now)
            payload_at = wire.HEADER_BYTES + data_offset
        if kind & _CARRIES_SEQ:
            is_end = kind & wire.TYPE_END != 0
            is_next = seq == receive.next_seq
            receive.receive(seq, packet[payload_at:], is_end)
            self._plan_ack(now, may_wait=is_next and not is_end)
        elif kind & (wire.TYPE_MESSAGE | wire.TYPE_HEARTBEAT):
            self._receive_beside(kind, packet[payload_at:])
        if send.is_end_acknowledged and receive.has_ended:
            self._close_when_both_ended()

    def _plan_ack(self, now: float, *, may_wait: bool) -> None:
        may_wait = may_wait and not self._receive.held_ranges
        if may_wait and self._ack_at is None and not self._must_ack:
            self._ack_at = now + ACK_DELAY_S
        else:
            self._must_ack = True

    def _receive_sack(
        self, packet: bytes, data_offset: int, ack: int, now: float
    ) -> None:
        send = self._send
        ranges: list[tuple[int, int]] = []
        try:
            pairs = wire.unpack_sack_untrusted(packet, data_offset)
        except RemoteProtocolError:
            self.packets_ignored += 1
            pairs = []
        for start, stop in pairs:
            first = unwrap(start, send.una)
            last = unwrap(stop, send.una)
            if first < last <= send.next_seq:
                ranges.append((first, last))
        send.acknowledge(ack, ranges, now)

    def _receive_beside(self, kind: int, payload: bytes) -> None:
        if kind & wire.TYPE_HEARTBEAT:
            self._must_ack = True
        if kind & wire.TYPE_MESSAGE and len(self._messages_in) < MESSAGES_MAX:
            self._messages_in.append(payload)

    def _answer_late(self, kind: int) -> None:
        """The peer does not know yet that the stream is over."""
        if kind & wire.TYPE_DESTROY:
            return
        if self.close_reason is None:
            if kind & (_CARRIES_SEQ | wire.TYPE_HEARTBEAT):
                self._must_ack = True
        elif self.close_reason == DESTROYED:
            self._has_destroy_to_send = True

    def _close_when_both_ended(self) -> None:
        if self.has_remote_ended and self._send.is_end_acknowledged:
            self._close(None)

    def _close(self, reason: str | None) -> None:
        self.is_closed = True
        self.close_reason = reason
        self._send.clear()
        self._messages_out.clear()
        self._has_heartbeat_to_send = False
        if reason is not None:
            self._must_ack = False
            self._ack_at = None
        elif self._ack_at is not None:
            self._must_ack = True

    # -- out

    @property
    def has_stream_data_to_send(self) -> bool:
        """More than an acknowledgement may be waiting to leave."""
        return self._send.has_work or bool(self._messages_out)

    @property
    def has_anything_to_send(self) -> bool:
        return (
            self._must_ack
            or self._has_heartbeat_to_send
            or self._has_destroy_to_send
            or self.has_stream_data_to_send
        )

    def datagrams_to_send(self, now: float) -> list[bytes]:
        """Everything that may leave now, in order; an empty list before `connect`."""
        remote_id = self.remote_id
        if remote_id is None:
            return []
        rwnd = self._receive.rwnd
        ack = self._receive.next_seq & SERIAL_MASK
        datagrams: list[bytes] = []
        if not self.is_closed:
            datagrams = self._send.packets_to_send(now, remote_id, rwnd, ack)
            if datagrams and self._silent_since is None:
                self._silent_since = now
        if self._ack_at is not None and now >= self._ack_at:
            self._must_ack = True
        if datagrams and not self._receive.held_ranges:
            # Every packet carries the acknowledgement.
            self._must_ack = False
            self._ack_at = None
        if self._has_more_than_data():
            self._add_beside(datagrams, remote_id, rwnd, ack, now)
        if datagrams:
            self._rwnd_told = rwnd
            self.packets_sent += len(datagrams)
            self.bytes_sent += sum(map(len, datagrams))
        return datagrams

    def _has_more_than_data(self) -> bool:
        return bool(
            self._must_ack
            or self._messages_out
            or self._has_heartbeat_to_send
            or self._has_destroy_to_send
        )

    def _add_beside(
        self, datagrams: list[bytes], remote_id: int, rwnd: int, ack: int, now: float
    ) -> None:
        seq = self._send.next_seq & SERIAL_MASK

        def add(kind: int, body: bytes = b"") -> None:
            header = wire.pack_header(kind, 0, remote_id, rwnd, seq, ack)
            datagrams.append(header + body)

        for message in self._messages_out:
            add(wire.TYPE_MESSAGE, message)
        self._messages_out.clear()
        if self._must_ack:
            self._must_ack = False
            self._ack_at = None
            held = self._receive.held_ranges
            if held:
                add(wire.TYPE_SACK, wire.pack_sack(held))
            else:
                add(0)
        if self._has_heartbeat_to_send:
            self._has_heartbeat_to_send = False
            add(wire.TYPE_HEARTBEAT)
            if self._silent_since is None:
                self._silent_since = now
        if self._has_destroy_to_send:
            self._has_destroy_to_send = False
            add(wire.TYPE_DESTROY)

    # -- time

    def next_timer(self) -> float | None:
        """When to call `handle_timer`; None: only a packet or the owner can matter."""
        if self.is_closed or self.remote_id is None:
            return None
        deadline = self._send.next_timer()
        if deadline is not None and self._silent_since is not None:
            deadline = min(deadline, self._silent_since + SILENCE_MAX_S)
        if self._ack_at is not None:
            return self._ack_at if deadline is None else min(deadline, self._ack_at)
        return deadline

    def handle_timer(self, now: float) -> None:
        """Let time pass; then ask for datagrams and for `is_closed`."""
        if self.is_closed or self.remote_id is None:
            return
        send = self._send
        if send.is_idle and not send.is_stuck:
            return
        silent_since = self._silent_since
        if silent_since is not None and now >= silent_since + SILENCE_MAX_S:
            self._close(TIMED_OUT)
            return
        deadline = send.next_timer()
        if send.is_stuck and deadline is not None and now >= deadline:
            send.window_probed(now)
            self._has_heartbeat_to_send = True
        send.handle_timer(now)
