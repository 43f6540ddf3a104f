"""Round-trip time and retransmission timeout (RFC 6298).

Timeouts of libudx: initial and minimum 1 s, maximum 30 s.
"""

from __future__ import annotations

RTO_INITIAL_S = 1.0
RTO_MIN_S = 1.0
RTO_MAX_S = 30.0

_ALPHA = 1 / 8
_BETA = 1 / 4
_K = 4
_MIN_RTT_WINDOW_S = 300.0
"""RFC 8985 6.2 asks for a windowed minimum; Linux takes 300 s."""


class RttEstimator:
    """Smooths samples; ``srtt_s`` is None until there is one."""

    __slots__ = ("_min_since_s", "latest_s", "min_s", "rto_s", "rttvar_s", "srtt_s")

    def __init__(self) -> None:
        self.srtt_s: float | None = None
        self.rttvar_s = 0.0
        self.min_s = 0.0
        self.latest_s = 0.0
        self.rto_s = RTO_INITIAL_S
        self._min_since_s = 0.0

    def add_sample(self, rtt_s: float, now: float) -> None:
        """Take in the time of a packet that was sent once (Karn's algorithm)."""
        self.latest_s = rtt_s
        if self.srtt_s is None:
            self.srtt_s = rtt_s
            self.rttvar_s = rtt_s / 2
            self.min_s, self._min_since_s = rtt_s, now
        else:
            deviation_s = abs(self.srtt_s - rtt_s)
            self.rttvar_s += _BETA * (deviation_s - self.rttvar_s)
            self.srtt_s += _ALPHA * (rtt_s - self.srtt_s)
            if rtt_s <= self.min_s or now - self._min_since_s > _MIN_RTT_WINDOW_S:
                self.min_s, self._min_since_s = rtt_s, now
        self.rto_s = min(max(self.srtt_s + _K * self.rttvar_s, RTO_MIN_S), RTO_MAX_S)
