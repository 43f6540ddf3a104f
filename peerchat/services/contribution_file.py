"""Whether this home's processor is paused, and its tokens of today, across restarts.

``paused`` is a file that is there or not, so that `peerchat pause` reaches a running
processor of the home, a serve's or the app's, on every system: it looks twice a second,
and says in ``processor`` what it has taken.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from datetime import datetime
from pathlib import Path

from peerchat.api import ApiError, ErrorCode
from peerchat.settings import Home

from .private_files import write_private
from .run_file import is_process_alive

TAKEN_WITHIN_S = 5.0
"""A processor looks every half second, unless its machine has no time for it."""

POLL_S = 0.05

logger = logging.getLogger(__name__)


class ContributionFile:
    """The state folder's part of a contribution."""

    def __init__(self, home: Home) -> None:
        self._paused = home.state_dir / "paused"
        self._tokens = home.state_dir / "tokens-today"
        self._taken = home.state_dir / "processor"
        self._refused: set[Path] = set()
        """Files that the disk did not take; they are tried twice a second."""

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

    def take(self, *, is_paused: bool) -> None:
        """Say for the processor of this process what it keeps to from now on."""
        self._write(self._taken, f"{os.getpid()} {_word(is_paused)}")

    def keep(self, *, is_paused: bool) -> None:
        """The same, unless another live processor of the home says it: of two, as when
        a command runs beside the app, the later one; the other, once that is gone."""
        pid, taken = self._read_taken()
        if pid == os.getpid():
            is_due = taken != _word(is_paused)
        else:
            is_due = not is_process_alive(pid)
        if is_due:
            self.take(is_paused=is_paused)

    def leave(self) -> None:
        """The processor of this process is gone."""
        if self._read_taken()[0] == os.getpid():
            with contextlib.suppress(OSError):
                self._taken.unlink()

    def wait_taken(self, *, is_paused: bool, timeout_s: float = TAKEN_WITHIN_S) -> bool:
        """Wait until the home's processor keeps to it; False when none runs.

        Blocks, for a command or a thread: another process's doing is no event that
        could be awaited everywhere.

        Raises:
            ApiError: TIMEOUT when it runs and does not take it.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            pid, taken = self._read_taken()
            if not is_process_alive(pid):
                return False
            if taken == _word(is_paused):
                return True
            if time.monotonic() > deadline_s:
                raise _not_taken(pid, timeout_s)
            time.sleep(POLL_S)

    def _read_taken(self) -> tuple[int, str]:
        """The processor's process, 0 for none, and what it keeps to."""
        try:
            pid, _, taken = self._taken.read_text("ascii").partition(" ")
            return int(pid), taken
        except (OSError, ValueError):
            return 0, ""

    def tokens(self, now: datetime) -> int:
        """Tokens given today, as far as they were written down."""
        try:
            day, _, number = self._tokens.read_text("ascii").partition(" ")
            return max(0, int(number)) if day == now.date().isoformat() else 0
        except (OSError, ValueError):
            return 0

    def write_tokens(self, tokens: int, now: datetime) -> None:
        """Write them down; a disk that does not take it is logged once."""
        self._write(self._tokens, f"{now.date().isoformat()} {tokens}")

    def _write(self, path: Path, text: str) -> None:
        try:
            write_private(path, text.encode())
        except ApiError as error:
            if path not in self._refused:
                logger.warning("%s", error.message)
            self._refused.add(path)
        else:
            self._refused.discard(path)


def _word(is_paused: bool) -> str:
    return "paused" if is_paused else "open"


def _not_taken(pid: int, timeout_s: float) -> ApiError:
    return ApiError(
        ErrorCode.TIMEOUT,
        f"This is saved, but process {pid} did not take it within {timeout_s:.0f} s: "
        "look at its log, or start it again.",
        status=504,
    )


def _unwritable(path: Path, error: OSError) -> ApiError:
    reason = (error.strerror or str(error)).lower()
    return ApiError(
        ErrorCode.STORE_FAILED,
        f"Cannot write {path}: {reason}. Free space or check its mode.",
    )
