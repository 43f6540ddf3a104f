"""`peerchat register`, `login`, `logout`, `whoami` and `token`."""

from __future__ import annotations

from peerchat.api import Account, ApiError, ErrorCode
from peerchat.sanitize import display_line
from peerchat.settings import Settings

from .options import Invocation
from .output import Output
from .session import (
    open_client,
    read_code,
    read_new_password,
    read_password,
    sign_in,
)


async def run_register(
    settings: Settings, call: Invocation, email: str, code: str | None
) -> None:
    """Make an account; does not log in."""
    given = read_code(code)
    password = read_password(is_new=True)
    async with open_client(settings, call) as client:
        account = await client.register(email, password, given)
    shown = display_line(account.email)
    then = f"log in with peerchat login {shown}"
    if account.is_pending:
        then = "an admin has to approve the account before it can log in"
    fields = {"email": shown, "is_pending": account.is_pending}
    call.out.line(f"registered {shown}: {then}", fields)


async def run_password(settings: Settings, call: Invocation) -> None:
    """Set a new password; every session but this one ends."""
    old, new = read_password(), read_new_password()
    async with open_client(settings, call) as client:
        await sign_in(client)
        await client.change_password(old, new)
        assert client.account is not None
        shown = display_line(client.account.email)
    call.out.line(
        f"changed the password of {shown}; its other sessions have ended",
        {"email": shown},
    )


async def run_logout_everywhere(settings: Settings, call: Invocation) -> None:
    """End every session of the account, wherever it is, and forget this one."""
    async with open_client(settings, call) as client:
        await sign_in(client)
        await client.logout_everywhere()
    call.out.line("logged out everywhere", {"email": None, "is_everywhere": True})


async def run_login(settings: Settings, call: Invocation, email: str) -> None:
    """Log in, and keep the token in this home."""
    password = read_password()
    async with open_client(settings, call) as client:
        account = await client.login(email, password)
    shown = display_line(account.email)
    call.out.line(f"logged in as {shown}", {"email": shown})


async def run_logout(settings: Settings, out: Output) -> None:
    """Forget this home's session at the swarm; asks nobody."""
    from peerchat.session_file import SessionFile, swarm_scope

    SessionFile(settings.home.session_path).clear(swarm_scope(settings))
    out.line("logged out", {"email": None})


async def run_whoami(settings: Settings, call: Invocation) -> None:
    """Ask the swarm whose the token of this home is, and what is left of the limit."""
    async with open_client(settings, call) as client:
        await sign_in(client)
        verified = await client.verify()
        local = client.account is not None and client.account.is_local
    limit = verified.rate_limit
    fields: dict[str, object] = {
        "email": display_line(verified.account.email),
        "is_local": local,
        "remaining": limit and limit.remaining,
        "max_requests": limit and limit.max_requests,
        "reset_s": limit and limit.reset_s,
    }
    call.out.line(account_line(Account(verified.account.email, local)), fields)
    if limit is not None and not call.out.is_json:
        call.out.line(f"{limit.remaining} of {limit.max_requests} requests left")


def account_line(account: Account) -> str:
    kind = " (local account of this home)" if account.is_local else ""
    return f"{display_line(account.email)}{kind}"


async def run_token(settings: Settings, call: Invocation) -> None:
    """Print the token of this home's session; in solo mode one is made first."""
    from peerchat.session_file import SessionFile, swarm_scope

    session = SessionFile(settings.home.session_path).load(swarm_scope(settings))
    if session is None and settings.is_solo:
        async with open_client(settings, call) as client:
            await sign_in(client)
            token = client.token
    elif session is None:
        raise ApiError(
            ErrorCode.UNAUTHORIZED,
            "not logged in: run peerchat login EMAIL first",
            status=401,
        )
    else:
        token = session.token
    call.out.line(token, {"token": token})
