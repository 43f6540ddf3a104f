"""Admits a prompt by one statement on SQLite, on the loop's own thread.

A transaction through the store takes eight hand-overs to a thread and back, each of
which waits for the interpreter's lock; a busy gateway spent most of its time there. One
statement takes 50 µs, and never waits: it syncs nothing to disk, and what is locked,
refused or out of the ordinary is left to the store.
"""

from __future__ import annotations

import logging
import sqlite3
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

_ADMIT = """
INSERT INTO accepted_prompts ("user", at_ms, request, uses)
SELECT :user, :now_ms, :request, 1
WHERE (
    SELECT count(*) FROM accepted_prompts
    WHERE "user" = :user AND at_ms > :after_ms
) < :most
AND NOT EXISTS (
    SELECT 1 FROM accepted_prompts
    WHERE "user" = :user
    AND (at_ms > :now_ms OR (:request != '' AND request = :request))
)
RETURNING id
"""
"""Nothing when the limit is reached, the request known, or a row of the future."""

_LEFT = """
SELECT count(*), min(at_ms) FROM accepted_prompts
WHERE "user" = :user AND at_ms > :after_ms
"""


class Locked(Exception):
    """Another transaction holds the file; ours are over in milliseconds."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """A new row, and the window it is in."""

    row_id: int
    count: int
    first_ms: int


class QuickWindow:
    """A connection of its own to the store's file."""

    def __init__(self, path: Path) -> None:
        # No waiting: another process's transaction would hold up the whole loop.
        self._connection = sqlite3.connect(path, timeout=0, isolation_level=None)
        # Checkpoints sync the disk; the store's own connection makes them.
        for pragma in ("synchronous=NORMAL", "wal_autocheckpoint=0"):
            with suppress(sqlite3.Error):
                self._connection.execute(f"PRAGMA {pragma}")

    def admit(
        self, user: str, most: int, request: str, now_ms: int, after_ms: int
    ) -> Admitted | None:
        """Take one of ``most`` since ``after_ms``; None: ask the store.

        Raises:
            Locked: try again soon.
        """
        values = {
            "user": user,
            "most": most,
            "request": request,
            "now_ms": now_ms,
            "after_ms": after_ms,
        }
        try:
            rows = self._connection.execute(_ADMIT, values).fetchall()
            if not rows:
                return None
            count, first_ms = self._connection.execute(_LEFT, values).fetchone()
        except sqlite3.Error as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                raise Locked from None
            logger.debug("left to the store: %s", error)
            return None
        return Admitted(rows[0][0], count, first_ms)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
