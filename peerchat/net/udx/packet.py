"""The UDX header and its SACK ranges.

The only place that knows the bytes; docs/PROTOCOL.md section 6.1.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from itertools import islice

from peerchat.net.errors import RemoteProtocolError

HEADER_BYTES = 20

HEADER = struct.Struct("<HBBIIII")
"""Magic and version, type, data offset, receiver's stream id, rwnd, seq, ack."""

MAGIC_AND_VERSION = 0x01FF
"""``ff 01`` on the wire."""

TYPE_DATA = 1
TYPE_END = 2
TYPE_SACK = 4
TYPE_MESSAGE = 8
TYPE_DESTROY = 16
TYPE_HEARTBEAT = 32

DATA_OFFSET_MAX = 255
"""The field is one byte."""

SACK_RANGES_MAX = 50
"""libudx sends no more, and so reads of more are cut here."""

_RANGE_BYTES = 8

Header = tuple[int, int, int, int, int, int, int]
"""The fields of `HEADER`, in order."""


def unpack_header_untrusted(packet: bytes) -> Header:
    """The header's fields.

    Raises:
        RemoteProtocolError: too short, or of another protocol or version.
    """
    if len(packet) < HEADER_BYTES:
        raise RemoteProtocolError(f"a UDX packet of {len(packet)} bytes is too short")
    header: Header = HEADER.unpack_from(packet)
    if header[0] != MAGIC_AND_VERSION:
        raise RemoteProtocolError(f"not UDX version 1: {packet[:2].hex()}")
    if HEADER_BYTES + header[2] > len(packet):
        raise RemoteProtocolError("the UDX data offset points behind the packet")
    return header


def unpack_sack_untrusted(packet: bytes, data_offset: int) -> list[tuple[int, int]]:
    """The 32-bit ``[start, stop)`` pairs of a packet whose header is already checked.

    They run up to the payload when ``data_offset`` says where that is, else to the
    end of the packet.
    """
    stop = HEADER_BYTES + data_offset if data_offset else len(packet)
    if (stop - HEADER_BYTES) % _RANGE_BYTES:
        raise RemoteProtocolError("UDX SACK ranges are cut off")
    count = min((stop - HEADER_BYTES) // _RANGE_BYTES, SACK_RANGES_MAX)
    flat = struct.unpack_from(f"<{2 * count}I", packet, HEADER_BYTES)
    return list(zip(flat[::2], flat[1::2], strict=True))


def pack_header(
    kind: int, data_offset: int, stream_id: int, rwnd: int, seq: int, ack: int
) -> bytes:
    """A header; all numbers already fit their fields."""
    return HEADER.pack(MAGIC_AND_VERSION, kind, data_offset, stream_id, rwnd, seq, ack)


def pack_sack(ranges: Iterable[tuple[int, int]]) -> bytes:
    """The body of an acknowledgement of what came out of order."""
    first = islice(ranges, SACK_RANGES_MAX)
    flat = [number & 0xFFFFFFFF for pair in first for number in pair]
    return struct.pack(f"<{len(flat)}I", *flat)
