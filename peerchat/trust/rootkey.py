"""The root key's file, and the backup that brings a swarm back on another machine.

Both take their salt and nonce from the caller and, under a passphrase, about a second
of CPU and 256 MiB: call them in a thread. Source: docs/PROTOCOL.md section 19.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import msgspec

from peerchat.net.crypto.primitives import SEED_BYTES
from peerchat.net.errors import DecodeError, LocalProtocolError
from peerchat.net.identity import KEY_BYTES, PublicKey
from peerchat.sanitize import display_line

from .certificate import LABELS_MAX, ROLES
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
from .errors import WrongPassphrase
from .keys import PURPOSES
from .lockbox import (
    NONCE_BYTES,
    SALT_BYTES,
    is_locked_untrusted,
    lock,
    unlock_untrusted,
)
from .record import BODY_BYTES_MAX

__all__ = [
    "NONCE_BYTES",
    "SALT_BYTES",
    "Backup",
    "Issued",
    "WrongPassphrase",
    "is_locked",
    "lock_root",
    "pack_backup",
    "unlock_root_untrusted",
    "unpack_backup_untrusted",
]

ROOT_MAGIC = b"peerchat root key\n"
BACKUP_MAGIC = b"peerchat backup\n"

ROOT_BYTES_MAX = 1024
BACKUP_BYTES_MAX = 8 * 1024 * 1024
"""The most certificates with all keys, and the longest record."""

ISSUED_MAX = 10_000
"""Certificates in a backup, ten times the members of the largest record."""

BACKUP_HINTS_MAX = 64
_BACKUP_HINT_CHARS_MAX = 256


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate that was issued: what it takes to revoke it."""

    serial: bytes
    peer: PublicKey
    keys: dict[str, PublicKey] = field(hash=False)
    roles: frozenset[str]
    name: str
    not_after_s: int = 0
    """0 when it is not known; then it counts as one without end."""


@dataclass(frozen=True, slots=True)
class Backup:
    """Everything that the owner of a swarm cannot get back from anybody else."""

    name: str
    root_seed: bytes = field(repr=False)
    secret: bytes = field(repr=False)
    generation: int
    record_key: bytes = field(repr=False)
    bootstrap: tuple[str, ...] = ()
    issued: tuple[Issued, ...] = ()
    record_seq: int = 0
    """Of the newest record; what is published next must be above it."""
    record: bytes = field(default=b"", repr=False)
    """The newest record's body, as `encode_body` gives it: after two days without
    peers the DHT has forgotten who was revoked."""


class IssuedBody(Body, frozen=True):
    """An issued certificate in a backup."""

    serial: Serial
    peer: Key
    keys: Annotated[dict[Label, Key], msgspec.Meta(max_length=LABELS_MAX)]
    roles: Annotated[list[Label], msgspec.Meta(max_length=LABELS_MAX)]
    name: Name
    not_after_s: Count = 0


class BackupBody(Body, frozen=True):
    """A backup's content."""

    name: Name
    root_seed: Key
    secret: Key
    generation: Count
    record_key: Key
    bootstrap: Annotated[
        list[Annotated[str, msgspec.Meta(max_length=_BACKUP_HINT_CHARS_MAX)]],
        msgspec.Meta(max_length=BACKUP_HINTS_MAX),
    ] = msgspec.field(default_factory=list)
    issued: Annotated[list[IssuedBody], msgspec.Meta(max_length=ISSUED_MAX)] = (
        msgspec.field(default_factory=list)
    )
    record_seq: Count = 0
    record: Annotated[bytes, msgspec.Meta(max_length=BODY_BYTES_MAX)] = b""


def lock_root(
    seed: bytes, passphrase: str | None, *, salt: bytes, nonce: bytes
) -> bytes:
    """The root key's file.

    Args:
        seed: the root key pair's 32 bytes.
        passphrase: None leaves the seed readable for whoever can read the file.
        salt: 16 random bytes.
        nonce: 24 random bytes.
    """
    check_length(seed, SEED_BYTES, "a root key's seed")
    return lock(ROOT_MAGIC, seed, passphrase, salt=salt, nonce=nonce)


