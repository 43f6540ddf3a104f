"""The names of things on the network: addresses, node ids, public keys, hashes.

Nothing here reads or writes a packet; encodings are in `peerchat.net.encoding`.
"""

from __future__ import annotations

from typing import NamedTuple, NewType

NodeId = NewType("NodeId", bytes)
"""32 bytes; a DHT node's place in the key space."""

PublicKey = NewType("PublicKey", bytes)
"""32 bytes; an Ed25519 public key, the name of a peer."""

Target = NewType("Target", bytes)
"""32 bytes; what a DHT query looks for: a topic or the hash of a public key."""

KEY_BYTES = 32
"""Length of node ids, public keys, targets, tokens and secret seeds."""


class Address(NamedTuple):
    """An IPv4 host in dotted form and a UDP port. Equal to the plain tuple."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"
