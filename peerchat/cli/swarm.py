"""`peerchat swarm …`: the commands with their options; the work is in `swarm_work`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from peerchat.settings import Settings

from .options import Invocation, network_command
from .output import EXIT_USAGE
from .run import run

swarm_app = typer.Typer(
    name="swarm",
    add_completion=False,
    no_args_is_help=False,
    rich_markup_mode=None,
    help="Private swarms: create, join, invite, revoke.",
)

NameArgument = Annotated[str, typer.Argument(metavar="NAME")]
PassphraseOption = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        metavar="FILE",
        help="Its first line is the root key's passphrase; '-' is standard input. Else "
        "PEERCHAT_PASSPHRASE, or a prompt.",
    ),
]
RoleOption = Annotated[
    list[str] | None,
    typer.Option("--role", metavar="ROLE", help="auth gateway processor all"),
]
LabelOption = Annotated[
    str, typer.Option("--name", metavar="NAME", help="For whom, in your words.")
]


@network_command(swarm_app)
def create(
    call: Invocation, name: NameArgument, passphrase_file: PassphraseOption = None
) -> None:
    """Make a swarm that this home owns, and use it from now on."""
    from .swarm_work import run_create

    run(call.out, run_create(_alone(call), call, name, passphrase_file))


@network_command(swarm_app, "list")
def list_(call: Invocation) -> None:
    """The swarms of this home."""
    from .swarm_work import run_list

    run(call.out, run_list(_alone(call), call))


@network_command(swarm_app)
def use(call: Invocation, name: NameArgument) -> None:
    """Use a swarm from now on; 'none' for none."""
    from .swarm_work import run_use

    run(call.out, run_use(_alone(call), call, name))


@network_command(swarm_app)
def show(
    call: Invocation,
    worker: Annotated[
        bool,
        typer.Option(
            "--worker", help="Also what a Node.js worker needs; these are secrets."
        ),
    ] = False,
) -> None:
    """What this home is in the swarm."""
    from .swarm_work import run_show

    run(call.out, run_show(call.settings(), call, is_worker=worker))


@network_command(swarm_app)
def leave(
    call: Invocation,
    name: NameArgument,
    yes: Annotated[
        bool,
        typer.Option("--yes", help="Also when the root key would be lost by it."),
    ] = False,
) -> None:
    """Forget a swarm and its keys."""
    from .swarm_work import run_leave

    run(call.out, run_leave(_alone(call), call, name, is_sure=yes))


@network_command(swarm_app)
def invite(
    call: Invocation,
    role: RoleOption = None,
    uses: Annotated[
        int, typer.Option(metavar="N", help="How many peers it lets in.", min=1)
    ] = 1,
    expires: Annotated[
        str, typer.Option(metavar="TIME", help="Such as 30m, 24h or 7d.")
    ] = "24h",
    name: LabelOption = "",
) -> None:
    """Print one line that lets somebody in; it is a secret."""
    from .swarm_work import run_invite

    seconds = _seconds(call, expires)
    run(
        call.out,
        run_invite(
            call.settings(),
            call,
            roles=_words(role),
            uses=uses,
            expires_s=seconds,
            label=name,
        ),
    )


@network_command(swarm_app)
def invites(call: Invocation) -> None:
    """The invites of this home, and what became of them."""
    from .swarm_work import run_invites

    run(call.out, run_invites(call.settings(), call))


@network_command(swarm_app)
def uninvite(
    call: Invocation,
    invite_id: Annotated[str, typer.Argument(metavar="ID", help="Its beginning does.")],
) -> None:
    """Refuse an invite from now on."""
    from .swarm_work import run_uninvite

    run(call.out, run_uninvite(call.settings(), call, invite_id))


@network_command(swarm_app)
def join(
    call: Invocation,
    line: Annotated[
        str | None,
        typer.Argument(
            metavar="[LINE]",
            help="The invite; '-' or nothing reads it from standard input.",
        ),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="Read it from a file.")
    ] = None,
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="What to call this peer.")
    ] = "",
) -> None:
    """Redeem an invite, and use its swarm from now on."""
    from .swarm_work import run_join

    text = _invite_text(call, line, file)
    run(call.out, run_join(_alone(call), call, text, name))


@network_command(swarm_app)
def renew(call: Invocation) -> None:
    """Get this home's newest certificate, after a grant for example."""
    from .swarm_work import run_renew

    run(call.out, run_renew(call.settings(), call))


