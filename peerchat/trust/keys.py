"""What is derived from a swarm secret, boxes for one reader, and proofs of a key.

The secret gives topics and the proof of membership, nothing else: it opens no box and
signs nothing. Source: docs/PROTOCOL.md sections 13, 17 and 20.
"""

from __future__ import annotations

import hashlib
import hmac

from nacl import bindings
from nacl.exceptions import CryptoError

from peerchat.net.crypto.primitives import (
    SEED_BYTES,
    KeyPair,
    blake2b_256,
    hash_target,
    sign,
    verify,
)
from peerchat.net.errors import DecodeError, LocalProtocolError
from peerchat.net.identity import KEY_BYTES, PublicKey, Target

from .codec import (
    NS_CAPABILITY,
    NS_FINGERPRINT,
    NS_KEY_PROOF,
    SECRET_BYTES,
    check_length,
)

PURPOSES = ("client", "auth", "gateway", "processor", "enrol", "token")
"""What a peer has key pairs for. The first four are keys of connections that serve or
ask, ``enrol`` listens for new members, ``token`` signs session tokens."""

FINGERPRINT_BYTES = 16
"""Enough to tell generations of a secret apart; nothing rests on it being secret."""

SEAL_OVERHEAD_BYTES = bindings.crypto_box_SEALBYTES
"""The ephemeral public key and the tag in front of a sealed box."""

CHALLENGE_BYTES_MAX = 1024
"""A challenge is a handshake hash or a code; the limit bounds what is signed."""

_SEAL_NONCE_BYTES = 24


def topic_of(secret: bytes, role: str) -> Target:
    """Where ``role`` is announced in the swarm of ``secret``.

    The same as ``crypto: {algo: "hmac-sha256", key}`` of @tetherto/hp-svc-facs-net
    (lib/hyperdht.lookup.js@40daf42 ``encodeTopic``).
    """
    check_length(secret, SECRET_BYTES, "a swarm secret")
    return hash_target(hmac.digest(secret, role.encode(), "sha256"))


def capability_of(secret: bytes) -> bytes:
    """The protomux-rpc capability (PROTOCOL.md section 10) of the swarm of ``secret``.

    It proves membership and gives neither the secret nor the topics, but a Node.js
    worker, which needs both, is given its hexadecimal form.
    """
    return blake2b_256(
        NS_CAPABILITY, check_length(secret, SECRET_BYTES, "a swarm secret")
    )


def fingerprint_of(secret: bytes) -> bytes:
    """16 bytes that tell one secret from another without giving it away."""
    check_length(secret, SECRET_BYTES, "a swarm secret")
    return blake2b_256(NS_FINGERPRINT, secret)[:FINGERPRINT_BYTES]


def seal_to(public_key: PublicKey, data: bytes, ephemeral_seed: bytes) -> bytes:
    """A box that only the holder of ``public_key`` opens; libsodium's sealed box.

    Args:
        public_key: Ed25519; converted to X25519.
        data: what to seal.
        ephemeral_seed: 32 random bytes, never used again.

    Raises:
        LocalProtocolError: the key is no usable point. Keys in certificates have
            signed a proof and are.
    """
    check_length(ephemeral_seed, SEED_BYTES, "an ephemeral seed")
    check_length(public_key, KEY_BYTES, "a public key")
    try:
        reader = bindings.crypto_sign_ed25519_pk_to_curve25519(public_key)
        public, secret = bindings.crypto_box_seed_keypair(ephemeral_seed)
        nonce = hashlib.blake2b(public + reader, digest_size=_SEAL_NONCE_BYTES).digest()
        return public + bindings.crypto_box_easy(data, nonce, reader, secret)
    except (CryptoError, RuntimeError) as error:
        raise LocalProtocolError("no box can be sealed to this key") from error


def open_sealed_untrusted(key_pair: KeyPair, box: bytes) -> bytes:
    """What `seal_to` put into the box for this key pair; else `DecodeError`."""
    if len(box) < SEAL_OVERHEAD_BYTES:
        raise DecodeError("sealed box is too short")
    public = bindings.crypto_sign_ed25519_pk_to_curve25519(key_pair.public_key)
    secret = bindings.crypto_sign_ed25519_sk_to_curve25519(key_pair.secret_key)
    try:
        return bindings.crypto_box_seal_open(box, public, secret)
    except CryptoError as error:
        raise DecodeError("sealed box does not open") from error


def prove_key(key_pair: KeyPair, peer: PublicKey, challenge: bytes) -> bytes:
    """A signature that says: the holder of this key pair is ``peer``.

    Args:
        key_pair: the key to be listed in the certificate of ``peer``.
        peer: the peer's own key.
        challenge: what makes it worthless elsewhere: the handshake hash of the
            enrolment's connection.
    """
    if len(challenge) > CHALLENGE_BYTES_MAX:
        raise LocalProtocolError("challenge is too long")
    return sign(_provable(peer, challenge), key_pair)


def verify_key_proof(
    key: PublicKey, peer: PublicKey, challenge: bytes, signature: bytes
) -> bool:
    """Whether `prove_key` made the signature with this key; never raises."""
    if len(peer) != KEY_BYTES or len(challenge) > CHALLENGE_BYTES_MAX:
        return False
    return verify(_provable(peer, challenge), signature, key)


def _provable(peer: PublicKey, challenge: bytes) -> bytes:
    return NS_KEY_PROOF + check_length(peer, KEY_BYTES, "a peer's key") + challenge
