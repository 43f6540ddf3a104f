"""What commands print: results on standard output, errors on standard error.

With ``--json`` every result is one JSON object a line. Text that came from other peers
is made inert before it is printed.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import NoReturn

import msgspec

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


class Output:
    """Where a command's results go."""

    def __init__(self, *, is_json: bool) -> None:
        self.is_json = is_json

    def line(self, text: str, fields: Mapping[str, object] | None = None) -> None:
        """Print ``text`` for a person, or ``fields`` for a program."""
        if not self.is_json:
            print(text, flush=True)
        elif fields is not None:
            print(msgspec.json.encode(fields).decode(), flush=True)

    def fragment(self, text: str) -> None:
        """Print a piece of an answer without ending the line."""
        sys.stdout.write(text)
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """Tell a person something that is not part of the result."""
        print(text, file=sys.stderr, flush=True)

    def error(self, message: str, fields: Mapping[str, object] | None = None) -> None:
        """Print one line that says what to do; a JSON object with ``--json``."""
        line = " ".join(message.split())
        if self.is_json:
            body = {"message": line, **(fields or {})}
            print(msgspec.json.encode({"error": body}).decode(), file=sys.stderr)
        else:
            print(f"peerchat: {line}", file=sys.stderr)

    def fail(self, message: str, *, code: int = EXIT_FAILED) -> NoReturn:
        """Print the line and end the command."""
        self.error(message)
        raise SystemExit(code)
