"""`peerchat key`: keys for programs that use the HTTP APIs as this user."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from peerchat.sanitize import display_line
from peerchat.settings import Settings

from .options import Invocation, network_command
from .run import run

if TYPE_CHECKING:
    from peerchat.key_replies import ManagedKey

key = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Manage your API keys for OpenAI, Ollama and other HTTP clients.",
)


@network_command(key)
def create(
    call: Invocation,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for.")],
) -> None:
    """Make a key; it is shown once."""
    run(call.out, _run(call.settings(), call, "create", name=name))


@network_command(key, "list")
def list_(call: Invocation) -> None:
    """Your keys, without their secrets."""
    run(call.out, _run(call.settings(), call, "list"))


@network_command(key)
def revoke(
    call: Invocation, key_id: Annotated[str, typer.Argument(metavar="ID")]
) -> None:
    """End a key; gateways hear of it within one refresh."""
    run(call.out, _run(call.settings(), call, "revoke", key_id=key_id))


async def _run(
    settings: Settings, call: Invocation, action: str, name: str = "", key_id: str = ""
) -> None:
    from .session import open_client, sign_in

    async with open_client(settings, call) as client:
        await sign_in(client)
        keys = await client.gateways.manage_keys(
            client.token, action, name=name, key_id=key_id
        )
    _print(call, action, keys)


def _print(call: Invocation, action: str, keys: Sequence[ManagedKey]) -> None:
    for one in keys:
        fields: dict[str, object] = {
            "id": one.key_id,
            "name": one.name,
            "created_ms": one.created_ms,
        }
        made = datetime.fromtimestamp(one.created_ms / 1000, UTC)
        line = f"{one.key_id}  {made:%Y-%m-%d}  {display_line(one.name)}"
        if action == "create":
            fields["key"] = line = one.key
        call.out.line(line, fields)
    if call.out.is_json:
        return
    if action == "create":
        call.out.note("peerchat: keep it; it is not shown again")
    elif action == "revoke":
        call.out.note("peerchat: revoked; it ends everywhere within one refresh")
    elif not keys:
        call.out.note("peerchat: no keys; make one with peerchat key create NAME")
