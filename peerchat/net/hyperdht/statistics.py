"""What a HyperDHT did and holds, as one frozen picture."""

from __future__ import annotations

from dataclasses import dataclass

from peerchat.net.dht.statistics import DhtStatistics
from peerchat.net.driver.endpoint import UdxTotals


@dataclass(frozen=True, slots=True)
class HyperDhtStatistics:
    """Totals since the start, but for those that say otherwise."""

    dht: DhtStatistics
    udx: UdxTotals
    streams: int
    """UDX streams now, those that linger included."""
    servers: int
    """Listening now."""
    connects: int
    """Connections that were asked for."""
    connects_failed: int
    handshakes: int
    """Noise messages that servers of this node answered."""
    handshakes_limited: int
    """Those not even read, for their rate."""
    handshakes_refused: int
    """By the firewall of a server, or for what they asked."""
    accepted: int
    """Connections that servers handed over."""
    relayed: int
    """Messages passed on for others."""
    returned: int
    """Answers passed back for others."""
    records: int
    """Announcements of others kept now."""
    values: int
    """Mutable and immutable records kept now."""
    forwards: int
    """Servers that this node is a relay of now."""
    lookups: int
    """Requests of others for topics."""
    announces: int
    """Announcements of others that were stored or renewed."""
