"""Accounts: who they are, whether a password is right, which of their sessions live.

What a stranger hears tells nothing of who has an account: an unknown user, a disabled
one, one that waits for approval and a wrong password get the same answer after the same
work. Only the right password brings the difference out.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from peerchat.api import ApiError, ErrorCode

from .account_table import (
    AccountRecord,
    AccountRole,
    Status,
    change,
    create,
    find,
    forget_deleted,
    has_admin,
    highest_cost_prefix,
    rehash,
)
from .emails import LOCAL_EMAIL, known_email, normal_email
from .lockout import Lockout
from .messages import (
    CREDENTIALS_MESSAGE,
    EXISTS_MESSAGE,
    Credentials,
    check_credentials,
    invalid,
)
from .passwords import PasswordHasher, check_new_password
from .registration import Registration, check_code, refused, use_code
from .store import Store, exclusive

__all__ = ["LOCAL_EMAIL", "AccountRecord", "Accounts", "PasswordHasher", "Source"]

logger = logging.getLogger(__name__)

LOCK = "accounts"
"""Held while it matters that there is one such account, or one admin."""

CLIENT_FAILURES_FREE = 20
"""Wrong passwords of one client, as its gateway tells, before it is slowed down."""

PEER_FAILURES_FREE = 200
"""For a peer that does not tell: it may have many users, which it counts by itself, so
this stops only one that guesses in earnest."""

REGISTRATIONS_FREE = 100
"""Accounts that one source, perhaps a bridge with a whole class behind it, asks for
without a delay; each costs a hash."""

SESSION_ENDED = "The session has ended: log in again"


@dataclass(frozen=True, slots=True)
class Source:
    """From where a password comes."""

    peer: str
    """Public key of the asking peer, hex."""
    client: str = ""
    """Whom a gateway that is trusted asks for; empty: nobody else."""

    def __str__(self) -> str:
        return f"{self.peer}/{self.client}"


class Accounts:
    """Registers and checks users.

    Args:
        store: where they are.
        hasher: checks passwords.
        registration: who may make an account.
        makes_admin: whoever registers while there is no admin becomes it.
    """

    def __init__(
        self,
        store: Store,
        hasher: PasswordHasher,
        *,
        registration: str = Registration.OPEN,
        makes_admin: bool = False,
        by_account: Lockout | None = None,
        by_peer: Lockout | None = None,
    ) -> None:
        self.store = store
        self.hasher = hasher
        self._registration = Registration(registration)
        self._makes_admin = makes_admin
        self._by_account = Lockout() if by_account is None else by_account
        self._by_client = Lockout(CLIENT_FAILURES_FREE)
        self._by_peer = Lockout(PEER_FAILURES_FREE) if by_peer is None else by_peer
        self._registrations = Lockout(REGISTRATIONS_FREE)

    async def prepare(self) -> None:
        """Learn what the dearest hash costs, so that every check costs as much."""
        prefix = await self.store.run(highest_cost_prefix)
        cost = prefix[4:6]
        self.hasher.expect(int(cost) if cost.isascii() and cost.isdigit() else 0)

    # Passwords

    async def register(
        self, credentials: Credentials, source: Source | None = None, code: str = ""
    ) -> AccountRecord:
        """Make an account.

        Raises:
            ApiError: 400 with the reason, 403 when a code is missing or wrong, 409 when
                the account exists, 429, STORE_FAILED.
        """
        check_credentials(credentials)
        email = normal_email(credentials.email)
        if email == LOCAL_EMAIL:
            raise invalid(f"{LOCAL_EMAIL} is reserved; choose another address")
        check_new_password(credentials.password)
        self._registrations.begin(str(source))
        # Whoever has no code learns nothing, and costs no hash.
        await self.store.run(lambda c: self._check_may_register(c, email, code))
        hashed = await self.hasher.hash(credentials.password)
        return await self.store.run(lambda c: self._create(c, email, hashed, code))

    async def login(self, credentials: Credentials, source: Source) -> AccountRecord:
        """Check a password.

        Raises:
            ApiError: 400, 401, 403 for a right password of an account that may not be
                used, 429 while locked out, STORE_FAILED.
        """
        check_credentials(credentials)
        email = known_email(credentials.email)
        record = await self._checked(email, credentials.password, source)
        if record.status == Status.PENDING:
            raise refused("The account waits for an admin's approval; try again later.")
        if record.status != Status.ACTIVE:
            raise refused("The account is disabled; ask an admin of the swarm.")
        if self.hasher.is_outdated(record.password_hash):
            await self._rehash(record, credentials.password)
        return record

    async def change_password(
        self, record: AccountRecord, old: str, new: str, source: Source
    ) -> AccountRecord:
        """Set a new password, and end every session from before.

        Raises:
            ApiError: 400, 401 for a wrong old password, 409, 429, STORE_FAILED.
        """
        check_credentials(Credentials(record.email, old))
        check_credentials(Credentials(record.email, new))
        check_new_password(new)
        if new == old:
            raise invalid("The new password is the old one; choose another")
        known = await self._checked(record.email, old, source)
        hashed = await self.hasher.hash(new)

        async def work(connection: AsyncConnection) -> AccountRecord | None:
            return await change(
                connection,
                known.email,
                {"password_hash": hashed},
                ends_sessions=True,
                password_was=known.password_hash,
            )

        changed = await self.store.run(work)
        if changed is None:
            raise ApiError(
                ErrorCode.CONFLICT,
                "The password was changed meanwhile; log in with the newest one.",
                status=409,
            )
        return changed

    def forgive(self, email: str) -> None:
        """Forget an account's wrong passwords: an admin set a new one."""
        self._by_account.succeed(email)

    # Sessions

    async def session(self, email: str, epoch: int) -> AccountRecord:
        """The account of a valid token, as it is now.

        Raises:
            ApiError: 401 when the session has ended, STORE_FAILED.
        """
        record = await self.store.run(lambda c: find(c, email))
        is_live = record is not None and record.status == Status.ACTIVE
        if record is None or not is_live or epoch < record.epoch:
            raise ApiError(ErrorCode.UNAUTHORIZED, SESSION_ENDED, status=401)
        return record

    async def logout_everywhere(self, email: str) -> AccountRecord | None:
        """End every session of the account; gives it as it is then."""
        return await self.store.run(lambda c: change(c, email, {}, ends_sessions=True))

    # Parts

    async def _checked(
        self, email: str, password: str, source: Source
    ) -> AccountRecord:
        """The account whose password it is, whatever its status."""
        by_source = self._by_client if source.client else self._by_peer
        by_source.begin(str(source))
        try:
            self._by_account.begin(email)
        except ApiError:
            by_source.forgive(str(source))
            raise
        try:
            record = await self.store.run(lambda c: find(c, email))
            hashed = record.password_hash if record else None
            is_right = await self.hasher.check(password, hashed)
        except BaseException:
            self._by_account.forgive(email)
            by_source.forgive(str(source))
            raise
        if record is None or not is_right:
            raise ApiError(ErrorCode.UNAUTHORIZED, CREDENTIALS_MESSAGE, status=401)
        self._by_account.succeed(email)
        by_source.forgive(str(source))
        return record

    async def _check_may_register(
        self, connection: AsyncConnection, email: str, code: str
    ) -> None:
        is_first = self._makes_admin and not await has_admin(connection)
        if self._registration is Registration.INVITE and not is_first:
            await check_code(connection, code)
        if await find(connection, email) is not None:
            raise _exists()

    async def _create(
        self, connection: AsyncConnection, email: str, hashed: str, code: str
    ) -> AccountRecord:
        await exclusive(connection, LOCK)
        if await find(connection, email) is not None:
            raise _exists()
        await forget_deleted(connection)
        if self._makes_admin and not await has_admin(connection):
            logger.info("the first account of this swarm becomes its admin")
            admin, active = AccountRole.ADMIN, Status.ACTIVE
            return await create(connection, email, hashed, admin, active)
        status = Status.ACTIVE
        if self._registration is Registration.INVITE:
            await use_code(connection, code, email)
        elif self._registration is Registration.APPROVAL:
            status = Status.PENDING
        return await create(connection, email, hashed, AccountRole.USER, status)

    async def _rehash(self, record: AccountRecord, password: str) -> None:
        hashed = await self.hasher.hash(password)
        email, was = record.email, record.password_hash
        await self.store.run(lambda c: rehash(c, email, was, hashed))


def _exists() -> ApiError:
    return ApiError(ErrorCode.CONFLICT, EXISTS_MESSAGE, status=409)
