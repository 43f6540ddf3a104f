"""The messages of protomux-rpc, and the handshake of @hyperswarm/rpc.

Pure functions over bytes. Type 0 is a request (id 0: an event, which nobody answers),
type 1 a response. Values are npm's ``optionalBuffer`` inside a raw field.
Source: docs/PROTOCOL.md section 10; npm protomux-rpc 1.10, hyperswarm-capability 1.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from peerchat.net.crypto.primitives import NS_CAPABILITY, blake2b_256, is_equal
from peerchat.net.encoding import Reader, Writer, encode_uint
from peerchat.net.errors import DecodeError, RemoteProtocolError
from peerchat.net.identity import KEY_BYTES

PROTOCOL = "protomux-rpc"
REQUEST = 0
RESPONSE = 1
EVENT_ID = 0

UNKNOWN_METHOD = "UNKNOWN_METHOD"
REQUEST_ERROR = "REQUEST_ERROR"
DECODE_ERROR = "DECODE_ERROR"

_HAS_ERROR, _HAS_CODE, _HAS_CAUSE, _HAS_CONTEXT = 1, 2, 4, 8
_HAS_CAPABILITY = 1


@dataclass(frozen=True, slots=True)
class Failure:
    """What a response says instead of a value."""

    message: str
    code: str = ""
    cause: str | None = None
    """The message of the handler's own exception."""
    cause_code: str = ""
    context: str = ""


@lru_cache(maxsize=256)
def _encode_method(method: str) -> bytes:
    name = method.encode()
    return encode_uint(len(name)) + name


def encode_value(value: bytes | None) -> bytes:
    """A value as requests and responses carry it; None and empty are the same."""
    if not value:
        return b"\0"
    return encode_uint(len(value)) + value


def decode_value_untrusted(data: bytes) -> bytes | None:
    """The inverse of `encode_value`; an empty value is None."""
    if data[:1] and data[0] == len(data) - 1 <= 0xFC:
        return data[1:] or None
    return Reader(data).optional_buffer()


def encode_request(request_id: int, method: str, value: bytes | None) -> bytes:
    """The payload of a type 0 message."""
    return encode_uint(request_id) + _encode_method(method) + encode_value(value)


def decode_request_untrusted(payload: bytes) -> tuple[int, str, bytes]:
    """Id, method and the still encoded value."""
    reader = Reader(payload)
    return reader.uint(), reader.string(), payload[reader.offset :]


def encode_response(request_id: int, value: bytes | None) -> bytes:
    """The payload of a type 1 message that carries a value."""
    return b"\0" + encode_uint(request_id) + encode_value(value)


def encode_failure(request_id: int, failure: Failure) -> bytes:
    """The payload of a type 1 message that carries an error."""
    flags = _HAS_ERROR
    writer = Writer().uint(request_id).string(failure.message)
    if failure.code:
        flags |= _HAS_CODE
        writer.string(failure.code)
    if failure.cause is not None:
        flags |= _HAS_CAUSE
        writer.string(failure.cause).string(failure.cause_code)
        if failure.context:
            flags |= _HAS_CONTEXT
            writer.string(failure.context)
    return bytes((flags,)) + writer.getvalue()


def decode_response_untrusted(payload: bytes) -> tuple[int, bytes | Failure]:
    """Id, and the still encoded value or the failure."""
    reader = Reader(payload)
    flags = reader.u8()
    if flags > 0xFC:
        raise DecodeError("response with unknown flags")
    request_id = reader.uint()
    if not flags & _HAS_ERROR:
        return request_id, payload[reader.offset :]
    message = reader.string()
    code = reader.string() if flags & _HAS_CODE else ""
    cause, cause_code, context = None, "", ""
    if flags & _HAS_CAUSE:
        cause, cause_code = reader.string(), reader.string()
        context = reader.string() if flags & _HAS_CONTEXT else ""
    return request_id, Failure(message, code, cause, cause_code, context)


def capability_proof(key: bytes, handshake_hash: bytes, *, is_initiator: bool) -> bytes:
    """What that side shows to prove that it knows ``key``, in this connection only."""
    side = b"\1" if is_initiator else b"\0"
    return blake2b_256(NS_CAPABILITY, side, key, key=handshake_hash)


def encode_handshake(proof: bytes | None) -> bytes:
    """The channel's handshake; without a capability there is none."""
    return b"" if proof is None else encode_uint(_HAS_CAPABILITY) + proof


def verify_handshake_untrusted(handshake: bytes, expected: bytes) -> None:
    """Raises `RemoteProtocolError` unless the peer showed the expected proof."""
    reader = Reader(handshake)
    if not reader.remaining or not reader.uint() & _HAS_CAPABILITY:
        raise RemoteProtocolError("the peer showed no capability")
    if not is_equal(reader.fixed(KEY_BYTES), expected):
        raise RemoteProtocolError("the peer showed a wrong capability")
