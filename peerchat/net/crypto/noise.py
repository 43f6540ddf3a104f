"""Noise handshakes IK and XX over Ed25519 points, ChaChaPoly and BLAKE2b.

Follows the Noise Protocol Framework, revision 34, section 5; the odd parts are those
of npm noise-handshake 4.2 with noise-curve-ed 2.1: Diffie-Hellman on Edwards points,
and a nonce of which only 32 bits ever count. Pure: the ephemeral key pair is an
argument. HyperDHT's use (prologue, payload) is docs/PROTOCOL.md section 7.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
from dataclasses import dataclass, field

from peerchat.net.errors import LocalProtocolError, RemoteProtocolError
from peerchat.net.identity import KEY_BYTES, PublicKey

from .primitives import (
    AEAD_MAC_BYTES,
    KeyPair,
    aead_decrypt_untrusted,
    aead_encrypt,
    noise_dh,
)

MESSAGE_BYTES_MAX = 65535
"""Noise section 3: no message is longer."""

_HASH_BYTES = 64


class Pattern(enum.Enum):
    """Which handshake: HyperDHT uses IK, a stand-alone secret stream XX."""

    IK = "IK"
    XX = "XX"


_MESSAGES: dict[Pattern, tuple[tuple[str, ...], ...]] = {
    Pattern.IK: (("e", "es", "s", "ss"), ("e", "ee", "se")),
    Pattern.XX: (("e",), ("e", "ee", "s", "es"), ("s", "se")),
}
"""Noise section 7.5; IK also has the responder's static key known beforehand."""


@dataclass(frozen=True, slots=True)
class HandshakeResult:
    """What both sides know after the last message."""

    tx_key: bytes = field(repr=False)
    rx_key: bytes = field(repr=False)
    handshake_hash: bytes
    """64 bytes, equal on both sides and in no other connection."""
    is_initiator: bool
    public_key: PublicKey
    remote_public_key: PublicKey


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, hashlib.blake2b)


def _hkdf2(chaining_key: bytes, material: bytes) -> tuple[bytes, bytes]:
    """Noise section 4.3 with two outputs."""
    temp_key = _hmac(chaining_key, material)
    first = _hmac(temp_key, b"\x01")
    return first, _hmac(temp_key, first + b"\x02")


class CipherState:
    """A key and its nonce counter; without a key, bytes pass unchanged."""

    __slots__ = ("_key", "_nonce")

    def __init__(self, key: bytes | None = None) -> None:
        self._key = key
        self._nonce = 0

    @property
    def has_key(self) -> bool:
        return self._key is not None

    def encrypt(self, plaintext: bytes, data: bytes) -> bytes:
        if self._key is None:
            return plaintext
        return aead_encrypt(self._key, self._next_nonce(), plaintext, data)

    def decrypt_untrusted(self, ciphertext: bytes, data: bytes) -> bytes:
        if self._key is None:
            return ciphertext
        return aead_decrypt_untrusted(self._key, self._next_nonce(), ciphertext, data)

    def _next_nonce(self) -> bytes:
        nonce = bytes(4) + self._nonce.to_bytes(4, "little") + bytes(4)
        self._nonce += 1
        return nonce


class SymmetricState:
    """Chaining key, handshake hash and cipher (Noise section 5.2)."""

    __slots__ = ("_chaining_key", "_cipher", "handshake_hash")

    def __init__(self, protocol_name: bytes) -> None:
        if len(protocol_name) > _HASH_BYTES:
            raise LocalProtocolError("protocol name does not fit the hash")
        self.handshake_hash = protocol_name.ljust(_HASH_BYTES, b"\0")
        self._chaining_key = self.handshake_hash
        self._cipher = CipherState()

    @property
    def has_key(self) -> bool:
        return self._cipher.has_key

    def mix_hash(self, data: bytes) -> None:
        self.handshake_hash = hashlib.blake2b(self.handshake_hash + data).digest()

    def mix_key(self, material: bytes) -> None:
        self._chaining_key, key = _hkdf2(self._chaining_key, material)
        self._cipher = CipherState(key[:32])

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        ciphertext = self._cipher.encrypt(plaintext, self.handshake_hash)
        self.mix_hash(ciphertext)
        return ciphertext

    def decrypt_and_hash_untrusted(self, ciphertext: bytes) -> bytes:
        plaintext = self._cipher.decrypt_untrusted(ciphertext, self.handshake_hash)
        self.mix_hash(ciphertext)
        return plaintext

    def split(self) -> tuple[bytes, bytes]:
        """The two transport keys: initiator to responder, and back."""
        first, second = _hkdf2(self._chaining_key, b"")
        return first[:32], second[:32]


