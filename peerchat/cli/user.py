"""`peerchat user`: an admin's commands for the swarm's accounts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from peerchat.settings import Settings

from .options import Invocation, network_command
from .output import EXIT_USAGE
from .run import run

if TYPE_CHECKING:
    from peerchat.account_replies import ManagedAccount, ManagedAccounts

user = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Manage the swarm's accounts, as an admin.",
)

PAGES_MAX = 1000
"""Of a list: more accounts than any swarm has."""

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}

EmailArgument = Annotated[str, typer.Argument(metavar="EMAIL")]


@network_command(user, "list")
def list_(call: Invocation) -> None:
    """Every account: role, status, own limit."""
    run(call.out, _run_list(call.settings(), call))


@network_command(user)
def approve(call: Invocation, email: EmailArgument) -> None:
    """Let an account in that waits for it."""
    _act(call, "approve", email)


@network_command(user)
def disable(call: Invocation, email: EmailArgument) -> None:
    """Shut an account out, and end its sessions."""
    _act(call, "disable", email)


@network_command(user)
def enable(call: Invocation, email: EmailArgument) -> None:
    """Let a disabled account in again."""
    _act(call, "enable", email)


@network_command(user)
def delete(call: Invocation, email: EmailArgument) -> None:
    """Remove an account, and end its sessions."""
    _act(call, "delete", email)


@network_command(user)
def limit(
    call: Invocation,
    email: EmailArgument,
    requests: Annotated[
        str,
        typer.Argument(
            metavar="N", help="Requests in a window, or 'default' for the gateways' own"
        ),
    ],
) -> None:
    """Set how many requests an account has in each window."""
    number = None
    if requests.lower() != "default":
        if not requests.isascii() or not requests.isdigit() or int(requests) < 1:
            call.out.fail("N must be a number from 1, or 'default'", code=EXIT_USAGE)
        number = int(requests)
    _act(call, "limit", email, number=number)


@network_command(user)
def reset(
    call: Invocation,
    email: EmailArgument,
    ask: Annotated[
        bool,
        typer.Option(
            "--ask",
            help="Read the new password from PEERCHAT_NEW_PASSWORD, standard input or "
            "a prompt, instead of having one made.",
        ),
    ] = False,
) -> None:
    """Set a new password, and end the account's sessions."""
    _act(call, "reset", email, asks=ask)


@network_command(user)
def invite(
    call: Invocation,
    expires: Annotated[
        str, typer.Option(help="How long the code works, such as 24h or 7d.")
    ] = "7d",
) -> None:
    """Print a code with which one account can be registered."""
    unit = SECONDS.get(expires[-1:].lower())
    number = expires[:-1]
    if unit is None or not number.isascii() or not number.isdigit():
        call.out.fail("--expires must be like 30m, 24h or 7d", code=EXIT_USAGE)
    run(call.out, _run_invite(call.settings(), call, int(number) * unit))


def _act(
    call: Invocation,
    action: str,
    email: str,
    *,
    number: int | None = None,
    asks: bool = False,
) -> None:
    run(call.out, _run(call.settings(), call, action, email, number, asks))


async def _run(
    settings: Settings,
    call: Invocation,
    action: str,
    email: str,
    number: int | None,
    asks: bool,
) -> None:
    from .session import open_client, read_new_password, sign_in

    password = read_new_password() if asks else ""
    async with open_client(settings, call) as client:
        await sign_in(client)
        done = await client.manage_accounts(
            action, email, limit=number, password=password
        )
    for account in done.accounts:
        _print(call, account, done)
    if done.password and not call.out.is_json:
        call.out.line(f"new password: {done.password}")


async def _run_list(settings: Settings, call: Invocation) -> None:
    from .session import open_client, sign_in

    async with open_client(settings, call) as client:
        await sign_in(client)
        after = ""
        for _ in range(PAGES_MAX):
            page = await client.manage_accounts("list", after=after)
            for account in page.accounts:
                _print(call, account, page)
            if not page.has_more or not page.accounts:
                break
            after = page.accounts[-1].email


async def _run_invite(settings: Settings, call: Invocation, life_s: int) -> None:
    from .session import open_client, sign_in

    async with open_client(settings, call) as client:
        await sign_in(client)
        made = await client.manage_accounts("invite", expires_s=life_s)
    until = datetime.fromtimestamp(made.expires_ms / 1000, UTC)
    fields = {"code": made.code, "expires_ms": made.expires_ms}
    call.out.line(made.code, fields)
    if not call.out.is_json:
        call.out.note(
            f"peerchat: works once, until {until:%Y-%m-%d %H:%M} UTC: "
            "peerchat register EMAIL --code -"
        )


def _print(call: Invocation, account: ManagedAccount, done: ManagedAccounts) -> None:
    own = account.max_requests
    fields: dict[str, object] = {
        "email": account.email,
        "role": account.role,
        "status": account.status,
        "max_requests": own,
        "created_ms": account.created_ms,
    }
    if done.password:
        fields["password"] = done.password
    limit = f"  {own} requests" if own is not None else ""
    line = f"{account.email}  {account.role}  {account.status}{limit}"
    call.out.line(line, fields)
