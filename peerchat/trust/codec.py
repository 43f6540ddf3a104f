"""MessagePack arrays: the bodies of everything that peerchat.trust writes.

A body is an array that is read by position. Later fields may be missing, and fields
that come after the known ones are ignored, so that both sides can grow. What is signed
is kept as the bytes it was, never packed anew: fields unknown here stay under the
signature. Source: docs/PROTOCOL.md section 13.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec

from peerchat.net.crypto.primitives import namespace
from peerchat.net.errors import DecodeError, LocalProtocolError

SECRET_BYTES = 32
SERIAL_BYTES = 16
NAME_CHARS_MAX = 64
"""Names of peers and swarms: what fits one line of a table."""

NS_CERTIFICATE, NS_KEY_PROOF, NS_HELLO, NS_CAPABILITY, NS_FINGERPRINT, NS_BLOB = (
    namespace(b"peerchat/trust", number) for number in range(6)
)
"""What a signature or a derived key begins with: none can pass as one of another kind,
nor as a signature of HyperDHT by the same key."""


class Body(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A MessagePack array, read by position."""


Key = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Serial = Annotated[
    bytes, msgspec.Meta(min_length=SERIAL_BYTES, max_length=SERIAL_BYTES)
]
Signature = Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]
Name = Annotated[str, msgspec.Meta(max_length=NAME_CHARS_MAX)]
Label = Annotated[str, msgspec.Meta(max_length=32)]
"""A role or a purpose."""
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""Seconds of Unix time, generations: what a JavaScript number holds."""

_encoder = msgspec.msgpack.Encoder()
_Decoded = TypeVar("_Decoded", bound=Body)


def encode(body: Body) -> bytes:
    """The body as MessagePack; equal bodies give equal bytes."""
    return _encoder.encode(body)


def decode_untrusted(
    data: bytes, kind: type[_Decoded], bytes_max: int, what: str
) -> _Decoded:
    """A body of the given kind.

    Args:
        data: foreign bytes.
        kind: the class of the body.
        bytes_max: longer ones are refused unread.
        what: begins the message of an error, "certificate" for example.

    Raises:
        DecodeError: with the reason.
    """
    if len(data) > bytes_max:
        raise DecodeError(f"{what} has {len(data)} bytes, at most {bytes_max} allowed")
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise DecodeError(f"{what}: {error}") from None


def check_length(data: bytes, length: int, what: str) -> bytes:
    """``data``, when it is as long as it must be; else our own caller is wrong."""
    if len(data) != length:
        raise LocalProtocolError(f"{what} has {length} bytes, not {len(data)}")
    return data
