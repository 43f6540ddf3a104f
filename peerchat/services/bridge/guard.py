"""Who may speak to the bridge: foreign hosts, foreign origins, trusted proxies.

A browser on this machine can be made to send requests here by any page it shows. Such
requests carry the page's ``Origin``, or after DNS rebinding a foreign ``Host``; both
are refused unless the operator allows them.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from aiohttp import web

from peerchat.settings import Settings

FORWARDED_MAX = 20
"""Entries of ``X-Forwarded-For`` that are looked at; no honest chain is longer."""

LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
WILDCARD_HOSTS = frozenset({"0.0.0.0", "::"})

CORS_HEADERS = {
    "Access-Control-Allow-Methods": "GET, POST",
    # OpenAI's package adds some of its own. The wildcard does not hold for the first.
    "Access-Control-Allow-Headers": "Authorization, *",
    "Access-Control-Expose-Headers": "Retry-After, X-Request-Id",
    "Access-Control-Max-Age": "600",
}


class Guard:
    """Decides from headers and addresses alone."""

    def __init__(self, settings: Settings) -> None:
        own = {settings.http_host.lower()} - WILDCARD_HOSTS
        self._hosts = LOCAL_HOSTS | own | set(settings.allowed_hosts)
        self._origins = frozenset(settings.allowed_origins)
        self._proxies = tuple(map(ipaddress.ip_network, settings.trusted_proxies))

    def refusal(self, request: web.Request) -> str:
        """Why the request is refused, in one line; empty when it may pass."""
        if not self._is_own_host(request):
            return (
                "This Host is not served here; name it in allowed_hosts "
                "(PEERCHAT_ALLOWED_HOSTS) to allow it."
            )
        origin = request.headers.get("Origin")
        if origin is not None and not self.allows_origin(request, origin):
            return (
                "Requests from this origin are refused; name it in allowed_origins "
                "(PEERCHAT_ALLOWED_ORIGINS) to allow it."
            )
        return ""

    def allows_origin(self, request: web.Request, origin: str) -> bool:
        """Whether a page of this origin may call: the bridge's own, or an allowed one.

        The bridge's own is known by ``Host``, which was checked before.
        """
        if "*" in self._origins or origin.lower() in self._origins:
            return True
        try:
            netloc = urlsplit(origin).netloc
        except ValueError:
            return False
        return (
            bool(netloc) and netloc.lower() == request.headers.get("Host", "").lower()
        )

    def cors_headers(self, request: web.Request) -> dict[str, str]:
        """What lets an allowed origin's page read the answer."""
        origin = request.headers.get("Origin")
        if origin is None:
            return {}
        return {**CORS_HEADERS, "Access-Control-Allow-Origin": origin, "Vary": "Origin"}

    def client_address(self, request: web.Request) -> str:
        """Where the request came from: the nearest address that is no trusted proxy."""
        address = request.remote or ""
        forwarded = ",".join(request.headers.getall("X-Forwarded-For", [])).split(",")
        for entry in reversed(forwarded[-FORWARDED_MAX:]):
            if not self._is_proxy(address) or not _is_address(entry.strip()):
                break
            address = entry.strip()
        return address

    def _is_own_host(self, request: web.Request) -> bool:
        host = request.headers.get("Host")
        if host is None or "*" in self._hosts:
            # Only HTTP/1.0 has no Host, and no browser speaks that.
            return True
        name = _host_name(host)
        return name in self._hosts or name == _local_address(request)

    def _is_proxy(self, address: str) -> bool:
        if not _is_address(address):
            return False
        found = ipaddress.ip_address(address)
        return any(found in network for network in self._proxies)


def _host_name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _local_address(request: web.Request) -> str:
    """The address that the caller connected to: no name, so nothing to rebind."""
    transport = request.transport
    name = transport.get_extra_info("sockname") if transport is not None else None
    return str(name[0]) if isinstance(name, tuple) else ""


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
