"""The app in a real terminal: tmux types, and reads the screen."""

from __future__ import annotations

import os
import select
import shlex
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from peerchat.cli.terminal import _typed_before
from tests.processes import COMMAND, environ

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed"),
]

SCREEN_TIMEOUT_S = 60
POLL_S = 0.1


class Terminal:
    """One tmux session of its own server."""

    def __init__(self, folder: Path) -> None:
        self.socket = str(folder / f"tmux-{uuid.uuid4().hex[:8]}")

    def tmux(self, *args: str) -> str:
        done = subprocess.run(
            ["tmux", "-S", self.socket, *args],
            capture_output=True,
            text=True,
            check=True,
            env=environ(TERM="xterm-256color", LANG="C.UTF-8"),
        )
        return done.stdout

    def start(self, command: list[str]) -> None:
        line = shlex.join(command) + "; echo left with $?; cat"
        self.tmux("-u", "new-session", "-d", "-x", "120", "-y", "40", line)

    def keys(self, *keys: str) -> None:
        self.tmux("send-keys", *keys)

    def type(self, text: str) -> None:
        self.tmux("send-keys", "-l", text)

    def screen(self) -> str:
        return self.tmux("capture-pane", "-p")

    def wait_for(self, *texts: str) -> None:
        """Until the screen shows all of these; it may be read in mid-repaint."""
        deadline = time.monotonic() + SCREEN_TIMEOUT_S
        while time.monotonic() < deadline:
            screen = self.screen()
            if all(text in screen for text in texts):
                return
            time.sleep(POLL_S)
        raise AssertionError(f"{texts} never showed together:\n{self.screen()}")


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    # A Unix socket's path may be 107 bytes long; pytest's folders can be longer.
    folder = Path(os.environ.get("TMPDIR", "/tmp"))
    one = Terminal(folder)
    yield one
    subprocess.run(["tmux", "-S", one.socket, "kill-server"], check=False)
    Path(one.socket).unlink(missing_ok=True)


def test_type_read_leave(terminal: Terminal, tmp_path: Path):
    terminal.start([str(COMMAND), "--home", str(tmp_path / "home")])
    # Typed at once: what is typed while the node connects is not lost.
    terminal.type("How do I stop an answer?")
    terminal.keys("Enter")
    terminal.wait_for("tok/s", "How do I stop an answer?", "guide")
    terminal.keys("C-q")
    terminal.wait_for("left with 0")


def test_what_a_slow_start_leaves_waiting_is_text_and_enter() -> None:
    termios, tty = pytest.importorskip("termios"), pytest.importorskip("tty")
    ours, theirs = os.openpty()
    try:
        os.write(ours, b"why?\r\x1b[Amore")
        tty.setcbreak(theirs, termios.TCSANOW)
        assert select.select([theirs], [], [], SCREEN_TIMEOUT_S)[0]
        assert _typed_before(theirs) == "why?\nmore"
        assert _typed_before(theirs) == ""
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.fixture
def app(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The app that is ready, and our end of its terminal."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", str(COMMAND), "--home", str(tmp_path / "home")],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environ(TERM="xterm-256color"),
    )
    os.close(theirs)
    seen = b""
    while b"ready" not in seen:
        seen += os.read(ours, 4096)
    yield process, ours
    process.kill()
    process.wait()


def test_it_ends_in_order_when_its_terminal_closes(app) -> None:
    process, terminal = app
    os.close(terminal)
    assert process.wait(SCREEN_TIMEOUT_S) == 128 + signal.SIGHUP


def test_it_ends_in_order_when_it_is_told_to(app) -> None:
    process, terminal = app
    process.terminate()
    with suppress(OSError):  # what Linux says once nobody writes any more
        while os.read(terminal, 4096):
            pass
    os.close(terminal)
    assert process.wait(SCREEN_TIMEOUT_S) == 128 + signal.SIGTERM


def test_the_app_wants_a_terminal(run, tmp_path: Path):
    done = run("--home", str(tmp_path / "home"))
    assert done.returncode == 2
    assert "peerchat chat" in done.stderr
