"""What people see of invites and members, and what they write of them."""

from __future__ import annotations

from collections.abc import Sequence

from peerchat.api import ApiError, ErrorCode, InviteView, MemberView
from peerchat.net.errors import DecodeError
from peerchat.sanitize import display_line
from peerchat.trust.invite import Invite, parse_invite_untrusted

from .membership import is_name
from .swarm_entries import CertificateEntry, InviteEntry, only


def invite_view(entry: InviteEntry, now_s: float) -> InviteView:
    """An invite without its code."""
    return InviteView(
        invite_id=entry.invite_id,
        name=entry.name,
        roles=entry.roles,
        uses_left=max(0, entry.uses_max - entry.uses),
        expires_s=entry.expires_ms // 1000,
        state=entry.state(now_s * 1000),
    )


def parse(line: str) -> Invite:
    """What an invite says; raises `ApiError` when it says nothing."""
    try:
        return parse_invite_untrusted(line)
    except DecodeError as error:
        raise ApiError(ErrorCode.INVALID_REQUEST, str(error), status=400) from None


def as_name(text: str) -> str:
    """A name of this home's for what a stranger calls a swarm."""
    kept = "".join(char if char.isascii() and char.isalnum() else "-" for char in text)
    name = kept.lower().strip("-")[:32].strip("-")
    return name if is_name(name) else "swarm"


def find_member(
    members: Sequence[CertificateEntry], key: str
) -> CertificateEntry | None:
    """The member that a key stands for; None when it is nobody's here."""

    def names(entry: CertificateEntry) -> list[str]:
        return [one.hex() for one in (entry.peer, *entry.keys.values())]

    wanted = key.strip().lower()
    if not any(name.startswith(wanted) for one in members for name in names(one)):
        return None
    return only(members, wanted, names, "member")


def member_view(entry: CertificateEntry) -> MemberView:
    """A peer by its newest certificate."""
    return MemberView(
        peer=entry.peer.hex(),
        name=display_line(entry.name, 64),
        roles=entry.roles,
        serial=entry.serial.hex(),
        not_after_s=entry.not_after_s,
        is_revoked=entry.is_revoked,
    )
