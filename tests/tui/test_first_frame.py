"""The app can be seen before what is behind it is loaded."""

from __future__ import annotations

import subprocess
import sys


def test_neither_app_nor_host_load_what_the_first_frame_can_do_without() -> None:
    script = (
        "import sys, peerchat.tui.app, peerchat.services.host\n"
        "late = ('sqlalchemy', 'aiohttp', 'jwt', 'nacl', 'markdown_it')\n"
        "print([name for name in late if name in sys.modules])"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    assert done.stdout.strip() == b"[]"
