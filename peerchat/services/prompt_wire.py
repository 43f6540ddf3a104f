"""The ``peerchat/stream`` channel as bytes: limits, kinds and heads (PROTOCOL.md 12).

Every message is a compact-encoding uint, the number of the request on this channel,
and a body of `prompt_bodies`: a MessagePack array whose later fields may be missing,
and where fields that come after the known ones are ignored, so that both sides can
grow. `prompt_requests` and `prompt_events` turn bodies into what services use. No I/O.
"""

from __future__ import annotations

import enum
import math
import re
from typing import TypeVar

import msgspec

from peerchat.net.encoding import Reader, Writer
from peerchat.net.errors import DecodeError

from .prompt_bodies import Body

PROTOCOL = "peerchat/stream"
"""Name of the Protomux channel; its id is the public key of the serving peer."""

VERSION = 3
"""2 brought what a request has beyond history and options. A peer of version 1 would
overlook it in silence, so it is not asked for such things. 3 brought beats."""

BEATS_FROM = 3
"""Peers of this version say that they are there while answers run."""

CREDIT_INITIAL_BYTES = 64 * 1024
"""What a server may send of an answer before the first grant: several seconds of any
model's output, little enough that thousands of answers fit in memory."""

CREDIT_MAX_BYTES = 16 * 1024 * 1024
"""Grants add up to this at most; a peer cannot make the counter grow without end."""

FRAGMENT_CHARS_MAX = 4 * 1024
"""Longer fragments are cut: even four-byte characters stay far below the credit."""

FRAGMENT_BYTES_MAX = 32 * 1024
"""Longest message, other than those named here, that is taken from a peer."""

DATA_BYTES_MAX = 40 * 1024
"""Longest message of tool calls or vectors: a reader holds back a quarter of the
credit before it grants, so that a message of up to three quarters always gets out."""

REQUESTS_MAX = 64
"""Running requests on one connection; a gateway spreads more over more processors."""

REQUEST_OVERHEAD_BYTES = 192 * 1024
"""Room in a request for token, model, options, tools, a schema and framing."""

PREFIX_SHARE = 1
"""A request may hold this many times the longest prompt of an answer to go on with."""

HISTORY_SHARE = 3
"""A request may hold this many times the longest prompt in history."""

IMAGES_BYTES_MAX = 8 * 1024 * 1024
"""All images of a request together; on top of the limits above, and below the 16 MiB
that one frame can carry."""

ANSWER_BYTES_MAX = 16 * 1024 * 1024
"""Longest answer taken from a peer: far above any model's, below a memory problem."""


class MessageType(enum.IntEnum):
    """Type of a message within the channel; unknown ones are ignored."""

    REQUEST = 0
    FRAGMENT = 1
    PROGRESS = 2
    END = 3
    ERROR = 4
    CANCEL = 5
    CREDIT = 6
    TOOL_CALLS = 7
    EMBEDDINGS = 8
    BEAT = 9


_encoder = msgspec.msgpack.Encoder()
_Decoded = TypeVar("_Decoded", bound=Body)
_KEY = re.compile("[0-9a-f]{64}")
_SURROGATE = re.compile("[\ud800-\udfff]")


def encode_handshake() -> bytes:
    """What each side says when it opens the channel."""
    return Writer().uint(VERSION).getvalue()


def decode_handshake_untrusted(data: bytes) -> int:
    """The peer's version, at least 1; later fields are ignored."""
    version = Reader(data).uint()
    if version < 1:
        raise DecodeError("version 0 of peerchat/stream")
    return version


def encode(number: int, body: Body | None = None) -> bytes:
    """One message; without a body for CANCEL and BEAT."""
    head = Writer().uint(number).getvalue()
    return head if body is None else head + _encoder.encode(body)


def decode_number_untrusted(payload: bytes) -> tuple[int, bytes]:
    """The request's number and the rest of the message."""
    reader = Reader(payload)
    return reader.uint(), reader.raw()


def decode_body_untrusted(data: bytes, kind: type[_Decoded]) -> _Decoded:
    """A body of the given kind, or `DecodeError` with the reason."""
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise DecodeError(str(error)) from None


def well_formed(text: str) -> str:
    """Text that UTF-8 can carry; half surrogate pairs become U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return _SURROGATE.sub("\ufffd", text)
    return text


def figure(value: float | None) -> float | None:
    """A finite figure that is not negative, or None."""
    if value is None or not math.isfinite(value) or value < 0:
        return None
    return value


def key_text(text: str) -> str:
    """A public key in hex as it came, or nothing."""
    return text if _KEY.fullmatch(text) else ""
