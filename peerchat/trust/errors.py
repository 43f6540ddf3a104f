"""Why a peer is not trusted, and why a key does not open.

Exception
├── TrustRefused          a peer may not do what it asks; carries the reason
└── ValueError
    └── WrongPassphrase   a root key or backup does not open with this passphrase

Bytes that do not parse are `peerchat.net.errors.DecodeError`.
"""

from __future__ import annotations

from enum import StrEnum


class RefusalReason(StrEnum):
    """Why a peer was refused; the label of a metric, so values never change."""

    NO_PROOF = "no_proof"
    """It said nothing that shows the swarm secret."""
    WRONG_SECRET = "wrong_secret"
    """What it said was made under another secret, or for another connection."""
    NO_CERTIFICATE = "no_certificate"
    """It knows the secret, but shows no certificate, and no grant names its key."""
    FOREIGN_ROOT = "foreign_root"
    """Its certificate does not lead to this swarm's root key."""
    BAD_SIGNATURE = "bad_signature"
    """Its certificate does not parse, or was not signed as it stands."""
    NOT_YET_VALID = "not_yet_valid"
    EXPIRED = "expired"
    WRONG_KEY = "wrong_key"
    """The certificate is right, but for other keys than the connection's."""
    WRONG_ROLE = "wrong_role"
    """The certificate does not grant the role that is asked of the peer."""
    REVOKED = "revoked"
    """The swarm record takes back the certificate, its issuer's or one of its keys."""


MESSAGES: dict[RefusalReason, str] = {
    RefusalReason.NO_PROOF: "The peer did not prove that it is in the swarm.",
    RefusalReason.WRONG_SECRET: "The peer does not know the swarm's secret.",
    RefusalReason.NO_CERTIFICATE: "The peer has no certificate of the swarm.",
    RefusalReason.FOREIGN_ROOT: "The peer's certificate is of another swarm.",
    RefusalReason.BAD_SIGNATURE: "The peer's certificate is not rightly signed.",
    RefusalReason.NOT_YET_VALID: "The peer's certificate is not valid yet;"
    " compare the clocks of both machines.",
    RefusalReason.EXPIRED: "The peer's certificate has expired.",
    RefusalReason.WRONG_KEY: "The peer's certificate is for other keys.",
    RefusalReason.WRONG_ROLE: "The peer is not certified for this role.",
    RefusalReason.REVOKED: "The peer was removed from the swarm.",
}


class TrustRefused(Exception):
    """A peer may not do what it asks, or is not who it must be.

    Args:
        reason: for metrics and decisions.
        message: one line for people, without secrets; by default that of the reason.
    """

    def __init__(self, reason: RefusalReason, message: str = "") -> None:
        self.reason = reason
        self.message = message or MESSAGES[reason]
        super().__init__(self.message)


class WrongPassphrase(ValueError):
    """A locked root key or backup, and a passphrase that is missing or another."""
