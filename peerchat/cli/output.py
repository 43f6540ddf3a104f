"""What commands print: results on standard output, errors on standard error.

With ``--json`` every result is one JSON object a line. Text that came from other peers
is made inert before it is printed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import NoReturn

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
            print(_json(fields), flush=True)

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
            print(_json({"error": body}), file=sys.stderr)
        else:
            print(f"peerchat: {line}", file=sys.stderr)

    def fail(self, message: str, *, code: int = EXIT_FAILED) -> NoReturn:
        """Print the line and end the command."""
        self.error(message)
        raise SystemExit(code)


def _json(fields: Mapping[str, object]) -> str:
    """One object on one line; the standard library's loads in half the time."""
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"), default=_plain)


def _plain(value: object) -> object:
    """What JSON itself has no form for, such as a dataclass."""
    import msgspec

    return msgspec.to_builtins(value)
