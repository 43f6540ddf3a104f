"""Whether this home's processor is paused, and its tokens of today, across restarts.

``paused`` is a file that is there or not, so that `peerchat pause` reaches a running
serve of the home on every system: the processor looks once a second.
"""

from __future__ import annotations

import logging
from datetime import datetime
from pathlib import Path

from peerchat.api import ApiError, ErrorCode
from peerchat.settings import Home

logger = logging.getLogger(__name__)


class ContributionFile:
    """The state folder's part of a contribution."""

    def __init__(self, home: Home) -> None:
        self._paused = home.state_dir / "paused"
        self._tokens = home.state_dir / "tokens-today"

    def is_paused(self) -> bool:
        """Whether the owner paused the processor."""
        return self._paused.exists()

    def set_paused(self, is_paused: bool) -> None:
        """Pause or resume; `ApiError` STORE_FAILED when the disk does not take it."""
        try:
            if is_paused:
                self._paused.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._paused.touch(mode=0o600)
            else:
                self._paused.unlink(missing_ok=True)
        except OSError as error:
            raise _unwritable(self._paused, error) from error

    def tokens(self, now: datetime) -> int:
        """Tokens given today, as far as they were written down."""
        try:
            day, _, number = self._tokens.read_text("ascii").partition(" ")
            return max(0, int(number)) if day == now.date().isoformat() else 0
        except (OSError, ValueError):
            return 0

    def write_tokens(self, tokens: int, now: datetime) -> None:
        """Write them down; a disk that does not take it is logged."""
        try:
            self._tokens.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._tokens.touch(mode=0o600)
            self._tokens.write_text(f"{now.date().isoformat()} {tokens}", "ascii")
        except OSError as error:
            logger.warning("cannot write %s: %s", self._tokens, error.strerror)


def _unwritable(path: Path, error: OSError) -> ApiError:
    reason = (error.strerror or str(error)).lower()
    return ApiError(
        ErrorCode.STORE_FAILED,
        f"Cannot write {path}: {reason}. Free space or check its mode.",
    )
