"""HyperDHT over dht-rpc and UDX: announce, lookup, find peer, connect, serve."""

from .constants import DEFAULT_PORT, PUBLIC_BOOTSTRAP
from .messages import NoisePayload, PeerRecord
from .mutable import RECORD_VALUE_BYTES_MAX, MutableRecord
from .node import HyperDHT
from .server import Server
from .statistics import HyperDhtStatistics
from .storage import MutablePutResult
from .topic import hash_topic

__all__ = [
    "DEFAULT_PORT",
    "PUBLIC_BOOTSTRAP",
    "RECORD_VALUE_BYTES_MAX",
    "HyperDHT",
    "HyperDhtStatistics",
    "MutablePutResult",
    "MutableRecord",
    "NoisePayload",
    "PeerRecord",
    "Server",
    "hash_topic",
]
