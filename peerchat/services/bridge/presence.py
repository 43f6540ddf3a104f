"""Whether a caller is still there: who vanished without a word, and who only rests.

TCP tells neither by itself. A caller that reads nothing still acknowledges what comes;
one that is gone does not. ``TCP_USER_TIMEOUT`` ends both alike (Linux, since 5.11), so
the system is asked for the acknowledgements instead, where it tells.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys

from peerchat.services.prompt_server import CREDIT_TIMEOUT_S

WRITE_TIMEOUT_S = CREDIT_TIMEOUT_S
"""A caller who is there and takes nothing for so long is given up, as in the swarm."""

GONE_S = 10.0
"""Nothing acknowledged for so long: a radio that changes its cell takes less."""

LOOK_EVERY_S = 1.0

PROBE_AFTER_S = 4
PROBE_EVERY_S = 2
PROBES_MAX = 3
"""Where nothing is written, a caller is found gone after the same 10 s."""

_FIELD = struct.Struct("=I")
_UNACKED_AT = 24
_LAST_ACK_MS_AT = 56
_INFO_BYTES = 60
"""Of Linux's ``struct tcp_info``: packets under way, and the last acknowledgement."""


def watch_idle(transport: asyncio.BaseTransport | None) -> None:
    """Have the system find out when the caller is gone and nothing is written.

    Then the connection is lost, and with it the task that serves the request.
    """
    sock = _socket(transport)
    if sock is None:
        return
    wanted = (
        ("TCP_KEEPIDLE", PROBE_AFTER_S),
        ("TCP_KEEPINTVL", PROBE_EVERY_S),
        ("TCP_KEEPCNT", PROBES_MAX),
    )
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in wanted:
            # Not every system has all of them.
            if (option := getattr(socket, name, None)) is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)


async def until_gone(transport: asyncio.BaseTransport | None) -> None:
    """Return once the caller acknowledges nothing of what is written; maybe never."""
    sock = _socket(transport)
    if sock is None:
        await asyncio.Event().wait()
        return
    silent_s = 0.0
    while silent_s < GONE_S:
        await asyncio.sleep(LOOK_EVERY_S)
        silent_s = silent_s + LOOK_EVERY_S if is_silent(sock, LOOK_EVERY_S) else 0.0


def is_silent(sock: socket.socket, for_s: float) -> bool:
    """Whether something is under way, and nothing was acknowledged for so long.

    False where the system does not tell, and for whoever reads nothing: once its window
    is closed, nothing is under way.
    """
    if sys.platform != "linux":
        return False
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    except OSError:
        return False  # it is closed, which whoever writes hears of
    (unacked,) = _FIELD.unpack_from(info, _UNACKED_AT)
    (last_ack_ms,) = _FIELD.unpack_from(info, _LAST_ACK_MS_AT)
    return bool(unacked) and last_ack_ms > for_s * 1000


def _socket(transport: asyncio.BaseTransport | None) -> socket.socket | None:
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    found: socket.socket = sock
    return found
