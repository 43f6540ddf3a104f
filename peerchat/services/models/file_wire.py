"""The ``peerchat/file`` channel as bytes (docs/PROTOCOL.md section 22). No I/O.

Each message is a uint, the number of the request, and a MessagePack array that may grow
at its end. A request is the credit for its answer: nothing comes unasked, and an answer
is as long as both sides know before. Nobody names a file by a path: the root of its
piece hashes does.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Sequence
from typing import Annotated, TypeVar

import msgspec

from peerchat.net.encoding import Reader, Writer
from peerchat.net.errors import DecodeError

from .store import is_name

PROTOCOL = "peerchat/file"
"""Name of the Protomux channel; its id is the public key of the serving side."""

VERSION = 1
HASH_BYTES = 32
PIECE_BYTES = 1024 * 1024
PIECES_MAX = 256 * 1024
"""256 GiB, and 8 MiB of hashes: larger than any model file that people share."""

OFFERS_MAX = 200
DATA_BYTES_MAX = 32 * 1024
"""Of a piece in one message: prompts on the same connection come in between."""

PAGE_HASHES_MAX = 1024
MESSAGE_BYTES_MAX = 64 * 1024
REQUESTS_MAX = 8
"""Unanswered on one channel; a peer that asks more breaks the protocol."""

WINDOW = 4
"""Pieces that are asked for ahead: memory for 4 MiB, a round trip hidden."""

Hash = Annotated[bytes, msgspec.Meta(min_length=HASH_BYTES, max_length=HASH_BYTES)]


class MessageType(enum.IntEnum):
    """Type of a message; unknown ones are ignored."""

    LIST = 0
    OFFERS = 1
    HASHES = 2
    HASH_PAGE = 3
    PIECE = 4
    DATA = 5
    ERROR = 6


class Body(msgspec.Struct, array_like=True, frozen=True):
    """What follows the number."""


class Offer(Body, frozen=True):
    """A file that a peer gives."""

    name: Annotated[str, msgspec.Meta(max_length=128)]
    size_bytes: Annotated[int, msgspec.Meta(ge=1, le=PIECES_MAX * PIECE_BYTES)]
    sha256: Hash
    root: Hash
    """`root_of` its piece hashes; names the file in requests."""

    @property
    def pieces(self) -> int:
        """How many it has."""
        return -(-self.size_bytes // PIECE_BYTES)

    def piece_bytes(self, index: int) -> int:
        """How long a piece is; the last one is what is left."""
        return min(PIECE_BYTES, self.size_bytes - index * PIECE_BYTES)


class ListBody(Body, frozen=True):
    """Asks for all offers."""


class OffersBody(Body, frozen=True):
    """Everything that is given."""

    offers: Annotated[list[Offer], msgspec.Meta(max_length=OFFERS_MAX)]


class HashesBody(Body, frozen=True):
    """Asks for a page of piece hashes."""

    root: Hash
    first: Annotated[int, msgspec.Meta(ge=0, le=PIECES_MAX)]
    count: Annotated[int, msgspec.Meta(ge=1, le=PAGE_HASHES_MAX)]


class HashPageBody(Body, frozen=True):
    """The hashes, one after the other."""

    hashes: Annotated[bytes, msgspec.Meta(max_length=PAGE_HASHES_MAX * HASH_BYTES)]


class PieceBody(Body, frozen=True):
    """Asks for a piece."""

    root: Hash
    index: Annotated[int, msgspec.Meta(ge=0, lt=PIECES_MAX)]


class DataBody(Body, frozen=True):
    """Part of a piece; parts come in order."""

    offset: Annotated[int, msgspec.Meta(ge=0, lt=PIECE_BYTES)]
    data: Annotated[bytes, msgspec.Meta(min_length=1, max_length=DATA_BYTES_MAX)]


class ErrorBody(Body, frozen=True):
    """Instead of the answer."""

    message: Annotated[str, msgspec.Meta(max_length=300)]


_T = TypeVar("_T", bound=Body)
_encoder = msgspec.msgpack.Encoder()


def encode(number: int, body: Body) -> bytes:
    """One message."""
    return Writer().uint(number).getvalue() + _encoder.encode(body)


def decode_number_untrusted(payload: bytes) -> tuple[int, bytes]:
    """The request's number and the rest, or `DecodeError`."""
    if len(payload) > MESSAGE_BYTES_MAX:
        raise DecodeError(f"a message of {len(payload)} bytes")
    reader = Reader(payload)
    return reader.uint(), reader.raw()


def decode_untrusted(data: bytes, kind: type[_T]) -> _T:
    """A body of the given kind, or `DecodeError`."""
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise DecodeError(str(error)) from None


def decode_offers_untrusted(data: bytes) -> list[Offer]:
    """Offers whose names can be those of files of a store; others are left out."""
    offers = decode_untrusted(data, OffersBody).offers
    return [offer for offer in offers if is_name(offer.name)]


def encode_handshake() -> bytes:
    """What each side says when it opens the channel."""
    return Writer().uint(VERSION).getvalue()


def check_handshake_untrusted(data: bytes) -> None:
    """Raise `DecodeError` unless the peer has a version."""
    if Reader(data).uint() < 1:
        raise DecodeError(f"version 0 of {PROTOCOL}")


def hash_piece(data: bytes) -> bytes:
    """BLAKE2b-256."""
    return hashlib.blake2b(data, digest_size=HASH_BYTES).digest()


def root_of(size_bytes: int, hashes: Sequence[bytes]) -> bytes:
    """Commits to size and content: BLAKE2b-256 over both."""
    whole = hashlib.blake2b(size_bytes.to_bytes(8, "little"), digest_size=HASH_BYTES)
    for one in hashes:
        whole.update(one)
    return whole.digest()
