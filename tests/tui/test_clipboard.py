"""The clipboard chain, with tools that are files; and QR codes."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest
import segno

from peerchat.testing.swarms import LINE
from peerchat.tui.clipboard import TOOLS, Clipboard
from peerchat.tui.qr import QUIET, make_code

TEXT = "peerchat:ünïcode " * 50


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """Makes programs that the chain finds and nothing else."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    names = set()

    def make(name: str, script: str) -> None:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\ncd {tmp_path}\n{script}\n")
        path.chmod(0o755)
        names.add(name)

    make.which = lambda name: shutil.which(name) if name in names else None
    return make


def clipboard(tools, sent: list[str], **environ: str) -> Clipboard:
    return Clipboard(sent.append, environ, tools.which)


async def test_without_tools_the_terminal_is_asked_and_nothing_promised(tools) -> None:
    sent: list[str] = []
    copied = await clipboard(tools, sent).copy(TEXT)
    assert sent == [TEXT]
    assert not copied.is_sure
    assert "Sent to the terminal" in copied.words


async def test_tool_is_read_back(tools, tmp_path) -> None:
    tools("xclip", '[ "$3" = -o ] && exec cat kept; exec cat > kept')
    sent: list[str] = []
    copied = await clipboard(tools, sent, DISPLAY=":0").copy(TEXT)
    assert (copied.words, copied.is_sure) == ("Copied with xclip.", True)
    assert (tmp_path / "kept").read_text() == TEXT
    assert sent == [TEXT]


async def test_tool_that_keeps_something_else_is_not_believed(tools) -> None:
    tools("pbcopy", "cat > /dev/null")
    tools("pbpaste", "echo what was there before")
    copied = await clipboard(tools, []).copy(TEXT)
    assert not copied.is_sure
    assert "could not check" in copied.words


@pytest.mark.parametrize("script", ["exit 1", "exec sleep 60"])
async def test_tool_that_fails_or_hangs_gives_way(tools, script, monkeypatch) -> None:
    monkeypatch.setattr("peerchat.tui.clipboard.TOOL_TIMEOUT_S", 0.2)
    tools("wl-copy", script)
    async with asyncio.timeout(5):
        copied = await clipboard(tools, [], WAYLAND_DISPLAY="w").copy(TEXT)
    assert "Sent to the terminal" in copied.words


async def test_over_ssh_only_what_reaches_the_user_is_used(tools) -> None:
    tools("xclip", "exec cat > /dev/null")
    tools("tmux", '[ "$1" = save-buffer ] && exec cat kept; exec cat > kept')
    remote = {"SSH_CONNECTION": "a b", "DISPLAY": ":10"}
    copied = await clipboard(tools, [], **remote).copy(TEXT)
    assert "Sent to the terminal" in copied.words
    copied = await clipboard(tools, [], **remote, TMUX="/tmp/x").copy(TEXT)
    assert copied.words.startswith("Copied with tmux.")


def test_no_tool_gets_the_text_on_its_command_line() -> None:
    """Command lines can be read by every user of the machine."""
    assert all("{" not in part for tool in TOOLS for part in (*tool.write, *tool.read))


def test_code_shows_every_module() -> None:
    code = make_code(LINE)
    assert code is not None
    pixels: list[list[int]] = []
    for line in code.lines:
        pixels.append([int(char in "▀█") for char in line])
        pixels.append([int(char in "▄█") for char in line])
    matrix = segno.make(LINE, error="l", boost_error=False, micro=False).matrix
    side = len(matrix)
    inner = [row[QUIET : QUIET + side] for row in pixels[QUIET : QUIET + side]]
    assert inner == [list(row) for row in matrix]
    dark = sum(map(sum, pixels))
    assert dark == sum(map(sum, matrix))
    assert (code.columns, code.rows) == (73, 37)


def test_text_that_no_code_holds() -> None:
    assert make_code("x" * 5000) is None


def test_first_code_is_what_loads_the_library() -> None:
    """The app opens without it."""
    import subprocess
    import sys

    script = "import sys, peerchat.tui.app; sys.exit('segno' in sys.modules)"
    where = Path(__file__).parent
    subprocess.run([sys.executable, "-c", script], check=True, cwd=where, timeout=60)
