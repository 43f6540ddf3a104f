"""A Protomux batch while it is gathered; docs/PROTOCOL.md section 9."""

from __future__ import annotations

from peerchat.net.encoding import encode_uint

BATCH_BYTES_MAX = 8 * 1024 * 1024
"""protomux's MAX_BATCH: a batch is sent before it grows past this."""
ENTRY_BYTES = 20
"""At most what an entry adds to its message: a switch of channel, and its length."""


class Batch:
    """Messages of several channels that will be one frame."""

    __slots__ = ("_bytes", "_channel_id", "_count", "_parts")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._count = 0
        self._bytes = 0
        self._channel_id = -1

    def __bool__(self) -> bool:
        return self._count > 0

    def has_room(self, length: int) -> bool:
        """Whether a message of that length still belongs in; an empty one takes any."""
        return not self._count or self._bytes + length < BATCH_BYTES_MAX

    def add(self, channel_id: int, message: bytes) -> None:
        """Append a message: its type and payload."""
        parts = self._parts
        if channel_id != self._channel_id:
            # The first entry names its channel, later ones switch with a length of 0.
            parts.append(b"\0" if self._count else b"")
            parts.append(encode_uint(channel_id))
            self._channel_id = channel_id
        parts.append(encode_uint(len(message)))
        parts.append(message)
        self._count += 1
        self._bytes += len(message) + ENTRY_BYTES

    def frame(self) -> bytes:
        """The frame to send; not of an empty batch."""
        if self._count == 1:
            # Alone it needs no batch, and may be as long as a frame can be.
            return self._parts[1] + self._parts[3]
        return b"\0\0" + b"".join(self._parts)
