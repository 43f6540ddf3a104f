"""What each end says first on a connection of a private swarm.

Its certificate chain, under a key that takes the swarm secret and this connection's
handshake hash to make. That it opens is the proof of membership, in both directions,
and a stranger who asks learns nothing from the answer: neither names nor roles.
Source: docs/PROTOCOL.md section 14.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from peerchat.net.crypto.primitives import (
    SECRETBOX_MAC_BYTES,
    SECRETBOX_NONCE_BYTES,
    blake2b_256,
    secretbox_open_untrusted,
    secretbox_seal,
)
from peerchat.net.errors import LocalProtocolError, RemoteProtocolError

from .certificate import CHAIN_BYTES_MAX
from .codec import NS_HELLO, SECRET_BYTES, Body, check_length, decode_untrusted, encode
from .errors import RefusalReason, TrustRefused

PROTOCOL = "peerchat/trust"
"""Name of the Protomux channel whose handshake is the hello."""

HELLO_STEP_BYTES = 2048
"""Hellos are padded to a multiple: the length tells no stranger what a peer is. The
longest chain that we make, 1401 bytes, fits into one step."""

HELLO_BYTES_MAX = 8 * 1024
"""A chain and its padding, with room for fields of later versions."""

HANDSHAKE_HASH_BYTES_MAX = 64
"""Noise with BLAKE2b-512, as PROTOCOL.md section 7 has it."""

HANDSHAKE_HASH_BYTES_MIN = 32

_PADDING_BYTES_MIN = 256
"""From this length on MessagePack puts three bytes in front of a bin, below it two."""

_PADDING_HEAD_GROWTH_BYTES = 1


class HelloBody(Body, frozen=True):
    """What is inside the box."""

    chain: Annotated[bytes, msgspec.Meta(max_length=CHAIN_BYTES_MAX)]
    padding: bytes = b""


def seal_hello(
    secret: bytes,
    handshake_hash: bytes,
    *,
    is_initiator: bool,
    chain: bytes,
    nonce: bytes,
) -> bytes:
    """A hello for this connection.

    Args:
        secret: of the swarm.
        handshake_hash: of the connection's Noise handshake.
        is_initiator: whether this side opened the connection.
        chain: as `encode_chain` gives it; empty from a member without one.
        nonce: 24 random bytes.
    """
    check_length(nonce, SECRETBOX_NONCE_BYTES, "a nonce")
    if len(chain) > CHAIN_BYTES_MAX:
        raise LocalProtocolError("certificate chain is too long")
    taken = len(encode(HelloBody(chain))) + _PADDING_HEAD_GROWTH_BYTES
    missing = -(taken + _PADDING_BYTES_MIN) % HELLO_STEP_BYTES
    body = encode(HelloBody(chain, bytes(_PADDING_BYTES_MIN + missing)))
    key = _hello_key(secret, handshake_hash, is_initiator=is_initiator)
    return nonce + secretbox_seal(key, nonce, body)


def open_hello_untrusted(
    secret: bytes, handshake_hash: bytes, *, is_initiator: bool, data: bytes
) -> bytes:
    """The sender's chain, still to be decoded and checked; may be empty.

    Args:
        secret: of the swarm.
        handshake_hash: of the connection's Noise handshake.
        is_initiator: whether the **sender** opened the connection.
        data: what it sent.

    Raises:
        TrustRefused: NO_PROOF when there is nothing that could be one, WRONG_SECRET
            when it does not open.
        DecodeError: it opens, and is malformed inside.
    """
    key = _hello_key(secret, handshake_hash, is_initiator=is_initiator)
    if not data:
        raise TrustRefused(RefusalReason.NO_PROOF)
    if not (
        SECRETBOX_NONCE_BYTES + SECRETBOX_MAC_BYTES <= len(data) <= HELLO_BYTES_MAX
    ):
        raise TrustRefused(RefusalReason.WRONG_SECRET)
    nonce, box = data[:SECRETBOX_NONCE_BYTES], data[SECRETBOX_NONCE_BYTES:]
    try:
        body = secretbox_open_untrusted(key, nonce, box)
    except RemoteProtocolError:
        raise TrustRefused(RefusalReason.WRONG_SECRET) from None
    return decode_untrusted(body, HelloBody, HELLO_BYTES_MAX, "hello").chain


def _hello_key(secret: bytes, handshake_hash: bytes, *, is_initiator: bool) -> bytes:
    """Differs by side, so that nobody can be answered with its own hello."""
    check_length(secret, SECRET_BYTES, "a swarm secret")
    if not (
        HANDSHAKE_HASH_BYTES_MIN <= len(handshake_hash) <= HANDSHAKE_HASH_BYTES_MAX
    ):
        raise LocalProtocolError("handshake hash is not 32 to 64 bytes")
    side = b"\1" if is_initiator else b"\0"
    return blake2b_256(NS_HELLO, secret, handshake_hash, side)
