"""Who may make an account: anybody, whoever an admin lets in, or who has a code.

A code works once. The store keeps only its hash: 128 random bits need no salt.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from dataclasses import dataclass, field
from enum import StrEnum

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from peerchat.api import ApiError, ErrorCode

from .messages import invalid
from .store import database_ms, registration_codes

CODE_BYTES = 16
CODE_LIFE_S = 7 * 24 * 3600
CODE_LIFE_S_MAX = 365 * 24 * 3600
CODES_MAX = 10_000
"""Open codes of a store; more were made by a script that went wrong."""

EXPIRED_KEPT_MS = 30 * 24 * 3600 * 1000
"""So long it is told that a code has expired; later it is unknown."""

_row = registration_codes.c


class Registration(StrEnum):
    """What it takes to make an account."""

    OPEN = "open"
    APPROVAL = "approval"
    INVITE = "invite"


@dataclass(frozen=True, slots=True)
class RegistrationCode:
    """A code that was just made; it is shown once."""

    code: str = field(repr=False)
    expires_ms: int


async def make_code(connection: AsyncConnection, life_s: int) -> RegistrationCode:
    """A new code; raises `ApiError` when there are too many open ones."""
    now_ms = await database_ms(connection)
    old_ms = now_ms - EXPIRED_KEPT_MS
    await connection.execute(delete(registration_codes).where(_row.expires_ms < old_ms))
    is_open = (_row.used_by.is_(None)) & (_row.expires_ms > now_ms)
    count = await connection.scalar(select(func.count()).where(is_open))
    if count is not None and count >= CODES_MAX:
        raise invalid(f"There are {CODES_MAX} open registration codes: use those first")
    code = secrets.token_bytes(CODE_BYTES)
    expires_ms = now_ms + life_s * 1000
    row = {
        "code_hash": _hash(code),
        "created_ms": now_ms,
        "expires_ms": expires_ms,
    }
    await connection.execute(insert(registration_codes).values(row))
    return RegistrationCode(_shown(code), expires_ms)


async def check_code(connection: AsyncConnection, code: str) -> str:
    """The hash of a code that may be used now; raises `ApiError` (403) otherwise."""
    if not code.strip():
        raise refused(
            "One registers here with a code from an admin; give it with --code."
        )
    hashed = _hash(_bytes(code))
    query = select(_row.expires_ms, _row.used_by).where(_row.code_hash == hashed)
    found = (await connection.execute(query)).first()
    if found is None:
        raise refused("The registration code is unknown; check it, or ask for another.")
    expires_ms, used_by = found
    if used_by is not None:
        raise refused("The registration code was used already; ask for another.")
    if expires_ms <= await database_ms(connection):
        raise refused("The registration code has expired; ask for another.")
    return hashed


async def use_code(connection: AsyncConnection, code: str, email: str) -> None:
    """Take the code; of two at once one gets it, the other `ApiError` (403)."""
    hashed = await check_code(connection, code)
    query = update(registration_codes).where(
        _row.code_hash == hashed, _row.used_by.is_(None)
    )
    taken = await connection.execute(query.values(used_by=email))
    if not taken.rowcount:
        raise refused("The registration code was used already; ask for another.")


def refused(message: str) -> ApiError:
    """Somebody known, or with the right words, may still not do it."""
    return ApiError(ErrorCode.FORBIDDEN, message, status=403)


def _shown(code: bytes) -> str:
    """26 letters and digits, in groups that can be read out."""
    text = base64.b32encode(code).decode().rstrip("=").lower()
    return "-".join(text[at : at + 5] for at in range(0, len(text), 5))


def _bytes(code: str) -> bytes:
    """What was meant, whatever case, spaces and dashes came in between."""
    text = "".join(c for c in code if c.isalnum()).upper()
    try:
        return base64.b32decode(text + "=" * (-len(text) % 8))
    except ValueError:
        return b""


def _hash(code: bytes) -> str:
    return hashlib.blake2b(code, digest_size=32).hexdigest()
