"""`peerchat` without a command: the app in front of a node of this process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from .options import Invocation
from .output import EXIT_USAGE


def run_app(call: Invocation) -> None:
    """Open the app; ends with its return code."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        call.out.fail(
            "the app needs a terminal: use `peerchat chat` for line mode or"
            ' `peerchat ask "…"` in scripts',
            code=EXIT_USAGE,
        )
    settings = call.settings()
    with _keys_kept():
        from peerchat.logs import Logs
        from peerchat.services.host import NodeHost
        from peerchat.tui.app import PeerchatApp

        with Logs(settings, verbosity=call.verbosity, stream=None):
            app = PeerchatApp(NodeHost(settings), settings)
            app.run()
    raise SystemExit(app.return_code or 0)


@contextmanager
def _keys_kept() -> Iterator[None]:
    """Take keys as the app will, from now on, and put the terminal back at the end.

    The app's modules take most of a second to load. What is typed meanwhile would be
    echoed, and Enter would reach the app as a newline.
    """
    try:
        import termios
    except ImportError:  # Windows: the console keeps keys as events
        yield
        return
    stdin = sys.stdin.fileno()
    before = termios.tcgetattr(stdin)
    now = termios.tcgetattr(stdin)
    now[0] &= ~(termios.ICRNL | termios.INLCR)
    now[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(stdin, termios.TCSANOW, now)
    try:
        yield
    finally:
        termios.tcsetattr(stdin, termios.TCSANOW, before)
