"""What the owner and admins of a swarm do: invite, certify, grant, revoke, rotate.

Inviting and certifying take an admin's key, which is at hand; all that changes the
swarm record takes the root key. How a swarm begins is in `swarm_founding`.
"""

from __future__ import annotations

import dataclasses
import secrets as chance
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from peerchat.api import ApiError, ErrorCode
from peerchat.net.crypto.primitives import SEED_BYTES, KeyPair
from peerchat.net.errors import DecodeError, NetError
from peerchat.net.identity import PublicKey
from peerchat.sanitize import display_line
from peerchat.trust.invite import BOOTSTRAP_MAX, Invite, format_invite
from peerchat.trust.keys import fingerprint_of, seal_to
from peerchat.trust.record import GRANT_ROLES, Grant, RecordBody
from peerchat.trust.rootkey import ISSUED_MAX, Backup, Issued

from .certifier import ADMIN, MEMBER_ROLES, OWNER_ROLES, Certifier
from .dht_face import Dht
from .identity import Identity
from .membership import SECRET_BYTES, SwarmHomes
from .record_book import RecordBook
from .removals import Removal, removal_of
from .root_key import packed, unlock_root
from .store import Store
from .swarm import api_error_of
from .swarm_entries import CertificateEntry, InviteEntry
from .swarm_register import SwarmRegister

GRANT_ROLES_SHOWN = tuple(sorted(GRANT_ROLES))

USES_MAX = 1000
EXPIRES_MAX_S = 365 * 24 * 3600.0
"""An invite that is valid for longer is a published secret."""


