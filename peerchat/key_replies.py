"""API keys as their owner sees them, read from what a gateway answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .replies import text_of, whole_of

KEYS_MAX = 1000
"""Of one answer that are read; an account has far fewer."""

KEY_CHARS_MAX = 256


@dataclass(frozen=True, slots=True)
class ManagedKey:
    """A key of the account."""

    key_id: str
    name: str
    created_ms: int = 0
    key: str = field(default="", repr=False)
    """Only of one that was just made; nobody tells it again."""


def keys_of(reply: Mapping[str, object]) -> list[ManagedKey]:
    """What ``manageKeys`` answered; what is missing or wrong gets a harmless value."""
    listed = reply.get("keys")
    keys = listed[:KEYS_MAX] if isinstance(listed, list) else []
    return [found for item in keys if (found := _key(item))]


def _key(item: object) -> ManagedKey | None:
    if not isinstance(item, Mapping) or not (key_id := text_of(item.get("keyId"))):
        return None
    return ManagedKey(
        key_id,
        text_of(item.get("name")),
        whole_of(item.get("createdMs")) or 0,
        text_of(item.get("key"), KEY_CHARS_MAX),
    )
