"""The bytes of a dht-rpc request and response, and the id that an address gives.

Pure. Who may send what, and when, is in `io` and `node`. Source: docs/PROTOCOL.md
section 4, ``dht-rpc/lib/io.js`` and ``lib/peer.js``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from hashlib import blake2b

from peerchat.net.encoding import Reader, Writer
from peerchat.net.errors import DecodeError
from peerchat.net.identity import KEY_BYTES, Address, NodeId, Target

REQUEST = 0x03
"""Protocol version 3 in the low four bits, type 0 in the high ones."""

RESPONSE = 0x13

CLOSER_NODES_MAX = 64
"""Addresses in one response: the reference sends 20, others may have a larger k."""

DATAGRAM_BYTES_MAX = 2048
"""The reference reads into a buffer of this size and loses what is longer."""

_ID, _TOKEN, _INTERNAL, _TARGET, _VALUE = 1, 2, 4, 8, 16
_CLOSER_NODES, _ERROR = 4, 8


class Command(IntEnum):
    """The internal commands; flag 4 marks them (``dht-rpc/lib/commands.js``)."""

    PING = 0
    PING_NAT = 1
    FIND_NODE = 2
    DOWN_HINT = 3
    DELAYED_PING = 4


class ErrorCode(IntEnum):
    """Errors that dht-rpc itself answers with; others belong to the commands."""

    OK = 0
    UNKNOWN_COMMAND = 1
    INVALID_TOKEN = 2


@dataclass(frozen=True, slots=True)
class RequestMessage:
    """A request as it is on the wire."""

    tid: int
    to: Address
    """Where the sender sends it: how the receiver learns its own address."""
    command: int
    is_internal: bool = False
    id: bytes | None = None
    token: bytes | None = None
    target: Target | None = None
    value: bytes | None = None


@dataclass(frozen=True, slots=True)
class ResponseMessage:
    """A response as it is on the wire."""

    tid: int
    to: Address
    id: bytes | None = None
    token: bytes | None = None
    closer_nodes: tuple[Address, ...] = ()
    error: int = 0
    value: bytes | None = None


@lru_cache(maxsize=4096)
def node_id(address: Address) -> NodeId:
    """The only id that a node at ``address`` may have: a hash of the address."""
    packed = Writer().ipv4(address).getvalue()
    return NodeId(blake2b(packed, digest_size=KEY_BYTES).digest())


def believed_id(claimed: bytes | None, address: Address) -> NodeId | None:
    """The claimed id when it belongs to the address it came from, else None."""
    if claimed is None:
        return None
    expected = node_id(address)
    return expected if claimed == expected else None


def encode_request(message: RequestMessage) -> bytes:
    """The request's datagram."""
    flags = (
        (_ID if message.id is not None else 0)
        | (_TOKEN if message.token is not None else 0)
        | (_INTERNAL if message.is_internal else 0)
        | (_TARGET if message.target is not None else 0)
        | (_VALUE if message.value is not None else 0)
    )
    writer = Writer().u8(REQUEST).u8(flags).u16(message.tid).ipv4(message.to)
    if message.id is not None:
        writer.fixed(message.id)
    if message.token is not None:
        writer.fixed(message.token)
    writer.uint(message.command)
    if message.target is not None:
        writer.fixed(message.target)
    if message.value is not None:
        writer.buffer(message.value)
    return writer.getvalue()


def encode_response(message: ResponseMessage) -> bytes:
    """The response's datagram."""
    flags = (
        (_ID if message.id is not None else 0)
        | (_TOKEN if message.token is not None else 0)
        | (_CLOSER_NODES if message.closer_nodes else 0)
        | (_ERROR if message.error else 0)
        | (_VALUE if message.value is not None else 0)
    )
    writer = Writer().u8(RESPONSE).u8(flags).u16(message.tid).ipv4(message.to)
    if message.id is not None:
        writer.fixed(message.id)
    if message.token is not None:
        writer.fixed(message.token)
    if message.closer_nodes:
        writer.array(list(message.closer_nodes), Writer.ipv4)
    if message.error:
        writer.uint(message.error)
    if message.value is not None:
        writer.buffer(message.value)
    return writer.getvalue()


def decode_untrusted(data: bytes) -> RequestMessage | ResponseMessage:
    """Take a datagram apart; raises `DecodeError` for anything else.

    Bytes behind the last field are ignored, as the reference ignores them.
    """
    reader = Reader(data)
    kind = reader.u8()
    if kind == REQUEST:
        return _decode_request(reader)
    if kind == RESPONSE:
        return _decode_response(reader)
    raise DecodeError(f"not a dht-rpc datagram: it begins with {kind:#04x}")


def _decode_request(reader: Reader) -> RequestMessage:
    flags = reader.uint()
    tid = reader.u16()
    to = reader.ipv4()
    sender_id = reader.fixed(KEY_BYTES) if flags & _ID else None
    token = reader.fixed(KEY_BYTES) if flags & _TOKEN else None
    command = reader.uint()
    target = Target(reader.fixed(KEY_BYTES)) if flags & _TARGET else None
    value = reader.buffer() if flags & _VALUE else None
    return RequestMessage(
        tid, to, command, bool(flags & _INTERNAL), sender_id, token, target, value
    )


def _decode_response(reader: Reader) -> ResponseMessage:
    flags = reader.uint()
    tid = reader.u16()
    to = reader.ipv4()
    sender_id = reader.fixed(KEY_BYTES) if flags & _ID else None
    token = reader.fixed(KEY_BYTES) if flags & _TOKEN else None
    closer = (
        reader.array(Reader.ipv4, CLOSER_NODES_MAX) if flags & _CLOSER_NODES else []
    )
    error = reader.uint() if flags & _ERROR else 0
    value = reader.buffer() if flags & _VALUE else None
    return ResponseMessage(tid, to, sender_id, token, tuple(closer), error, value)
