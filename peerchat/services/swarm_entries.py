"""Invites and certificates as an admin's store gives them, and how people name them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from peerchat.api import ApiError, ErrorCode
from peerchat.net.crypto.primitives import blake2b_256
from peerchat.net.identity import PublicKey

T = TypeVar("T")

ID_BYTES = 16
PREFIX_CHARS_MIN = 4
"""Of a key, serial or invite id that a person writes; fewer fit by accident."""


@dataclass(frozen=True, slots=True)
class InviteEntry:
    """An invite, without the code that redeems it."""

    invite_id: str
    name: str
    roles: tuple[str, ...]
    uses_max: int
    uses: int
    expires_ms: int
    is_withdrawn: bool = False

    def state(self, now_ms: float) -> str:
        """``open``, ``withdrawn``, ``expired`` or ``used``."""
        if self.is_withdrawn:
            return "withdrawn"
        if now_ms >= self.expires_ms:
            return "expired"
        return "used" if self.uses >= self.uses_max else "open"


@dataclass(frozen=True, slots=True)
class CertificateEntry:
    """A certificate that was issued here, or restored from a backup without chain."""

    serial: bytes
    peer: PublicKey
    keys: Mapping[str, PublicKey] = field(hash=False)
    roles: tuple[str, ...]
    name: str
    not_before_s: int
    not_after_s: int
    chain: bytes = b""
    is_revoked: bool = False


class InviteRefused(Exception):
    """A code that lets nobody in.

    Attributes:
        why: ``unknown``, ``withdrawn``, ``expired``, ``used`` or ``revoked``.
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


def invite_id_of(code: bytes) -> str:
    """The name of an invite, which tells nothing of its code."""
    return blake2b_256(code)[:ID_BYTES].hex()


def newest_of_each(entries: Sequence[CertificateEntry]) -> Sequence[CertificateEntry]:
    """The first entry of each peer, in order; one that is not revoked if there is."""
    found: dict[PublicKey, CertificateEntry] = {}
    for entry in entries:
        known = found.get(entry.peer)
        if known is None or (known.is_revoked and not entry.is_revoked):
            found[entry.peer] = entry
    return list(found.values())


def only(
    entries: Iterable[T], prefix: str, names: Callable[[T], Iterable[str]], what: str
) -> T:
    """The one entry that a name, perhaps shortened, stands for.

    Raises:
        ApiError: INVALID_REQUEST: there is none, or more than one.
    """
    wanted = prefix.strip().lower()
    found = []
    if len(wanted) >= PREFIX_CHARS_MIN:
        found = [
            entry
            for entry in entries
            if any(name.startswith(wanted) for name in names(entry))
        ]
    if len(found) == 1:
        return found[0]
    if found:
        message = f"{len(found)} {what}s begin with {wanted}: write more of it."
    elif len(wanted) < PREFIX_CHARS_MIN:
        message = f"Write at least {PREFIX_CHARS_MIN} characters of the {what}."
    else:
        message = f"There is no {what} {wanted}."
    raise ApiError(ErrorCode.INVALID_REQUEST, message, status=404)


def invite_of(row: Mapping[Any, Any]) -> InviteEntry:
    return InviteEntry(
        invite_id=row["id"],
        name=row["name"],
        roles=tuple(row["roles"].split()),
        uses_max=row["uses_max"],
        uses=row["uses"],
        expires_ms=row["expires_ms"],
        is_withdrawn=row["withdrawn_ms"] is not None,
    )


def certificate_of(row: Mapping[Any, Any]) -> CertificateEntry:
    keys = json.loads(row["keys"])
    return CertificateEntry(
        serial=bytes.fromhex(row["serial"]),
        peer=PublicKey(bytes.fromhex(row["peer"])),
        keys={name: PublicKey(bytes.fromhex(key)) for name, key in keys.items()},
        roles=tuple(row["roles"].split()),
        name=row["name"],
        not_before_s=row["not_before_s"],
        not_after_s=row["not_after_s"],
        chain=bytes.fromhex(row["chain"]),
        is_revoked=row["revoked_ms"] is not None,
    )
