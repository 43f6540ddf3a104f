"""Words for private swarms: modes, invites, members, and what goes wrong with them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime

from peerchat.api import (
    ApiError,
    ErrorCode,
    InvitePreview,
    InviteView,
    MemberView,
    NodeState,
    SwarmView,
)
from peerchat.sanitize import display_line

from .wording import Tone, Words, count, failure_words, short_key

INVITE_START = "peerchat:"

_INVITE = re.compile(rf"\s*{INVITE_START}[\w\-]{{20,}}")

_UNITS_S = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}

_SERVING = frozenset({"auth", "gateway", "processor"})

_DURATION = re.compile(r"(\d{1,5})\s*([mhdw])[a-z]*")

DURATION_MAX_S = 366 * 86_400
"""Longer than a year is forgotten about, and an invite is a key."""


def is_invite(text: str) -> bool:
    """It begins with an invite, which is a secret and no prompt."""
    return _INVITE.match(text) is not None


def mode_words(state: NodeState) -> str:
    """Where prompts go: alone, to anybody, or to a private swarm."""
    if state.mode == "private":
        return f"private swarm {display_line(state.swarm, 32)}"
    return "open swarm" if state.mode == "open" else state.mode


def date_words(unix_s: int) -> str:
    """Local date and time, to the minute; for a time nobody can write, a sign."""
    try:
        moment = datetime.fromtimestamp(unix_s, UTC).astimezone()
    except (ValueError, OverflowError, OSError):
        return "∞" if unix_s > 0 else "?"
    return f"{moment:%Y-%m-%d %H:%M}"


def day_words(unix_s: int) -> str:
    """Local date."""
    return date_words(unix_s).partition(" ")[0]


def parse_duration(text: str) -> int | None:
    """Seconds of ``30m``, ``24h``, ``7d`` or ``2 weeks``; None for anything else."""
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None:
        return None
    seconds = int(match[1]) * _UNITS_S[match[2]]
    return seconds if 0 < seconds <= DURATION_MAX_S else None


def role_words(roles: Iterable[str]) -> str:
    """What somebody may do besides asking."""
    left = list(roles)
    if set(left) >= _SERVING:
        left = [role for role in left if role not in _SERVING] + ["all roles"]
    named = ", ".join(display_line(role, 16) for role in left)
    return named or "may ask"


def preview_words(preview: InvitePreview) -> Words:
    """What an invite is for; its swarm could not yet prove anything."""
    return Words(
        f"An invite into the swarm {display_line(preview.swarm, 32)}",
        f"root key {short_key(preview.root)} · "
        f"good until {date_words(preview.expires_s)}",
        Tone.INFO,
    )


def swarm_row(view: SwarmView) -> str:
    """A swarm's line beside its name."""
    if view.is_owner:
        part = "yours"
    else:
        part = "admin" if view.is_admin else role_words(view.roles)
    until = f" · until {day_words(view.not_after_s)}" if view.not_after_s else ""
    return f"{part}{until}"


def member_row(member: MemberView) -> str:
    """A member's line beside its name."""
    if member.is_revoked:
        return f"{short_key(member.peer)} · revoked"
    until = day_words(member.not_after_s)
    return f"{role_words(member.roles)} · {short_key(member.peer)} · until {until}"


def invite_row(invite: InviteView) -> str:
    """An invite's line beside its name."""
    roles = role_words(invite.roles)
    if invite.state != "open":
        return f"{roles} · {display_line(invite.state, 16)}"
    uses = f"{count(invite.uses_left, 'use')} left"
    return f"{roles} · {uses} · until {day_words(invite.expires_s)}"


_SWARM_BY_CODE: dict[ErrorCode, Words] = {
    ErrorCode.INVALID_REQUEST: Words("That cannot be done"),
    ErrorCode.UNAUTHORIZED: Words("Refused"),
    ErrorCode.FORBIDDEN: Words("Refused"),
    ErrorCode.CONFLICT: Words("There is one already"),
    ErrorCode.RATE_LIMITED: Words("Too many attempts", "Wait a minute", Tone.WARNING),
    ErrorCode.TIMEOUT: Words(
        "Nobody answered in time", "Is a machine of the swarm's admin running?"
    ),
    ErrorCode.PEER_LOST: Words(
        "The other side went away", "Try again in a moment", Tone.WARNING
    ),
}


def swarm_failure_words(error: ApiError) -> Words:
    """What a refusal means where swarms are made, joined and ruled."""
    words = _SWARM_BY_CODE.get(error.code)
    if words is None:
        return failure_words(error)
    message = display_line(error.message, 300).strip()
    return Words(words.title, message or words.advice, words.tone)
