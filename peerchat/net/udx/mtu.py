"""Search for the largest packet the path carries (RFC 8899, with libudx's numbers).

A probe is an ordinary DATA packet, padded between header and payload, so a lost probe
costs one retransmission without padding and no data.
"""

from __future__ import annotations

from .packet import DATA_OFFSET_MAX, HEADER_BYTES

MTU_MIN = 1200
MTU_MAX = 1500
MTU_STEP = 32
MTU_PROBES_MAX = 3

IPV4_UDP_BYTES = 28
"""An mtu counts the whole IP packet: IPv4 and UDP headers are 20 and 8 bytes."""

_OVERHEAD_BYTES = IPV4_UDP_BYTES + HEADER_BYTES


class MtuSearch:
    """``payload_bytes_max`` is what fits beside the headers at the present mtu."""

    __slots__ = ("_failures", "_is_probing", "_size", "mtu", "payload_bytes_max")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start anew, as on a new path."""
        self._set(MTU_MIN)
        self._size = MTU_MIN + MTU_STEP
        self._failures = 0
        self._is_probing = False

    def padding(self, payload_bytes: int) -> int:
        """How far to pad this DATA packet to make it a probe; 0: leave it alone.

        A positive answer starts the probe: report it to `acknowledged` or `lost`.
        """
        if self._is_probing or self.mtu == MTU_MAX or self._failures >= MTU_PROBES_MAX:
            return 0
        padding = self._size - _OVERHEAD_BYTES - payload_bytes
        if not 0 < padding <= DATA_OFFSET_MAX:
            return 0
        self._is_probing = True
        return padding

    def acknowledged(self, packet_bytes: int) -> None:
        """A probe arrived; ``packet_bytes`` is its UDP payload's length."""
        self._is_probing = False
        mtu = packet_bytes + IPV4_UDP_BYTES
        if mtu > self.mtu:
            self._set(mtu)
            self._size = min(mtu + MTU_STEP, MTU_MAX)
            self._failures = 0

    def lost(self) -> None:
        """A probe did not arrive."""
        self._is_probing = False
        self._failures += 1

    def given_up(self) -> None:
        """A probe will be sent again without padding, lost or not; try another."""
        self._is_probing = False

    def _set(self, mtu: int) -> None:
        self.mtu = mtu
        self.payload_bytes_max = mtu - _OVERHEAD_BYTES