class HandshakeState:
    """One side of one handshake.

    Call `write_message` and `read_message_untrusted` in turn, the initiator writing
    first, until `is_complete`; then take `result`. After an error the state is spent.

    Args:
        pattern: which handshake.
        is_initiator: who writes first.
        static: this side's lasting key pair.
        ephemeral: a fresh key pair for this handshake alone.
        prologue: bytes that both sides must agree on.
        remote_static: the responder's public key; the initiator of IK must know it.
    """

    def __init__(
        self,
        pattern: Pattern,
        *,
        is_initiator: bool,
        static: KeyPair,
        ephemeral: KeyPair,
        prologue: bytes = b"",
        remote_static: bytes | None = None,
    ) -> None:
        self.is_initiator = is_initiator
        self._static = static
        self._ephemeral = ephemeral
        self._remote_static = remote_static
        self._remote_ephemeral: bytes | None = None
        self._messages = list(_MESSAGES[pattern])
        self._is_my_turn = is_initiator
        self._is_broken = False
        name = f"Noise_{pattern.value}_Ed25519_ChaChaPoly_BLAKE2b"
        self._symmetric = SymmetricState(name.encode())
        self._symmetric.mix_hash(prologue)
        if pattern is Pattern.IK:
            known = remote_static if is_initiator else static.public_key
            if known is None:
                raise LocalProtocolError("IK needs the responder's public key")
            self._symmetric.mix_hash(known)

    @property
    def is_complete(self) -> bool:
        return not self._messages and not self._is_broken

    @property
    def remote_public_key(self) -> PublicKey | None:
        """The peer's static key, once a message proved that it has it."""
        key = self._remote_static
        return None if key is None else PublicKey(key)

    def write_message(self, payload: bytes = b"") -> bytes:
        """This side's next message around ``payload``.

        Raises:
            LocalProtocolError: it is not this side's turn, or the payload is too long.
            RemoteProtocolError: the peer's key is not usable.
        """
        tokens = self._next_tokens(is_writing=True)
        parts = [self._write_token(token) for token in tokens]
        parts.append(self._symmetric.encrypt_and_hash(payload))
        message = b"".join(parts)
        if len(message) > MESSAGE_BYTES_MAX:
            raise LocalProtocolError("payload does not fit a Noise message")
        self._is_broken = False
        return message

    def read_message_untrusted(self, message: bytes) -> bytes:
        """The payload of the peer's next message; raises `RemoteProtocolError`."""
        tokens = self._next_tokens(is_writing=False)
        if len(message) > MESSAGE_BYTES_MAX:
            raise RemoteProtocolError("Noise message is too long")
        offset = 0
        for token in tokens:
            offset = self._read_token(token, message, offset)
        payload = self._symmetric.decrypt_and_hash_untrusted(message[offset:])
        self._is_broken = False
        return payload

    def result(self) -> HandshakeResult:
        """The keys; only once `is_complete`."""
        if not self.is_complete or self._remote_static is None:
            raise LocalProtocolError("the handshake is not complete")
        first, second = self._symmetric.split()
        return HandshakeResult(
            tx_key=first if self.is_initiator else second,
            rx_key=second if self.is_initiator else first,
            handshake_hash=self._symmetric.handshake_hash,
            is_initiator=self.is_initiator,
            public_key=self._static.public_key,
            remote_public_key=PublicKey(self._remote_static),
        )

    def _next_tokens(self, *, is_writing: bool) -> tuple[str, ...]:
        if self._is_broken or not self._messages or self._is_my_turn != is_writing:
            raise LocalProtocolError("the handshake expects something else now")
        self._is_my_turn = not is_writing
        self._is_broken = True  # until this message turns out well
        return self._messages.pop(0)

    def _write_token(self, token: str) -> bytes:
        if token == "e":
            self._symmetric.mix_hash(self._ephemeral.public_key)
            return self._ephemeral.public_key
        if token == "s":
            return self._symmetric.encrypt_and_hash(self._static.public_key)
        self._mix_dh(token)
        return b""

    def _read_token(self, token: str, message: bytes, offset: int) -> int:
        if token not in ("e", "s"):
            self._mix_dh(token)
            return offset
        has_tag = token == "s" and self._symmetric.has_key
        stop = offset + KEY_BYTES + (AEAD_MAC_BYTES if has_tag else 0)
        if stop > len(message):
            raise RemoteProtocolError("Noise message is too short")
        key = message[offset:stop]
        if token == "e":
            self._remote_ephemeral = key
            self._symmetric.mix_hash(key)
        else:
            self._remote_static = self._symmetric.decrypt_and_hash_untrusted(key)
        return stop

    def _mix_dh(self, token: str) -> None:
        """``es``: the initiator's ephemeral with the responder's static key."""
        mine, theirs = token[0], token[1]
        if not self.is_initiator:
            mine, theirs = theirs, mine
        local = self._static if mine == "s" else self._ephemeral
        remote = self._remote_static if theirs == "s" else self._remote_ephemeral
        if remote is None:
            raise LocalProtocolError("the peer's key is not known yet")
        self._symmetric.mix_key(noise_dh(local, remote))
