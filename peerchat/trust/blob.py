"""A secret body of any size as values of the DHT: a head, and a tree of chunks.

The body is encrypted as a whole. What does not fit the head goes into chunks under
their hashes (HyperDHT immutable values); the head, or nodes between, list the hashes.
The same body under the same key gives the same head and chunks, so that every reader
can put them again. The tree's shape follows from the length alone, so nothing that a
head says can make a reader fetch more than that. Source: docs/PROTOCOL.md section 18.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from peerchat.net.crypto.primitives import (
    SECRETBOX_MAC_BYTES,
    SECRETBOX_NONCE_BYTES,
    blake2b_256,
    hash_target,
    secretbox_open_untrusted,
    secretbox_seal,
)
from peerchat.net.encoding import Reader, Writer
from peerchat.net.errors import DecodeError, LocalProtocolError, RemoteProtocolError
from peerchat.net.identity import KEY_BYTES, Target

from .codec import NS_BLOB, check_length

VERSION = 1
CHUNK_BYTES = 900
"""With everything around it a value of this length passes as one packet (the DHT takes
`RECORD_VALUE_BYTES_MAX`, 1000), also through tunnels and older relays."""

BLOB_BYTES_MAX = 256 * 1024
"""Longest body; 292 chunks of it and 11 nodes between."""

_OVERHEAD_BYTES = SECRETBOX_NONCE_BYTES + SECRETBOX_MAC_BYTES
_HEAD_FIELDS_BYTES = 6
"""Version, and a uint of up to 5 bytes."""
INLINE_BYTES_MAX = CHUNK_BYTES - _HEAD_FIELDS_BYTES
"""A box of this length travels in the head itself: most swarms need no chunk."""

FAN_OUT = CHUNK_BYTES // KEY_BYTES
"""Hashes in a node: 28."""

HEAD_FAN_OUT = INLINE_BYTES_MAX // KEY_BYTES
"""Hashes in a head: 27. One level gives bodies of 24 kB, two levels 680 kB."""


@dataclass(frozen=True, slots=True)
class Split:
    """A body as values to store."""

    head: bytes
    """At most `CHUNK_BYTES`; to be signed and found."""
    chunks: tuple[bytes, ...]
    """At most `CHUNK_BYTES` each; found by ``hash_target(chunk)``."""


def split(data: bytes, key: bytes) -> Split:
    """The values that hold ``data`` for readers who have ``key``.

    The nonce is a keyed hash of the body (as in RFC 5297, SIV): no two bodies share
    one, and who has the body can make the same values again.

    Raises:
        LocalProtocolError: longer than `BLOB_BYTES_MAX`.
    """
    if len(data) > BLOB_BYTES_MAX:
        raise LocalProtocolError(f"a blob of {len(data)} bytes")
    nonce_key, box_key = _keys(key)
    nonce = hashlib.blake2b(
        data, digest_size=SECRETBOX_NONCE_BYTES, key=nonce_key
    ).digest()
    box = nonce + secretbox_seal(box_key, nonce, data)
    head = Writer().u8(VERSION).uint(len(box))
    if len(box) <= INLINE_BYTES_MAX:
        return Split(head.fixed(box).getvalue(), ())
    level = list(_pieces(box))
    chunks = list(level)
    while len(level) > HEAD_FAN_OUT:
        level = list(_pieces(b"".join(map(hash_target, level)), FAN_OUT * KEY_BYTES))
        chunks += level
    for chunk in level:
        head.fixed(hash_target(chunk))
    return Split(head.getvalue(), tuple(dict.fromkeys(chunks)))


class Joiner:
    """Puts a body together; knows at each moment which chunks it needs.

    Args:
        head: as the mutable value holds it, its signature verified by the caller.
        key: of the readers.

    Raises:
        DecodeError: the head is malformed, or of a later version.
    """

    def __init__(self, head: bytes, key: bytes) -> None:
        self._key = key
        if len(head) > CHUNK_BYTES:
            raise DecodeError("head of a blob is too long")
        reader = Reader(head)
        version = reader.u8()
        if version != VERSION:
            raise DecodeError(f"head of a blob has version {version}")
        self._box_bytes = reader.uint()
        if not _OVERHEAD_BYTES <= self._box_bytes <= BLOB_BYTES_MAX + _OVERHEAD_BYTES:
            raise DecodeError(f"blob of {self._box_bytes} bytes")
        self._levels = _level_sizes(self._box_bytes)
        """Lengths of all values of a level; from the one in the head to the box."""
        self._level = reader.fixed(self._levels.pop(0))
        """The newest level that is whole."""
        self._parts: dict[Target, bytes | None] = {}
        """The values of the level below it; None while one is missing."""
        self._kept: dict[Target, bytes] = {}
        self._expect()

    @property
    def wanted(self) -> tuple[Target, ...]:
        """What to get next, in any order; empty when the body is whole."""
        return tuple(target for target, part in self._parts.items() if part is None)

    @property
    def is_complete(self) -> bool:
        """Whether `body_untrusted` can be called."""
        return not self._levels

    @property
    def chunks(self) -> tuple[bytes, ...]:
        """All chunks fed so far, for those who put them again."""
        return tuple(self._kept.values())

    def feed_untrusted(self, chunk: bytes) -> None:
        """Take a chunk in; one that is not wanted (any more) changes nothing.

        Raises:
            DecodeError: it has its right hash and not its right length, so whoever
                signed the head made it wrong, and there is no body to be had.
        """
        target = hash_target(chunk)
        if target not in self._parts or self._parts[target] is not None:
            return
        self._parts[target] = self._kept[target] = chunk
        if None not in self._parts.values():
            self._descend()

    def body_untrusted(self) -> bytes:
        """The body; `DecodeError` when it does not open with the key."""
        if not self.is_complete:
            raise LocalProtocolError("chunks of the blob are missing")
        nonce = self._level[:SECRETBOX_NONCE_BYTES]
        try:
            return secretbox_open_untrusted(
                _keys(self._key)[1], nonce, self._level[SECRETBOX_NONCE_BYTES:]
            )
        except RemoteProtocolError:
            raise DecodeError("blob does not open with this key") from None

    def _expect(self) -> None:
        """Want the values that the newest level lists."""
        if self._levels:
            self._parts = dict.fromkeys(map(Target, _pieces(self._level, KEY_BYTES)))
        else:
            self._parts = {}

    def _descend(self) -> None:
        """All values of a level are here: put it together and look at the next."""
        step = CHUNK_BYTES if len(self._levels) == 1 else FAN_OUT * KEY_BYTES
        level_bytes = self._levels.pop(0)
        parts = [self._parts[Target(t)] or b"" for t in _pieces(self._level, KEY_BYTES)]
        for index, part in enumerate(parts):
            if len(part) != min(step, level_bytes - index * step):
                raise DecodeError("chunks of a blob have a wrong length")
        level = b"".join(parts)
        self._level = level
        self._expect()


def _keys(key: bytes) -> tuple[bytes, bytes]:
    """The keys of the nonce's hash and of the box."""
    check_length(key, KEY_BYTES, "a record key")
    return blake2b_256(NS_BLOB, b"\0", key), blake2b_256(NS_BLOB, b"\1", key)


def _level_sizes(box_bytes: int) -> list[int]:
    """Bytes of each level, from the one in the head down to the box itself."""
    sizes = [box_bytes]
    if box_bytes <= INLINE_BYTES_MAX:
        return sizes
    count = -(-box_bytes // CHUNK_BYTES)
    sizes.insert(0, count * KEY_BYTES)
    while count > HEAD_FAN_OUT:
        count = -(-count // FAN_OUT)
        sizes.insert(0, count * KEY_BYTES)
    return sizes


def _pieces(data: bytes, step: int = CHUNK_BYTES) -> Iterator[bytes]:
    return (data[start : start + step] for start in range(0, len(data), step))
