"""Any bytes where a private swarm expects its own: parsed, or refused as expected."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peerchat.net.crypto.primitives import KeyPair, hash_target, secretbox_seal
from peerchat.net.encoding import Writer
from peerchat.net.errors import DecodeError
from peerchat.net.identity import PublicKey
from peerchat.sanitize import display_line
from peerchat.trust import blob, hello, lockbox, rootkey
from peerchat.trust.certificate import (
    CHAIN_BYTES_MAX,
    ROLES,
    Chain,
    check_chain,
    decode_chain_untrusted,
    encode_chain,
    sign_certificate,
)
from peerchat.trust.errors import TrustRefused, WrongPassphrase
from peerchat.trust.invite import Invite, format_invite, parse_invite_untrusted
from peerchat.trust.keys import PURPOSES, open_sealed_untrusted, seal_to
from peerchat.trust.record import (
    GRANT_ROLES,
    Grant,
    RecordBody,
    decode_body_untrusted,
    encode_body,
)

ROOT, ADMIN = KeyPair.from_seed(b"\1" * 32), KeyPair.from_seed(b"\2" * 32)
SECRET, HASH = b"s" * 32, b"h" * 64
NOBODY_OUT = RecordBody("swarm", 0, bytes(16), 0)

keys = st.binary(min_size=32, max_size=32).map(PublicKey)
serials = st.binary(min_size=16, max_size=16)
secrets = st.binary(min_size=32, max_size=32)
counts = st.integers(0, 2**53)
texts = st.text(st.characters(exclude_categories=()), max_size=80)
names = texts.map(lambda text: display_line(text, 64))
hints = st.from_regex(r"[!-~]{1,128}", fullmatch=True)

# Fields of the right kind in front make it likely that what follows is looked at.
fields = st.recursive(
    keys
    | serials
    | counts
    | st.binary(max_size=80)
    | st.text(max_size=20)
    | st.sampled_from([None, True, -1, 0.5, *PURPOSES, *ROLES]),
    lambda inner: (
        st.lists(inner, max_size=9)
        | st.dictionaries(keys | st.sampled_from(PURPOSES), inner, max_size=4)
    ),
    max_leaves=30,
)
packed = (
    st.binary(max_size=300)
    | st.lists(fields, max_size=12).map(msgspec.msgpack.encode)
    | st.just(b"\x91" * 3000)
)
certificate_bodies = st.tuples(
    keys | fields,
    st.dictionaries(st.sampled_from(PURPOSES) | st.text(max_size=40), keys, max_size=9),
    st.lists(st.sampled_from(sorted(ROLES)) | st.text(max_size=40), max_size=9),
    texts.map(lambda text: text.encode("utf-8", "replace").decode()),
    counts | fields,
    counts,
    serials,
    keys | st.just(ROOT.public_key),
).map(msgspec.msgpack.encode)
signed = st.tuples(
    certificate_bodies | packed, st.binary(min_size=64, max_size=64) | fields
)
chains = st.tuples(signed, st.none() | signed | fields).map(msgspec.msgpack.encode)


def parse(decode: Callable[[bytes], object], data: bytes) -> None:
    with contextlib.suppress(DecodeError):
        decode(data)


@given(packed | chains)
def test_any_chain(data: bytes) -> None:
    try:
        chain = decode_chain_untrusted(data)
    except DecodeError:
        return
    assert chain.certificate.roles <= ROLES
    assert chain.certificate.keys.keys() <= set(PURPOSES)
    assert display_line(chain.certificate.name, 64) == chain.certificate.name
    again = encode_chain(chain)
    assert len(again) <= CHAIN_BYTES_MAX
    assert decode_chain_untrusted(again) == chain
    with pytest.raises(TrustRefused):
        check_chain(chain, root=ROOT.public_key, now_s=5, revocations=NOBODY_OUT)


@given(
    keys,
    st.dictionaries(st.sampled_from(PURPOSES), keys, max_size=6),
    st.sets(st.sampled_from(sorted(ROLES - {"admin"}))),
    texts,
    serials,
    st.booleans(),
    st.data(),
)
def test_signed_chains_hold_and_changed_ones_do_not(
    peer: PublicKey,
    own: dict[str, PublicKey],
    roles: set[str],
    name: str,
    serial: bytes,
    is_by_root: bool,
    data: st.DataObject,
) -> None:
    by_purpose = {key: purpose for purpose, key in own.items()}
    own = {purpose: key for key, purpose in by_purpose.items()}
    admin = sign_certificate(
        ROOT,
        peer=ADMIN.public_key,
        keys={},
        roles=["admin"],
        name=name,
        not_before_s=0,
        not_after_s=1000,
        serial=serial,
    )
    certificate = sign_certificate(
        ROOT if is_by_root else ADMIN,
        peer=peer,
        keys=own,
        roles=roles,
        name=name,
        not_before_s=0,
        not_after_s=1000,
        serial=serial,
    )
    chain = Chain(certificate, None if is_by_root else admin)
    wire = encode_chain(chain)
    decoded = decode_chain_untrusted(wire)
    assert decoded == chain
    assert (decoded.certificate.keys, decoded.certificate.roles) == (own, roles)
    check_chain(decoded, root=ROOT.public_key, now_s=5, revocations=NOBODY_OUT)

    changed = bytearray(wire)
    changed[data.draw(st.integers(0, len(wire) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        other = decode_chain_untrusted(bytes(changed))
        check_chain(other, root=ROOT.public_key, now_s=5, revocations=NOBODY_OUT)
    except (DecodeError, TrustRefused):
        return
    assert other == chain


@given(st.text(max_size=300) | st.text("ABCDwxyz019-_", max_size=300))
def test_any_line(text: str) -> None:
    for line in (text, "peerchat:" + text):
        try:
            parse_invite_untrusted(line)
        except DecodeError as error:
            assert "\n" not in str(error)  # noqa: PT017


invites = st.builds(
    Invite,
    swarm=names,
    root=keys,
    secret=secrets,
    enrol_key=keys,
    code=serials,
    expires_s=counts,
    bootstrap=st.lists(hints, max_size=4).map(tuple),
)


@given(invites, st.data())
def test_invites_survive_wrapping_and_show_damage(
    invite: Invite, data: st.DataObject
) -> None:
    line = format_invite(invite)
    assert parse_invite_untrusted(line) == invite
    at = data.draw(st.integers(1, len(line) - 1))
    assert parse_invite_untrusted(f"{line[:at]}\r\n  {line[at:]} ") == invite
    other = data.draw(st.characters(codec="ascii", categories=("L", "N")))
    if at >= len("peerchat:") and line[at] != other:
        with pytest.raises(DecodeError, match=r"damaged|cut short|follows"):
            parse_invite_untrusted(line[:at] + other + line[at + 1 :])


@given(packed)
def test_any_record_body(data: bytes) -> None:
    try:
        body = decode_body_untrusted(data)
    except DecodeError:
        return
    assert decode_body_untrusted(encode_body(body)) == body


grants = st.builds(Grant, keys, st.sampled_from(sorted(GRANT_ROLES)), names, counts)
records = st.builds(
    RecordBody,
    name=names,
    generation=counts,
    fingerprint=serials,
    issued_s=counts,
    revoked_serials=st.frozensets(serials, max_size=5),
    revoked_keys=st.frozensets(keys, max_size=5),
    grants=st.lists(grants, max_size=5).map(tuple),
    sealed_secrets=st.dictionaries(
        keys, st.binary(min_size=80, max_size=80), max_size=5
    ),
)


@given(records, st.binary(max_size=3))
def test_records_come_back_through_the_blob(body: RecordBody, padding: bytes) -> None:
    data = encode_body(body)
    parts = blob.split(data, SECRET)
    head = (parts.head + padding)[: max(len(parts.head), blob.CHUNK_BYTES)]
    joiner = blob.Joiner(head, SECRET)
    for chunk in reversed(parts.chunks):
        joiner.feed_untrusted(chunk)
    assert decode_body_untrusted(joiner.body_untrusted()) == body


@settings(deadline=None, max_examples=40)
@given(st.integers(0, blob.BLOB_BYTES_MAX), st.randoms(use_true_random=False))
def test_blobs_of_any_size_come_back_in_any_order(size: int, random: object) -> None:
    shuffle: Callable[[list[bytes]], None] = random.shuffle  # type: ignore[attr-defined]
    data = bytes(range(251)) * (size // 251) + bytes(size % 251)
    parts = blob.split(data, SECRET)
    chunks = {hash_target(chunk): chunk for chunk in parts.chunks}
    joiner = blob.Joiner(parts.head, SECRET)
    for _ in range(2):
        wanted = [chunks[target] for target in joiner.wanted]
        shuffle(wanted)
        for chunk in wanted:
            joiner.feed_untrusted(chunk)
    assert joiner.body_untrusted() == data


heads = st.tuples(st.integers(0, 2**53), st.binary(max_size=900)).map(
    lambda pair: Writer().u8(1).uint(pair[0]).fixed(pair[1]).getvalue()
)


@given(st.binary(max_size=950) | heads, st.lists(st.binary(max_size=950), max_size=5))
def test_any_head(head: bytes, chunks: list[bytes]) -> None:
    try:
        joiner = blob.Joiner(head, SECRET)
        for chunk in chunks:
            joiner.feed_untrusted(chunk)
        assert len(joiner.wanted) <= blob.HEAD_FAN_OUT
        if joiner.is_complete:
            joiner.body_untrusted()
    except DecodeError:
        return


@given(st.lists(st.binary(max_size=1000), min_size=1, max_size=27), st.data())
def test_any_chunks_of_a_head_that_lists_them(
    chunks: list[bytes], data: st.DataObject
) -> None:
    """Whoever signs the head may list what it likes; chunks that list chunks too."""
    nodes = [b"".join(map(hash_target, chunks[:28]))] * len(chunks)
    values = data.draw(st.sampled_from([chunks, nodes]))
    size = data.draw(st.integers(855, blob.BLOB_BYTES_MAX + 40))
    head = Writer().u8(1).uint(size).fixed(b"".join(map(hash_target, values)))
    with contextlib.suppress(DecodeError):
        joiner = blob.Joiner(head.getvalue()[: blob.CHUNK_BYTES], SECRET)
        for chunk in values + chunks:
            joiner.feed_untrusted(chunk)
        if joiner.is_complete:
            joiner.body_untrusted()


@given(st.binary(max_size=9000), st.booleans())
def test_any_hello(data: bytes, is_initiator: bool) -> None:
    with pytest.raises(TrustRefused):
        hello.open_hello_untrusted(SECRET, HASH, is_initiator=is_initiator, data=data)


@given(packed, st.booleans())
def test_any_hello_of_a_member(body: bytes, is_initiator: bool) -> None:
    key = hello._hello_key(SECRET, HASH, is_initiator=is_initiator)
    data = bytes(24) + secretbox_seal(key, bytes(24), body)
    with contextlib.suppress(DecodeError):
        chain = hello.open_hello_untrusted(
            SECRET, HASH, is_initiator=is_initiator, data=data
        )
        assert len(chain) <= CHAIN_BYTES_MAX


@given(st.binary(max_size=CHAIN_BYTES_MAX), st.binary(min_size=24, max_size=24))
def test_hellos_open_with_any_chain(chain: bytes, nonce: bytes) -> None:
    data = hello.seal_hello(SECRET, HASH, is_initiator=True, chain=chain, nonce=nonce)
    opened = hello.open_hello_untrusted(SECRET, HASH, is_initiator=True, data=data)
    assert opened == chain


@given(st.binary(max_size=200))
def test_any_sealed_box(box: bytes) -> None:
    with pytest.raises(DecodeError):
        open_sealed_untrusted(ADMIN, box)


@given(st.binary(max_size=200), secrets)
def test_sealed_boxes_open(data: bytes, seed: bytes) -> None:
    assert open_sealed_untrusted(ADMIN, seal_to(ADMIN.public_key, data, seed)) == data


@pytest.fixture(scope="module", autouse=True)
def quick_argon2id() -> object:
    """Argon2id at its least: what is looked for here is not its cost."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("OPSLIMIT", "MEMLIMIT"):
            least = getattr(lockbox.bindings, f"crypto_pwhash_argon2id_{name}_MIN")
            moderate = f"crypto_pwhash_argon2id_{name}_MODERATE"
            patch.setattr(lockbox.bindings, moderate, least)
        yield


