"""What an admin's store remembers of a swarm: invites, who used them, certificates.

Each check and what follows from it are one transaction, in SQLite and in PostgreSQL. A
code is kept as a hash only: whoever reads the store cannot join with it.
"""

from __future__ import annotations

import json
import secrets as chance
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, and_, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from peerchat.api import ApiError, ErrorCode
from peerchat.net.identity import PublicKey

from .store import (
    Store,
    exclusive,
    swarm_certificates,
    swarm_invites,
    swarm_redemptions,
)
from .swarm_entries import (
    ID_BYTES,
    CertificateEntry,
    InviteEntry,
    InviteRefused,
    certificate_of,
    invite_id_of,
    invite_of,
    newest_of_each,
    only,
)

INVITES_OPEN_MAX = 1000
"""Of one swarm; more are a script that went wrong."""


class SwarmRegister:
    """Invites and certificates of one swarm in a store.

    Args:
        store: open; of an admin's home.
        root: the swarm.
        now_s: Unix time.
    """

    def __init__(
        self, store: Store, root: PublicKey, *, now_s: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._swarm = root.hex()
        self._now_s = now_s

    # Invites

    async def invite(
        self, *, name: str, roles: Iterable[str], uses: int, expires_s: float
    ) -> tuple[bytes, InviteEntry]:
        """Make an invite; gives the code, which nothing keeps.

        Raises:
            ApiError: there are too many open ones.
        """
        code = chance.token_bytes(ID_BYTES)
        now_ms = self._now_ms()
        entry = InviteEntry(
            invite_id=invite_id_of(code),
            name=name,
            roles=tuple(sorted(set(roles))),
            uses_max=uses,
            uses=0,
            expires_ms=now_ms + int(expires_s * 1000),
        )

        async def work(connection: AsyncConnection) -> None:
            found = (await connection.execute(self._invites())).mappings()
            if sum(invite_of(row).state(now_ms) == "open" for row in found) >= (
                INVITES_OPEN_MAX
            ):
                raise ApiError(
                    ErrorCode.CONFLICT,
                    f"There are {INVITES_OPEN_MAX} open invites: withdraw some with "
                    "peerchat swarm uninvite ID.",
                    status=409,
                )
            row = {
                "id": entry.invite_id,
                "swarm": self._swarm,
                "name": name,
                "roles": " ".join(entry.roles),
                "uses_max": uses,
                "uses": 0,
                "created_ms": now_ms,
                "expires_ms": entry.expires_ms,
            }
            await connection.execute(insert(swarm_invites).values(row))

        await self._store.run(work)
        return code, entry

    async def invites(self) -> Sequence[InviteEntry]:
        """All of them, the newest first."""

        async def work(connection: AsyncConnection) -> Sequence[InviteEntry]:
            query = self._invites().order_by(swarm_invites.c.created_ms.desc())
            return [
                invite_of(row) for row in (await connection.execute(query)).mappings()
            ]

        return await self._store.run(work)

    async def withdraw(self, prefix: str) -> InviteEntry:
        """Close an invite; its id may be shortened.

        Raises:
            ApiError: INVALID_REQUEST: no invite is meant, or several.
        """
        now_ms = self._now_ms()

        async def work(connection: AsyncConnection) -> InviteEntry:
            rows = (await connection.execute(self._invites())).mappings()
            found = [invite_of(row) for row in rows]
            entry = only(found, prefix, lambda one: [one.invite_id], "invite")
            query = update(swarm_invites).where(self._is_invite(entry.invite_id))
            await connection.execute(query.values(withdrawn_ms=now_ms))
            return entry

        return await self._store.run(work)

    async def redeem(
        self,
        code: bytes,
        peer: PublicKey,
        issue: Callable[[InviteEntry], CertificateEntry],
    ) -> CertificateEntry:
        """Use an invite once, for this peer, in one transaction.

        A peer that redeemed it before gets its newest certificate: the answer may
        have been lost.

        Args:
            code: of the invite.
            peer: whose keys are proven.
            issue: signs; called when the invite is good.

        Raises:
            InviteRefused: with the reason.
        """
        invite_id = invite_id_of(code)
        now_ms = self._now_ms()

        async def work(connection: AsyncConnection) -> CertificateEntry:
            await exclusive(connection, f"swarm invite {invite_id}")
            query = self._invites().where(swarm_invites.c.id == invite_id)
            row = (await connection.execute(query)).mappings().first()
            if row is None:
                raise InviteRefused("unknown")
            invite = invite_of(row)
            if await self._has_redeemed(connection, invite_id, peer):
                return await self._newest(connection, peer)
            if (state := invite.state(now_ms)) != "open":
                raise InviteRefused(state)
            entry = issue(invite)
            used = update(swarm_invites).where(self._is_invite(invite_id))
            await connection.execute(used.values(uses=invite.uses + 1))
            redemption = {
                "invite_id": invite_id,
                "peer": peer.hex(),
                "serial": entry.serial.hex(),
                "at_ms": now_ms,
            }
            await connection.execute(insert(swarm_redemptions).values(redemption))
            await self._add(connection, entry)
            return entry

        return await self._store.run(work)

    # Certificates

    async def add(self, entries: Iterable[CertificateEntry]) -> None:
        """Remember certificates; those known already stay as they are."""
        wanted = list(entries)

        async def work(connection: AsyncConnection) -> None:
            for entry in wanted:
                known = select(swarm_certificates.c.serial).where(
                    swarm_certificates.c.serial == entry.serial.hex()
                )
                if await connection.scalar(known) is None:
                    await self._add(connection, entry)

        await self._store.run(work)

    async def certificates(self) -> Sequence[CertificateEntry]:
        """All that were issued here, the newest first."""

        async def work(connection: AsyncConnection) -> Sequence[CertificateEntry]:
            return await self._certificates(connection)

        return await self._store.run(work)

    async def newest(self, peer: PublicKey) -> CertificateEntry | None:
        """A peer's newest certificate; None when it has none that is not revoked."""

        async def work(connection: AsyncConnection) -> CertificateEntry | None:
            try:
                return await self._newest(connection, peer)
            except InviteRefused:
                return None

        return await self._store.run(work)

    async def members(self) -> Sequence[CertificateEntry]:
        """The newest certificate of each peer that was certified here."""
        return newest_of_each(await self.certificates())

    async def mark_revoked(self, serials: Iterable[bytes]) -> None:
        """Remember that certificates are void; the record is what tells others."""
        wanted = [serial.hex() for serial in serials]
        query = update(swarm_certificates).where(
            swarm_certificates.c.swarm == self._swarm,
            swarm_certificates.c.serial.in_(wanted),
        )

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(query.values(revoked_ms=self._now_ms()))

        await self._store.run(work)

    async def _has_redeemed(
        self, connection: AsyncConnection, invite_id: str, peer: PublicKey
    ) -> bool:
        query = select(swarm_redemptions.c.serial).where(
            swarm_redemptions.c.invite_id == invite_id,
            swarm_redemptions.c.peer == peer.hex(),
        )
        return await connection.scalar(query) is not None

    async def _newest(
        self, connection: AsyncConnection, peer: PublicKey
    ) -> CertificateEntry:
        found = await self._certificates(
            connection, swarm_certificates.c.peer == peer.hex()
        )
        for entry in found:
            if not entry.is_revoked:
                return entry
        raise InviteRefused("revoked")

    async def _certificates(
        self, connection: AsyncConnection, *conditions: ColumnElement[bool]
    ) -> Sequence[CertificateEntry]:
        query = (
            select(swarm_certificates)
            .where(swarm_certificates.c.swarm == self._swarm, *conditions)
            .order_by(
                swarm_certificates.c.issued_ms.desc(), swarm_certificates.c.serial
            )
        )
        return [
            certificate_of(row) for row in (await connection.execute(query)).mappings()
        ]

    async def _add(self, connection: AsyncConnection, entry: CertificateEntry) -> None:
        now_ms = self._now_ms()
        before = select(func.max(swarm_certificates.c.issued_ms)).where(
            swarm_certificates.c.swarm == self._swarm,
            swarm_certificates.c.peer == entry.peer.hex(),
        )
        row = {
            "serial": entry.serial.hex(),
            "swarm": self._swarm,
            "peer": entry.peer.hex(),
            "name": entry.name,
            "roles": " ".join(entry.roles),
            "keys": json.dumps({name: key.hex() for name, key in entry.keys.items()}),
            "chain": entry.chain.hex(),
            "not_before_s": entry.not_before_s,
            "not_after_s": entry.not_after_s,
            # Which is the newest must not hang on two clocks, or on a set-back one.
            "issued_ms": max(now_ms, (await connection.scalar(before) or 0) + 1),
            "revoked_ms": now_ms if entry.is_revoked else None,
        }
        await connection.execute(insert(swarm_certificates).values(row))

    def _invites(self) -> Any:  # noqa: ANN401
        return select(swarm_invites).where(swarm_invites.c.swarm == self._swarm)

    def _is_invite(self, invite_id: str) -> ColumnElement[bool]:
        return and_(
            swarm_invites.c.swarm == self._swarm, swarm_invites.c.id == invite_id
        )

    def _now_ms(self) -> int:
        return int(self._now_s() * 1000)
