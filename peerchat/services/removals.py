"""Whom a person means by a key or a serial, and the swarm record without them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from peerchat.net.identity import KEY_BYTES, PublicKey
from peerchat.trust.record import RecordBody

from .swarm_entries import CertificateEntry, newest_of_each, only


@dataclass(frozen=True, slots=True)
class Removal:
    """The record without somebody."""

    body: RecordBody
    words: str
    """What was removed."""
    peer: PublicKey | None
    """Whom it concerns, if it is known."""
    serials: frozenset[bytes]
    """Certificates that are void by it."""


@dataclass(frozen=True, slots=True)
class _Choice:
    """What a shortened key or serial may stand for."""

    names: tuple[str, ...]
    words: str
    keys: AbstractSet[PublicKey] = frozenset()
    """To revoke."""
    peer: PublicKey | None = None
    """Whom it concerns, if it is known."""
    serials: AbstractSet[bytes] = frozenset()


def removal_of(
    meant: str,
    body: RecordBody,
    certificates: Sequence[CertificateEntry],
) -> Removal:
    """What it takes to remove a peer, a certificate or a granted key.

    A peer goes with all its keys, so that the firewall knows each of them.

    Args:
        meant: a key of the peer or a serial, perhaps shortened.
        body: of the newest record.
        certificates: that were issued here, the newest first.

    Raises:
        ApiError: nothing is meant, or several things.
    """
    choices = [*_of_certificates(certificates), *_of_grants(body, certificates)]
    key = whole_key(meant)
    if key and not any(key.hex() in choice.names for choice in choices):
        choices.append(_Choice((key.hex(),), f"key {key.hex()}", {key}))
    choice = only(choices, meant, lambda one: one.names, "key or serial")
    keys = choice.keys
    new = dataclasses.replace(
        body,
        revoked_keys=body.revoked_keys | keys,
        revoked_serials=body.revoked_serials | choice.serials,
        grants=tuple(one for one in body.grants if one.key not in keys),
        sealed_secrets={
            peer: box for peer, box in body.sealed_secrets.items() if peer not in keys
        },
    )
    void = {entry.serial for entry in certificates if entry.peer in keys}
    return Removal(new, choice.words, choice.peer, frozenset(choice.serials | void))


def _of_certificates(certificates: Sequence[CertificateEntry]) -> Iterator[_Choice]:
    for entry in newest_of_each(certificates):
        keys = {entry.peer, *entry.keys.values()}
        names = tuple(key.hex() for key in keys)
        shown = f"{entry.name} ({entry.peer.hex()})"
        yield _Choice(names, f"peer {shown}", keys, entry.peer)
    for entry in certificates:
        serial = entry.serial.hex()
        words = f"certificate {serial} of {entry.name}"
        yield _Choice((serial,), words, peer=entry.peer, serials={entry.serial})


def _of_grants(
    body: RecordBody, certificates: Sequence[CertificateEntry]
) -> Iterator[_Choice]:
    known = {
        key for entry in certificates for key in (entry.peer, *entry.keys.values())
    }
    for key in {grant.key for grant in body.grants} - known:
        yield _Choice((key.hex(),), f"key {key.hex()}", {key})


def whole_key(text: str) -> PublicKey | None:
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        return None
    return PublicKey(key) if len(key) == KEY_BYTES else None
