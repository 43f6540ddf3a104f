"""What the commands of `peerchat swarm` do and print."""

from __future__ import annotations

import getpass
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from peerchat.api import ApiError, ErrorCode, InviteView, MemberView, SwarmView
from peerchat.sanitize import display_line
from peerchat.services.private_files import read_private, write_private
from peerchat.services.private_swarms import PrivateSwarms
from peerchat.services.root_key import PASSPHRASE_VARIABLE, is_backup_locked
from peerchat.services.run_file import is_process_alive, read_run_file
from peerchat.settings import Settings
from peerchat.swarm_files import NO_SWARM
from peerchat.trust.invite import INPUT_CHARS_MAX
from peerchat.trust.rootkey import BACKUP_BYTES_MAX

from .options import Invocation
from .output import Output

INVITE_CHARS_MAX = INPUT_CHARS_MAX + 1
PASSPHRASE_BYTES_MAX = 8 * 1024

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}


def parse_duration(text: str) -> float:
    """Seconds of a text such as ``24h``; ValueError says what it must be."""
    match = re.fullmatch(r"(\d{1,6})([smhdw])", text.strip().lower())
    if match is None or not int(match[1]):
        raise ValueError(f"a time such as 30m, 24h or 7d, not {text!r:.40}")
    return float(int(match[1]) * _UNITS_S[match[2]])


# Which swarms there are


async def run_create(
    settings: Settings, call: Invocation, name: str, passphrase_file: Path | None
) -> None:
    swarms = PrivateSwarms(settings)
    passphrase = _new_passphrase(passphrase_file)
    view = await swarms.create(name, passphrase, settings.bootstrap or ())
    call.out.line(f"created {view.name}: this home owns it", swarm_fields(view))
    if call.out.is_json:
        return
    if not passphrase:
        call.out.note("the root key has no passphrase: whoever reads it owns the swarm")
    call.out.note(
        "next: peerchat serve --role all, peerchat swarm invite, and peerchat swarm "
        "backup FILE to a safe place"
    )


async def run_list(settings: Settings, call: Invocation) -> None:
    views = PrivateSwarms(settings).swarms()
    if not views and not call.out.is_json:
        call.out.note("no swarm yet: peerchat swarm create NAME, or join one")
    for view in views:
        mark = "*" if view.is_current else " "
        call.out.line(f"{mark} {view.name:<32} {_what(view)}", swarm_fields(view))


async def run_use(settings: Settings, call: Invocation, name: str) -> None:
    wanted = "" if name.strip().lower() == NO_SWARM else name
    PrivateSwarms(settings).use(wanted)
    shown = wanted.strip().lower()
    said = f"using {shown} from now on" if wanted else "using no swarm from now on"
    call.out.line(said, {"swarm": shown or None})
    _note_running(settings, call.out)


async def run_show(settings: Settings, call: Invocation, *, is_worker: bool) -> None:
    swarms = PrivateSwarms(settings)
    name = _current(settings)
    view = swarms.view(name)
    membership = swarms.homes.load(name)
    fields = swarm_fields(view) | {
        "generation": membership.generation,
        "bootstrap": list(membership.bootstrap),
    }
    lines = [
        f"swarm        {view.name}",
        f"this home    {_what(view)}",
        f"root key     {view.root}",
        f"bootstrap    {', '.join(membership.bootstrap) or 'as the settings say'}",
        f"generation   {membership.generation}",
    ]
    if is_worker:
        from peerchat.trust.keys import capability_of

        secrets = {
            "topic_key": membership.secret.hex(),
            "capability": capability_of(membership.secret).hex(),
        }
        fields |= secrets
        lines += [f"topic key    {secrets['topic_key']}"]
        lines += [f"capability   {secrets['capability']}"]
        call.out.note("topic key and capability are secrets of the swarm")
    call.out.line("\n".join(lines), fields)


async def run_leave(
    settings: Settings, call: Invocation, name: str, *, is_sure: bool
) -> None:
    swarms = PrivateSwarms(settings)
    view = swarms.view(name) if not is_sure else None
    if view is not None and view.is_owner:
        raise ApiError(
            ErrorCode.CONFLICT,
            f"{view.name} would have no owner any more: write a backup with peerchat "
            "swarm backup FILE, then leave with --yes.",
            status=409,
        )
    swarms.leave(name)
    call.out.line(f"left {name}", {"left": name})
    _note_running(settings, call.out)


# Letting somebody in


