"""What the commands of `peerchat swarm` do and print."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from peerchat.api import ApiError, ErrorCode
from peerchat.sanitize import display_line
from peerchat.services.private_files import read_private, write_private
from peerchat.services.private_swarms import PrivateSwarms
from peerchat.services.root_key import is_backup_locked
from peerchat.services.run_file import is_process_alive, read_run_file
from peerchat.settings import Settings
from peerchat.swarm_files import NO_SWARM
from peerchat.trust.invite import INPUT_CHARS_MAX
from peerchat.trust.rootkey import BACKUP_BYTES_MAX

from .options import Invocation
from .output import Output
from .passphrase import ask_passphrase, new_passphrase, root_passphrase
from .swarm_words import (
    invite_fields,
    member_fields,
    member_line,
    roles_words,
    swarm_fields,
    uses_words,
    what_words,
    when_words,
)

INVITE_CHARS_MAX = INPUT_CHARS_MAX + 1

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
    passphrase = new_passphrase(passphrase_file)
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
        call.out.line(f"{mark} {view.name:<32} {what_words(view)}", swarm_fields(view))


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
        f"this home    {what_words(view)}",
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
        f"invite {view.invite_id[:8]}: {uses_words(view)}, until "
        f"{when_words(view.expires_s)}; the line is a secret"
    )
    if not _is_running(settings):
        call.out.note(
            "it is redeemed here: run peerchat serve or the app until it is used"
        )


async def run_invites(settings: Settings, call: Invocation) -> None:
    for view in await PrivateSwarms(settings).invites(_current(settings)):
        call.out.line(
            f"{view.invite_id[:8]}  {view.state:<9}  {uses_words(view):<10}  until "
            f"{when_words(view.expires_s)}  {roles_words(view.roles):<22}  "
            f"{display_line(view.name)}".rstrip(),
            invite_fields(view),
        )


async def run_uninvite(settings: Settings, call: Invocation, invite_id: str) -> None:
    view = await PrivateSwarms(settings).uninvite(_current(settings), invite_id)
    call.out.line(f"withdrew invite {view.invite_id[:8]}", invite_fields(view))


async def run_join(settings: Settings, call: Invocation, line: str, name: str) -> None:
    swarms = PrivateSwarms(settings)
    view = await swarms.join(line, name=name, bootstrap=settings.bootstrap or ())
    call.out.line(f"joined {view.name}: {what_words(view)}", swarm_fields(view))
    if not call.out.is_json:
        call.out.note("next: peerchat register EMAIL, then peerchat login EMAIL")
    _note_running(settings, call.out)


async def run_renew(settings: Settings, call: Invocation) -> None:
    view = await PrivateSwarms(settings).renew(_current(settings))
    call.out.line(f"{view.name}: {what_words(view)}", swarm_fields(view))


# Members


async def run_members(settings: Settings, call: Invocation) -> None:
    swarms = PrivateSwarms(settings)
    name = _current(settings)
    for member in await swarms.members(name):
        call.out.line(member_line(member), member_fields(member))
    for grant in swarms.grants(name):
        until = f"until {when_words(grant.not_after_s)}" if grant.not_after_s else ""
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
        passphrase=lambda: root_passphrase(swarms, name, passphrase_file),
    )
    fields = {
        "key": granted.who,
        "roles": list(granted.roles),
        "is_member": granted.is_member,
    }
    call.out.line(f"granted {granted.who}: {roles_words(granted.roles)}", fields)
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
    passphrase = root_passphrase(swarms, name, passphrase_file)
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
    passphrase = root_passphrase(swarms, name, passphrase_file)
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
    passphrase = root_passphrase(swarms, name, passphrase_file)
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
    passphrase = ask_passphrase(passphrase_file) if is_locked else ""
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
