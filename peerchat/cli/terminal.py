"""`peerchat` without a command: the app in front of a node of this process."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from peerchat.sanitize import display_text

from .options import Invocation
from .output import EXIT_USAGE
from .run import told_to_end

if TYPE_CHECKING:
    from peerchat.api import Node
    from peerchat.tui.app import PeerchatApp

TYPED_BYTES_MAX = 4096
"""A terminal keeps no longer line."""

END_TIMEOUT_S = 20.0
"""More than the app takes to close. Past it the process ends all the same: what hangs
in front of a terminal that is gone would be there for ever."""


def run_app(call: Invocation) -> None:
    """Open the app; ends with its return code."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        call.out.fail(
            "the app needs a terminal: use `peerchat chat` for line mode or"
            ' `peerchat ask "…"` in scripts',
            code=EXIT_USAGE,
        )
    settings = call.settings()
    with _keys_kept() as typed:
        from peerchat.logs import Logs
        from peerchat.services.host import NodeHost
        from peerchat.tui.app import PeerchatApp

        with Logs(settings, verbosity=call.verbosity, stream=None):
            node = NodeHost(settings)
            app = PeerchatApp(node, settings, typed=typed)
            asyncio.run(_shown(app, node))
    raise SystemExit(app.return_code or 0)


async def _shown(app: PeerchatApp, node: Node) -> None:
    """Run the app; a signal ends it as Ctrl+Q does, which says goodbye to peers."""
    loop = asyncio.get_running_loop()
    ours = [number for number in range(3) if os.isatty(number)]

    def end(number: int) -> None:
        code = 128 + number
        if number != signal.SIGTERM:
            _let_go(ours)
        last = threading.Timer(END_TIMEOUT_S, os._exit, (code,))
        last.daemon = True
        last.start()
        loop.call_soon_threadsafe(app.end, code)

    with told_to_end(end):
        try:
            await app.run_async()
        finally:
            await node.close()  # also when the terminal broke the app before the signal


def _let_go(terminal: list[int]) -> None:
    """Let nothing fail any more for want of the terminal that these files were."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in terminal:
        os.dup2(nothing, number)


@contextmanager
def _keys_kept() -> Iterator[str]:
    """Take keys as the app will, from now on, and put the terminal back at the end.

    The app's modules take most of a second to load. What is typed meanwhile would be
    echoed, and Enter would reach the app as a newline. Gives what was typed before,
    where it did.
    """
    try:
        import termios
    except ImportError:  # Windows: the console keeps keys as events
        yield ""
        return
    stdin = sys.stdin.fileno()
    before = termios.tcgetattr(stdin)
    now = termios.tcgetattr(stdin)
    now[0] &= ~(termios.ICRNL | termios.INLCR)
    now[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(stdin, termios.TCSANOW, now)
    try:
        yield _typed_before(stdin)
    finally:
        with suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(stdin, termios.TCSANOW, before)


def _typed_before(stdin: int) -> str:
    """What waits to be read, as far as it is text."""
    if not select.select([stdin], [], [], 0)[0]:
        return ""
    text = os.read(stdin, TYPED_BYTES_MAX).decode("utf-8", "replace")
    return display_text(text)
