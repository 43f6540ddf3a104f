"""Which addresses of others are worth a packet, and how bootstrap ones are written.

Pure. Source: docs/PROTOCOL.md section 4; ``dht-rpc/index.js`` parseNode.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address

from peerchat.net.identity import Address


def is_ipv4(host: str) -> bool:
    """Whether the text is an IPv4 address in dotted form."""
    try:
        IPv4Address(host)
    except AddressValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    return host.startswith("127.")


def is_worth_asking(address: Address, heard_from: Address) -> bool:
    """Whether a node that ``heard_from`` names can be one.

    Keeps others from having us send to port 0, to "this network", to groups and
    broadcasts, or from outside to services on our own loopback.
    """
    first = int(address.host.partition(".")[0])
    if address.port == 0 or first == 0 or first >= 224:
        return False
    return not is_loopback(address.host) or is_loopback(heard_from.host)


@dataclass(frozen=True, slots=True)
class BootstrapNode:
    """Where to join: a host name or address, with a suggested IP to try first."""

    host: str
    port: int
    suggested_ip: str | None = None

    def __str__(self) -> str:
        suggested = f"{self.suggested_ip}@" if self.suggested_ip else ""
        return f"{suggested}{self.host}:{self.port}"


def parse_bootstrap(node: str | tuple[str, int]) -> BootstrapNode:
    """Read ``[ip@]host:port``.

    Raises:
        ValueError: the text is something else; says what is expected.
    """
    if not isinstance(node, str):
        return BootstrapNode(*node)
    head, _, port_text = node.rpartition(":")
    suggested, _, host = head.rpartition("@")
    is_port = port_text.isascii() and port_text.isdigit()
    if not host or not is_port or not 0 < int(port_text) < 65536:
        raise ValueError(f"a bootstrap node is written [ip@]host:port, not {node!r}")
    if suggested and not is_ipv4(suggested):
        raise ValueError(f"not an IPv4 address before the @ in {node!r}")
    return BootstrapNode(host, int(port_text), suggested or None)
