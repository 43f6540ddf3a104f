"""compact-encoding: the number, buffer and address formats under every message.

All integers are little endian. `Reader` is the only way foreign bytes are taken
apart: every read is checked against the end, and the only error is `DecodeError`.
Source: npm compact-encoding 3.5.2; docs/PROTOCOL.md section 2.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import TypeVar

from .errors import DecodeError, LocalProtocolError
from .identity import Address

T = TypeVar("T")

UINT_MAX = 2**53
"""compact-encoding refuses integers that a JavaScript number cannot hold."""

ARRAY_ITEMS_MAX = 0x100000
"""compact-encoding's own limit for the count in front of an array."""

_U16 = struct.Struct("<H")
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


class Reader:
    """Takes bytes apart from the front; raises only `DecodeError`."""

    __slots__ = ("_data", "_end", "offset")

    def __init__(self, data: bytes | memoryview, offset: int = 0) -> None:
        self._data = data if isinstance(data, bytes) else bytes(data)
        self._end = len(self._data)
        self.offset = offset

    @property
    def remaining(self) -> int:
        """How many bytes are left."""
        return self._end - self.offset

    def fixed(self, length: int) -> bytes:
        """Exactly ``length`` raw bytes."""
        start = self.offset
        stop = start + length
        if length < 0 or stop > self._end:
            raise DecodeError(f"wanted {length} bytes, {self.remaining} are left")
        self.offset = stop
        return self._data[start:stop]

    def raw(self) -> bytes:
        """Everything up to the end of the message."""
        return self.fixed(self.remaining)

    def u8(self) -> int:
        return self.fixed(1)[0]

    def u16(self) -> int:
        return int.from_bytes(self.fixed(2), "little")

    def u24(self) -> int:
        return int.from_bytes(self.fixed(3), "little")

    def u32(self) -> int:
        return int.from_bytes(self.fixed(4), "little")

    def u64(self) -> int:
        return int.from_bytes(self.fixed(8), "little")

    def uint(self) -> int:
        """A variable-length integer, at most 2^53."""
        first = self.u8()
        if first <= 0xFC:
            return first
        if first == 0xFD:
            return self.u16()
        if first == 0xFE:
            return self.u32()
        value = self.u64()
        if value > UINT_MAX:
            raise DecodeError("integer is larger than 2^53")
        return value

    def buffer(self) -> bytes:
        """A length and that many bytes."""
        return self.fixed(self.uint())

    def optional_buffer(self) -> bytes | None:
        """As `buffer`, where an empty one means nothing."""
        return self.buffer() or None

    def string(self) -> str:
        """UTF-8; malformed sequences are replaced, as the reference does."""
        return self.buffer().decode("utf-8", "replace")

    def ipv4(self) -> Address:
        """Four bytes of host and a u16 port."""
        host = self.fixed(4)
        return Address(f"{host[0]}.{host[1]}.{host[2]}.{host[3]}", self.u16())

    def ipv6(self) -> Address:
        """Sixteen bytes of host and a u16 port."""
        host = self.fixed(16)
        return Address(str(IPv6Address(host)), self.u16())

    def array(self, item: Callable[[Reader], T], max_items: int) -> list[T]:
        """A count and that many items.

        Args:
            item: reads one of them.
            max_items: the most that this message may hold; more is an error.
        """
        count = self.uint()
        if count > min(max_items, ARRAY_ITEMS_MAX):
            raise DecodeError(f"array of {count} items, at most {max_items} allowed")
        return [item(self) for _ in range(count)]


class Writer:
    """Puts a message together; every method returns the writer for chaining."""

    __slots__ = ("_data",)

    def __init__(self) -> None:
        self._data = bytearray()

    def __len__(self) -> int:
        return len(self._data)

    def getvalue(self) -> bytes:
        """The message so far."""
        return bytes(self._data)

    def fixed(self, data: bytes) -> Writer:
        self._data += data
        return self

    def u8(self, value: int) -> Writer:
        self._data.append(value)
        return self

    def u16(self, value: int) -> Writer:
        self._data += _U16.pack(value)
        return self

    def u24(self, value: int) -> Writer:
        self._data += value.to_bytes(3, "little")
        return self

    def u32(self, value: int) -> Writer:
        self._data += _U32.pack(value)
        return self

    def u64(self, value: int) -> Writer:
        self._data += _U64.pack(value)
        return self

    def uint(self, value: int) -> Writer:
        self._data += encode_uint(value)
        return self

    def buffer(self, data: bytes | None) -> Writer:
        """A length and the bytes; ``None`` is written as an empty one."""
        data = data or b""
        return self.uint(len(data)).fixed(data)

    def string(self, text: str) -> Writer:
        return self.buffer(text.encode())

    def ipv4(self, address: Address) -> Writer:
        try:
            host = IPv4Address(address.host).packed
        except AddressValueError as error:
            raise LocalProtocolError(f"not an IPv4 address: {address.host}") from error
        return self.fixed(host).u16(address.port)

    def ipv6(self, address: Address) -> Writer:
        try:
            host = IPv6Address(address.host).packed
        except AddressValueError as error:
            raise LocalProtocolError(f"not an IPv6 address: {address.host}") from error
        return self.fixed(host).u16(address.port)

    def array(self, items: list[T], item: Callable[[Writer, T], object]) -> Writer:
        self.uint(len(items))
        for one in items:
            item(self, one)
        return self


def encode_uint(value: int) -> bytes:
    """A variable-length integer; raises `LocalProtocolError` outside 0 to 2^53."""
    if 0 <= value <= 0xFC:
        return bytes((value,))
    if value < 0 or value > UINT_MAX:
        raise LocalProtocolError(f"integer out of range: {value}")
    if value <= 0xFFFF:
        return b"\xfd" + _U16.pack(value)
    if value <= 0xFFFFFFFF:
        return b"\xfe" + _U32.pack(value)
    return b"\xff" + _U64.pack(value)
