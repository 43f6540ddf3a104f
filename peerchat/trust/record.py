"""The swarm record's body: what the root key says to the whole swarm.

Who is out, which Node.js workers are in by key, and after a rotation the new secret,
sealed to each member. The body is stored as `blob`, whose head the root signs as a
HyperDHT mutable value. Source: docs/PROTOCOL.md section 17.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import msgspec

from peerchat.net.crypto.primitives import KeyPair, is_equal
from peerchat.net.errors import DecodeError, LocalProtocolError
from peerchat.net.identity import KEY_BYTES, PublicKey
from peerchat.sanitize import display_line

from .codec import (
    NAME_CHARS_MAX,
    SECRET_BYTES,
    SERIAL_BYTES,
    Body,
    Count,
    Key,
    Label,
    Name,
    Serial,
    check_length,
    decode_untrusted,
    encode,
)
from .keys import (
    FINGERPRINT_BYTES,
    SEAL_OVERHEAD_BYTES,
    fingerprint_of,
    open_sealed_untrusted,
)

GRANT_ROLES = frozenset({"auth", "gateway", "processor", "client"})
"""What a key without a certificate can be let in as."""

BODY_BYTES_MAX = 256 * 1024
"""292 chunks in the DHT: what a peer reads in a minute, and the sum of these limits."""

SEALED_SECRETS_MAX = 1000
"""Members of a swarm whose secret was rotated: 116 bytes each. Larger swarms have
to invite anew."""

REVOKED_KEYS_MAX = 3000
"""34 bytes each; seven keys for each peer, so over 400 peers. Certificates that have
expired need no revocation, and drop out."""

REVOKED_SERIALS_MAX = 1000
"""18 bytes each, one for each peer."""

GRANTS_MAX = 128
"""Node.js workers, each configured by hand; about 70 bytes each."""

_SEALED_BYTES = SECRET_BYTES + SEAL_OVERHEAD_BYTES


@dataclass(frozen=True, slots=True)
class Grant:
    """A key that is let in without a certificate: that of a Node.js worker."""

    key: PublicKey
    role: str
    """auth, gateway, processor or client."""
    name: str
    """Harmless to show."""
    not_after_s: int
    """Unix time; 0 for no end."""

    def holds(self, now_s: float) -> bool:
        """Whether it has not ended."""
        return not self.not_after_s or now_s < self.not_after_s


@dataclass(frozen=True, slots=True)
class RecordBody:
    """One version of the record; answers what has been revoked."""

    name: str
    """The swarm's; harmless to show."""
    generation: int
    """Grows by one with every rotation of the secret."""
    fingerprint: bytes
    """Of the secret of this generation (`fingerprint_of`)."""
    issued_s: int
    revoked_serials: frozenset[bytes] = frozenset()
    revoked_keys: frozenset[PublicKey] = frozenset()
    grants: tuple[Grant, ...] = ()
    sealed_secrets: Mapping[PublicKey, bytes] = field(default_factory=dict, hash=False)
    """The secret of this generation for each member, by its peer key (`seal_to`)."""

    def is_revoked_serial(self, serial: bytes) -> bool:
        return serial in self.revoked_serials

    def is_revoked_key(self, key: bytes) -> bool:
        return key in self.revoked_keys

    def grants_of(self, key: bytes, now_s: float) -> tuple[Grant, ...]:
        """What the key is let in as; nothing once it is revoked."""
        if self.is_revoked_key(key):
            return ()
        return tuple(
            grant for grant in self.grants if grant.key == key and grant.holds(now_s)
        )

    def open_secret(self, peer: KeyPair) -> bytes | None:
        """The secret of this generation.

        Args:
            peer: the member's own key pair, not one of a connection.

        Returns:
            None when none was sealed to it: it joined later, or is out.

        Raises:
            DecodeError: what was sealed is not the secret that the record names.
        """
        box = self.sealed_secrets.get(peer.public_key)
        if box is None:
            return None
        secret = open_sealed_untrusted(peer, box)
        if len(secret) != SECRET_BYTES or not is_equal(
            fingerprint_of(secret), self.fingerprint
        ):
            raise DecodeError("the sealed secret is not the one of the record")
        return secret


class GrantBody(Body, frozen=True):
    """A grant on the wire."""

    key: Key
    role: Label
    name: Name
    not_after_s: Count