async def run_invite(
    settings: Settings,
    call: Invocation,
    *,
    roles: Sequence[str],
    uses: int,
    expires_s: float,
    label: str,
) -> None:
    swarms = PrivateSwarms(settings)
    line, view = await swarms.invite(
        _current(settings), roles=roles, uses=uses, expires_s=expires_s, label=label
    )
    call.out.line(line, {"invite": line, **invite_fields(view)})
    if call.out.is_json:
        return
    call.out.note(
        f"invite {view.invite_id[:8]}: {_uses(view)}, until {_when(view.expires_s)}; "
        "the line is a secret"
    )
    if not _is_running(settings):
        call.out.note(
            "it is redeemed here: run peerchat serve or the app until it is used"
        )


async def run_invites(settings: Settings, call: Invocation) -> None:
    for view in await PrivateSwarms(settings).invites(_current(settings)):
        call.out.line(
            f"{view.invite_id[:8]}  {view.state:<9}  {_uses(view):<10}  until "
            f"{_when(view.expires_s)}  {_roles(view.roles):<22}  "
            f"{display_line(view.name)}".rstrip(),
            invite_fields(view),
        )


async def run_uninvite(settings: Settings, call: Invocation, invite_id: str) -> None:
    view = await PrivateSwarms(settings).uninvite(_current(settings), invite_id)
    call.out.line(f"withdrew invite {view.invite_id[:8]}", invite_fields(view))


async def run_join(settings: Settings, call: Invocation, line: str, name: str) -> None:
    swarms = PrivateSwarms(settings)
    view = await swarms.join(line, name=name, bootstrap=settings.bootstrap or ())
    call.out.line(f"joined {view.name}: {_what(view)}", swarm_fields(view))
    if not call.out.is_json:
        call.out.note("next: peerchat register EMAIL, then peerchat login EMAIL")
    _note_running(settings, call.out)


async def run_renew(settings: Settings, call: Invocation) -> None:
    view = await PrivateSwarms(settings).renew(_current(settings))
    call.out.line(f"{view.name}: {_what(view)}", swarm_fields(view))


# Members


async def run_members(settings: Settings, call: Invocation) -> None:
    swarms = PrivateSwarms(settings)
    name = _current(settings)
    for member in await swarms.members(name):
        call.out.line(_member_line(member), member_fields(member))
    for grant in swarms.grants(name):
        until = f"until {_when(grant.not_after_s)}" if grant.not_after_s else ""
        shown = display_line(grant.name)
        call.out.line(
            f"{grant.key.hex()}  {grant.role:<22}  {shown}  (key) {until}".rstrip(),
            {
                "key": grant.key.hex(),
                "name": shown,
                "roles": [grant.role],
                "not_after_s": grant.not_after_s or None,
                "is_member": False,
            },
        )


async def run_grant(
    settings: Settings,
    call: Invocation,
    key: str,
    *,
    roles: Sequence[str],
    label: str,
    expires_s: float,
    passphrase_file: Path | None,
) -> None:
    swarms = PrivateSwarms(settings)
    name = _current(settings)
    granted = await swarms.grant(
        name,
        key,
        roles,
        label=label,
        expires_s=expires_s,
        passphrase=lambda: _root_passphrase(swarms, name, passphrase_file),
    )
    fields = {
        "key": granted.who,
        "roles": list(granted.roles),
        "is_member": granted.is_member,
    }
    call.out.line(f"granted {granted.who}: {_roles(granted.roles)}", fields)
    if not call.out.is_json:
        call.out.note(
            "the member gets it with peerchat swarm renew, or when it starts"
            if granted.is_member
            else "members let it in when they next read the swarm record"
        )


async def run_revoke(
    settings: Settings, call: Invocation, meant: str, passphrase_file: Path | None
) -> None:
    swarms = PrivateSwarms(settings)
    name = _current(settings)
    passphrase = _root_passphrase(swarms, name, passphrase_file)
    words = await swarms.revoke(name, meant, passphrase)
    call.out.line(f"revoked {words}", {"revoked": words})
    if not call.out.is_json:
        call.out.note(
            "members cut it off within one refresh. It still knows where to look for "
            "them: peerchat swarm rotate changes that"
        )


async def run_rotate(
    settings: Settings, call: Invocation, passphrase_file: Path | None
) -> None:
    swarms = PrivateSwarms(settings)
    name = _current(settings)
    passphrase = _root_passphrase(swarms, name, passphrase_file)
    told = await swarms.rotate(name, passphrase)
    generation = swarms.homes.load(name).generation
    call.out.line(
        f"rotated: generation {generation}, sealed to {told} members",
        {"generation": generation, "members": told},
    )
    if not call.out.is_json:
        call.out.note(
            "write a new backup; Node.js workers need the new values of peerchat swarm "
            "show --worker"
        )


# The root key's safety


