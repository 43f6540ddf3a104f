"""With whose token a request goes on: the caller's own, or this home's.

The second only on the Ollama port, whose clients know no login, only from this very
machine, and only while the port is bound to loopback: whoever could call there is a
user of this machine anyway.
"""

from __future__ import annotations

import ipaddress
from typing import Protocol

from aiohttp import web

from peerchat.api import ApiError, ErrorCode
from peerchat.gateways import TOKEN_CHARS_MAX

KEY_PREFIX = "pk_"
"""Of API keys."""

_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Real-IP", "Via")
"""A proxy speaks for somebody who may be anywhere."""


class Account(Protocol):
    """The account of this home."""

    async def token(self) -> str:
        """A session token; raises `ApiError` (401) when nobody is logged in."""


class Callers:
    """Decides from headers and addresses.

    Args:
        own: for callers without a token; None: they are refused.
    """

    def __init__(self, own: Account | None = None) -> None:
        self._own = own

    async def token(self, request: web.Request) -> str:
        """The token to go on with; raises `ApiError` (401) when there is none."""
        given = _given(request)
        if self._own is None or _is_token(given) or not _is_from_here(request):
            return bearer(request)
        return await self._own.token()


def bearer(request: web.Request) -> str:
    """The caller's own token; raises `ApiError` with 401 when there is none."""
    token = _given(request)
    if not token:
        raise ApiError(
            ErrorCode.UNAUTHORIZED,
            "Unauthorized: send the header Authorization: Bearer TOKEN; POST /login "
            "gives a token.",
            status=401,
        )
    return token


def _given(request: web.Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    token = token.strip()
    is_usable = token.isascii() and 0 < len(token) <= TOKEN_CHARS_MAX
    return token if scheme.lower() == "bearer" and is_usable else ""


def _is_token(text: str) -> bool:
    """Whether it could be one of ours: clients of a plain Ollama send any word."""
    return text.count(".") == 2 or text.startswith(KEY_PREFIX)


def _is_from_here(request: web.Request) -> bool:
    if any(name in request.headers for name in _FORWARDED):
        return False
    return is_loopback(request.remote or "")


def is_loopback(host: str) -> bool:
    """Whether an address, or the name localhost, is this machine's own."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
