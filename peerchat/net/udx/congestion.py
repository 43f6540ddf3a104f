"""How many packets may be in flight: a protocol, and CUBIC (RFC 9438).

Local policy; a peer sees nothing of it. Counted in packets, as UDX numbers packets.
"""

from __future__ import annotations

from typing import Protocol

CWND_INITIAL = 10.0
"""RFC 6928 and libudx."""

CWND_MIN = 2.0

CWND_MAX = 4096.0
"""As many full packets as the largest receive window holds, and some."""

_BETA = 0.7
_C = 0.4
_ALPHA = 3 * (1 - _BETA) / (1 + _BETA)
"""Growth of the Reno-friendly estimate per round trip (RFC 9438 4.3)."""


class CongestionControl(Protocol):
    """Told of acknowledgements and losses; answers with ``cwnd`` in packets."""

    cwnd: float

    def acknowledged(self, packets: int, rtt_s: float, now: float) -> None:
        """Packets left the network while cwnd was what held the sender back."""

    def lost(self, now: float) -> None:
        """First loss of a round trip."""

    def timed_out(self, now: float) -> None:
        """Nothing came back for a whole retransmission timeout."""

    def idle(self) -> None:
        """Nothing was in flight for longer than a retransmission timeout."""


class Cubic:
    """CUBIC with fast convergence and a Reno-friendly floor."""

    __slots__ = ("_epoch_s", "_k_s", "_reno", "_w_max", "cwnd", "ssthresh")

    def __init__(self) -> None:
        self.cwnd = CWND_INITIAL
        self.ssthresh = CWND_MAX
        self._w_max = 0.0
        self._epoch_s: float | None = None
        self._k_s = 0.0
        self._reno = 0.0

    def acknowledged(self, packets: int, rtt_s: float, now: float) -> None:
        if self.cwnd < self.ssthresh:
            self.cwnd = min(self.cwnd + packets, self.ssthresh, CWND_MAX)
            return
        if self._epoch_s is None:
            self._start_epoch(now)
        assert self._epoch_s is not None
        elapsed_s = now - self._epoch_s + rtt_s
        target = _C * (elapsed_s - self._k_s) ** 3 + self._w_max
        target = min(max(target, self.cwnd), 1.5 * self.cwnd)
        self._reno += _ALPHA * packets / self.cwnd
        grown = self.cwnd + packets * (target - self.cwnd) / self.cwnd
        self.cwnd = min(max(grown, self._reno), CWND_MAX)

    def lost(self, now: float) -> None:
        self._reduce()
        self.cwnd = self.ssthresh

    def timed_out(self, now: float) -> None:
        self._reduce()
        # RFC 9002 7.6.2: two packets rather than RFC 5681's one, as the loss of a
        # single one would cost another timeout.
        self.cwnd = CWND_MIN

    def idle(self) -> None:
        # RFC 5681 4.1: the old window says nothing of the path any more.
        self.cwnd = min(self.cwnd, CWND_INITIAL)
        self._epoch_s = None

    def _reduce(self) -> None:
        is_shrinking = self.cwnd < self._w_max
        self._w_max = self.cwnd * ((1 + _BETA) / 2 if is_shrinking else 1.0)
        self.ssthresh = max(self.cwnd * _BETA, CWND_MIN)
        self._epoch_s = None

    def _start_epoch(self, now: float) -> None:
        self._epoch_s = now
        self._w_max = max(self._w_max, self.cwnd)
        self._k_s = ((self._w_max - self.cwnd) / _C) ** (1 / 3)
        self._reno = self.cwnd
