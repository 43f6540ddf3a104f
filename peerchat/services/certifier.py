"""Makes certificates: by an admin's peer key, or by the root key itself.

Who is worth one, and for which roles, is decided by whoever calls.
"""

from __future__ import annotations

import secrets as chance
import time
from collections.abc import Callable, Iterable, Mapping

from peerchat.api import ApiError, ErrorCode
from peerchat.net.crypto.primitives import KeyPair
from peerchat.net.errors import DecodeError
from peerchat.net.identity import PublicKey
from peerchat.trust.certificate import (
    Certificate,
    Chain,
    decode_chain_untrusted,
    encode_chain,
    sign_certificate,
)
from peerchat.trust.codec import SERIAL_BYTES
from peerchat.trust.keys import PURPOSES

from .identity import CERTIFIED_ROLES, Identity
from .membership import Membership
from .swarm_entries import CertificateEntry

LIFE_S = 365 * 24 * 3600
"""Of a member's certificate; renewed by itself from the middle of it on."""

ADMIN_LIFE_S = 10 * LIFE_S
"""Of an admin's, which everything that it signs depends on. Only the root key can renew
it, and that one is rarely at hand; the record takes it back when it must be."""

ADMIN = "admin"
MEMBER_ROLES = tuple(role.value for role in CERTIFIED_ROLES)
"""What an admin can grant; only the root key makes admins."""
OWNER_ROLES = (*MEMBER_ROLES, ADMIN)


class Certifier:
    """Signs for one swarm.

    Args:
        key_pair: the root key, or an admin's peer key.
        issuer: the admin's own certificate; None: the key pair is the root's.
        now_s: Unix time.
    """

    def __init__(
        self,
        key_pair: KeyPair,
        issuer: Certificate | None = None,
        *,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._key_pair = key_pair
        self._issuer = issuer
        self._now_s = now_s

    @classmethod
    def of_admin(
        cls,
        membership: Membership,
        identity: Identity,
        *,
        now_s: Callable[[], float] = time.time,
    ) -> Certifier:
        """The certifier of this home.

        Args:
            membership: of the swarm.
            identity: the home's own.
            now_s: Unix time.

        Raises:
            ApiError: FORBIDDEN: this home is no admin of the swarm.
        """
        own = own_certificate(membership)
        if ADMIN not in own.roles:
            raise ApiError(
                ErrorCode.FORBIDDEN,
                f"This home is no admin of {membership.name}: only the owner, and whom "
                "the owner made admin, can let others in.",
                status=403,
            )
        peer = identity.in_swarm(membership.root).peer_key_pair
        return cls(peer, own, now_s=now_s)

    def issue(
        self,
        peer: PublicKey,
        keys: Mapping[str, PublicKey],
        *,
        roles: Iterable[str],
        name: str,
    ) -> CertificateEntry:
        """A new certificate, valid from now on.

        Args:
            peer: whom it is for.
            keys: by purpose, each proven.
            roles: admin only by the root key.
            name: for people.
        """
        granted = frozenset(roles)
        now_s = int(self._now_s())
        certificate = sign_certificate(
            self._key_pair,
            peer=peer,
            keys=keys,
            roles=granted,
            name=name,
            not_before_s=now_s,
            not_after_s=now_s + (ADMIN_LIFE_S if ADMIN in granted else LIFE_S),
            serial=chance.token_bytes(SERIAL_BYTES),
        )
        chain = Chain(certificate, self._issuer)
        return CertificateEntry(
            serial=certificate.serial,
            peer=peer,
            keys=certificate.keys,
            roles=tuple(sorted(certificate.roles)),
            name=certificate.name,
            not_before_s=certificate.not_before_s,
            not_after_s=certificate.not_after_s,
            chain=encode_chain(chain),
        )


def public_keys(identity: Identity) -> dict[str, PublicKey]:
    """The keys that a certificate lists, of an identity in a swarm."""
    return {
        purpose: identity.purpose_key_pair(purpose).public_key for purpose in PURPOSES
    }


def own_certificate(membership: Membership) -> Certificate:
    """The certificate of this home in a swarm.

    Raises:
        ApiError: STORE_FAILED: what is kept is damaged.
    """
    return own_chain(membership).certificate


def own_chain(membership: Membership) -> Chain:
    """The certificate of this home, and its issuer's; raises as `own_certificate`."""
    try:
        return decode_chain_untrusted(membership.chain)
    except DecodeError:
        raise ApiError(
            ErrorCode.STORE_FAILED,
            f"The certificate of this home for {membership.name} is damaged: run "
            f"peerchat swarm leave {membership.name} and join again with a new invite.",
        ) from None
