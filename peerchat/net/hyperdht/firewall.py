"""Asks a server's own hook whether a client may connect, at once or later.

Source: hyperdht/lib/server.js `firewall`; docs/PROTOCOL.md section 5.5.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine

from peerchat.net.identity import PublicKey

from .messages import NoisePayload

logger = logging.getLogger(__name__)

FirewallHook = Callable[[PublicKey, NoisePayload], bool | Awaitable[bool]]
"""Asked before a client is let in; True keeps it out, as in hyperdht."""

VERDICT_TIMEOUT_S = 10.0
"""For a hook that is awaited; the client has stopped waiting by then."""

Spawn = Callable[[Coroutine[None, None, None]], asyncio.Task[None]]


def ask_firewall(
    hook: FirewallHook | None,
    client_key: PublicKey,
    payload: NoisePayload,
    go_on: Callable[[bool], None],
    spawn: Spawn,
) -> None:
    """Call ``go_on`` with whether the client is refused; a hook that fails refuses.

    It is called before this returns unless the hook wants to be awaited, so that a
    handshake is normally answered in the turn that it came in.
    """
    if hook is None:
        go_on(False)
        return
    try:
        verdict = hook(client_key, payload)
    except Exception:
        logger.exception("the firewall of a server failed; refusing the client")
        verdict = True
    if isinstance(verdict, bool):
        go_on(verdict)
    else:
        spawn(_await_verdict(verdict, go_on))


async def _await_verdict(
    verdict: Awaitable[bool], go_on: Callable[[bool], None]
) -> None:
    try:
        async with asyncio.timeout(VERDICT_TIMEOUT_S):
            is_refused = await verdict
    except Exception:
        logger.exception("the firewall of a server failed; refusing the client")
        is_refused = True
    go_on(is_refused)