@network_command(swarm_app)
def peers(call: Invocation) -> None:
    """Whom this home certified, and which keys are granted."""
    from .swarm_work import run_members

    run(call.out, run_members(call.settings(), call))


@network_command(swarm_app)
def grant(
    call: Invocation,
    key: Annotated[
        str,
        typer.Argument(
            metavar="KEY", help="A member's, its beginning does; or a Node.js worker's."
        ),
    ],
    role: RoleOption = None,
    name: LabelOption = "",
    expires: Annotated[
        str, typer.Option(metavar="TIME", help="For a Node.js worker; else no end.")
    ] = "",
    passphrase_file: PassphraseOption = None,
) -> None:
    """Give a member all of its roles anew, or let a Node.js worker in by its key."""
    from .swarm_work import run_grant

    roles = _words(role)
    if not roles:
        call.out.fail("which role? Add --role ROLE", code=EXIT_USAGE)
    run(
        call.out,
        run_grant(
            call.settings(),
            call,
            key,
            roles=[] if roles == ["none"] else roles,
            label=name,
            expires_s=_seconds(call, expires) if expires else 0,
            passphrase_file=passphrase_file,
        ),
    )


@network_command(swarm_app)
def revoke(
    call: Invocation,
    key: Annotated[
        str, typer.Argument(metavar="KEY|SERIAL", help="Its beginning does.")
    ],
    passphrase_file: PassphraseOption = None,
) -> None:
    """Cut off a peer for good, or void one certificate."""
    from .swarm_work import run_revoke

    run(call.out, run_revoke(call.settings(), call, key, passphrase_file))


@network_command(swarm_app)
def rotate(call: Invocation, passphrase_file: PassphraseOption = None) -> None:
    """Change the swarm's secret; members who are not revoked follow by themselves."""
    from .swarm_work import run_rotate

    run(call.out, run_rotate(call.settings(), call, passphrase_file))


@network_command(swarm_app)
def backup(
    call: Invocation,
    file: Annotated[Path, typer.Argument(metavar="FILE")],
    force: Annotated[
        bool, typer.Option("--force", help="Replace a file that is there.")
    ] = False,
    passphrase_file: PassphraseOption = None,
) -> None:
    """Write all that brings the swarm back on another machine into a file."""
    from .swarm_work import run_backup

    run(
        call.out,
        run_backup(call.settings(), call, file, passphrase_file, is_forced=force),
    )


@network_command(swarm_app)
def restore(
    call: Invocation,
    file: Annotated[Path, typer.Argument(metavar="FILE")],
    passphrase_file: PassphraseOption = None,
) -> None:
    """Bring a swarm back from a backup, and use it from now on."""
    from .swarm_work import run_restore

    run(call.out, run_restore(_alone(call), call, file, passphrase_file))


def _alone(call: Invocation) -> Settings:
    """Settings of a command that is not about the swarm that is used now."""
    return call.settings(for_dht=True)


def _words(values: list[str] | None) -> list[str]:
    return [word for one in values or [] for word in one.replace(",", " ").split()]


def _seconds(call: Invocation, text: str) -> float:
    from .swarm_work import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        call.out.fail(f"--expires must be {error}", code=EXIT_USAGE)


def _invite_text(call: Invocation, line: str | None, file: Path | None) -> str:
    """The invite from wherever it is; a person is asked for it."""
    from .swarm_work import INVITE_CHARS_MAX

    if file is not None and line is not None:
        call.out.fail("give a LINE or a --file, not both", code=EXIT_USAGE)
    if file is not None:
        try:
            with file.open(encoding="utf-8", errors="replace") as opened:
                return opened.read(INVITE_CHARS_MAX)
        except OSError as error:
            call.out.fail(f"cannot read {file}: {error.strerror or error}")
    if line is not None and line != "-":
        return line
    if sys.stdin.isatty():
        call.out.note("Paste the invite and press Enter:")
        return sys.stdin.readline()
    return sys.stdin.read(INVITE_CHARS_MAX)
