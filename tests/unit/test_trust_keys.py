"""What a swarm secret gives, against the npm packages; sealed boxes, proofs of keys."""

from __future__ import annotations

import hashlib
import hmac
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from peerchat.net.crypto.primitives import KeyPair
from peerchat.net.errors import DecodeError, LocalProtocolError
from peerchat.net.identity import PublicKey
from peerchat.net.mux import rpc
from peerchat.trust.hello import open_hello_untrusted
from peerchat.trust.keys import (
    capability_of,
    fingerprint_of,
    open_sealed_untrusted,
    prove_key,
    seal_to,
    topic_of,
    verify_key_proof,
)

TESTS = Path(__file__).parents[1]
VECTORS = json.loads((TESTS / "vectors" / "trust.json").read_text())
SECRET = bytes.fromhex(VECTORS["secret"])
HASH = bytes.fromhex(VECTORS["handshakeHash"])
PEER = KeyPair.from_seed(b"\3" * 32)
OTHER = KeyPair.from_seed(b"\4" * 32)


@pytest.mark.parametrize("role", ["auth", "gateway", "processor"])
def test_topic_is_the_one_of_hp_svc_facs_net(role: str) -> None:
    digest = hmac.new(SECRET, role.encode(), hashlib.sha256).digest()
    topic = topic_of(SECRET, role)
    assert topic == hashlib.blake2b(digest, digest_size=32).digest()
    assert topic.hex() == VECTORS["topics"][role]


def test_capability_and_fingerprint_are_those_of_hypercore_crypto() -> None:
    assert capability_of(SECRET).hex() == VECTORS["capability"]
    assert fingerprint_of(SECRET).hex() == VECTORS["fingerprint"]


@pytest.mark.parametrize("side", ["initiator", "responder"])
def test_handshake_with_the_capability_is_that_of_hyperswarm_rpc(side: str) -> None:
    proof = rpc.capability_proof(
        capability_of(SECRET), HASH, is_initiator=side == "initiator"
    )
    assert rpc.encode_handshake(proof).hex() == VECTORS["rpcHandshakes"][side]


@pytest.mark.parametrize("side", ["initiator", "responder"])
def test_hello_that_libsodium_boxed_opens(side: str) -> None:
    data = bytes.fromhex(VECTORS["hellos"][side])
    chain = open_hello_untrusted(
        SECRET, HASH, is_initiator=side == "initiator", data=data
    )
    assert chain == b"chain"


@pytest.mark.interop
def test_worker_config_printed_as_hex_gives_the_topics_and_the_capability() -> None:
    """A worker is configured with hex; it must become a Buffer, not stay a string."""
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    if not (TESTS / "node" / "node_modules" / "hyperdht").is_dir():
        pytest.skip("run npm ci in tests/node")
    script = """
      const HyperDHT = require('hyperdht')
      const Capability = require('hyperswarm-capability')
      const [secret, capability, handshakeHash] =
        process.argv.slice(1).map(x => Buffer.from(x, 'hex'))
      const hmac = require('crypto').createHmac('sha256', secret)
      console.log(HyperDHT.hash(hmac.update('gateway').digest()).toString('hex'))
      const stream = { isInitiator: true, handshakeHash }
      console.log(new Capability().generate(stream, capability).toString('hex'))
    """
    arguments = [SECRET.hex(), capability_of(SECRET).hex(), HASH.hex()]
    lines = subprocess.run(
        ["node", "-e", script, *arguments],
        cwd=TESTS / "node",
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.split()
    proof = rpc.capability_proof(capability_of(SECRET), HASH, is_initiator=True)
    assert lines == [topic_of(SECRET, "gateway").hex(), proof.hex()]


def test_nothing_derived_from_a_secret_equals_another() -> None:
    derived = [topic_of(SECRET, role) for role in ("auth", "gateway", "")]
    derived += [capability_of(SECRET), fingerprint_of(SECRET), SECRET]
    other = bytes(32)
    derived += [topic_of(other, "auth"), capability_of(other), fingerprint_of(other)]
    assert len(set(derived)) == len(derived)


@pytest.mark.parametrize("secret", [b"", bytes(31), bytes(33)])
def test_a_secret_has_32_bytes(secret: bytes) -> None:
    for derive in (capability_of, fingerprint_of):
        with pytest.raises(LocalProtocolError):
            derive(secret)
    with pytest.raises(LocalProtocolError):
        topic_of(secret, "auth")


def test_box_that_libsodium_sealed_opens() -> None:
    sealed = VECTORS["sealed"]
    peer = KeyPair.from_seed(bytes.fromhex(sealed["seed"]))
    assert open_sealed_untrusted(peer, bytes.fromhex(sealed["box"])) == SECRET


def test_sealed_box_opens_for_its_reader_alone_and_only_as_it_was() -> None:
    box = seal_to(PEER.public_key, b"for you", b"e" * 32)
    assert open_sealed_untrusted(PEER, box) == b"for you"
    with pytest.raises(DecodeError):
        open_sealed_untrusted(OTHER, box)
    for position in range(len(box)):
        with pytest.raises(DecodeError):
            open_sealed_untrusted(PEER, _flipped(box, position))
        with pytest.raises(DecodeError):
            open_sealed_untrusted(PEER, box[:position])


@pytest.mark.parametrize("key", [bytes(32), b"\xff" * 32, b"\1" + bytes(31), b"short"])
def test_nothing_is_sealed_to_a_key_that_is_no_point(key: bytes) -> None:
    with pytest.raises(LocalProtocolError):
        seal_to(PublicKey(key), b"data", b"e" * 32)


def test_key_proof_holds_for_its_key_peer_and_challenge_only() -> None:
    proof = prove_key(OTHER, PEER.public_key, b"challenge")
    assert verify_key_proof(OTHER.public_key, PEER.public_key, b"challenge", proof)
    for key, peer, challenge, signature in (
        (PEER.public_key, PEER.public_key, b"challenge", proof),
        (OTHER.public_key, OTHER.public_key, b"challenge", proof),
        (OTHER.public_key, PEER.public_key, b"another", proof),
        (OTHER.public_key, PEER.public_key, b"", proof),
        (OTHER.public_key, PEER.public_key, b"challenge", proof[:-1]),
        (OTHER.public_key, PublicKey(b""), b"challenge", proof),
        (PublicKey(b""), PEER.public_key, b"challenge", proof),
        (OTHER.public_key, PEER.public_key, b"c" * 5000, proof),
    ):
        assert not verify_key_proof(key, peer, challenge, signature)
    for position in range(len(proof)):
        tampered = _flipped(proof, position)
        assert not verify_key_proof(
            OTHER.public_key, PEER.public_key, b"challenge", tampered
        )


def _flipped(data: bytes, position: int) -> bytes:
    return data[:position] + bytes((data[position] ^ 1,)) + data[position + 1 :]
