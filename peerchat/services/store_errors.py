"""What a failure of the database or the disk means for a person; no I/O.

Every failure is one line that names the store and what to do. A line never holds what
the driver said: that may hold values, and goes to the log.
"""

from __future__ import annotations

import logging

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from peerchat.api import ApiError, ErrorCode

logger = logging.getLogger(__name__)

_SQLITE = {
    "SQLITE_BUSY": (
        "is locked by another program. Close it (peerchat stop) and try again"
    ),
    "SQLITE_LOCKED": "is locked. Try again",
    "SQLITE_FULL": "cannot grow: the disk is full. Free some space and try again",
    "SQLITE_READONLY": "is read-only. Make the file and its folder writable",
    "SQLITE_CANTOPEN": "cannot be opened. Check that its folder exists and is yours",
    "SQLITE_PERM": "may not be opened. Make the file yours",
    "SQLITE_IOERR": "cannot be read or written. Check the disk",
    "SQLITE_CORRUPT": (
        "is damaged. Restore it from a backup, or move it away to start anew"
    ),
    "SQLITE_NOTADB": (
        "is no database. Restore it from a backup, or move it away to start anew"
    ),
}

_POSTGRES = {
    "28": (
        "refuses the user or the password. Check PEERCHAT_DATABASE_URL and pg_hba.conf"
    ),
    "3D": (
        "does not exist on its server. Create it with createdb, or correct "
        "PEERCHAT_DATABASE_URL"
    ),
    "42501": (
        "lets its user do too little. Make the user its owner, or grant CREATE on its "
        "schema"
    ),
    "25006": "is read-only. Use the server that takes writes, or free its disk",
    "53100": "cannot grow: the server's disk is full. Free some space and try again",
    "53300": (
        "has no free connection. Raise max_connections, or end other programs of it"
    ),
    "53": "lacks memory or space. See the server's log",
    "55P03": "is busy with other requests. Try again",
    "57014": "is busy with other requests. Try again",
    "40": "is busy with other requests. Try again",
    "57P03": "is starting or stopping. Try again in a moment",
    "57P": "was stopped while it was used. Start PostgreSQL and try again",
    "08": "lost its connection. Check that PostgreSQL runs, and try again",
    "58": "cannot be read or written. Check the server's disk",
    "XX": "is damaged. See the server's log, or restore it from a backup",
}
"""By SQLSTATE or how it begins: PostgreSQL's manual, appendix A. Longer ones first."""


def store_error(place: object, error: BaseException) -> ApiError:
    """The failure as `ApiError` with STORE_FAILED; logs what the driver said.

    Args:
        place: where the store is, in words without a secret.
        error: what was raised by SQLAlchemy, a driver or the system.
    """
    # Only the first line: what follows are statements, and details with values.
    said = str(error).partition("\n")[0]
    logger.error("the store %s: %s: %s", place, type(error).__name__, said)
    message = f"The store {place} {_remedy(error)}."
    return ApiError(ErrorCode.STORE_FAILED, message)


def _remedy(error: BaseException) -> str:
    if isinstance(error, PoolTimeoutError):
        return "is busy with other requests. Try again"
    origin = error.orig if isinstance(error, DBAPIError) else error
    code = getattr(origin, "sqlite_errorname", "") or ""
    for name, remedy in _SQLITE.items():
        if code.startswith(name):
            return remedy
    state = getattr(origin, "sqlstate", "") or ""
    for name in sorted(_POSTGRES, key=len, reverse=True):
        if state.startswith(name):
            return _POSTGRES[name]
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return _POSTGRES["08"]
    return _of_the_system(error)


def _of_the_system(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "does not answer in time. Check the server and the network"
    if isinstance(error, ConnectionError):
        reason = type(error).__name__.removesuffix("Error").lower()
        return f"cannot be reached ({reason}). Check that PostgreSQL runs there"
    if isinstance(error, OSError):
        reason = (error.strerror or type(error).__name__).lower()
        return f"cannot be used ({reason}). Check its mode, its place and free space"
    return f"failed ({type(error).__name__}). The log says why"
