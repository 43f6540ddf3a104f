"""HyperDHT over dht-rpc and UDX: announce, lookup, find peer, connect, serve."""

from .messages import NoisePayload, PeerRecord
from .node import HyperDHT
from .server import Server
from .statistics import HyperDhtStatistics

__all__ = ["HyperDHT", "HyperDhtStatistics", "NoisePayload", "PeerRecord", "Server"]