async def run_backup(
    settings: Settings,
    call: Invocation,
    file: Path,
    passphrase_file: Path | None,
    *,
    is_forced: bool,
) -> None:
    if not is_forced:
        _check_new(file)
    swarms = PrivateSwarms(settings)
    name = _current(settings)
    passphrase = _root_passphrase(swarms, name, passphrase_file)
    data = await swarms.backup(name, passphrase)
    write_private(file, data)
    is_locked = is_backup_locked(data)
    call.out.line(f"wrote {file}", {"file": str(file), "is_locked": is_locked})
    if not is_locked and not call.out.is_json:
        call.out.note("it has no passphrase: whoever reads it owns the swarm")


async def run_restore(
    settings: Settings, call: Invocation, file: Path, passphrase_file: Path | None
) -> None:
    data = read_private(file, BACKUP_BYTES_MAX)
    if data is None:
        raise ApiError(
            ErrorCode.INVALID_REQUEST, f"There is no file {file}.", status=404
        )
    is_locked = is_backup_locked(data)
    passphrase = _passphrase(passphrase_file) if is_locked else ""
    swarms = PrivateSwarms(settings)
    view = await swarms.restore(data, passphrase)
    call.out.line(f"restored {view.name}: this home owns it", swarm_fields(view))
    try:
        await swarms.catch_up(view.name, passphrase)
    except ApiError as error:
        call.out.note(
            f"what happened since the backup is not known yet: {error.message}"
        )
    if not call.out.is_json:
        call.out.note(
            "if the old machine was stolen, revoke it: peerchat swarm peers, peerchat "
            "swarm revoke KEY"
        )


def _check_new(file: Path) -> None:
    if file.exists():
        raise ApiError(
            ErrorCode.CONFLICT,
            f"{file} is there already: name another file, or add --force.",
            status=409,
        )


# Passphrases


def _root_passphrase(swarms: PrivateSwarms, name: str, file: Path | None) -> str:
    """The passphrase, asked for only when the root key is locked."""
    return _passphrase(file) if swarms.needs_passphrase(name) else ""


def _passphrase(file: Path | None) -> str:
    if (given := _given_passphrase(file)) is not None:
        return given
    if sys.stdin.isatty():
        return getpass.getpass("Passphrase of the root key: ")
    return ""


def _new_passphrase(file: Path | None) -> str:
    if (given := _given_passphrase(file)) is not None:
        return given
    if not sys.stdin.isatty():
        return ""
    first = getpass.getpass("Passphrase for the root key (empty: none): ")
    if first and first != getpass.getpass("Once more: "):
        raise ApiError(
            ErrorCode.INVALID_REQUEST,
            "the two passphrases differ: try again",
            status=400,
        )
    return first


def _given_passphrase(file: Path | None) -> str | None:
    """From a file or the environment; None: from neither."""
    if file is None:
        return os.environ.get(PASSPHRASE_VARIABLE) or None
    if str(file) == "-":
        line = sys.stdin.readline(PASSPHRASE_BYTES_MAX)
    else:
        data = file.read_bytes()[:PASSPHRASE_BYTES_MAX]
        line = data.decode(errors="strict").partition("\n")[0]
    if not line.strip():
        raise ApiError(
            ErrorCode.INVALID_REQUEST, f"there is no passphrase in {file}", status=400
        )
    return line.rstrip("\r\n")


# Words and fields


def _current(settings: Settings) -> str:
    if settings.swarm:
        return settings.swarm
    raise ApiError(
        ErrorCode.INVALID_REQUEST,
        "no swarm is in use: peerchat swarm create NAME, peerchat swarm join, or name "
        "one with --swarm",
        status=400,
    )


def _is_running(settings: Settings) -> bool:
    run = read_run_file(settings.home.run_path)
    return run is not None and is_process_alive(run.pid)


def _note_running(settings: Settings, out: Output) -> None:
    if not out.is_json and _is_running(settings):
        out.note("peerchat serve of this home goes on as before until it is restarted")


def _what(view: SwarmView) -> str:
    rank = "owner" if view.is_owner else "admin" if view.is_admin else "member"
    days = (view.not_after_s - time.time()) / 86400
    until = f"certificate until {_when(view.not_after_s)}"
    return f"{rank}, {_roles(view.roles)}, {'EXPIRED ' if days < 0 else ''}{until}"


def _roles(roles: Sequence[str]) -> str:
    return " ".join(roles) if roles else "may ask"


def _uses(view: InviteView) -> str:
    return f"{view.uses_left} use{'' if view.uses_left == 1 else 's'} left"


def _when(unix_s: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(unix_s))


def _member_line(member: MemberView) -> str:
    state = "  revoked" if member.is_revoked else ""
    return (
        f"{member.peer}  {_roles(member.roles):<22}  {display_line(member.name)}  "
        f"serial {member.serial[:8]}, until {_when(member.not_after_s)}{state}"
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
