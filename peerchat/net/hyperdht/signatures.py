"""Signatures that say whose an announcement is.

They cover the storing node's id and token, so that one node cannot replay to another
what it was given. Source: hyperdht/lib/persistent.js `annSignable`;
docs/PROTOCOL.md section 5.3.
"""

from __future__ import annotations

from peerchat.net.crypto.primitives import (
    DHT_NAMESPACES,
    DhtCommand,
    KeyPair,
    blake2b_256,
    sign,
    verify,
)
from peerchat.net.identity import NodeId, Target

from .messages import Announce, PeerRecord

_COMMANDS = {False: DhtCommand.ANNOUNCE, True: DhtCommand.UNANNOUNCE}


def _signable(
    target: bytes, token: bytes, node: bytes, announce: Announce, *, is_removal: bool
) -> bytes:
    peer = announce.peer.encode() if announce.peer else b""
    digest = blake2b_256(target, node, token, peer, announce.refresh or b"")
    return DHT_NAMESPACES[_COMMANDS[is_removal]] + digest


def signed_announce(
    target: Target,
    token: bytes,
    node: NodeId,
    key_pair: KeyPair,
    announce: Announce,
    *,
    is_removal: bool = False,
) -> Announce:
    """``announce`` with its signature for one node and one token of that node.

    Args:
        target: under what it is stored.
        token: from a recent reply of the node.
        node: the node's id.
        key_pair: of the public key in the announced record.
        announce: what to sign; its own signature is replaced.
        is_removal: sign for UNANNOUNCE.
    """
    signable = _signable(target, token, node, announce, is_removal=is_removal)
    return Announce(
        announce.peer, announce.refresh, sign(signable, key_pair), announce.bump
    )


def is_signed(
    target: Target,
    token: bytes,
    node: NodeId,
    announce: Announce,
    *,
    is_removal: bool = False,
) -> bool:
    """Whether the announced key itself signed this, for this node and token."""
    peer: PeerRecord | None = announce.peer
    if peer is None or announce.signature is None:
        return False
    signable = _signable(target, token, node, announce, is_removal=is_removal)
    return verify(signable, announce.signature, peer.public_key)