class SwarmOwner:
    """One swarm in the hands of its owner or an admin.

    Args:
        homes: of this home.
        name: of the swarm.
        identity: the home's own.
        store: of this home, open.
        now_s: Unix time.
    """

    def __init__(
        self,
        homes: SwarmHomes,
        name: str,
        identity: Identity,
        store: Store,
        *,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._homes = homes
        self._name = name
        self._identity = identity
        self._now_s = now_s
        self.membership = homes.load(name)
        self.register = SwarmRegister(store, self.membership.root, now_s=now_s)
        self._book = RecordBook(homes, name, now_s=now_s)

    @property
    def record(self) -> RecordBody:
        """The record as this home knows it."""
        return self._book.body()

    # What an admin does

    async def invite(
        self,
        *,
        roles: Iterable[str] = (),
        uses: int = 1,
        expires_s: float = 24 * 3600.0,
        name: str = "",
        bootstrap: Sequence[str] = (),
    ) -> tuple[str, InviteEntry]:
        """The line that lets somebody in, and what is remembered of it.

        Raises:
            ApiError: this home is no admin, or the invite would make no sense.
        """
        wanted = checked_roles(roles, MEMBER_ROLES)
        if not 1 <= uses <= USES_MAX or not 1 <= expires_s <= EXPIRES_MAX_S:
            raise ApiError(
                ErrorCode.INVALID_REQUEST,
                f"An invite has 1 to {USES_MAX} uses and ends within a year.",
                status=400,
            )
        self._certifier()  # only who can sign invites
        membership = self.membership
        own = self._identity.in_swarm(membership.root)
        code, entry = await self.register.invite(
            name=display_line(name, 64), roles=wanted, uses=uses, expires_s=expires_s
        )
        line = format_invite(
            Invite(
                swarm=self.record.name,
                root=membership.root,
                secret=membership.secret,
                enrol_key=own.purpose_key_pair("enrol").public_key,
                code=code,
                expires_s=entry.expires_ms // 1000,
                bootstrap=tuple(bootstrap or membership.bootstrap)[:BOOTSTRAP_MAX],
            )
        )
        return line, entry

    def _certifier(self) -> Certifier:
        return Certifier.of_admin(self.membership, self._identity, now_s=self._now_s)

    # What takes the root key

    async def unlock(self, passphrase: str) -> KeyPair:
        """The root key pair; raises `ApiError` as `root_key.unlock_root`."""
        return await unlock_root(self._homes, self._name, passphrase)

    def takes_root(self, member: CertificateEntry, roles: Iterable[str]) -> bool:
        """Whether a member's new roles take the root key: making an admin does, and so
        does taking a role away, which voids a certificate."""
        wanted = set(checked_roles(roles, OWNER_ROLES))
        return ADMIN in wanted or not wanted.issuperset(member.roles)

    async def certify(
        self, member: CertificateEntry, roles: Iterable[str], root: KeyPair | None
    ) -> tuple[CertificateEntry, frozenset[bytes]]:
        """A certificate with other roles; the member fetches it when it next asks.

        Args:
            member: its newest certificate.
            roles: all that it has from now on.
            root: when `takes_root`.

        Returns:
            The certificate, to be added to the register once those with the serials
            have been taken back.
        """
        wanted = checked_roles(roles, OWNER_ROLES)
        self._check_not_own(member.peer)
        if member.is_revoked:
            raise ApiError(
                ErrorCode.CONFLICT,
                f"{member.name} was removed from the swarm: invite it anew.",
                status=409,
            )
        is_root_needed = root is not None and ADMIN in wanted
        certifier = (
            Certifier(root, now_s=self._now_s)
            if root is not None and is_root_needed
            else self._certifier()
        )
        entry = certifier.issue(
            member.peer, member.keys, roles=wanted, name=member.name
        )
        if set(wanted).issuperset(member.roles):
            return entry, frozenset()
        certificates = await self.register.certificates()
        return entry, frozenset(
            one.serial
            for one in certificates
            if one.peer == member.peer and one.serial != entry.serial
        )

    def without_serials(self, serials: Iterable[bytes]) -> RecordBody:
        """The record with certificates taken back."""
        body = self.record
        return dataclasses.replace(
            body, revoked_serials=body.revoked_serials | frozenset(serials)
        )

    def with_grants(
        self,
        key: PublicKey,
        roles: Iterable[str],
        *,
        name: str = "",
        not_after_s: int = 0,
    ) -> RecordBody:
        """The record with a Node.js worker let in under its key, for these roles."""
        wanted = checked_roles(roles, GRANT_ROLES_SHOWN)
        body = self.record
        others = (one for one in body.grants if one.key != key)
        grants = (
            Grant(key, role, display_line(name, 64), not_after_s) for role in wanted
        )
        return dataclasses.replace(
            body, grants=(*others, *grants), revoked_keys=body.revoked_keys - {key}
        )

    async def without(self, meant: str) -> Removal:
        """What it takes to remove a peer, a certificate or a granted key.

        Args:
            meant: a key of the peer or a serial, perhaps shortened.

        Raises:
            ApiError: nothing is meant, or several things, or this very home.
        """
        certificates = await self.register.certificates()
        removal = removal_of(meant, self.record, certificates)
        self._check_not_own(removal.peer)
        return removal

    async def rotated(self) -> tuple[RecordBody, bytes]:
        """The record with a new secret sealed to every member, and the secret.

        Node.js workers cannot open it: they have to be configured anew.
        """
        secret = chance.token_bytes(SECRET_BYTES)
        body, now_s = self.record, self._now_s()
        members = [
            entry.peer
            for entry in await self.register.members()
            if not _is_out(entry, body) and entry.not_after_s > now_s
        ]
        # The owner's next machine has the root key, and no other of this one.
        readers = [*members, self.membership.root]
        new = dataclasses.replace(
            body,
            generation=max(self.membership.generation, body.generation) + 1,
            fingerprint=fingerprint_of(secret),
            sealed_secrets={
                key: seal_to(key, secret, chance.token_bytes(SEED_BYTES))
                for key in readers
            },
        )
        return new, secret

    async def refresh(self, dht: Dht, root: KeyPair) -> None:
        """Begin a change from the newest record, which may hold a newer secret.

        Raises:
            ApiError: no DHT node answers.
        """
        try:
            await self._book.refresh(dht)
        except NetError as error:
            raise api_error_of(error) from error
        body = self.record
        if body.generation > self.membership.generation:
            with suppress(DecodeError):
                secret = body.open_secret(root)
                if secret is not None:
                    self.use_secret(secret, body.generation)

    async def write(self, dht: Dht, root: KeyPair, body: RecordBody) -> None:
        """Publish a new record and keep it.

        Raises:
            ApiError: nobody stored it: nothing has changed.
        """
        record = self._book.sign(root, body)
        try:
            await self._book.publish(dht, record)
        except NetError as error:
            raise api_error_of(error) from error

    def use_secret(self, secret: bytes, generation: int) -> None:
        """Go over to a secret whose record is published."""
        self.membership = self._homes.update(
            self._name,
            lambda one: dataclasses.replace(one, secret=secret, generation=generation),
        )

    async def backup(self, root: KeyPair, passphrase: str) -> bytes:
        """The content of a file that brings the swarm back on another machine."""
        membership = self.membership
        record = self._homes.load_record(self._name)
        issued = [
            Issued(
                serial=entry.serial,
                peer=entry.peer,
                keys=dict(entry.keys),
                roles=frozenset(entry.roles),
                name=entry.name,
                not_after_s=entry.not_after_s,
            )
            for entry in await self.register.members()
        ]
        return await packed(
            Backup(
                name=self.record.name,
                root_seed=root.seed,
                secret=membership.secret,
                generation=membership.generation,
                record_key=membership.record_key,
                bootstrap=membership.bootstrap,
                issued=tuple(issued[:ISSUED_MAX]),
                record_seq=record.seq if record else membership.record_seq,
                record=record.body if record else b"",
            ),
            passphrase,
        )

    def _check_not_own(self, peer: PublicKey | None) -> None:
        own = self._identity.in_swarm(self.membership.root).peer_key_pair.public_key
        if peer == own:
            raise ApiError(
                ErrorCode.INVALID_REQUEST,
                "That is this home itself: it would lock itself out.",
                status=400,
            )


def _is_out(entry: CertificateEntry, body: RecordBody) -> bool:
    """Whether a member was removed, here or by another machine of the owner."""
    keys = (entry.peer, *entry.keys.values())
    is_void = entry.is_revoked or body.is_revoked_serial(entry.serial)
    return is_void or any(body.is_revoked_key(key) for key in keys)


def checked_roles(roles: Iterable[str], known: Sequence[str]) -> tuple[str, ...]:
    """Roles in order, ``all`` for every one that serves.

    Raises:
        ApiError: INVALID_REQUEST: there is no such role.
    """
    wanted: set[str] = set()
    for role in roles:
        wanted |= set(MEMBER_ROLES) if role == "all" else {role}
    if unknown := wanted - set(known):
        shown = display_line(min(unknown), 32)
        raise ApiError(
            ErrorCode.INVALID_REQUEST,
            f"{shown} is no role here: choose from {' '.join(known)} all.",
            status=400,
        )
    return tuple(sorted(wanted))
