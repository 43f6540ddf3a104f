"""Certificates: who a peer is in a swarm, which keys are its own, what it may serve.

A certificate is signed by the swarm's root key, or by the peer key of an admin whose
own certificate the root signed and which comes along: a chain of one or two. Peer keys
must be made for one swarm only (services/identity.py), because a certificate names its
issuer and not the swarm. Source: docs/PROTOCOL.md section 15.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Protocol

import msgspec

from peerchat.net.crypto.primitives import KeyPair, sign, verify
from peerchat.net.errors import DecodeError, LocalProtocolError
from peerchat.net.identity import KEY_BYTES, PublicKey
from peerchat.sanitize import display_line

from .codec import (
    NAME_CHARS_MAX,
    NS_CERTIFICATE,
    SERIAL_BYTES,
    Body,
    Count,
    Key,
    Label,
    Name,
    Serial,
    Signature,
    check_length,
    decode_untrusted,
    encode,
)
from .errors import RefusalReason, TrustRefused
from .keys import PURPOSES

ROLES = frozenset({"auth", "gateway", "processor", "admin"})
"""What a certificate can grant. Without any, a peer may ask."""

ROLE_OF_PURPOSE: Mapping[str, str] = {
    "auth": "auth",
    "gateway": "gateway",
    "processor": "processor",
    "token": "auth",
    "enrol": "admin",
}
"""The role without which a key of that purpose is worth nothing."""

CLOCK_SKEW_S = 120
"""Clocks of two machines may differ so much: without NTP a desktop drifts about a
second a day, and whoever is further off has trouble with TLS too."""

CHAIN_BYTES_MAX = 4096
"""Two certificates with all keys, all roles and the longest names have 1401 bytes; the
rest is room for later fields."""

CERTIFICATE_BYTES_MAX = CHAIN_BYTES_MAX
LABELS_MAX = 16
"""Purposes and roles of a certificate, those of later versions included."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """One signed statement; made by `sign_certificate` and `decode_chain_untrusted`."""

    peer: PublicKey
    """The peer's own key: its name in the swarm. An admin signs with it."""
    keys: Mapping[str, PublicKey] = field(hash=False)
    """The peer's key for each purpose; no two are the same."""
    roles: frozenset[str]
    name: str
    """Harmless to show; chosen by the peer, so nothing follows from it."""
    not_before_s: int
    not_after_s: int
    serial: bytes
    issuer: PublicKey
    signature: bytes = field(repr=False)
    body: bytes = field(repr=False)
    """What is signed, as it came: it may hold fields of later versions."""

    def purpose_of(self, key: bytes) -> str | None:
        """What the peer uses ``key`` for; None when it is not the peer's."""
        for purpose, own in self.keys.items():
            if own == key:
                return purpose
        return None


@dataclass(frozen=True, slots=True)
class Chain:
    """A certificate, and that of its issuer unless the root signed it."""

    certificate: Certificate
    issuer: Certificate | None = None


class Revocations(Protocol):
    """What has been taken back; the swarm record is one."""

    def is_revoked_serial(self, serial: bytes) -> bool: ...

    def is_revoked_key(self, key: bytes) -> bool: ...


class CertificateBody(Body, frozen=True):
    """What is signed."""

    peer: Key
    keys: Annotated[dict[Label, Key], msgspec.Meta(max_length=LABELS_MAX)]
    roles: Annotated[list[Label], msgspec.Meta(max_length=LABELS_MAX)]
    name: Name
    not_before_s: Count
    not_after_s: Count
    serial: Serial
    issuer: Key


class SignedBody(Body, frozen=True):
    """A certificate on the wire."""

    body: Annotated[bytes, msgspec.Meta(max_length=CERTIFICATE_BYTES_MAX)]
    signature: Signature


class ChainBody(Body, frozen=True):
    """A chain on the wire."""

    certificate: SignedBody
    issuer: SignedBody | None = None


def sign_certificate(
    issuer: KeyPair,
    *,
    peer: PublicKey,
    keys: Mapping[str, PublicKey],
    roles: Iterable[str],
    name: str,
    not_before_s: int,
    not_after_s: int,
    serial: bytes,
) -> Certificate:
    """A certificate by the swarm's root key, or by an admin's peer key.

    Args:
        issuer: the signing key pair.
        peer: whom it is for.
        keys: by purpose; the caller has verified a proof of each.
        roles: of `ROLES`; only the root can make an admin.
        name: for people; made harmless and cut to 64 characters.
        not_before_s: Unix time; before it the certificate is not valid.
        not_after_s: Unix time; from then on it has expired.
        serial: 16 random bytes.

    Raises:
        LocalProtocolError: something that no peer would accept.
    """
    granted = sorted(set(roles))
    if unknown := set(granted) - ROLES:
        raise LocalProtocolError(f"unknown role: {min(unknown)}")
    if unknown := keys.keys() - set(PURPOSES):
        raise LocalProtocolError(f"unknown purpose of a key: {min(unknown)}")
    if len(set(keys.values())) != len(keys):
        raise LocalProtocolError("one key for two purposes")
    if not 0 <= not_before_s < not_after_s <= 2**53:
        raise LocalProtocolError("certificate would never be valid")
    for key in (peer, *keys.values()):
        check_length(key, KEY_BYTES, "a public key")
    body = encode(
        CertificateBody(
            peer=peer,
            keys={purpose: keys[purpose] for purpose in sorted(keys)},
            roles=granted,
            name=display_line(name, NAME_CHARS_MAX),
            not_before_s=not_before_s,
            not_after_s=not_after_s,
            serial=check_length(serial, SERIAL_BYTES, "a serial"),
            issuer=issuer.public_key,
        )
    )
    return _certificate_untrusted(body, sign(NS_CERTIFICATE + body, issuer))


