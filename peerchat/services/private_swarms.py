"""The private swarms of a home, for people: what `peerchat swarm` and the app do.

Each call opens what it needs (store, DHT) and closes it again. Nothing here is kept in
memory: a running node of the home sees what changed by the files and the swarm record.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peerchat.api import (
    ApiError,
    ErrorCode,
    InvitePreview,
    InviteView,
    MemberView,
    SwarmView,
)
from peerchat.settings import Settings
from peerchat.trust.keys import fingerprint_of
from peerchat.trust.record import Grant, RecordBody

from .certifier import ADMIN, own_certificate
from .dht_face import Dht
from .enrolment_client import redeem, renew
from .identity import Identity, load_identity
from .knocking import knock
from .membership import Membership, SwarmHomes
from .record_book import RecordBook
from .removals import whole_key
from .root_key import is_root_locked
from .run_file import is_process_alive, read_run_file
from .swarm_entries import CertificateEntry
from .swarm_network import join_network
from .swarm_views import as_name, find_member, invite_view, member_view, parse
from .trust import Trust

if TYPE_CHECKING:
    from .store import Store
    from .swarm_founding import SwarmFounding
    from .swarm_owner import SwarmOwner

OpenDht = Callable[[Sequence[str]], AbstractAsyncContextManager[Dht]]
"""Gives a started DHT for the bootstrap nodes of a swarm (empty: as the settings)."""


@dataclass(frozen=True, slots=True)
class Granted:
    """What somebody was given."""

    who: str
    """Key, hex."""
    roles: tuple[str, ...]
    is_member: bool
    """It gets a certificate; else the swarm record names its key."""


class PrivateSwarms:
    """All swarms of one home.

    Args:
        settings: of this process; its ``swarm`` is the one that calls are about.
        open_dht: joins the network; a node of its own unless told.
        now_s: Unix time.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        open_dht: OpenDht | None = None,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self.homes = SwarmHomes(settings.home)
        self._open_dht = open_dht or (
            lambda bootstrap: join_network(settings, bootstrap)
        )
        self._now_s = now_s

    # Which swarms there are

    def swarms(self) -> Sequence[SwarmView]:
        """All of them, in order; one whose files are damaged is left out."""
        found = []
        for name in self.homes.names():
            try:
                found.append(self.view(name))
            except ApiError:
                continue
        return found

    def view(self, name: str) -> SwarmView:
        """What this home is in a swarm; raises `ApiError` as `SwarmHomes.load`."""
        membership = self.homes.load(name)
        certificate = own_certificate(membership)
        return SwarmView(
            name=membership.name,
            is_current=membership.name == self.homes.current(),
            is_owner=membership.is_owner,
            is_admin=ADMIN in certificate.roles,
            roles=tuple(sorted(certificate.roles - {ADMIN})),
            not_after_s=certificate.not_after_s,
            root=membership.root.hex(),
        )

    async def create(
        self, name: str, passphrase: str = "", bootstrap: Sequence[str] = ()
    ) -> SwarmView:
        """Make a swarm that this home owns, and use it from now on."""
        async with self._store() as store:
            founding = self._founding(store)
            membership = await founding.create(name, passphrase, bootstrap)
        return self._enter(membership.name)

    def read_invite(self, line: str) -> InvitePreview:
        """What an invite says; asks nobody, so nothing of it is proven."""
        invite = parse(line)
        return InvitePreview(invite.swarm, invite.root.hex(), invite.expires_s)

    async def join(
        self, line: str, *, name: str = "", bootstrap: Sequence[str] = ()
    ) -> SwarmView:
        """Redeem an invite, and use its swarm from now on.

        Args:
            line: the invite.
            name: for the admin's list of members, unless the invite has one.
            bootstrap: nodes to join by instead of the invite's.
        """
        invite = parse(line)
        hints = tuple(bootstrap) or invite.bootstrap
        known = self.homes.find_root(invite.root)
        record = self._record(known.name) if known else None
        async with self._open_dht(hints) as dht:
            made = await redeem(
                dht,
                invite,
                self._identity(),
                name=name,
                revocations=record,
                now_s=self._now_s,
            )
        if record is not None:
            _check_secret(made, record)
        return self._enter(self._keep_joined(made, hints).name)

    def use(self, name: str) -> None:
        """Use a swarm unless told otherwise; empty: none."""
        self.homes.set_current(name)

    def leave(self, name: str) -> None:
        """Forget a swarm and its keys; the root key too, if it is here."""
        self.homes.remove(name)

    async def renew(self, name: str) -> SwarmView:
        """Get this home's newest certificate from an admin."""
        membership = self.homes.load(name)
        async with self._open_dht(membership.bootstrap) as dht:
            await renew(dht, self.homes, name, self._identity(), now_s=self._now_s)
        return self.view(name)

    # What an admin does

    async def invite(
        self,
        name: str,
        *,
        roles: Sequence[str] = (),
        uses: int = 1,
        expires_s: float = 24 * 3600.0,
        label: str = "",
    ) -> tuple[str, InviteView]:
        """The line that lets somebody in, and what is remembered of it."""
        async with self._owner(name) as owner:
            line, entry = await owner.invite(
                roles=roles,
                uses=uses,
                expires_s=expires_s,
                name=label,
                bootstrap=self._hints(owner.membership),
            )
        return line, invite_view(entry, self._now_s())

    async def invites(self, name: str) -> Sequence[InviteView]:
        """All that this home gave out, the newest first."""
        async with self._owner(name) as owner:
            return [
                invite_view(one, self._now_s())
                for one in await owner.register.invites()
            ]

    async def uninvite(self, name: str, invite_id: str) -> InviteView:
        """Refuse an invite from now on; its id may be shortened."""
        async with self._owner(name) as owner:
            return invite_view(await owner.register.withdraw(invite_id), self._now_s())

    async def members(self, name: str) -> Sequence[MemberView]:
        """The peers that this home certified, the newest first."""
        async with self._owner(name) as owner:
            return [member_view(entry) for entry in await owner.register.members()]

    async def certificates(self, name: str) -> Sequence[CertificateEntry]:
        """All that this home signed, those of before included, the newest first."""
        async with self._owner(name) as owner:
            return await owner.register.certificates()

    def grants(self, name: str) -> Sequence[Grant]:
        """The keys that are in without a certificate."""
        return self._record(name).grants

    # What takes the root key

    def needs_passphrase(self, name: str) -> bool:
        """Whether the root key of this home is locked."""
        return is_root_locked(self.homes, name)

    async def grant(
        self,
        name: str,
        key: str,
        roles: Sequence[str],
        *,
        label: str = "",
        expires_s: float = 0,
        passphrase: Callable[[], str] = lambda: "",
    ) -> Granted:
        """Give a member other roles, or let a Node.js worker in under its key.

        Args:
            name: of the swarm.
            key: a member's, perhaps shortened; or a whole one of somebody else.
            roles: all that a member has from now on; for a worker one or more.
            label: a worker's name, for people.
            expires_s: until when a worker is let in; 0: without end.
            passphrase: asked for the root key's when that is needed.
        """
        async with self._owner(name) as owner:
            member = find_member(await owner.register.members(), key)
            if member is not None:
                return await self._certify(owner, member, roles, passphrase)
            worker = whole_key(key)
            if worker is None:
                raise ApiError(
                    ErrorCode.INVALID_REQUEST,
                    "No member has this key: write a Node.js worker's with all its 64 "
                    "digits, or see peerchat swarm peers.",
                    status=404,
                )
            until_s = int(self._now_s() + expires_s) if expires_s else 0
            root = await owner.unlock(passphrase())
            async with self._open_dht(owner.membership.bootstrap) as dht:
                await owner.refresh(dht, root)
                body = owner.with_grants(worker, roles, name=label, not_after_s=until_s)
                await owner.write(dht, root, body)
            return Granted(worker.hex(), tuple(roles), is_member=False)

    async def revoke(self, name: str, meant: str, passphrase: str = "") -> str:
        """Cut off a peer, a certificate or a worker; gives in words what it was."""
        async with self._owner(name) as owner:
            root = await owner.unlock(passphrase)
            await owner.without(meant)  # says so before the network is joined
            async with self._open_dht(owner.membership.bootstrap) as dht:
                await owner.refresh(dht, root)
                removal = await owner.without(meant)
                await owner.write(dht, root, removal.body)
            await owner.register.mark_revoked(removal.serials)
            return removal.words

    async def rotate(self, name: str, passphrase: str = "") -> int:
        """Change the swarm's secret; gives how many members were told."""
        async with self._owner(name) as owner:
            root = await owner.unlock(passphrase)
            async with self._open_dht(owner.membership.bootstrap) as dht:
                await owner.refresh(dht, root)
                body, secret = await owner.rotated()
                await owner.write(dht, root, body)
                old_secret = owner.membership.secret
                owner.use_secret(secret, body.generation)
                trust = Trust(
                    dht, self.homes, name, self._identity(), now_s=self._now_s
                )
                await knock(dht, trust, old_secret)
            return len(body.sealed_secrets) - 1

    async def backup(self, name: str, passphrase: str = "") -> bytes:
        """The content of a file that brings the swarm back on another machine."""
        async with self._owner(name) as owner:
            root = await owner.unlock(passphrase)
            return await owner.backup(root, passphrase)

    async def restore(self, data: bytes, passphrase: str = "") -> SwarmView:
        """Bring a swarm back, and use it from now on; asks nobody."""
        async with self._store() as store:
            membership = await self._founding(store).restore(data, passphrase)
        return self._enter(membership.name)

    async def catch_up(self, name: str, passphrase: str = "") -> None:
        """Learn what happened in a restored swarm since its backup.

        Raises:
            ApiError: no DHT node answers, or the record cannot be read.
        """
        async with self._owner(name) as owner:
            root = await owner.unlock(passphrase)
            async with self._open_dht(owner.membership.bootstrap) as dht:
                await owner.refresh(dht, root)

    async def _certify(
        self,
        owner: SwarmOwner,
        member: CertificateEntry,
        roles: Sequence[str],
        passphrase: Callable[[], str],
    ) -> Granted:
        root = None
        if owner.takes_root(member, roles):
            root = await owner.unlock(passphrase())
        entry, void = await owner.certify(member, roles, root)
        if void and root is not None:
            async with self._open_dht(owner.membership.bootstrap) as dht:
                await owner.refresh(dht, root)
                await owner.write(dht, root, owner.without_serials(void))
            await owner.register.mark_revoked(void)
        # Last: a try that failed before can be made again.
        await owner.register.add([entry])
        return Granted(member.peer.hex(), entry.roles, is_member=True)

    # What all of it stands on

    @asynccontextmanager
    async def _store(self) -> AsyncIterator[Store]:
        from .store import open_store  # who only joins needs no database

        settings = self._settings
        store = await open_store(settings.home.store_path, settings.database_url)
        try:
            yield store
        finally:
            await store.close()

    @asynccontextmanager
    async def _owner(self, name: str) -> AsyncIterator[SwarmOwner]:
        from .swarm_owner import SwarmOwner

        self.homes.load(name)  # before a store is made for nothing
        async with self._store() as store:
            yield SwarmOwner(
                self.homes, name, self._identity(), store, now_s=self._now_s
            )

    def _record(self, name: str) -> RecordBody:
        return RecordBook(self.homes, name, now_s=self._now_s).body()

    def _founding(self, store: Store) -> SwarmFounding:
        from .swarm_founding import SwarmFounding

        return SwarmFounding(self.homes, self._identity(), store, now_s=self._now_s)

    def _identity(self) -> Identity:
        return load_identity(self._settings.home.seed_path)

    def _enter(self, name: str) -> SwarmView:
        self.homes.set_current(name)
        return self.view(name)

    def _keep_joined(self, made: Membership, hints: tuple[str, ...]) -> Membership:
        """A new swarm, or the same one joined again under the name that it has."""
        made = dataclasses.replace(made, bootstrap=hints)
        known = self.homes.find_root(made.root)
        if known is None:
            name = self.homes.free_name(as_name(made.name), made.root)
            made = dataclasses.replace(made, name=name)
            self.homes.save(made)
            return made

        def change(kept: Membership) -> Membership:
            newer = made if made.generation >= kept.generation else kept
            return dataclasses.replace(
                kept,
                secret=newer.secret,
                generation=newer.generation,
                chain=made.chain,
                enrol_key=made.enrol_key,
                bootstrap=hints or kept.bootstrap,
            )

        return self.homes.update(known.name, change)

    def _hints(self, membership: Membership) -> tuple[str, ...]:
        """How others come into the network: as this home does, or through it."""
        if self._settings.bootstrap:
            return self._settings.bootstrap
        if membership.bootstrap or self._settings.bootstrap is None:
            return membership.bootstrap
        run = read_run_file(self._settings.home.run_path)
        return tuple(run.bootstrap) if run and is_process_alive(run.pid) else ()


def _check_secret(made: Membership, record: RecordBody) -> None:
    """Refuse a secret that is not the one of the record this home has."""
    is_same = made.generation == record.generation
    if is_same and fingerprint_of(made.secret) != record.fingerprint:
        raise ApiError(
            ErrorCode.FORBIDDEN,
            "The answer is not from this swarm: its secret is another one.",
            status=403,
        )
