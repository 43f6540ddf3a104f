"""What a node did and knows, as one frozen picture."""

from __future__ import annotations

from dataclasses import dataclass

from .health import Health


@dataclass(frozen=True, slots=True)
class CommandStatistics:
    """Internal requests sent, by command."""

    ping: int
    ping_nat: int
    find_node: int
    down_hint: int


@dataclass(frozen=True, slots=True)
class DhtStatistics:
    """Totals since the start, but for those that say otherwise."""

    nodes: int
    """In the routing table now."""
    requests_active: int
    """In flight now."""
    requests: int
    responses: int
    timeouts: int
    retries: int
    malformed: int
    """Datagrams that were not dht-rpc."""
    unmatched: int
    """Answers that belong to no request: late, or not from whom we asked."""
    queries_active: int
    """Running now."""
    queries: int
    commands: CommandStatistics
    is_ephemeral: bool
    is_firewalled: bool
    health: Health
