"""Password hashes that cost next to nothing; for tests of everything but their cost."""

from __future__ import annotations

from peerchat.services.passwords import PasswordHasher

FAST_COST = 4
"""The least that bcrypt knows: a millisecond."""


class FastHasher(PasswordHasher):
    """A hasher below the least cost that peerchat allows."""

    def __init__(self) -> None:
        super().__init__()
        self._cost = self._level = FAST_COST


def fast_hasher() -> PasswordHasher:
    """Make one; `close` it."""
    return FastHasher()
