"""Names of topics in the DHT's key space."""

from __future__ import annotations

from peerchat.net.crypto.primitives import hash_target
from peerchat.net.identity import Target


def hash_topic(name: str | bytes) -> Target:
    """Where announcements under ``name`` are kept (npm hyperdht: ``DHT.hash``)."""
    return hash_target(name.encode() if isinstance(name, str) else name)
