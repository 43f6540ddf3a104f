"""Password hashes: bcrypt in threads, at one price for every answer.

bcrypt takes a quarter of a second of a core on purpose, so it runs in threads of its
own, few at a time, with a bounded queue. Whatever is checked costs the same: a user who
does not exist is checked against a hash of nobody's, and a hash of an older, lower cost
is topped up.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import secrets
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import bcrypt

from peerchat.api import ApiError, ErrorCode
from peerchat.options import BCRYPT_COST_MAX, BCRYPT_COST_MIN
from peerchat.settings import BCRYPT_COST

from .messages import invalid

logger = logging.getLogger(__name__)

T = TypeVar("T")

BCRYPT_BYTES_MAX = 72
"""bcrypt reads no more of a password."""

HASH_CHARS = 31
"""What follows the salt."""

PASSWORD_CHARS_MIN = 8

HASHES_AT_ONCE = 2
"""Threads that hash: a small machine keeps a core for everything else."""

HASHES_WAITING_MAX = 64
"""About ten seconds of hashing; whoever comes later hears at once that it is busy."""


class PasswordHasher:
    """bcrypt in threads.

    Args:
        cost: 2^cost rounds; one below `BCRYPT_COST_MIN` is raised to it.
    """

    def __init__(self, cost: int = BCRYPT_COST) -> None:
        self._cost = min(max(cost, BCRYPT_COST_MIN), BCRYPT_COST_MAX)
        self._level = self._cost
        self._waiting = 0
        self._threads = ThreadPoolExecutor(HASHES_AT_ONCE, "bcrypt")

    async def hash(self, password: str) -> str:
        """The hash to keep, with its salt."""
        return await self._run(lambda: self._hash(password))

    async def check(self, password: str, hashed: str | None) -> bool:
        """Whether the password is right; None takes as long and is never right."""
        return await self._run(lambda: self._check(password, hashed))

    def is_outdated(self, hashed: str) -> bool:
        """Whether the hash is cheaper to guess than those made now."""
        return cost_of(hashed) < self._cost

    def expect(self, cost: int) -> None:
        """Some account's hash has this cost: every check takes as long from now on."""
        level = min(max(self._level, cost), BCRYPT_COST_MAX)
        if level != self._level:
            self._level = level

    def close(self) -> None:
        """End the threads; what runs is finished, what waits is dropped."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[[], T]) -> T:
        if self._waiting >= HASHES_WAITING_MAX:
            raise ApiError(
                ErrorCode.BUSY,
                "Too many logins at once; try again in a few seconds.",
                status=503,
                retry_after_s=5,
            )
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._waiting -= 1

    def _hash(self, password: str) -> str:
        return bcrypt.hashpw(_bytes(password), bcrypt.gensalt(self._cost)).decode()

    def _check(self, password: str, hashed: str | None) -> bool:
        data = _bytes(password)
        if hashed is not None and (cost := cost_of(hashed)):
            is_right = bcrypt.checkpw(data, hashed.encode())
            # 2^c + 2^c + 2^(c+1) + … + 2^(level-1) is 2^level: as much as any other.
            for step in range(cost, self._level):
                bcrypt.hashpw(data, bcrypt.gensalt(step))
            return is_right
        if hashed:
            logger.error("an account's password hash is damaged; it cannot log in")
        bcrypt.checkpw(data, _nobody(self._level))
        return False


def _nobody(cost: int) -> bytes:
    """The hash of no password that anybody knows: a salt, and 184 bits of chance.

    To check against it costs as much as any; to make it costs nothing.
    """
    hashed = base64.b64encode(secrets.token_bytes(24), b"./")[:HASH_CHARS]
    return bcrypt.gensalt(cost) + hashed


def cost_of(hashed: str) -> int:
    """The cost of a bcrypt hash; 0 when it is none."""
    parts = hashed.split("$")
    if len(parts) != 4 or parts[1] not in ("2a", "2b", "2y") or len(parts[3]) != 53:
        return 0
    is_cost = len(parts[2]) == 2 and parts[2].isascii() and parts[2].isdigit()
    return int(parts[2]) if is_cost and 4 <= int(parts[2]) <= 31 else 0


def check_new_password(password: str) -> None:
    """Refuse one that is too short; raises `ApiError` (400)."""
    if len(password) < PASSWORD_CHARS_MIN:
        raise invalid(f"Password must be at least {PASSWORD_CHARS_MIN} characters")


def _bytes(password: str) -> bytes:
    """What bcrypt sees: one form for all keyboards, and no more than it can read."""
    data = unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")
    if len(data) > BCRYPT_BYTES_MAX or b"\0" in data:
        return base64.b64encode(hashlib.sha256(data).digest())
    return data
