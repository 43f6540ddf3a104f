"""Where the passphrase of a root key comes from: a file, the environment, a prompt."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path

from peerchat.api import ApiError, ErrorCode
from peerchat.services.private_swarms import PrivateSwarms
from peerchat.services.root_key import PASSPHRASE_VARIABLE

PASSPHRASE_BYTES_MAX = 8 * 1024


def root_passphrase(swarms: PrivateSwarms, name: str, file: Path | None) -> str:
    """The passphrase, asked for only when the root key is locked."""
    return ask_passphrase(file) if swarms.needs_passphrase(name) else ""


def ask_passphrase(file: Path | None) -> str:
    if (given := given_passphrase(file)) is not None:
        return given
    if sys.stdin.isatty():
        return getpass.getpass("Passphrase of the root key: ")
    return ""


def new_passphrase(file: Path | None) -> str:
    if (given := given_passphrase(file)) is not None:
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


def given_passphrase(file: Path | None) -> str | None:
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
