"""The root key of a swarm in its owner's home: locked, unlocked, backed up.

Under a passphrase each takes about a second of CPU, in a thread.
"""

from __future__ import annotations

import asyncio
import secrets as chance

from peerchat.api import ApiError, ErrorCode
from peerchat.net.crypto.primitives import KeyPair
from peerchat.net.errors import DecodeError
from peerchat.trust.errors import WrongPassphrase
from peerchat.trust.rootkey import (
    NONCE_BYTES,
    SALT_BYTES,
    Backup,
    is_locked,
    lock_root,
    pack_backup,
    unlock_root_untrusted,
    unpack_backup_untrusted,
)

from .membership import SwarmHomes

PASSPHRASE_VARIABLE = "PEERCHAT_PASSPHRASE"


async def locked_root(seed: bytes, passphrase: str) -> bytes:
    """The content of `root.key`; readable for its owner when there is no passphrase."""
    return await asyncio.to_thread(
        lock_root, seed, passphrase or None, salt=_salt(), nonce=_nonce()
    )


def is_root_locked(homes: SwarmHomes, name: str) -> bool:
    """Whether a passphrase is needed; raises `ApiError` like `unlock_root`."""
    try:
        return is_locked(_root_file(homes, name))
    except DecodeError as error:
        raise _damaged(error) from None


async def unlock_root(homes: SwarmHomes, name: str, passphrase: str) -> KeyPair:
    """The root key pair.

    Raises:
        ApiError: FORBIDDEN: it is not in this home; UNAUTHORIZED: it is locked and the
            passphrase is missing or wrong; STORE_FAILED: damaged.
    """
    data = _root_file(homes, name)
    try:
        seed = await asyncio.to_thread(unlock_root_untrusted, data, passphrase or None)
    except WrongPassphrase:
        raise _wrong("root key", passphrase) from None
    except DecodeError as error:
        raise _damaged(error) from None
    pair = KeyPair.from_seed(seed)
    if pair.public_key != homes.load(name).root:
        raise _damaged("The root key is that of another swarm.")
    return pair


async def packed(backup: Backup, passphrase: str) -> bytes:
    """The content of a backup's file."""
    return await asyncio.to_thread(
        pack_backup, backup, passphrase or None, salt=_salt(), nonce=_nonce()
    )


async def unpacked(data: bytes, passphrase: str) -> Backup:
    """What is in a backup's file; raises `ApiError` like `unlock_root`."""
    try:
        return await asyncio.to_thread(
            unpack_backup_untrusted, data, passphrase or None
        )
    except WrongPassphrase:
        raise _wrong("backup", passphrase) from None
    except DecodeError as error:
        raise _damaged(error) from None


def is_backup_locked(data: bytes) -> bool:
    """Whether a backup needs a passphrase; raises `ApiError` when it is none."""
    try:
        return is_locked(data)
    except DecodeError as error:
        raise _damaged(error) from None


def _root_file(homes: SwarmHomes, name: str) -> bytes:
    data = homes.load_root(name)
    if data is None:
        homes.load(name)  # says so when there is no such swarm
        raise ApiError(
            ErrorCode.FORBIDDEN,
            f"The root key of {name} is not in this home: only the owner can do this.",
            status=403,
        )
    return data


def _wrong(what: str, passphrase: str) -> ApiError:
    message = (
        f"The passphrase does not open the {what}: try again."
        if passphrase
        else f"The {what} is locked: give its passphrase by {PASSPHRASE_VARIABLE}, or "
        "run this in a terminal."
    )
    return ApiError(ErrorCode.UNAUTHORIZED, message, status=401)


def _damaged(error: object) -> ApiError:
    message = f"{error} Restore it from a backup with peerchat swarm restore."
    return ApiError(ErrorCode.STORE_FAILED, message)


def _salt() -> bytes:
    return chance.token_bytes(SALT_BYTES)


def _nonce() -> bytes:
    return chance.token_bytes(NONCE_BYTES)
