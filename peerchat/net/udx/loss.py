"""Which packets are lost: RACK, and when to probe the tail (RFC 8985).

A packet is lost when one sent after it was delivered and a reordering window has gone
by. Kept in order of transmission, so that a look at the front is enough.
"""

from __future__ import annotations

from collections import deque

from .rtt import RttEstimator

REORDER_WINDOW_MIN_S = 0.001
"""Event loops are no finer; below it every late wake-up would look like loss."""

TAIL_PROBE_MIN_S = 0.010
"""RFC 8985 7.2 leaves room for delayed acknowledgements; libudx adds 2 ms. A peer
that shares its thread with an interpreter needs more not to be probed for nothing."""

DUPLICATE_THRESHOLD = 3
"""Packets delivered beyond a gap that prove loss while no reordering was seen."""


class SentPacket:
    """A packet on its way; the datagram is kept to be sent again."""

    __slots__ = (
        "data_offset",
        "datagram",
        "is_lost",
        "kind",
        "payload_bytes",
        "sent_at",
        "seq",
        "transmissions",
    )

    def __init__(
        self,
        seq: int,
        kind: int,
        datagram: bytes,
        payload_bytes: int,
        data_offset: int,
        sent_at: float,
    ) -> None:
        self.seq = seq
        self.kind = kind
        self.datagram = datagram
        self.payload_bytes = payload_bytes
        self.data_offset = data_offset
        """Above 0: an mtu probe."""
        self.sent_at = sent_at
        """The latest transmission; negative once acknowledged."""
        self.transmissions = 1
        self.is_lost = False


class LossDetector:
    """RACK over the packets of one stream."""

    __slots__ = (
        "_highest_acknowledged",
        "_order",
        "_rack_rtt_s",
        "_rack_sent_at",
        "_rack_seq",
        "_rtt",
        "_window_multiplier",
        "has_reordering",
    )

    def __init__(self, rtt: RttEstimator) -> None:
        self._rtt = rtt
        self._order: deque[tuple[float, SentPacket]] = deque()
        self._rack_sent_at = -1.0
        self._rack_seq = -1
        self._rack_rtt_s = 0.0
        self._highest_acknowledged = -1
        self._window_multiplier = 1
        self.has_reordering = False

    def sent(self, packet: SentPacket) -> None:
        """Note one transmission; they come in the order of time."""
        self._order.append((packet.sent_at, packet))

    def acknowledged(self, packets: list[SentPacket], now: float) -> float | None:
        """Note deliveries, ascending by seq; the round-trip time they show, if any."""
        rtt_s = None
        highest = self._highest_acknowledged
        for packet in packets:
            sent_at = packet.sent_at
            seq = packet.seq
            if packet.transmissions == 1:
                # One that was given up waited for an acknowledgement that was lost.
                if not packet.is_lost:
                    rtt_s = now - sent_at
                if seq < highest:
                    self.has_reordering = True
            elif now - sent_at < self._rtt.min_s:
                # Too early for the copy: the original arrived, late (RFC 8985 6.2).
                self.has_reordering = True
                self._window_multiplier += 1
                packet.sent_at = -1.0
                continue
            if sent_at > self._rack_sent_at or (
                sent_at == self._rack_sent_at and seq > self._rack_seq
            ):
                self._rack_sent_at = sent_at
                self._rack_seq = seq
                self._rack_rtt_s = now - sent_at
            packet.sent_at = -1.0
        self._highest_acknowledged = max(highest, packets[-1].seq)
        return rtt_s

    def detect(
        self, now: float, acknowledged_beyond: int, is_in_recovery: bool
    ) -> tuple[list[SentPacket], float | None]:
        """The packets lost by now, and when to look again.

        Args:
            acknowledged_beyond: how many packets are known delivered out of order.
            is_in_recovery: a loss of this round trip is already known.
        """
        lost: list[SentPacket] = []
        wait_s = self._rack_rtt_s + self._reorder_window_s(
            acknowledged_beyond, is_in_recovery
        )
        order = self._order
        while order:
            sent_at, packet = order[0]
            if packet.sent_at == sent_at and not packet.is_lost:
                if sent_at > self._rack_sent_at or (
                    sent_at == self._rack_sent_at and packet.seq > self._rack_seq
                ):
                    break
                if now < sent_at + wait_s:
                    return lost, sent_at + wait_s
                packet.is_lost = True
                lost.append(packet)
            order.popleft()
        return lost, None

    def forget_order(self) -> None:
        """Everything in flight was declared lost."""
        self._order.clear()

    def tail_probe_delay_s(self) -> float | None:
        """How long after the last transmission to probe; None without a sample."""
        if self._rtt.srtt_s is None:
            return None
        return max(2 * self._rtt.srtt_s, TAIL_PROBE_MIN_S)

    def _reorder_window_s(
        self, acknowledged_beyond: int, is_in_recovery: bool
    ) -> float:
        is_certain = is_in_recovery or acknowledged_beyond >= DUPLICATE_THRESHOLD
        if is_certain and not self.has_reordering:
            return 0.0
        window_s = self._window_multiplier * self._rtt.min_s / 4
        bound_s = self._rtt.srtt_s or 0.0
        return max(min(window_s, bound_s), REORDER_WINDOW_MIN_S)
