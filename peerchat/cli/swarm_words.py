"""Swarms, invites and members in words for people and fields for programs."""

from __future__ import annotations

import time
from collections.abc import Sequence

from peerchat.api import InviteView, MemberView, SwarmView
from peerchat.sanitize import display_line


def what_words(view: SwarmView) -> str:
    rank = "owner" if view.is_owner else "admin" if view.is_admin else "member"
    days = (view.not_after_s - time.time()) / 86400
    until = f"certificate until {when_words(view.not_after_s)}"
    return f"{rank}, {roles_words(view.roles)}, {'EXPIRED ' if days < 0 else ''}{until}"


def roles_words(roles: Sequence[str]) -> str:
    return " ".join(roles) if roles else "may ask"


def uses_words(view: InviteView) -> str:
    return f"{view.uses_left} use{'' if view.uses_left == 1 else 's'} left"


def when_words(unix_s: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(unix_s))


def member_line(member: MemberView) -> str:
    state = "  revoked" if member.is_revoked else ""
    return (
        f"{member.peer}  {roles_words(member.roles):<22}  {display_line(member.name)}  "
        f"serial {member.serial[:8]}, until {when_words(member.not_after_s)}{state}"
    )


def swarm_fields(view: SwarmView) -> dict[str, object]:
    return {
        "swarm": view.name,
        "is_current": view.is_current,
        "is_owner": view.is_owner,
        "is_admin": view.is_admin,
        "roles": list(view.roles),
        "not_after_s": view.not_after_s,
        "root": view.root,
    }


def invite_fields(view: InviteView) -> dict[str, object]:
    return {
        "id": view.invite_id,
        "name": display_line(view.name),
        "roles": list(view.roles),
        "uses_left": view.uses_left,
        "expires_s": view.expires_s,
        "state": view.state,
    }


def member_fields(member: MemberView) -> dict[str, object]:
    return {
        "key": member.peer,
        "name": display_line(member.name),
        "roles": list(member.roles),
        "serial": member.serial,
        "not_after_s": member.not_after_s,
        "is_revoked": member.is_revoked,
        "is_member": True,
    }
