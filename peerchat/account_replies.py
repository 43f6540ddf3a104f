"""Accounts as an admin sees them, read from what a gateway answers.

Answers come from peers: what is missing or of the wrong type gets a harmless value, and
all text is made inert.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .replies import EMAIL_CHARS_MAX, text_of, whole_of

ACCOUNTS_MAX = 1000
"""Of one answer that are read; gateways give a few hundred at once."""

CODE_CHARS_MAX = 128
PASSWORD_CHARS_MAX = 256


@dataclass(frozen=True, slots=True)
class ManagedAccount:
    """An account of the swarm."""

    email: str
    role: str
    """``user`` or ``admin``."""
    status: str
    """``active``, ``pending``, ``disabled``, or ``deleted`` just now."""
    max_requests: int | None = None
    """Its own limit in a window; None: that of the gateways."""
    created_ms: int = 0


@dataclass(frozen=True, slots=True)
class ManagedAccounts:
    """What an admin's action gave."""

    accounts: tuple[ManagedAccount, ...] = ()
    has_more: bool = False
    """There are accounts after the last of these."""
    password: str = field(default="", repr=False)
    """Made for a reset without one; nobody tells it again."""
    code: str = field(default="", repr=False)
    """A new registration code; nobody tells it again."""
    expires_ms: int = 0
    """Of the code, Unix time."""


def managed_of(reply: Mapping[str, object]) -> ManagedAccounts:
    """What ``manageAccounts`` answered."""
    listed = reply.get("accounts")
    accounts = listed[:ACCOUNTS_MAX] if isinstance(listed, list) else []
    return ManagedAccounts(
        tuple(found for item in accounts if (found := _account(item))),
        has_more=reply.get("hasMore") is True,
        password=text_of(reply.get("password"), PASSWORD_CHARS_MAX),
        code=text_of(reply.get("code"), CODE_CHARS_MAX),
        expires_ms=whole_of(reply.get("expiresMs")) or 0,
    )


def _account(item: object) -> ManagedAccount | None:
    if not isinstance(item, Mapping):
        return None
    email = text_of(item.get("email"), EMAIL_CHARS_MAX)
    if not email:
        return None
    return ManagedAccount(
        email,
        text_of(item.get("role")),
        text_of(item.get("status")),
        whole_of(item.get("maxRequests")),
        whole_of(item.get("createdMs")) or 0,
    )
