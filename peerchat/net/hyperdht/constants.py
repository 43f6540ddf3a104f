"""Numbers and limits of the HyperDHT layer that more than one file needs.

Source: hyperdht/lib/constants.js; docs/PROTOCOL.md section 5.1.
"""

from __future__ import annotations

from enum import IntEnum


class Command(IntEnum):
    """Commands beside those of dht-rpc itself; sent without the internal flag."""

    PEER_HANDSHAKE = 0
    PEER_HOLEPUNCH = 1
    FIND_PEER = 2
    LOOKUP = 3
    ANNOUNCE = 4
    UNANNOUNCE = 5
    MUTABLE_PUT = 6
    MUTABLE_GET = 7
    IMMUTABLE_PUT = 8
    IMMUTABLE_GET = 9


class PutError(IntEnum):
    """Why a node does not store a mutable record; codes of dht-rpc responses."""

    SEQ_REUSED = 16
    SEQ_TOO_LOW = 17


class Mode(IntEnum):
    """Where a routed handshake or holepunch message is on its way."""

    FROM_CLIENT = 0
    FROM_SERVER = 1
    FROM_RELAY = 2
    FROM_SECOND_RELAY = 3
    REPLY = 4


class Firewall(IntEnum):
    """What a peer knows of the NAT before it."""

    UNKNOWN = 0
    OPEN = 1
    CONSISTENT = 2
    RANDOM = 3


class HandshakeError(IntEnum):
    """Why a server declines; sent inside the encrypted answer."""

    NONE = 0
    ABORTED = 1
    VERSION_MISMATCH = 2
    TRY_LATER = 3


DEFAULT_PORT = 49737
"""hyperdht's first choice of a server port."""

PUBLIC_BOOTSTRAP = (
    "88.99.3.86@node1.hyperdht.org:49737",
    "142.93.90.113@node2.hyperdht.org:49737",
    "138.68.147.8@node3.hyperdht.org:49737",
)
"""The public network's own nodes; used only when somebody asks for them."""

K_ANNOUNCE = 3
"""How many of the closest nodes keep a server findable (announcer.js pickBest)."""

RELAY_ADDRESSES_MAX = 3
"""Relay addresses that a DHT node keeps of one record, as the reference does."""

PEERS_MAX = 20
"""Records in one lookup reply: 20 of the longest fill about 1 kB of a datagram."""

NOISE_BYTES_MAX = 1400
"""Largest Noise message that still fits an unfragmented datagram with its framing."""
