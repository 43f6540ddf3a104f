"""`peerchat trace`: which way one of the last requests went, and when."""

from __future__ import annotations

from peerchat.api import Hop
from peerchat.sanitize import display_line
from peerchat.settings import Settings

from .options import Invocation
from .session import open_client, sign_in


async def run_trace(settings: Settings, call: Invocation, request_id: str) -> None:
    """Print each hop of one of the caller's last requests."""
    async with open_client(settings, call) as client:
        await sign_in(client)
        for hop in await client.trace(request_id):
            call.out.line(hop_line(hop), hop_fields(hop))


def hop_line(hop: Hop) -> str:
    """One hop for people."""
    peer = display_line(hop.peer)[:8] or "-"
    return (
        f"{hop.at_s:9.3f} s  {hop.role:<9} {hop.what:<10} {peer:<8}  {hop.detail}"
    ).rstrip()


def hop_fields(hop: Hop) -> dict[str, object]:
    """One hop for programs."""
    return {
        "at_s": hop.at_s,
        "role": hop.role,
        "what": hop.what,
        "peer": hop.peer,
        "detail": hop.detail,
    }