def unlock_root_untrusted(data: bytes, passphrase: str | None) -> bytes:
    """The seed in a root key's file.

    Raises:
        DecodeError: it is no such file, or damaged.
        WrongPassphrase: it is locked, and not with this one.
    """
    what = "The root key"
    seed = unlock_untrusted(ROOT_MAGIC, data, passphrase, ROOT_BYTES_MAX, what)
    if len(seed) != SEED_BYTES:
        raise DecodeError(f"{what} is damaged: wrong length.")
    return seed


def is_locked(data: bytes) -> bool:
    """Whether a root key's file or a backup takes a passphrase; `DecodeError`."""
    if data.startswith(BACKUP_MAGIC):
        return is_locked_untrusted(BACKUP_MAGIC, data, BACKUP_BYTES_MAX, "The backup")
    return is_locked_untrusted(ROOT_MAGIC, data, ROOT_BYTES_MAX, "The root key")


def pack_backup(
    backup: Backup, passphrase: str | None, *, salt: bytes, nonce: bytes
) -> bytes:
    """A backup's file; arguments as of `lock_root`."""
    if len(backup.issued) > ISSUED_MAX or len(backup.bootstrap) > BACKUP_HINTS_MAX:
        raise LocalProtocolError("more than a backup holds")
    for secret in (backup.root_seed, backup.secret, backup.record_key):
        check_length(secret, SECRET_BYTES, "a secret of a backup")
    content = encode(
        BackupBody(
            name=display_line(backup.name, NAME_CHARS_MAX),
            root_seed=backup.root_seed,
            secret=backup.secret,
            generation=backup.generation,
            record_key=backup.record_key,
            bootstrap=list(backup.bootstrap),
            issued=[_issued_body(issued) for issued in backup.issued],
            record_seq=backup.record_seq,
            record=backup.record,
        )
    )
    data = lock(BACKUP_MAGIC, content, passphrase, salt=salt, nonce=nonce)
    if len(data) > BACKUP_BYTES_MAX:
        raise LocalProtocolError(f"a backup of {len(data)} bytes")
    return data


def unpack_backup_untrusted(data: bytes, passphrase: str | None) -> Backup:
    """What is in a backup's file.

    Raises:
        DecodeError: it is no such file, or damaged.
        WrongPassphrase: it is locked, and not with this one.
    """
    what = "The backup"
    content = unlock_untrusted(BACKUP_MAGIC, data, passphrase, BACKUP_BYTES_MAX, what)
    wire = decode_untrusted(content, BackupBody, BACKUP_BYTES_MAX, what)
    return Backup(
        name=display_line(wire.name, NAME_CHARS_MAX),
        root_seed=wire.root_seed,
        secret=wire.secret,
        generation=wire.generation,
        record_key=wire.record_key,
        bootstrap=tuple(wire.bootstrap),
        issued=tuple(map(_issued_of, wire.issued)),
        record_seq=wire.record_seq,
        record=wire.record,
    )


def _issued_body(issued: Issued) -> IssuedBody:
    for key in (issued.peer, *issued.keys.values()):
        check_length(key, KEY_BYTES, "a public key")
    return IssuedBody(
        serial=check_length(issued.serial, SERIAL_BYTES, "a serial"),
        peer=issued.peer,
        keys=dict(issued.keys),
        roles=sorted(issued.roles),
        name=display_line(issued.name, NAME_CHARS_MAX),
        not_after_s=issued.not_after_s,
    )


def _issued_of(wire: IssuedBody) -> Issued:
    return Issued(
        serial=wire.serial,
        peer=PublicKey(wire.peer),
        keys={
            purpose: PublicKey(wire.keys[purpose])
            for purpose in PURPOSES
            if purpose in wire.keys
        },
        roles=ROLES.intersection(wire.roles),
        name=display_line(wire.name, NAME_CHARS_MAX),
        not_after_s=wire.not_after_s,
    )
