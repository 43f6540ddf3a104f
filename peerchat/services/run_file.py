"""`serve.json`: what a running `peerchat serve` tells later processes of its home."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
from pathlib import Path

import msgspec

from peerchat.api import ApiError, ErrorCode, Role

logger = logging.getLogger(__name__)

FILE_BYTES_MAX = 64 * 1024
"""A larger file is not one that was written here."""


class RunFile(msgspec.Struct, frozen=True, kw_only=True):
    """Where the process is and what it serves."""

    pid: int
    mode: str
    """``solo``, ``open`` or ``private``."""
    swarm: str = ""
    """Name of the private swarm in this home."""
    dht: str
    """``host:port`` of its node, as this machine reaches it."""
    bootstrap: list[str] = []
    """What others join through: where it joined, or its own node."""
    roles: dict[str, str] = {}
    """Role to public key, hex."""
    http: str = ""
    metrics: list[str] = []
    started_s: float = 0.0
    """Unix time."""

    def keys(self) -> dict[Role, bytes]:
        """The public keys of known roles."""
        found: dict[Role, bytes] = {}
        for name, key in self.roles.items():
            with contextlib.suppress(ValueError):
                found[Role(name)] = bytes.fromhex(key)
        return found


async def answers(run: RunFile) -> bool:
    """Whether the process's DHT node is there: a process id may be somebody else's.

    Pings it from a node of its own and joins nothing: the other nodes of the swarm may
    be out of reach from this machine's loopback address.
    """
    from peerchat.net import Address, HyperDHT, NetError, system_env

    host, _, port = run.dht.rpartition(":")
    if not port.isdigit():
        return False
    async with HyperDHT(system_env(), host="127.0.0.1", ephemeral=True) as dht:
        try:
            await dht.node.ping(Address(host, int(port)))
        except NetError:
            return False
    return True


def read_run_file(path: Path) -> RunFile | None:
    """What is written there; a damaged file is none, and is removed."""
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(FILE_BYTES_MAX), type=RunFile)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, UnicodeError) as error:
        logger.warning("%s cannot be read (%s)", path, type(error).__name__)
        remove_run_file(path)
        return None


def write_run_file(path: Path, content: RunFile) -> None:
    """Put the whole file in place at once, mode 0600.

    Raises:
        ApiError: STORE_FAILED, when the disk does not take it.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".serve-")
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.json.encode(content))
        Path(name).replace(path)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ApiError(
            ErrorCode.STORE_FAILED,
            f"Cannot write {path}: {reason}. Free space or check its mode.",
        ) from error


def remove_run_file(path: Path, *, pid: int | None = None) -> None:
    """Remove the file; with ``pid`` only when that process wrote it."""
    if pid is not None:
        found = read_run_file(path)
        if found is None or found.pid != pid:
            return
    with contextlib.suppress(OSError):
        path.unlink()


def is_process_alive(pid: int) -> bool:
    """Whether a process has this id; where that cannot be asked, it may have."""
    if pid <= 0:
        return False
    if sys.platform == "win32":
        return True  # os.kill(pid, 0) would end it there
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Whether it ended and its parent did not look yet (Linux only)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return False
    return fields.rpartition(")")[2].split()[:1] == ["Z"]
