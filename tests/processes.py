"""The installed command in processes of its own, each with a home of its own."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

COMMAND = Path(sys.executable).with_name("peerchat")
"""The installed command: `pip install -e '.[test]'` puts it here."""
LINE_TIMEOUT_S = 60.0
RUN_TIMEOUT_S = 90.0

ENVIRON = {
    key: value
    for key, value in os.environ.items()
    if not key.startswith(("PEERCHAT_", "OLLAMA_", "JWT_SECRET")) and key != "PORT"
}
"""What the machine sets must not decide a test."""


def environ(**extra: object) -> dict[str, str]:
    # Nothing listens on this port: the engine choice never meets a real Ollama.
    base = {**ENVIRON, "OLLAMA_HOST": "http://127.0.0.1:9"}
    return base | {key: str(value) for key, value in extra.items()}


class Running:
    """A running program whose lines arrive in queues."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.out: queue.Queue[str | None] = queue.Queue()
        self.errors: list[str] = []
        self._threads = [
            threading.Thread(target=self._read_out, daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _read_out(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.out.put(line.rstrip("\n"))
        self.out.put(None)

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        self.errors.extend(self.process.stderr)

    def line(self, prefix: str = "", timeout_s: float = LINE_TIMEOUT_S) -> str:
        """The next line of standard output that starts with ``prefix``."""
        while True:
            try:
                line = self.out.get(timeout=timeout_s)
            except queue.Empty:
                raise AssertionError(self.story(f"no line {prefix!r}")) from None
            if line is None:
                raise AssertionError(self.story(f"ended before a line {prefix!r}"))
            if line.startswith(prefix):
                return line

    def event(self, *names: str) -> dict[str, Any]:
        """The next JSON line with one of these as its ``event``."""
        while True:
            found: dict[str, Any] = json.loads(self.line("{"))
            if found.get("event") in names:
                return found

    def story(self, what: str) -> str:
        return f"{self.process.args}: {what}\n{''.join(self.errors)[-4000:]}"

    def finish(self, number: int | None = signal.SIGTERM, timeout_s: float = 30) -> int:
        """Send a signal (None: just wait) and return the exit code."""
        if number is not None:
            self.process.send_signal(number)
        code = self.process.wait(timeout_s)
        for thread in self._threads:
            thread.join(timeout_s)
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for thread in self._threads:
            thread.join(10)
        for pipe in (self.process.stdout, self.process.stderr, self.process.stdin):
            if pipe is not None:
                pipe.close()


Spawn = Callable[..., Running]


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Start a program, ``peerchat`` unless told otherwise; killed at the end."""
    started: list[Running] = []

    def start(*args: str, program: list[str] | None = None, **extra: object) -> Running:
        process = subprocess.Popen(
            [*(program or [str(COMMAND)]), *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environ(**extra),
        )
        started.append(running := Running(process))
        return running

    yield start
    for running in started:
        running.close()


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run() -> Run:
    """Run ``peerchat`` to its end; never raises for a non-zero exit code."""

    def call(
        *args: str, stdin: str = "", program: list[str] | None = None, **extra: object
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*(program or [str(COMMAND)]), *args],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=RUN_TIMEOUT_S,
            env=environ(**extra),
            check=False,
        )

    return call


@pytest.fixture
def dht(spawn: Spawn, tmp_path: Path) -> str:
    """A bootstrap node on loopback; gives its HOST:PORT."""
    running = spawn(
        "dht", "--host", "127.0.0.1", "--port", "0", "--bootstrap", "none",
        "--home", str(tmp_path / "dht"),
    )  # fmt: skip
    return running.line("listening: ").removeprefix("listening: ")


@pytest.fixture
def ollama_stub(spawn: Spawn) -> str:
    """A stand-in for Ollama with scripted models; gives its URL."""
    running = spawn(
        "--port", "0", program=[sys.executable, "-m", "peerchat.testing.ollama_stub"]
    )
    return running.line("http")
