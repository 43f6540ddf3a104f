"""Which addresses are whose: local ones, private ones, and those of one LAN.

Source: npm bogon (ipinfo.io/bogon), hyperdht/lib/holepuncher.js `localAddresses` and
`matchAddress`; docs/PROTOCOL.md section 5.6.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable, Sequence
from ipaddress import AddressValueError, IPv4Address, IPv4Network

from peerchat.net.identity import Address

LOOPBACK = "127.0.0.1"
ANY_HOST = "0.0.0.0"

_PRIVATE = tuple(
    map(
        IPv4Network,
        (
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.168.0.0/16",
        ),
    )
)
_RESERVED = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/3",
        ),
    )
)

_ROUTE_PROBES = ("192.168.255.254", "10.255.255.254", "172.31.255.254", "88.99.3.86")
"""Destinations whose routes tell the local address; no packet is sent to them."""


def _is_in(host: str, networks: Iterable[IPv4Network]) -> bool:
    try:
        address = IPv4Address(host)
    except AddressValueError:
        return False
    return any(address in network for network in networks)


def is_private(host: str) -> bool:
    """Loopback, link-local, private or carrier-grade: not routed between networks."""
    return _is_in(host, _PRIVATE)


def is_reserved(host: str) -> bool:
    """Never the address of a peer anywhere: multicast, documentation, "this" net."""
    return _is_in(host, _RESERVED)


def is_bogon(host: str) -> bool:
    """Means nothing outside the network that it was seen in."""
    return is_private(host) or is_reserved(host)


def usable(addresses: Iterable[Address]) -> list[Address]:
    """Those that a datagram can be sent to; the others are somebody's mistake."""
    return [one for one in addresses if one.port and not is_reserved(one.host)]


def first_public(addresses: Iterable[Address], otherwise: Address) -> Address:
    """The first address that is routed everywhere (connect.js)."""
    return next((a for a in usable(addresses) if not is_private(a.host)), otherwise)


def match_address(own: Sequence[Address], remote: Sequence[Address]) -> Address | None:
    """The remote address that shares most leading parts with one of ours.

    Three equal parts are taken at once; none equal gives None.
    """
    best: Address | None = None
    best_length = 0
    for one in own:
        for other in remote:
            length = _common_parts(one.host, other.host)
            if length == 3:
                return other
            if length > best_length:
                best, best_length = other, length
    return best


def _common_parts(a: str, b: str) -> int:
    """How many of the first three parts of two dotted addresses are equal."""
    length = 0
    for part, other in zip(a.split(".")[:3], b.split(".")[:3], strict=False):
        if part != other:
            break
        length += 1
    return length


def local_addresses(bound: Address) -> list[Address]:
    """Where a socket bound to ``bound`` is reached from the same network.

    A socket bound to one host is reached there; one bound to all of them, at the
    addresses that routes to the private networks and the internet start from, and at
    the loopback address when there is none.
    """
    if bound.host != ANY_HOST:
        return [bound]
    hosts = dict.fromkeys(_routed_hosts())
    return [Address(host, bound.port) for host in hosts] or [
        Address(LOOPBACK, bound.port)
    ]


def _routed_hosts() -> list[str]:
    hosts: list[str] = []
    for destination in _ROUTE_PROBES:
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe,
        ):
            # Connecting a datagram socket only looks up the route.
            probe.connect((destination, 9))
            host: str = probe.getsockname()[0]
            if not is_reserved(host) and host != LOOPBACK:
                hosts.append(host)
    return hosts
