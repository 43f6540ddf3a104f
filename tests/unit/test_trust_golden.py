"""Bytes of each format of a private swarm, so that none changes unnoticed.

A failure here means that peers of released versions would not understand each other, or
could not open their files.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from peerchat.net.crypto.primitives import KeyPair, blake2b_256
from peerchat.trust import blob, hello, invite, keys, record, rootkey
from peerchat.trust.certificate import Chain, encode_chain, sign_certificate

ROOT, ADMIN, PEER = (KeyPair.from_seed(bytes((n,)) * 32) for n in (1, 2, 3))
SECRET, HASH, NONCE, SALT = b"s" * 32, b"h" * 64, b"n" * 24, b"l" * 16


def chain() -> bytes:
    def certify(issuer: KeyPair, peer: KeyPair, role: str) -> Chain:
        certificate = sign_certificate(
            issuer,
            peer=peer.public_key,
            keys={"token": ROOT.public_key, "client": ADMIN.public_key},
            roles=[role],
            name=role,
            not_before_s=1_800_000_000,
            not_after_s=1_900_000_000,
            serial=b"serial 16 bytes.",
        )
        return Chain(certificate)

    return encode_chain(
        Chain(
            certify(ADMIN, PEER, "auth").certificate,
            certify(ROOT, ADMIN, "admin").certificate,
        )
    )


def line() -> bytes:
    code = b"code of 16 bytes"
    root, enrol = ROOT.public_key, ADMIN.public_key
    hints = ("10.0.0.1:49737",)
    made = invite.Invite("home", root, SECRET, enrol, code, 1_800_000_000, hints)
    return invite.format_invite(made).encode()


def body() -> bytes:
    sealed = keys.seal_to(PEER.public_key, SECRET, b"e" * 32)
    return record.encode_body(
        record.RecordBody(
            name="home",
            generation=1,
            fingerprint=keys.fingerprint_of(SECRET),
            issued_s=1_800_000_000,
            revoked_serials=frozenset({b"serial 16 bytes."}),
            revoked_keys=frozenset({ADMIN.public_key}),
            grants=(record.Grant(ROOT.public_key, "auth", "Node", 0),),
            sealed_secrets={PEER.public_key: sealed},
        )
    )


def blob_values() -> bytes:
    parts = blob.split(bytes(range(250)) * 120, SECRET)
    return b"".join((parts.head, *parts.chunks))


def backup() -> bytes:
    issued = rootkey.Issued(
        b"serial 16 bytes.",
        PEER.public_key,
        {"client": ADMIN.public_key},
        frozenset({"auth"}),
        "Peer",
        5,
    )
    made = rootkey.Backup(
        "home", ROOT.seed, SECRET, 1, SECRET, ("1.2.3.4:5",), (issued,), 3, b"record"
    )
    return rootkey.pack_backup(made, None, salt=SALT, nonce=NONCE)


FORMATS: dict[str, tuple[Callable[[], bytes], str]] = {
    "chain": (
        chain,
        "779f485b72717157a37170c02d52437c6f6536226eb31346d6a129ee811af694",
    ),
    "hello": (
        lambda: hello.seal_hello(
            SECRET, HASH, is_initiator=True, chain=b"chain", nonce=NONCE
        ),
        "08606c4493251e1c906afbad2e68dd0debf03564e2159db5c642acd1eea5d101",
    ),
    "line": (line, "569892325223494e0147304d3f3fe75bbc38759d13acd6871d856103976fea92"),
    "body": (body, "6e24e7765162b81f1a073527ad027195192caf3d0eb9db6ae2d0ac7597f5abaf"),
    "blob_values": (
        blob_values,
        "5ca4945827722a9afb5914c245a22522d45bd2ecc3ceae5b7207dd856c93f9c4",
    ),
    "root": (
        lambda: rootkey.lock_root(ROOT.seed, "pass", salt=SALT, nonce=NONCE),
        "4a7c4a9a33369236e1ea766a9646f5d463b9b179df7de21897f2d119ae7210c0",
    ),
    "backup": (
        backup,
        "316575bb952db1241b2765c22101d3ca5a193c93d2240fa9e3dd1c1bb7886d02",
    ),
    "proof": (
        lambda: keys.prove_key(PEER, ROOT.public_key, HASH),
        "3b58d3ffb5c77bd8b9ca48d75368ccbff2bd2da258b902300c831f4351ca9be5",
    ),
}


@pytest.mark.parametrize("name", FORMATS)
def test_bytes_are_those_of_the_first_version(name: str) -> None:
    make, digest = FORMATS[name]
    assert blake2b_256(make()).hex() == digest
