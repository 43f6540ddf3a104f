"""HyperDHT over dht-rpc and UDX: announce, lookup, find peer, connect, serve."""

from .constants import DEFAULT_PORT, PUBLIC_BOOTSTRAP
from .messages import NoisePayload, PeerRecord
from .node import HyperDHT
from .server import Server
from .statistics import HyperDhtStatistics
from .topic import hash_topic

__all__ = [
    "DEFAULT_PORT",
    "PUBLIC_BOOTSTRAP",
    "HyperDHT",
    "HyperDhtStatistics",
    "NoisePayload",
    "PeerRecord",
    "Server",
    "hash_topic",
]
