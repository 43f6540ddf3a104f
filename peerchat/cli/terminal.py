"""`peerchat` without a command: the app in front of a node of this process."""

from __future__ import annotations

import sys

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
    from peerchat.logs import Logs
    from peerchat.services.host import NodeHost
    from peerchat.tui.app import PeerchatApp

    with Logs(settings, verbosity=call.verbosity, stream=None):
        app = PeerchatApp(NodeHost(settings), settings)
        app.run()
    raise SystemExit(app.return_code or 0)
