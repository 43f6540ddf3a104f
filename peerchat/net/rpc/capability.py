"""The secret that both ends of an RPC connection prove to know, if there is one."""

from __future__ import annotations

from collections.abc import Callable

Capability = bytes | Callable[[], bytes] | None
"""The secret, or what gives the one to use for the next connection: it may change
while a server listens."""


def capability_now(capability: Capability) -> bytes | None:
    """The secret for a connection that begins now."""
    return capability() if callable(capability) else capability