magics = st.sampled_from([rootkey.ROOT_MAGIC, rootkey.BACKUP_MAGIC])
files = st.tuples(magics, st.integers(0, 3).map(lambda n: bytes((n,))), packed)


@settings(deadline=None)
@given(packed | files.map(lambda parts: lockbox._finish(b"".join(parts))))
def test_any_root_file_and_backup(data: bytes) -> None:
    parse(rootkey.is_locked, data)
    for passphrase in (None, "pass"):
        with contextlib.suppress(DecodeError, WrongPassphrase):
            assert len(rootkey.unlock_root_untrusted(data, passphrase)) == 32
        with contextlib.suppress(DecodeError, WrongPassphrase):
            rootkey.unpack_backup_untrusted(data, passphrase)


@settings(deadline=None)
@given(packed)
def test_any_content_of_a_locked_backup(content: bytes) -> None:
    salt, nonce = bytes(16), bytes(24)
    data = lockbox.lock(rootkey.BACKUP_MAGIC, content, "pass", salt=salt, nonce=nonce)
    with contextlib.suppress(DecodeError):
        rootkey.unpack_backup_untrusted(data, "pass")


issued = st.builds(
    rootkey.Issued,
    serials,
    keys,
    st.dictionaries(st.sampled_from(PURPOSES), keys, max_size=6),
    st.frozensets(st.sampled_from(sorted(ROLES))),
    names,
    counts,
)
backups = st.builds(
    rootkey.Backup,
    name=names,
    root_seed=secrets,
    secret=secrets,
    generation=counts,
    record_key=secrets,
    bootstrap=st.lists(hints, max_size=5).map(tuple),
    issued=st.lists(issued, max_size=4).map(tuple),
    record_seq=counts,
    record=st.binary(max_size=50),
)


@settings(deadline=None)
@given(backups, st.none() | st.text(min_size=1, max_size=20))
def test_backups_come_back(backup: rootkey.Backup, passphrase: str | None) -> None:
    data = rootkey.pack_backup(backup, passphrase, salt=bytes(16), nonce=bytes(24))
    assert rootkey.unpack_backup_untrusted(data, passphrase) == backup
