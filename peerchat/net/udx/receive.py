"""The receiving half of a stream: order, gaps, and the window to advertise."""

from __future__ import annotations

from peerchat.net.rangeset import RangeSet

RWND_MAX = 4 * 1024 * 1024
"""Bytes; the window libudx advertises and the reference's senders are tuned for."""

HELD_PACKETS_MAX = 8192
"""Packets waiting for an earlier one: twice what the window holds of full ones, so
that a peer of tiny packets cannot make their bookkeeping outgrow their bytes."""

PIECES_MAX = 1024
"""Payloads in order that are kept one by one; more are joined, so that for a reader
that lags tiny ones take not much more memory than the window says."""

_SMALL_WINDOW_BYTES = 1500
"""Windows smaller than a packet are advertised as 0 (RFC 9293 3.8.6.2.2)."""


class ReceiveHalf:
    """Takes packets in any order and gives bytes in order."""

    __slots__ = (
        "_end_seq",
        "_held",
        "_held_bytes",
        "_joined",
        "_ready",
        "_small_window",
        "dropped",
        "has_ended",
        "held_ranges",
        "next_seq",
        "ready_bytes",
        "window_bytes_max",
    )

    def __init__(self, initial_seq: int = 0, window_bytes_max: int = RWND_MAX) -> None:
        self.next_seq = initial_seq
        """The acknowledgement to send: every smaller seq has arrived."""
        self.held_ranges = RangeSet()
        """The seqs that arrived beyond ``next_seq``: what SACK tells."""
        self.has_ended = False
        """END and everything before it arrived; bytes may still wait for a reader."""
        self.ready_bytes = 0
        self.dropped = 0
        """Packets refused because there was no room."""
        self.window_bytes_max = window_bytes_max
        self._small_window = min(_SMALL_WINDOW_BYTES, window_bytes_max // 2)
        self._ready: list[bytes] = []
        self._joined = 0
        """How many of ``_ready`` are `PIECES_MAX` payloads in one."""
        self._held: dict[int, bytes] = {}
        self._held_bytes = 0
        self._end_seq: int | None = None

    @property
    def rwnd(self) -> int:
        """Bytes there is room for; what arrived out of order takes room too."""
        room = self.window_bytes_max - self.ready_bytes - self._held_bytes
        return room if room >= self._small_window else 0

    def receive(self, seq: int, payload: bytes, is_end: bool) -> None:
        """Take one DATA or END packet; a duplicate or one without room is dropped."""
        if seq != self.next_seq:
            if seq > self.next_seq:
                self._hold(seq, payload, is_end)
            return
        # What fills the gap is taken even when held packets use up the window:
        # nothing but it can free them.
        if self.has_ended or self.ready_bytes >= self.window_bytes_max:
            self.dropped += 1
            return
        self.next_seq = seq + 1
        if payload:
            self._put(payload)
        if is_end:
            self._finish()
        elif self._held:
            self._release()

    def take(self) -> bytes:
        """Everything that is in order by now, as one piece."""
        ready = self._ready
        data = ready[0] if len(ready) == 1 else b"".join(ready)
        ready.clear()
        self._joined = 0
        self.ready_bytes = 0
        return data

    def clear(self) -> None:
        """Drop everything that nobody will read."""
        self.take()
        self._drop_held()

    def _put(self, payload: bytes) -> None:
        ready = self._ready
        ready.append(payload)
        self.ready_bytes += len(payload)
        if len(ready) - self._joined >= PIECES_MAX:
            ready[self._joined :] = [b"".join(ready[self._joined :])]
            self._joined += 1

    def _hold(self, seq: int, payload: bytes, is_end: bool) -> None:
        if seq in self._held:
            return
        used = self.ready_bytes + self._held_bytes + len(payload)
        is_beyond = seq - self.next_seq > HELD_PACKETS_MAX
        if is_beyond or self.has_ended or used > self.window_bytes_max:
            self.dropped += 1
            return
        if is_end:
            self._end_seq = seq
        self._held[seq] = payload
        self._held_bytes += len(payload)
        self.held_ranges.add(seq, seq + 1)

    def _release(self) -> None:
        held = self._held
        seq = self.next_seq
        while (payload := held.pop(seq, None)) is not None:
            self._held_bytes -= len(payload)
            if payload:
                self._put(payload)
            if seq == self._end_seq:
                self.next_seq = seq + 1
                self._finish()
                return
            seq += 1
        self.next_seq = seq
        self.held_ranges.remove_below(seq)

    def _finish(self) -> None:
        self.has_ended = True
        self._drop_held()

    def _drop_held(self) -> None:
        self._held.clear()
        self._held_bytes = 0
        self.held_ranges = RangeSet()