class RecordWire(Body, frozen=True):
    """The body on the wire; sets are sorted, so that equal bodies are equal bytes."""

    name: Name
    generation: Count
    fingerprint: Annotated[
        bytes,
        msgspec.Meta(min_length=FINGERPRINT_BYTES, max_length=FINGERPRINT_BYTES),
    ]
    issued_s: Count
    revoked_serials: Annotated[
        list[Serial], msgspec.Meta(max_length=REVOKED_SERIALS_MAX)
    ] = msgspec.field(default_factory=list)
    revoked_keys: Annotated[list[Key], msgspec.Meta(max_length=REVOKED_KEYS_MAX)] = (
        msgspec.field(default_factory=list)
    )
    grants: Annotated[list[GrantBody], msgspec.Meta(max_length=GRANTS_MAX)] = (
        msgspec.field(default_factory=list)
    )
    sealed_secrets: Annotated[
        dict[
            Key,
            Annotated[
                bytes,
                msgspec.Meta(min_length=_SEALED_BYTES, max_length=_SEALED_BYTES),
            ],
        ],
        msgspec.Meta(max_length=SEALED_SECRETS_MAX),
    ] = msgspec.field(default_factory=dict)


def encode_body(body: RecordBody) -> bytes:
    """The body as bytes; the same for equal bodies.

    Raises:
        LocalProtocolError: more entries than a record holds, or malformed ones. Says
            which, for the owner to read.
    """
    for what, count, count_max in (
        ("revoked certificates", len(body.revoked_serials), REVOKED_SERIALS_MAX),
        ("revoked keys", len(body.revoked_keys), REVOKED_KEYS_MAX),
        ("grants", len(body.grants), GRANTS_MAX),
        ("members", len(body.sealed_secrets), SEALED_SECRETS_MAX),
    ):
        if count > count_max:
            raise LocalProtocolError(
                f"The swarm record holds {count_max} {what}, not {count}."
            )
    data = encode(_wire_of(body))
    if len(data) > BODY_BYTES_MAX:
        raise LocalProtocolError(
            f"The swarm record has {len(data)} bytes, at most {BODY_BYTES_MAX}."
        )
    return data


def decode_body_untrusted(data: bytes) -> RecordBody:
    """A body; raises `DecodeError`. Grants of roles unknown here are left out."""
    wire = decode_untrusted(data, RecordWire, BODY_BYTES_MAX, "swarm record")
    return RecordBody(
        name=display_line(wire.name, NAME_CHARS_MAX),
        generation=wire.generation,
        fingerprint=wire.fingerprint,
        issued_s=wire.issued_s,
        revoked_serials=frozenset(wire.revoked_serials),
        revoked_keys=frozenset(map(PublicKey, wire.revoked_keys)),
        grants=tuple(
            Grant(
                PublicKey(grant.key),
                grant.role,
                display_line(grant.name, NAME_CHARS_MAX),
                grant.not_after_s,
            )
            for grant in wire.grants
            if grant.role in GRANT_ROLES
        ),
        sealed_secrets={
            PublicKey(key): box for key, box in wire.sealed_secrets.items()
        },
    )


def _wire_of(body: RecordBody) -> RecordWire:
    sealed = body.sealed_secrets
    for serial in body.revoked_serials:
        check_length(serial, SERIAL_BYTES, "a serial")
    for key in (*body.revoked_keys, *sealed, *(grant.key for grant in body.grants)):
        check_length(key, KEY_BYTES, "a public key")
    for box in sealed.values():
        check_length(box, _SEALED_BYTES, "a sealed secret")
    return RecordWire(
        name=display_line(body.name, NAME_CHARS_MAX),
        generation=body.generation,
        fingerprint=check_length(body.fingerprint, FINGERPRINT_BYTES, "a fingerprint"),
        issued_s=body.issued_s,
        revoked_serials=sorted(body.revoked_serials),
        revoked_keys=[bytes(key) for key in sorted(body.revoked_keys)],
        grants=[_grant_body(grant) for grant in body.grants],
        sealed_secrets={bytes(key): sealed[key] for key in sorted(sealed)},
    )


def _grant_body(grant: Grant) -> GrantBody:
    if grant.role not in GRANT_ROLES:
        raise LocalProtocolError(f"unknown role of a grant: {grant.role}")
    return GrantBody(
        grant.key,
        grant.role,
        display_line(grant.name, NAME_CHARS_MAX),
        grant.not_after_s,
    )
