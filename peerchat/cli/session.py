"""What a command needs of the network: a node for as long as the command runs.

Solo, the node runs every role but the bridge in this process; when `peerchat serve`
runs in the same home, or in an open swarm, it runs none and is only a client.
"""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TextIO

from peerchat.api import ApiError, ErrorCode
from peerchat.settings import Settings

from .options import Invocation

if TYPE_CHECKING:
    from peerchat.client import Client
    from peerchat.services.node_runtime import NodeRuntime

PASSWORD_VARIABLE = "PEERCHAT_PASSWORD"
NEW_PASSWORD_VARIABLE = "PEERCHAT_NEW_PASSWORD"
CODE_VARIABLE = "PEERCHAT_CODE"


def read_password(*, is_new: bool = False) -> str:
    """Take the password from the environment, or ask for it without showing it."""
    return _read_secret(PASSWORD_VARIABLE, "Password: ", is_new=is_new)


def read_new_password() -> str:
    """The password that takes another's place, likewise."""
    return _read_secret(NEW_PASSWORD_VARIABLE, "New password: ", is_new=True)


def read_code(given: str | None) -> str:
    """A registration code: as given, ``-`` for standard input, or the environment."""
    if given == "-":
        return _line(f"no code: give it on standard input, or set {CODE_VARIABLE}")
    return given or os.environ.get(CODE_VARIABLE, "")


def _read_secret(variable: str, prompt: str, *, is_new: bool) -> str:
    if given := os.environ.get(variable):
        return given
    if not sys.stdin.isatty():
        return _line(f"no password: set {variable} or run this in a terminal")
    first = getpass.getpass(prompt)
    if is_new and first != getpass.getpass("Once more: "):
        raise ApiError(
            ErrorCode.INVALID_REQUEST, "the two passwords differ: try again", status=400
        )
    return first


def _line(otherwise: str) -> str:
    """The next line of standard input."""
    line = sys.stdin.readline().rstrip("\r\n")
    if not line:
        raise ApiError(ErrorCode.INVALID_REQUEST, otherwise, status=400)
    return line


@asynccontextmanager
async def open_client(settings: Settings, call: Invocation) -> AsyncIterator[Client]:
    """A client of the swarm for one command; leaves cleanly at the end."""
    async with open_node(settings, call) as node:
        yield node.client


@asynccontextmanager
async def open_node(settings: Settings, call: Invocation) -> AsyncIterator[NodeRuntime]:
    """A node that serves at most this command."""
    from peerchat.logs import Logs
    from peerchat.services.node_runtime import NodeRuntime

    with Logs(settings, verbosity=call.verbosity - 2, stream=log_stream(call)):
        runtime = NodeRuntime(settings)
        await runtime.start()
        try:
            yield runtime
        finally:
            # This command was the only user of whatever it served.
            await runtime.close(drain_s=0)


def log_stream(call: Invocation) -> TextIO | None:
    """A command's own line says what failed; people who want more say -v."""
    return sys.stderr if call.verbosity > 0 else None


async def sign_in(client: Client) -> None:
    """Be somebody; raises `ApiError` that says how to log in."""
    if client.account is None:
        raise ApiError(
            ErrorCode.UNAUTHORIZED,
            "not logged in: run peerchat register EMAIL, then peerchat login EMAIL",
            status=401,
        )
