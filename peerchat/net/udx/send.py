"""The sending half of a stream: what waits, what is in flight, what goes out next."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from peerchat.net.rangeset import RangeSet
from peerchat.net.serial import SERIAL_MASK

from .congestion import CongestionControl
from .loss import LossDetector, SentPacket
from .mtu import MtuSearch
from .packet import HEADER, HEADER_BYTES, MAGIC_AND_VERSION, TYPE_DATA, TYPE_END
from .rtt import RTO_MAX_S, RttEstimator

_GATHER_BYTES = 65536
"""Small writes are joined up to this length before they are cut into packets."""

TAIL_PROBES_MAX = 3
"""Probes without an answer before the timeout, each after twice the time, and in
recovery too (as RFC 9002 6.2 does, where RFC 8985 sends one and none in recovery):
a timeout costs a second, and a lossy path loses probes as well."""

_BACKOFF_MAX = 2
"""libudx sends to a silent peer after 1, 3, 5, 7, 9 and 11 s: it backs off once."""


class SendHalf:
    """Cuts bytes into packets and keeps them until they are acknowledged."""

    __slots__ = (
        "_backoff",
        "_congestion",
        "_gathered",
        "_gathered_offset",
        "_is_cwnd_limited",
        "_is_probe_due",
        "_last_sent_at",
        "_look_again_at",
        "_loss",
        "_lost",
        "_mtu",
        "_packets",
        "_probes",
        "_recovery_seq",
        "_rtt",
        "_sacked",
        "_timer_since",
        "_waiting",
        "in_flight",
        "is_end_sent",
        "is_ending",
        "next_seq",
        "outstanding_bytes",
        "retransmits",
        "rwnd",
        "timeouts",
        "una",
        "unsent_bytes",
    )

    def __init__(
        self, initial_seq: int, rtt: RttEstimator, congestion: CongestionControl
    ) -> None:
        self.next_seq = initial_seq
        self.una = initial_seq
        """The oldest seq that the peer has not acknowledged cumulatively."""
        self.in_flight = 0
        """Packets believed to be on the way: not acknowledged and not lost."""
        self.outstanding_bytes = 0
        """Payload sent and not acknowledged, lost or not."""
        self.unsent_bytes = 0
        self.rwnd = 0
        """Set by the stream before the first packet; then as the peer advertises."""
        self.retransmits = 0
        self.timeouts = 0
        self.is_ending = False
        self.is_end_sent = False
        self._rtt = rtt
        self._congestion = congestion
        self._loss = LossDetector(rtt)
        self._mtu = MtuSearch()
        self._waiting: deque[bytes] = deque()
        self._gathered = memoryview(b"")
        self._gathered_offset = 0
        self._packets: dict[int, SentPacket] = {}
        self._lost: deque[SentPacket] = deque()
        self._sacked = RangeSet()
        self._recovery_seq = initial_seq
        self._backoff = 1
        self._is_cwnd_limited = False
        self._is_probe_due = False
        self._probes = 0
        self._last_sent_at = 0.0
        self._timer_since = 0.0
        self._look_again_at: float | None = None

    @property
    def mtu(self) -> int:
        return self._mtu.mtu

    @property
    def payload_bytes_max(self) -> int:
        return self._mtu.payload_bytes_max

    @property
    def has_work(self) -> bool:
        """`packets_to_send` may have something to give."""
        return bool(
            self.unsent_bytes
            or self._lost
            or self._is_probe_due
            or (self.is_ending and not self.is_end_sent)
        )

    @property
    def is_end_acknowledged(self) -> bool:
        """END and everything before it arrived."""
        return self.is_end_sent and not self._packets

    @property
    def is_idle(self) -> bool:
        """Nothing is outstanding."""
        return not self._packets

    @property
    def is_stuck(self) -> bool:
        """Something waits, nothing is on the way, and the peer has no room."""
        return self.unsent_bytes > 0 and self.rwnd == 0 and not self._packets

    @property
    def rto_s(self) -> float:
        return min(self._rtt.rto_s * self._backoff, RTO_MAX_S)

    def write(self, data: bytes) -> None:
        """Queue bytes; never empty."""
        self._waiting.append(data)
        self.unsent_bytes += len(data)

    def path_changed(self) -> None:
        """Nothing is known of the new path's mtu."""
        self._mtu.reset()

    def clear(self) -> None:
        """Drop everything unsent and unacknowledged."""
        self._waiting.clear()
        self._gathered = memoryview(b"")
        self._gathered_offset = 0
        self._packets.clear()
        self._lost.clear()
        self._loss.forget_order()
        self.in_flight = self.outstanding_bytes = self.unsent_bytes = 0

    # -- what the peer says

    def acknowledge(
        self, ack: int, sacks: Sequence[tuple[int, int]], now: float
    ) -> None:
        """Take in a plausible cumulative ack and SACK ranges above it."""
        acknowledged: list[SentPacket] = []
        take = self._packets.pop
        if ack > self.una:
            for seq in range(self.una, ack):
                packet = take(seq, None)
                if packet is not None:
                    acknowledged.append(packet)
            self.una = ack
            self._sacked.remove_below(ack)
        for start, stop in sacks:
            for gap in self._sacked.missing(max(start, self.una), stop):
                for seq in range(*gap):
                    packet = take(seq, None)
                    if packet is not None:
                        acknowledged.append(packet)
                self._sacked.add(*gap)
        if acknowledged:
            self._settle(acknowledged, now)

    def _settle(self, acknowledged: list[SentPacket], now: float) -> None:
        payload_bytes = 0
        on_the_way = 0
        for packet in acknowledged:
            payload_bytes += packet.payload_bytes
            if not packet.is_lost:
                on_the_way += 1
            if packet.data_offset:
                self._mtu.acknowledged(len(packet.datagram))
        self.in_flight -= on_the_way
        self.outstanding_bytes -= payload_bytes
        self._timer_since = now
        self._backoff = 1
        self._probes = 0
        rtt_s = self._loss.acknowledged(acknowledged, now)
        if rtt_s is not None:
            self._rtt.add_sample(rtt_s, now)
        self.detect_losses(now)
        if self._is_cwnd_limited and self.una >= self._recovery_seq:
            srtt_s = self._rtt.srtt_s or 0.0
            self._congestion.acknowledged(len(acknowledged), srtt_s, now)

    def detect_losses(self, now: float) -> None:
        """Ask RACK, and queue what it calls lost."""
        is_in_recovery = self.una < self._recovery_seq
        lost, self._look_again_at = self._loss.detect(
            now, self._beyond(), is_in_recovery
        )
        is_congested = False
        for packet in lost:
            self._lose(packet)
            # RFC 8899 3: a lost probe says nothing of congestion.
            if packet.data_offset == 0 or packet.transmissions > 1:
                is_congested = True
        if is_congested and not is_in_recovery:
            self._recovery_seq = self.next_seq
            self._congestion.lost(now)

    def _beyond(self) -> int:
        return sum(stop - start for start, stop in self._sacked)

    def _lose(self, packet: SentPacket) -> None:
        packet.is_lost = True
        self.in_flight -= 1
        if packet.data_offset and packet.transmissions == 1:
            self._mtu.lost()
        self._lost.append(packet)

    # -- timers

    def next_timer(self) -> float | None:
        """When `handle_timer` wants to be called."""
        if not self._packets:
            return self._timer_since + self._rtt.rto_s if self.is_stuck else None
        deadline = self._timer_since + self.rto_s
        if self._look_again_at is not None and self._look_again_at < deadline:
            deadline = self._look_again_at
        probe_at = self._tail_probe_at()
        return deadline if probe_at is None else min(deadline, probe_at)

    def handle_timer(self, now: float) -> None:
        """Declare losses that are due, or ask for a tail probe."""
        if not self._packets:
            return
        if self._look_again_at is not None and now >= self._look_again_at:
            self.detect_losses(now)
        probe_at = self._tail_probe_at()
        if now >= self._timer_since + self.rto_s:
            self._time_out(now)
        elif probe_at is not None and now >= probe_at:
            self._is_probe_due = True
            self._probes += 1

    def window_probed(self, now: float) -> None:
        """The stream asked the peer for its window; wait before asking again."""
        self._timer_since = now

    def _tail_probe_at(self) -> float | None:
        delay_s = self._loss.tail_probe_delay_s()
        if delay_s is None or self.in_flight == 0 or self._probes >= TAIL_PROBES_MAX:
            return None
        return self._last_sent_at + delay_s * (1 << self._probes)

    def _time_out(self, now: float) -> None:
        """Everything is lost; start over with one packet."""
        self.timeouts += 1
        if self._backoff == _BACKOFF_MAX:
            # Full packets may be what does not get through (RFC 8899 4.3).
            self._mtu.reset()
        self._backoff = _BACKOFF_MAX
        self._timer_since = now
        self._look_again_at = None
        for packet in self._packets.values():
            if not packet.is_lost:
                self._lose(packet)
        self._lost = deque(self._packets.values())
        self._loss.forget_order()
        self._recovery_seq = self.una
        self._congestion.timed_out(now)

    # -- what goes out

    def packets_to_send(
        self, now: float, remote_id: int, rwnd: int, ack: int
    ) -> list[bytes]:
        """What the windows allow to leave now, lost packets first."""
        was_idle = not self._packets
        if was_idle and now - self._last_sent_at > self._rtt.rto_s:
            self._congestion.idle()
        room = int(self._congestion.cwnd) - self.in_flight
        if self._is_probe_due:
            self._is_probe_due = False
            room = max(room, 1)
            self._queue_tail_probe()
        datagrams: list[bytes] = []
        if self._lost and room > 0:
            self._resend(now, datagrams, room, remote_id, rwnd, ack)
            room -= len(datagrams)
        if self.unsent_bytes and room > 0:
            before = len(datagrams)
            self._send_new(now, datagrams, room, remote_id, rwnd, ack)
            room -= len(datagrams) - before
        if self.is_ending and not self.is_end_sent and not self.unsent_bytes:
            header = HEADER.pack(
                MAGIC_AND_VERSION,
                TYPE_END,
                0,
                remote_id,
                rwnd,
                self.next_seq & SERIAL_MASK,
                ack,
            )
            self.is_end_sent = True
            self._note_sent(SentPacket(self.next_seq, TYPE_END, header, 0, 0, now))
            datagrams.append(header)
        if datagrams:
            self._last_sent_at = now
            self._is_cwnd_limited = room <= 0
            if was_idle:
                self._timer_since = now
        return datagrams

    def _queue_tail_probe(self) -> None:
        """Without new data to probe with, send the last packet again (RFC 8985 7.3)."""
        if (self.unsent_bytes and self.rwnd > self.outstanding_bytes) or self._lost:
            return
        packet = next(reversed(self._packets.values()), None)
        if packet is not None:
            if packet.data_offset:
                self._mtu.given_up()
            packet.is_lost = True
            self.in_flight -= 1
            self._lost.append(packet)

    def _resend(
        self,
        now: float,
        datagrams: list[bytes],
        room: int,
        remote_id: int,
        rwnd: int,
        ack: int,
    ) -> None:
        lost = self._lost
        while lost and room > 0:
            packet = lost.popleft()
            if not packet.is_lost or packet.sent_at < 0:
                continue
            header = HEADER.pack(
                MAGIC_AND_VERSION,
                packet.kind,
                0,
                remote_id,
                rwnd,
                packet.seq & SERIAL_MASK,
                ack,
            )
            payload_at = HEADER_BYTES + packet.data_offset
            packet.datagram = header + packet.datagram[payload_at:]
            packet.data_offset = 0
            packet.is_lost = False
            packet.transmissions += 1
            packet.sent_at = now
            self._loss.sent(packet)
            self.in_flight += 1
            self.retransmits += 1
            room -= 1
            datagrams.append(packet.datagram)

    def _send_new(
        self,
        now: float,
        datagrams: list[bytes],
        room: int,
        remote_id: int,
        rwnd: int,
        ack: int,
    ) -> None:
        payload_bytes_max = self._mtu.payload_bytes_max
        window_bytes = self.rwnd - self.outstanding_bytes
        while room > 0 and self.unsent_bytes:
            size = min(payload_bytes_max, self.unsent_bytes)
            if size > window_bytes:
                # Half-filled packets only when nothing else will open the window
                # (sender's side of silly window avoidance, RFC 9293 3.8.6.2.1).
                if self._packets or window_bytes <= 0:
                    break
                size = window_bytes
            payload = self._next_payload(size)
            padding = self._mtu.padding(size) if size == payload_bytes_max else 0
            seq = self.next_seq
            header = HEADER.pack(
                MAGIC_AND_VERSION,
                TYPE_DATA,
                padding,
                remote_id,
                rwnd,
                seq & SERIAL_MASK,
                ack,
            )
            if padding:
                header += bytes(padding)
            datagram = b"".join((header, payload))
            self._note_sent(SentPacket(seq, TYPE_DATA, datagram, size, padding, now))
            datagrams.append(datagram)
            window_bytes -= size
            room -= 1

    def _note_sent(self, packet: SentPacket) -> None:
        self._packets[packet.seq] = packet
        self._loss.sent(packet)
        self.next_seq = packet.seq + 1
        self.in_flight += 1
        self.outstanding_bytes += packet.payload_bytes
        self.unsent_bytes -= packet.payload_bytes

    def _next_payload(self, size: int) -> memoryview:
        """The next ``size`` unsent bytes; there are that many."""
        start = self._gathered_offset
        if len(self._gathered) - start < size:
            self._gather()
            start = 0
        self._gathered_offset = start + size
        return self._gathered[start : start + size]

    def _gather(self) -> None:
        """Join what is left of the last gathering with writes that wait."""
        waiting = self._waiting
        left = self._gathered[self._gathered_offset :]
        parts: list[bytes | memoryview] = [left] if left else []
        length = len(left)
        while waiting and length < _GATHER_BYTES:
            parts.append(data := waiting.popleft())
            length += len(data)
        self._gathered = memoryview(parts[0] if len(parts) == 1 else b"".join(parts))
        self._gathered_offset = 0
