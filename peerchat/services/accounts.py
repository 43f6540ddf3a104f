"""Accounts: e-mail addresses and password hashes.

bcrypt takes a quarter of a second of a core on purpose, so it runs in threads of its
own, few at a time, with a bounded queue. An unknown user costs the same hash and gets
the same answer as a wrong password.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import secrets
import time
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import bcrypt
from email_validator import EmailNotValidError, validate_email
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from peerchat.api import ApiError, ErrorCode

from .lockout import Lockout
from .messages import (
    CREDENTIALS_MESSAGE,
    EXISTS_MESSAGE,
    Credentials,
    check_credentials,
    invalid,
)
from .store import Store, accounts

logger = logging.getLogger(__name__)

T = TypeVar("T")

BCRYPT_COST = 12
BCRYPT_BYTES_MAX = 72
"""bcrypt reads no more of a password."""

PASSWORD_CHARS_MIN = 8

HASHES_AT_ONCE = 2
"""Threads that hash: a small machine keeps a core for everything else."""

HASHES_WAITING_MAX = 64
"""About ten seconds of hashing; whoever comes later hears at once that it is busy."""

LOCAL_EMAIL = "local@localhost"
"""The account made without asking; it has no password and cannot be registered."""

PEER_FAILURES_FREE = 200
"""The peer that asks is a gateway with many users, which counts them by itself; this
stops only one that guesses in earnest."""


class PasswordHasher:
    """bcrypt in threads.

    Args:
        cost: 2^cost rounds.
    """

    def __init__(self, cost: int = BCRYPT_COST) -> None:
        self._cost = cost
        self._waiting = 0
        self._threads = ThreadPoolExecutor(HASHES_AT_ONCE, "bcrypt")
        self._nobody: str | None = None

    async def hash(self, password: str) -> str:
        """The hash to keep, with its salt."""
        return await self._run(lambda: self._hash(password))

    async def check(self, password: str, hashed: str | None) -> bool:
        """Whether the password is right; None takes as long and is never right."""
        return await self._run(lambda: self._check(password, hashed))

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
        if hashed is None:
            self._nobody = self._nobody or self._hash(secrets.token_hex())
            bcrypt.checkpw(_bytes(password), self._nobody.encode())
            return False
        try:
            return bcrypt.checkpw(_bytes(password), hashed.encode())
        except ValueError:
            logger.error("an account's password hash is damaged; it cannot log in")
            return False

    def warm_up(self) -> None:
        """Make the hash that unknown users are checked against, ahead of the first."""
        self._threads.submit(self._check, "", None)


@dataclass(frozen=True, slots=True)
class AccountRecord:
    """An account as it is kept, without its password."""

    email: str
    role: str


class Accounts:
    """Registers and checks users."""

    def __init__(
        self,
        store: Store,
        hasher: PasswordHasher,
        *,
        by_account: Lockout | None = None,
        by_peer: Lockout | None = None,
    ) -> None:
        self._store = store
        self._hasher = hasher
        self._by_account = by_account or Lockout()
        self._by_peer = by_peer or Lockout(PEER_FAILURES_FREE)

    async def register(self, credentials: Credentials) -> AccountRecord:
        """Make an account.

        Raises:
            ApiError: 400 with the reason, 409 when it exists, STORE_FAILED.
        """
        check_credentials(credentials)
        email = normal_email(credentials.email)
        if email == LOCAL_EMAIL:
            raise invalid(f"{LOCAL_EMAIL} is reserved; choose another address")
        if len(credentials.password) < PASSWORD_CHARS_MIN:
            raise invalid(f"Password must be at least {PASSWORD_CHARS_MIN} characters")
        if await self._find(email) is not None:
            raise _exists()
        record = AccountRecord(email, "user")
        await self._insert(record, await self._hasher.hash(credentials.password))
        return record

    async def login(self, credentials: Credentials, peer: str) -> AccountRecord:
        """Check a password.

        Args:
            peer: public key of the asking peer, to slow down whoever guesses.

        Raises:
            ApiError: 400, 401, 429 while locked out, STORE_FAILED.
        """
        check_credentials(credentials)
        try:
            email = normal_email(credentials.email)
        except ApiError:
            email = credentials.email.strip().lower()
        self._by_peer.begin(peer)
        self._by_account.begin(email)
        try:
            found = await self._find(email)
            hashed = found[1] if found else None
            is_right = await self._hasher.check(credentials.password, hashed)
        except BaseException:
            self._by_account.forgive(email)
            self._by_peer.forgive(peer)
            raise
        if found is None or not is_right:
            raise ApiError(ErrorCode.UNAUTHORIZED, CREDENTIALS_MESSAGE, status=401)
        self._by_account.succeed(email)
        self._by_peer.forgive(peer)
        return found[0]

    async def _find(self, email: str) -> tuple[AccountRecord, str] | None:
        async def work(connection: AsyncConnection) -> tuple[AccountRecord, str] | None:
            columns = (accounts.c.role, accounts.c.password_hash)
            query = select(*columns).where(accounts.c.email == email)
            row = (await connection.execute(query)).first()
            return None if row is None else (AccountRecord(email, row[0]), row[1])

        return await self._store.run(work)

    async def _insert(self, record: AccountRecord, hashed: str) -> None:
        async def work(connection: AsyncConnection) -> None:
            row = {
                "email": record.email,
                "password_hash": hashed,
                "role": record.role,
                "created_ms": int(time.time() * 1000),
            }
            try:
                await connection.execute(insert(accounts).values(row))
            except IntegrityError:
                raise _exists() from None

        await self._store.run(work)


def normal_email(email: str) -> str:
    """An address in the one form that accounts are kept under.

    Raises:
        ApiError: 400 with what is wrong with it.
    """
    try:
        # Names that only a private network knows are fine: so are its users.
        parsed = validate_email(
            email.strip(), check_deliverability=False, globally_deliverable=False
        )
    except EmailNotValidError as error:
        raise invalid(f"Invalid email: {error}") from None
    return parsed.normalized.lower()


def _bytes(password: str) -> bytes:
    """What bcrypt sees: one form for all keyboards, and no more than it can read."""
    data = unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")
    if len(data) > BCRYPT_BYTES_MAX or b"\0" in data:
        return base64.b64encode(hashlib.sha256(data).digest())
    return data


def _exists() -> ApiError:
    return ApiError(ErrorCode.CONFLICT, EXISTS_MESSAGE, status=409)
