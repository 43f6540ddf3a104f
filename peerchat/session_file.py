"""Who is logged in, kept between runs: JSON in a file of mode 0600.

A token is a bearer credential, and in an open swarm anyone may announce a gateway. So
each swarm has its own entry: a token is never shown to a swarm that did not give it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from .api import ApiError, ErrorCode
from .settings import Settings
from .swarm_files import read_root

logger = logging.getLogger(__name__)

SESSION_BYTES_MAX = 1024 * 1024
"""A larger file is not one that was written here."""


@dataclass(frozen=True, slots=True)
class Session:
    """One login."""

    email: str
    token: str = field(repr=False)
    is_local: bool = False


def swarm_scope(settings: Settings) -> str:
    """The name under which a swarm's session is kept.

    A private swarm's is its root key: a name may be given to another swarm later.
    """
    if settings.swarm:
        return f"swarm:{read_root(settings.home, settings.swarm) or settings.swarm}"
    return "open" if settings.is_open else "solo"


class SessionFile:
    """The logins of one home; read anew at each call, as other processes write it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self, scope: str) -> Session | None:
        """Give the login at a swarm; a damaged file is nobody's, with a warning."""
        entry = self._read().get(scope)
        if not isinstance(entry, dict):
            return None
        email, token = entry.get("email"), entry.get("token")
        if not (isinstance(email, str) and isinstance(token, str) and token):
            return None
        return Session(email, token, entry.get("is_local") is True)

    def save(self, scope: str, session: Session) -> None:
        """Keep a login; raises `ApiError` when the disk does not take it."""
        entry = {
            "email": session.email,
            "token": session.token,
            "is_local": session.is_local,
        }
        self._write({**self._read(), scope: entry})

    def clear(self, scope: str) -> None:
        """Forget a login; nothing to forget is fine."""
        sessions = self._read()
        if sessions.pop(scope, None) is not None:
            self._write(sessions)

    def _read(self) -> dict[str, object]:
        try:
            with self.path.open("rb") as file:
                data = json.loads(file.read(SESSION_BYTES_MAX))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            logger.warning(
                "%s cannot be read (%s); log in again", self.path, type(error).__name__
            )
            return {}
        sessions = data.get("sessions") if isinstance(data, dict) else None
        return sessions if isinstance(sessions, dict) else {}

    def _write(self, sessions: dict[str, object]) -> None:
        """Replace the file as a whole: a crash leaves the old one or the new one."""
        text = json.dumps({"version": 1, "sessions": sessions}, indent=2)
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # mkstemp makes the file with mode 0600 from the start.
            handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=".session-")
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                Path(name).replace(self.path)
            except BaseException:
                with contextlib.suppress(OSError):
                    Path(name).unlink()
                raise
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ApiError(
                ErrorCode.STORE_FAILED,
                f"Cannot write {self.path}: {reason}. Free space or check its mode.",
                status=500,
            ) from error
