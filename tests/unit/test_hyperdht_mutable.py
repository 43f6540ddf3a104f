"""Mutable records have the bytes and signatures of npm hyperdht, and its order."""

import json
from pathlib import Path

import pytest

from peerchat.net.crypto.primitives import KeyPair, hash_target
from peerchat.net.errors import DecodeError, LocalProtocolError, SeqReused, SeqTooLow
from peerchat.net.hyperdht import mutable as m
from peerchat.net.hyperdht.constants import PutError

VECTORS = json.loads(
    (Path(__file__).parent.parent / "vectors" / "hyperdht.json").read_text()
)
KEYS = KeyPair.from_seed(bytes.fromhex(VECTORS["keys"]["seedA"]))
OTHER = KeyPair.from_seed(bytes.fromhex(VECTORS["keys"]["seedB"]))


@pytest.mark.parametrize("vector", VECTORS["mutables"], ids=lambda v: str(v["seq"]))
def test_records_and_puts_are_npms(vector):
    record = m.sign_mutable(KEYS, bytes.fromhex(vector["value"]), vector["seq"])
    assert record.signature.hex() == vector["signature"]
    assert record.encode().hex() == vector["record"]
    put = m.MutablePut(KEYS.public_key, record)
    assert put.encode().hex() == vector["put"]
    decoded = m.decode_mutable_record_untrusted(bytes.fromhex(vector["record"]))
    assert decoded == record
    assert m.decode_mutable_put_untrusted(bytes.fromhex(vector["put"])) == put
    assert m.decode_seq_untrusted(bytes.fromhex(vector["seqBytes"])) == record.seq


@pytest.mark.parametrize("vector", VECTORS["immutables"])
def test_immutable_targets_are_npms(vector):
    assert hash_target(bytes.fromhex(vector["value"])).hex() == vector["target"]


def test_a_signature_covers_key_value_and_seq():
    record = m.sign_mutable(KEYS, b"value", 7)
    assert record.is_signed_by(KEYS.public_key)
    assert not record.is_signed_by(OTHER.public_key)
    for forged in (
        m.MutableRecord(8, b"value", record.signature),
        m.MutableRecord(7, b"valuE", record.signature),
        m.MutableRecord(7, b"value", bytes(64)),
    ):
        assert not forged.is_signed_by(KEYS.public_key)


def test_what_cannot_be_brought_back_is_not_signed():
    longest = bytes(m.RECORD_VALUE_BYTES_MAX)
    assert m.sign_mutable(KEYS, longest, m.SEQ_MAX).value == longest
    with pytest.raises(LocalProtocolError, match="at most 1000 bytes, not 1001"):
        m.sign_mutable(KEYS, longest + b"!", 0)
    for seq in (-1, m.SEQ_MAX + 1):
        with pytest.raises(LocalProtocolError, match="seq"):
            m.sign_mutable(KEYS, b"", seq)


def test_a_seq_that_javascript_cannot_read_does_not_parse():
    too_high = b"\xff" + (2**53).to_bytes(8, "little")
    with pytest.raises(DecodeError, match="seq"):
        m.decode_seq_untrusted(too_high)
    with pytest.raises(DecodeError, match="seq"):
        m.decode_mutable_record_untrusted(too_high + bytes(65))
    with pytest.raises(DecodeError):
        m.decode_seq_untrusted(b"")


def test_which_version_replaces_which():
    def version(seq, value=b"value"):
        return m.MutableRecord(seq, value, bytes(64))

    assert m.put_error(None, version(0)) is None
    assert m.put_error(version(1), version(2)) is None
    assert m.put_error(version(1), version(1)) is None
    assert m.put_error(version(1), version(1, b"?")) is PutError.SEQ_REUSED
    assert m.put_error(version(2), version(1)) is PutError.SEQ_TOO_LOW
    assert m.put_error(version(2), version(1, b"?")) is PutError.SEQ_TOO_LOW


def test_refusals_say_who_and_what_to_do():
    too_low = m.refusal(PutError.SEQ_TOO_LOW, "1.2.3.4:5", 7)
    assert isinstance(too_low, SeqTooLow)
    reused = m.refusal(PutError.SEQ_REUSED, "1.2.3.4:5", 7)
    assert isinstance(reused, SeqReused)
    for error in (too_low, reused):
        assert "1.2.3.4:5" in str(error)
        assert "higher seq" in str(error)
