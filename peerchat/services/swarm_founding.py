"""How a swarm begins in a home: made new, or brought back from a backup.

Both certify this home as admin with the root key. Neither needs the network.
"""

from __future__ import annotations

import dataclasses
import secrets as chance
import time
from collections.abc import Callable, Sequence

from peerchat.api import ApiError, ErrorCode
from peerchat.net.crypto.primitives import SEED_BYTES, KeyPair
from peerchat.net.errors import DecodeError
from peerchat.trust.record import RecordBody, decode_body_untrusted
from peerchat.trust.rootkey import Issued

from .certifier import OWNER_ROLES, Certifier, public_keys
from .identity import Identity
from .membership import SECRET_BYTES, Membership, SwarmHomes, checked_name
from .record_book import empty_body, signed
from .root_key import locked_root, unpacked
from .store import Store
from .swarm_entries import CertificateEntry
from .swarm_register import SwarmRegister

OWN_NAME = "owner"
"""The owner's own device among the members."""


class SwarmFounding:
    """Makes swarms that this home owns.

    Args:
        homes: of this home.
        identity: the home's own.
        store: of this home, open.
        now_s: Unix time.
    """

    def __init__(
        self,
        homes: SwarmHomes,
        identity: Identity,
        store: Store,
        *,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._homes = homes
        self._identity = identity
        self._store = store
        self._now_s = now_s

    async def create(
        self, name: str, passphrase: str = "", bootstrap: Sequence[str] = ()
    ) -> Membership:
        """A new swarm.

        Raises:
            ApiError: the name is taken here, or is none; the disk does not take it.
        """
        name = checked_name(name)
        self._check_free(name)
        root = KeyPair.from_seed(chance.token_bytes(SEED_BYTES))
        membership = Membership(
            name=name,
            root=root.public_key,
            secret=chance.token_bytes(SECRET_BYTES),
            generation=0,
            record_key=chance.token_bytes(SECRET_BYTES),
            chain=b"",
            bootstrap=tuple(bootstrap),
            is_owner=True,
        )
        body = empty_body(name, membership, self._now_s())
        return await self._settle(
            membership, root, body, int(self._now_s()), passphrase
        )

    async def restore(self, data: bytes, passphrase: str = "") -> Membership:
        """A swarm out of a backup; this home becomes an admin beside earlier ones.

        Raises:
            ApiError: the backup does not open, or its swarm is owned here already.
        """
        backup = await unpacked(data, passphrase)
        root = KeyPair.from_seed(backup.root_seed)
        known = self._homes.find_root(root.public_key)
        if known is not None and known.is_owner:
            raise ApiError(
                ErrorCode.CONFLICT,
                f"This home owns that swarm already, as {known.name}.",
                status=409,
            )
        name = (
            known.name if known else self._homes.free_name(backup.name, root.public_key)
        )
        membership = Membership(
            name=name,
            root=root.public_key,
            secret=backup.secret,
            generation=backup.generation,
            record_key=backup.record_key,
            chain=b"",
            bootstrap=backup.bootstrap,
            is_owner=True,
        )
        if known is not None and known.generation > backup.generation:
            membership = dataclasses.replace(
                membership, secret=known.secret, generation=known.generation
            )
        body = _body_of(backup.record) or empty_body(name, membership, self._now_s())
        restored = await self._settle(
            membership, root, body, backup.record_seq, passphrase
        )
        register = SwarmRegister(self._store, root.public_key, now_s=self._now_s)
        await register.add(_entry(issued, body) for issued in backup.issued)
        return restored

    async def _settle(
        self,
        membership: Membership,
        root: KeyPair,
        body: RecordBody,
        seq: int,
        passphrase: str,
    ) -> Membership:
        """Certify this home and keep everything; `swarm.json`, which counts, last."""
        own = self._identity.in_swarm(membership.root)
        entry = Certifier(root, now_s=self._now_s).issue(
            own.peer_key_pair.public_key,
            public_keys(own),
            roles=OWNER_ROLES,
            name=OWN_NAME,
        )
        settled = dataclasses.replace(
            membership,
            chain=entry.chain,
            enrol_key=own.purpose_key_pair("enrol").public_key,
            record_seq=seq,
        )
        # The same body under the same seq is, byte for byte, what was published.
        record = signed(root, body, membership.record_key, seq)
        self._homes.save_root(settled.name, await locked_root(root.seed, passphrase))
        self._homes.save_record(settled.name, record)
        register = SwarmRegister(self._store, root.public_key, now_s=self._now_s)
        await register.add([entry])
        self._homes.save(settled)
        return settled

    def _check_free(self, name: str) -> None:
        if name in self._homes.names():
            raise ApiError(
                ErrorCode.CONFLICT,
                f"This home is in a swarm named {name} already: choose another name.",
                status=409,
            )


def _body_of(data: bytes) -> RecordBody | None:
    try:
        return decode_body_untrusted(data) if data else None
    except DecodeError:
        return None


def _entry(issued: Issued, body: RecordBody) -> CertificateEntry:
    """What a backup knows of a certificate; the certificate itself is the member's."""
    keys = (issued.peer, *issued.keys.values())
    return CertificateEntry(
        serial=issued.serial,
        peer=issued.peer,
        keys=issued.keys,
        roles=tuple(sorted(issued.roles)),
        name=issued.name,
        not_before_s=0,
        not_after_s=issued.not_after_s,
        is_revoked=body.is_revoked_serial(issued.serial)
        or any(body.is_revoked_key(key) for key in keys),
    )
