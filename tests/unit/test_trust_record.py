"""The swarm record's body and the blob that carries it."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest

from peerchat.net.crypto.primitives import KeyPair, hash_target
from peerchat.net.encoding import Writer
from peerchat.net.errors import DecodeError, LocalProtocolError
from peerchat.net.identity import PublicKey, Target
from peerchat.trust import blob, record
from peerchat.trust.certificate import Revocations
from peerchat.trust.keys import fingerprint_of, seal_to
from peerchat.trust.record import (
    Grant,
    RecordBody,
    decode_body_untrusted,
    encode_body,
)

PEER, OTHER, LATE = (KeyPair.from_seed(bytes((n,)) * 32) for n in (1, 2, 3))
SECRET = b"s" * 32
NOW_S = 1_800_000_000
KEY = b"k" * 32


def key(number: int) -> PublicKey:
    return PublicKey(number.to_bytes(32, "big"))


BODY = RecordBody(
    name="home",
    generation=3,
    fingerprint=fingerprint_of(SECRET),
    issued_s=NOW_S,
    revoked_serials=frozenset({b"a" * 16, b"b" * 16}),
    revoked_keys=frozenset({key(1), key(2)}),
    grants=(
        Grant(key(5), "auth", "Node auth", 0),
        Grant(key(5), "gateway", "Node", NOW_S),
        Grant(key(2), "auth", "revoked", 0),
    ),
    sealed_secrets={
        peer.public_key: seal_to(peer.public_key, SECRET, bytes(32))
        for peer in (PEER, OTHER)
    },
)
FULL = dataclasses.replace(
    BODY,
    revoked_serials=frozenset(n.to_bytes(16, "big") for n in range(1000)),
    revoked_keys=frozenset(key(n) for n in range(3000)),
    grants=tuple(Grant(key(n), "processor", "n" * 64, NOW_S) for n in range(128)),
    sealed_secrets={key(n): bytes(80) for n in range(1000)},
)


def test_round_trip_and_equal_bytes_for_equal_bodies() -> None:
    data = encode_body(BODY)
    assert decode_body_untrusted(data) == BODY
    turned = dataclasses.replace(
        BODY,
        sealed_secrets=dict(reversed(BODY.sealed_secrets.items())),
        revoked_keys=frozenset(sorted(BODY.revoked_keys, reverse=True)),
    )
    assert encode_body(turned) == data
    assert hash(decode_body_untrusted(data)) == hash(BODY)


def test_fullest_record_fits() -> None:
    data = encode_body(FULL)
    assert len(data) <= record.BODY_BYTES_MAX
    assert decode_body_untrusted(data) == FULL


def test_revocations() -> None:
    revocations: Revocations = BODY
    assert revocations.is_revoked_serial(b"a" * 16)
    assert not revocations.is_revoked_serial(b"c" * 16)
    assert revocations.is_revoked_key(key(1))
    assert not revocations.is_revoked_key(key(5))


def test_grants_end_and_fall_to_revocation() -> None:
    roles = [grant.role for grant in BODY.grants_of(key(5), NOW_S - 1)]
    assert roles == ["auth", "gateway"]
    assert [grant.role for grant in BODY.grants_of(key(5), NOW_S)] == ["auth"]
    assert BODY.grants_of(key(2), NOW_S) == ()
    assert BODY.grants_of(key(6), NOW_S) == ()


def test_secret_opens_for_members_at_the_time() -> None:
    decoded = decode_body_untrusted(encode_body(BODY))
    assert decoded.open_secret(PEER) == decoded.open_secret(OTHER) == SECRET
    assert decoded.open_secret(LATE) is None


def test_secret_that_the_record_does_not_name_is_refused() -> None:
    boxes = {
        PEER.public_key: seal_to(PEER.public_key, b"x" * 32, bytes(32)),
        OTHER.public_key: bytes(80),
        LATE.public_key: seal_to(LATE.public_key, b"short", bytes(32)),
    }
    wrong = dataclasses.replace(BODY, sealed_secrets=boxes)
    for peer in (PEER, OTHER, LATE):
        with pytest.raises(DecodeError):
            wrong.open_secret(peer)


def test_every_cut_and_every_tampered_byte() -> None:
    data = encode_body(BODY)
    for position in range(len(data)):
        with pytest.raises(DecodeError):
            decode_body_untrusted(data[:position])
        changed = bytearray(data)
        changed[position] ^= 0x80
        try:
            decode_body_untrusted(bytes(changed))
        except DecodeError:
            continue
    with pytest.raises(DecodeError):
        decode_body_untrusted(data + b"\0")
    with pytest.raises(DecodeError, match="at most"):
        decode_body_untrusted(bytes(record.BODY_BYTES_MAX + 1))


def test_later_fields_and_roles_are_left_out() -> None:
    fields = msgspec.msgpack.decode(encode_body(BODY), type=list[object])
    grants = fields[6]
    assert isinstance(grants, list)
    grants.append([key(9), "later", "x", 0, "more"])
    assert decode_body_untrusted(msgspec.msgpack.encode([*fields, 1])) == BODY
    short = decode_body_untrusted(msgspec.msgpack.encode(fields[:4]))
    assert short == RecordBody("home", 3, BODY.fingerprint, NOW_S)


@pytest.mark.parametrize(
    "wrong",
    [
        {"revoked_serials": frozenset(n.to_bytes(16, "big") for n in range(1001))},
        {"revoked_keys": frozenset(key(n) for n in range(3001))},
        {"grants": (Grant(key(1), "auth", "", 0),) * 129},
        {"sealed_secrets": {key(n): bytes(80) for n in range(1001)}},
        {"revoked_serials": frozenset({b"short"})},
        {"revoked_keys": frozenset({b"short"})},
        {"grants": (Grant(key(1), "admin", "", 0),)},
        {"sealed_secrets": {key(1): b"short"}},
        {"fingerprint": b"short"},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_nothing_is_written_that_would_not_be_read(wrong: dict[str, object]) -> None:
    with pytest.raises(LocalProtocolError):
        encode_body(dataclasses.replace(BODY, **wrong))


# The blob.


def content(size: int) -> bytes:
    """Bytes without a repetition, so that no two chunks are alike."""
    return b"".join(n.to_bytes(4, "big") for n in range(size // 4 + 1))[:size]


def join(parts: blob.Split, joiner: blob.Joiner) -> int:
    """Feed what is wanted; gives the number of rounds."""
    stored = {hash_target(chunk): chunk for chunk in parts.chunks}
    rounds = 0
    while not joiner.is_complete:
        rounds += 1
        wanted = joiner.wanted
        assert wanted
        for target in reversed(wanted):
            joiner.feed_untrusted(stored[target])
    assert joiner.wanted == ()
    return rounds


@pytest.mark.parametrize(
    ("size", "rounds", "chunks"),
    [
        (0, 0, 0),
        (854, 0, 0),
        (855, 1, 1),
        (860, 1, 1),
        (861, 1, 2),
        (24_260, 1, 27),
        (24_261, 2, 29),
        (blob.BLOB_BYTES_MAX, 2, 303),
    ],
)
def test_split_and_join(size: int, rounds: int, chunks: int) -> None:
    data = content(size)
    parts = blob.split(data, KEY)
    assert len(parts.chunks) == chunks
    assert all(len(part) <= blob.CHUNK_BYTES for part in (parts.head, *parts.chunks))
    joiner = blob.Joiner(parts.head, KEY)
    assert join(parts, joiner) == rounds
    assert joiner.body_untrusted() == data
    assert set(joiner.chunks) == set(parts.chunks)


def test_reader_makes_the_same_values_again() -> None:
    data = content(30_000)
    assert blob.split(data, KEY) == blob.split(bytes(data), bytes(KEY))
    assert not set(blob.split(data, KEY).chunks) & set(blob.split(data, SECRET).chunks)


def test_chunks_that_are_alike_are_stored_once() -> None:
    joiner = blob.Joiner(Writer().u8(1).uint(1800).fixed(b"t" * 64).getvalue(), KEY)
    assert joiner.wanted == (b"t" * 32,)


def test_body_shows_neither_in_head_nor_in_chunks() -> None:
    for size in (500, 30_000):
        parts = blob.split(b"visible " * (size // 8), KEY)
        assert b"visible" not in b"".join((parts.head, *parts.chunks))


@pytest.mark.parametrize("size", [500, 30_000])
def test_wrong_key(size: int) -> None:
    parts = blob.split(content(size), KEY)
    joiner = blob.Joiner(parts.head, SECRET)
    join(parts, joiner)
    with pytest.raises(DecodeError, match="key"):
        joiner.body_untrusted()


def test_tampered_head_at_every_position() -> None:
    parts = blob.split(content(500), KEY)
    for position in range(len(parts.head)):
        changed = bytearray(parts.head)
        changed[position] ^= 1
        with pytest.raises(DecodeError):
            blob.Joiner(bytes(changed), KEY).body_untrusted()


def test_foreign_chunks_change_nothing() -> None:
    parts = blob.split(content(30_000), KEY)
    joiner = blob.Joiner(parts.head, KEY)
    wanted = joiner.wanted
    joiner.feed_untrusted(b"")
    joiner.feed_untrusted(b"x" * 900)
    joiner.feed_untrusted(parts.chunks[0])  # a leaf, before its node is known
    assert joiner.wanted == wanted
    assert joiner.chunks == ()
    with pytest.raises(LocalProtocolError):
        joiner.body_untrusted()
    join(parts, joiner)
    joiner.feed_untrusted(parts.chunks[0])
    assert joiner.body_untrusted() == content(30_000)


def test_chunks_of_a_wrong_length_end_it() -> None:
    for first, second in ((900, 99), (899, 101), (901, 99), (0, 1000)):
        pieces = b"a" * first, b"b" * second
        head = Writer().u8(1).uint(1000)
        for piece in pieces:
            head.fixed(hash_target(piece))
        joiner = blob.Joiner(head.getvalue(), KEY)
        joiner.feed_untrusted(pieces[1])
        with pytest.raises(DecodeError, match="length"):
            joiner.feed_untrusted(pieces[0])


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\1",
        b"\0\x28" + bytes(40),
        b"\2\x28" + bytes(40),
        b"\1\x27" + bytes(39),
        b"\1\x28" + bytes(39),
        Writer().u8(1).uint(blob.BLOB_BYTES_MAX + 41).fixed(bytes(800)).getvalue(),
        Writer().u8(1).uint(2**53).fixed(bytes(800)).getvalue(),
        Writer().u8(1).uint(1000).fixed(bytes(63)).getvalue(),
        b"\1\x28" + bytes(900),
    ],
    ids=lambda head: head[:8].hex(),
)
def test_malformed_heads(head: bytes) -> None:
    with pytest.raises(DecodeError):
        blob.Joiner(head, KEY)


def test_what_follows_the_head_is_for_later_versions() -> None:
    parts = blob.split(b"data", KEY)
    assert blob.Joiner(parts.head + b"more", KEY).body_untrusted() == b"data"


def test_our_own_mistakes() -> None:
    with pytest.raises(LocalProtocolError):
        blob.split(bytes(blob.BLOB_BYTES_MAX + 1), KEY)
    with pytest.raises(LocalProtocolError):
        blob.split(b"", b"short")


def test_target_of_a_chunk_is_its_hash() -> None:
    chunk = b"x" * 900
    head = Writer().u8(1).uint(900).fixed(hash_target(chunk)).getvalue()
    assert blob.Joiner(head, KEY).wanted == (Target(hash_target(chunk)),)
