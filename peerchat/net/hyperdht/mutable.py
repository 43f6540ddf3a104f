"""Mutable records: a value under a public key, numbered and signed by its owner.

Bytes, signatures and the order of versions only: nodes that keep records are in
`record_store`, and asking them in `storage`. Parsers of foreign bytes end in
``_untrusted`` and raise only `DecodeError`.
Source: hyperdht/lib/messages.js, lib/persistent.js; docs/PROTOCOL.md section 5.8.
"""

from __future__ import annotations

from dataclasses import dataclass

from peerchat.net.crypto.primitives import (
    DHT_NAMESPACES,
    SIGNATURE_BYTES,
    DhtCommand,
    KeyPair,
    blake2b_256,
    sign,
    verify,
)
from peerchat.net.encoding import Reader, Writer
from peerchat.net.errors import (
    DecodeError,
    LocalProtocolError,
    RecordRefused,
    SeqReused,
    SeqTooLow,
)
from peerchat.net.identity import KEY_BYTES, PublicKey

from .constants import PutError

RECORD_VALUE_BYTES_MAX = 1000
"""Longest value that we put, as in BEP 44: with a token, 20 closer nodes and a
signature the answer that brings it back is a packet of 1302 bytes, which passes common
links and tunnels whole. The reference has no limit, and so loses long values."""

SEQ_MAX = 2**53 - 1
"""The largest integer that a JavaScript peer reads."""


@dataclass(frozen=True, slots=True)
class MutableRecord:
    """One version of what an owner keeps under its key; the value of a get's answer."""

    seq: int
    """Grows with every version."""
    value: bytes
    signature: bytes
    """By the owner, over seq and value."""

    def encode(self) -> bytes:
        return (
            Writer().uint(self.seq).buffer(self.value).fixed(self.signature).getvalue()
        )

    def is_signed_by(self, public_key: PublicKey) -> bool:
        """Whether the holder of the key made this version."""
        return verify(_signable(self.seq, self.value), self.signature, public_key)


@dataclass(frozen=True, slots=True)
class MutablePut:
    """The value of MUTABLE_PUT."""

    public_key: PublicKey
    record: MutableRecord

    def encode(self) -> bytes:
        return self.public_key + self.record.encode()


def sign_mutable(key_pair: KeyPair, value: bytes, seq: int) -> MutableRecord:
    """A version of the owner's record.

    Raises:
        LocalProtocolError: the value is too long or the seq out of range.
    """
    check_value(value)
    if not 0 <= seq <= SEQ_MAX:
        raise LocalProtocolError(f"seq {seq} is not between 0 and 2^53 - 1")
    return MutableRecord(seq, value, sign(_signable(seq, value), key_pair))


def check_value(value: bytes) -> None:
    """Refuse what could be stored but not be brought back everywhere.

    Raises:
        LocalProtocolError: the value is too long.
    """
    if len(value) > RECORD_VALUE_BYTES_MAX:
        raise LocalProtocolError(
            f"a record's value has at most {RECORD_VALUE_BYTES_MAX} bytes,"
            f" not {len(value)}: store a longer one in parts, or serve it"
        )


def put_error(kept: MutableRecord | None, new: MutableRecord) -> PutError | None:
    """Why ``new`` does not replace what is kept; None when it does.

    The same version once more does: that is how an owner keeps it alive.
    """
    if kept is None or new.seq > kept.seq:
        return None
    if new.seq < kept.seq:
        return PutError.SEQ_TOO_LOW
    return None if new.value == kept.value else PutError.SEQ_REUSED


def refusal(error: PutError, who: str, seq: int) -> RecordRefused:
    """What a refused put raises."""
    if error is PutError.SEQ_TOO_LOW:
        return SeqTooLow(
            f"{who} keeps a version after seq {seq}; get it, and put with a higher seq"
        )
    return SeqReused(
        f"{who} keeps another value under seq {seq}; put with a higher seq"
    )


def _signable(seq: int, value: bytes) -> bytes:
    version = Writer().uint(seq).buffer(value).getvalue()
    return DHT_NAMESPACES[DhtCommand.MUTABLE_PUT] + blake2b_256(version)


def _read_seq(reader: Reader) -> int:
    seq = reader.uint()
    if seq > SEQ_MAX:
        raise DecodeError(f"seq {seq} is more than 2^53 - 1")
    return seq


def _read_record(reader: Reader) -> MutableRecord:
    return MutableRecord(
        _read_seq(reader), reader.buffer(), reader.fixed(SIGNATURE_BYTES)
    )


def decode_seq_untrusted(data: bytes) -> int:
    """The value of MUTABLE_GET: the lowest seq that is wanted."""
    return _read_seq(Reader(data))


def decode_mutable_record_untrusted(data: bytes) -> MutableRecord:
    return _read_record(Reader(data))


def decode_mutable_put_untrusted(data: bytes) -> MutablePut:
    reader = Reader(data)
    return MutablePut(PublicKey(reader.fixed(KEY_BYTES)), _read_record(reader))
