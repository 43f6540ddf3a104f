"""The cryptographic calls of HyperDHT, one function each, and nothing else.

All of them are libsodium's, through PyNaCl, except for plain hashing. Where a peer's
bytes can make a call fail, the error is `RemoteProtocolError`. Random bytes are
arguments: whoever owns the `Random` of an `Env` draws them.
Source: docs/PROTOCOL.md section 7; npm hypercore-crypto, noise-curve-ed.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from enum import IntEnum

from nacl import bindings
from nacl.exceptions import BadSignatureError, CryptoError

from peerchat.net.errors import LocalProtocolError, RemoteProtocolError
from peerchat.net.identity import KEY_BYTES, PublicKey, Target

HASH_BYTES = 32
SEED_BYTES = 32
SIGNATURE_BYTES = 64
AEAD_MAC_BYTES = 16
AEAD_NONCE_BYTES = 12
SECRETBOX_MAC_BYTES = 16
SECRETBOX_NONCE_BYTES = 24


class DhtCommand(IntEnum):
    """Commands of hyperdht that have a namespace of their own."""

    PEER_HANDSHAKE = 0
    PEER_HOLEPUNCH = 1
    ANNOUNCE = 4
    UNANNOUNCE = 5
    MUTABLE_PUT = 6
    PLUGIN = 10


@dataclass(frozen=True, slots=True)
class KeyPair:
    """An Ed25519 key pair; its representation never shows the secret half."""

    public_key: PublicKey
    secret_key: bytes = field(repr=False)
    """64 bytes, libsodium's layout: the seed, then the public key."""

    @classmethod
    def from_seed(cls, seed: bytes) -> KeyPair:
        """The key pair that 32 secret bytes determine."""
        if len(seed) != SEED_BYTES:
            raise LocalProtocolError(f"a seed has {SEED_BYTES} bytes, not {len(seed)}")
        public_key, secret_key = bindings.crypto_sign_seed_keypair(seed)
        return cls(PublicKey(public_key), secret_key)

    @classmethod
    def generate(cls, random_bytes: bytes) -> KeyPair:
        """A new key pair from 32 bytes drawn by the caller's `Random`."""
        return cls.from_seed(random_bytes)

    @property
    def seed(self) -> bytes:
        """The 32 secret bytes that `from_seed` takes."""
        return self.secret_key[:SEED_BYTES]


def blake2b_256(*parts: bytes, key: bytes = b"") -> bytes:
    """BLAKE2b with 32 bytes of digest over the parts in order, keyed when asked."""
    digest = hashlib.blake2b(digest_size=HASH_BYTES, key=key)
    for part in parts:
        digest.update(part)
    return digest.digest()


def hash_target(data: bytes) -> Target:
    """Where ``data`` (a topic's name, a public key) lives in the DHT's key space."""
    return Target(blake2b_256(data))


def namespace(name: bytes, number: int) -> bytes:
    """The 32-byte domain separator ``number`` of ``name`` (npm hypercore-crypto)."""
    return blake2b_256(blake2b_256(name), bytes((number,)))


DHT_NAMESPACES: dict[DhtCommand, bytes] = {
    command: namespace(b"hyperswarm/dht", command) for command in DhtCommand
}
"""What a signature or a Noise prologue of each command begins with."""

NS_STREAM_INITIATOR, NS_STREAM_RESPONDER, NS_STREAM_SEND = (
    namespace(b"hyperswarm/secret-stream", number) for number in range(3)
)
NS_CAPABILITY = namespace(b"hyperswarm-capability", 0)


def is_equal(a: bytes, b: bytes) -> bool:
    """Compare secrets in a time that does not tell where they differ."""
    return hmac.compare_digest(a, b)


def sign(message: bytes, key_pair: KeyPair) -> bytes:
    """A detached Ed25519 signature, 64 bytes."""
    return bindings.crypto_sign(message, key_pair.secret_key)[:SIGNATURE_BYTES]


def verify(message: bytes, signature: bytes, public_key: bytes) -> bool:
    """Whether ``signature`` is ``public_key``'s over ``message``; never raises."""
    if len(signature) != SIGNATURE_BYTES or len(public_key) != KEY_BYTES:
        return False
    try:
        bindings.crypto_sign_open(signature + message, public_key)
    except BadSignatureError:
        return False
    return True


def noise_dh(key_pair: KeyPair, public_key: bytes) -> bytes:
    """Diffie-Hellman on Ed25519 points, as npm noise-curve-ed does it.

    The scalar is clamped here; the multiplication itself does not clamp.

    Raises:
        RemoteProtocolError: the point is not on the curve or of low order.
    """
    digest = bytearray(hashlib.sha512(key_pair.seed).digest()[:32])
    digest[0] &= 248
    digest[31] = digest[31] & 127 | 64
    if len(public_key) != KEY_BYTES:
        raise RemoteProtocolError("public key is not 32 bytes")
    try:
        return bindings.crypto_scalarmult_ed25519_noclamp(bytes(digest), public_key)
    except CryptoError as error:
        raise RemoteProtocolError("public key is not a usable point") from error


def aead_encrypt(key: bytes, nonce: bytes, plaintext: bytes, data: bytes) -> bytes:
    """ChaCha20-Poly1305 (RFC 8439); ``data`` is authenticated and not sent."""
    return bindings.crypto_aead_chacha20poly1305_ietf_encrypt(
        plaintext, data, nonce, key
    )


def aead_decrypt_untrusted(
    key: bytes, nonce: bytes, ciphertext: bytes, data: bytes
) -> bytes:
    """The inverse of `aead_encrypt`; `RemoteProtocolError` when it does not fit."""
    if len(ciphertext) < AEAD_MAC_BYTES:
        raise RemoteProtocolError("ciphertext is shorter than its tag")
    try:
        return bindings.crypto_aead_chacha20poly1305_ietf_decrypt(
            ciphertext, data, nonce, key
        )
    except CryptoError as error:
        raise RemoteProtocolError("ciphertext does not authenticate") from error


def secretbox_seal(key: bytes, nonce: bytes, plaintext: bytes) -> bytes:
    """XSalsa20-Poly1305: a 16-byte tag and the ciphertext, without the nonce."""
    return bindings.crypto_secretbox_easy(plaintext, nonce, key)


def secretbox_open_untrusted(key: bytes, nonce: bytes, box: bytes) -> bytes:
    """The inverse of `secretbox_seal`; `RemoteProtocolError` when it does not open."""
    if len(box) < SECRETBOX_MAC_BYTES:
        raise RemoteProtocolError("box is shorter than its tag")
    try:
        return bindings.crypto_secretbox_open_easy(box, nonce, key)
    except CryptoError as error:
        raise RemoteProtocolError("box does not open") from error
