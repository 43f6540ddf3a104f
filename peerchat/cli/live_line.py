"""One line of standard error that is written over, where a person looks."""

from __future__ import annotations

import sys


class LiveLine:
    """Where something stands; nothing where standard error is no terminal.

    Args:
        is_wanted: False for programs.
    """

    def __init__(self, *, is_wanted: bool) -> None:
        self._is_live = is_wanted and sys.stderr.isatty()
        self._is_shown = False

    def show(self, text: str) -> None:
        """Write it over the one before."""
        if self._is_live:
            self._is_shown = True
            self._write(text)

    def clear(self) -> None:
        """Leave no trace of it."""
        if self._is_shown:
            self._is_shown = False
            self._write("")

    def _write(self, text: str) -> None:
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