def encode_chain(chain: Chain) -> bytes:
    """The chain for the wire, at most `CHAIN_BYTES_MAX`."""
    issuer = chain.issuer
    data = encode(
        ChainBody(
            SignedBody(chain.certificate.body, chain.certificate.signature),
            None if issuer is None else SignedBody(issuer.body, issuer.signature),
        )
    )
    if len(data) > CHAIN_BYTES_MAX:
        raise LocalProtocolError(f"certificate chain of {len(data)} bytes")
    return data


def decode_chain_untrusted(data: bytes) -> Chain:
    """A chain that parses; nothing of it is true before `check_chain`.

    Raises:
        DecodeError: it does not parse.
    """
    wire = decode_untrusted(data, ChainBody, CHAIN_BYTES_MAX, "certificate chain")
    return Chain(
        _certificate_untrusted(wire.certificate.body, wire.certificate.signature),
        None
        if wire.issuer is None
        else _certificate_untrusted(wire.issuer.body, wire.issuer.signature),
    )


def check_chain(
    chain: Chain, *, root: PublicKey, now_s: float, revocations: Revocations
) -> None:
    """Return when the certificate holds in the swarm of ``root`` at ``now_s``.

    The issuer's certificate must hold as well, now: an admin who is revoked or has
    expired takes along whom it certified.

    Raises:
        TrustRefused: FOREIGN_ROOT, BAD_SIGNATURE, WRONG_ROLE, REVOKED,
            NOT_YET_VALID or EXPIRED; in this order when there are several.
    """
    certificate, issuer = chain.certificate, chain.issuer
    if issuer is None:
        _check_signed(certificate, root)
    else:
        _check_signed(issuer, root)
        _check_signed(certificate, issuer.peer)
        if "admin" not in issuer.roles:
            raise TrustRefused(
                RefusalReason.WRONG_ROLE,
                "The peer's certificate was signed by a peer that is not an admin.",
            )
        if "admin" in certificate.roles:
            raise TrustRefused(
                RefusalReason.WRONG_ROLE,
                "The peer was made an admin by an admin; only the owner can do that.",
            )
    check_still_holds(chain, now_s=now_s, revocations=revocations)


def check_still_holds(chain: Chain, *, now_s: float, revocations: Revocations) -> None:
    """Return when nothing that time can change is against a chain checked before.

    Cheap: verifies no signature. Raises `TrustRefused`: REVOKED, NOT_YET_VALID or
    EXPIRED.
    """
    issuer = chain.issuer
    links = (chain.certificate,) if issuer is None else (issuer, chain.certificate)
    for link in links:
        _check_not_revoked(link, revocations)
    for link in links:
        _check_time(link, now_s)


def check_key(chain: Chain, key: bytes, purpose: str) -> None:
    """Return when ``key`` is the certified peer's key for ``purpose``, with the role.

    Args:
        chain: one that `check_chain` let pass.
        key: the public key of a connection, or of a token's signature.
        purpose: one of `PURPOSES`; `ROLE_OF_PURPOSE` says which role it takes.

    Raises:
        TrustRefused: WRONG_KEY or WRONG_ROLE.
    """
    certificate = chain.certificate
    if certificate.keys.get(purpose) != key:
        raise TrustRefused(
            RefusalReason.WRONG_KEY,
            f"The peer's certificate is not for its {purpose} key.",
        )
    role = ROLE_OF_PURPOSE.get(purpose)
    if role is not None and role not in certificate.roles:
        raise TrustRefused(
            RefusalReason.WRONG_ROLE, f"The peer is not certified as {role}."
        )


def _certificate_untrusted(body: bytes, signature: bytes) -> Certificate:
    wire = decode_untrusted(body, CertificateBody, CERTIFICATE_BYTES_MAX, "certificate")
    keys = {
        purpose: PublicKey(wire.keys[purpose])
        for purpose in PURPOSES
        if purpose in wire.keys
    }
    if len(set(keys.values())) != len(keys):
        raise DecodeError("certificate: one key for two purposes")
    return Certificate(
        peer=PublicKey(wire.peer),
        keys=keys,
        roles=ROLES.intersection(wire.roles),
        name=display_line(wire.name, NAME_CHARS_MAX),
        not_before_s=wire.not_before_s,
        not_after_s=wire.not_after_s,
        serial=wire.serial,
        issuer=PublicKey(wire.issuer),
        signature=signature,
        body=body,
    )


def _check_signed(certificate: Certificate, issuer: PublicKey) -> None:
    if certificate.issuer != issuer:
        raise TrustRefused(RefusalReason.FOREIGN_ROOT)
    signed = NS_CERTIFICATE + certificate.body
    if not verify(signed, certificate.signature, issuer):
        raise TrustRefused(RefusalReason.BAD_SIGNATURE)
    # The fields count only as far as they are what was signed: one that was put
    # together or changed by hand holds others.
    if _certificate_untrusted(certificate.body, certificate.signature) != certificate:
        raise TrustRefused(RefusalReason.BAD_SIGNATURE)


def _check_not_revoked(certificate: Certificate, revocations: Revocations) -> None:
    if revocations.is_revoked_serial(certificate.serial) or any(
        revocations.is_revoked_key(key)
        for key in (certificate.peer, *certificate.keys.values())
    ):
        raise TrustRefused(RefusalReason.REVOKED)


def _check_time(certificate: Certificate, now_s: float) -> None:
    if now_s < certificate.not_before_s - CLOCK_SKEW_S:
        raise TrustRefused(RefusalReason.NOT_YET_VALID)
    if now_s >= certificate.not_after_s + CLOCK_SKEW_S:
        raise TrustRefused(RefusalReason.EXPIRED)
