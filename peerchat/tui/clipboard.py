"""Copying that reaches the clipboard, and says how sure that is.

A terminal takes OSC 52 or silently ignores it. Native tools can be read back, so they
are tried first; over SSH they would fill the wrong machine's clipboard. The text goes
through standard input: a command line could be read by others.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

TOOL_TIMEOUT_S = 2.0
"""A tool that waits for a display that is gone must not hang the app."""

READ_BACK_BYTES_MAX = 4 * 1024 * 1024
"""An answer is at most 256 KiB of characters; more is somebody else's text."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A program that writes the clipboard, and how to read it back."""

    name: str
    write: tuple[str, ...]
    read: tuple[str, ...]
    needs: str = ""
    """An environment variable without which it cannot work."""
    is_remote_too: bool = False
    """It reaches the user's own clipboard over SSH as well."""
    but: str = ""
    """What its success does not say."""


TOOLS: tuple[Tool, ...] = (
    Tool(
        "tmux",
        ("tmux", "load-buffer", "-w", "-"),
        ("tmux", "save-buffer", "-"),
        "TMUX",
        is_remote_too=True,
        but="Your terminal has it too if it allows that.",
    ),
    Tool("wl-copy", ("wl-copy",), ("wl-paste", "--no-newline"), "WAYLAND_DISPLAY"),
    Tool(
        "xclip",
        ("xclip", "-selection", "clipboard"),
        ("xclip", "-selection", "clipboard", "-o"),
        "DISPLAY",
    ),
    Tool(
        "xsel",
        ("xsel", "--clipboard", "--input"),
        ("xsel", "--clipboard", "--output"),
        "DISPLAY",
    ),
    Tool("pbcopy", ("pbcopy",), ("pbpaste",)),
    Tool("clip.exe", ("clip.exe",), (), "WSL_DISTRO_NAME"),
    Tool("termux", ("termux-clipboard-set",), ("termux-clipboard-get",)),
)


@dataclass(frozen=True, slots=True)
class Copied:
    """What became of a copy."""

    words: str
    is_sure: bool


class Clipboard:
    """Writes the clipboard by every way there is.

    Args:
        send: writes OSC 52 to the terminal.
    """

    def __init__(
        self,
        send: Callable[[str], None],
        environ: Mapping[str, str] = os.environ,
        which: Callable[[str], str | None] = shutil.which,
    ) -> None:
        self._send = send
        self._environ = environ
        self._which = which

    async def copy(self, text: str) -> Copied:
        """Copy, and tell which way worked."""
        self._send(text)
        wrote: Tool | None = None
        for tool in self._tools():
            if await self._write(tool, text):
                wrote = wrote or tool
                if await self._read(tool) == text:
                    words = f"Copied with {tool.name}. {tool.but}".rstrip()
                    return Copied(words, is_sure=True)
        if wrote is not None:
            return Copied(f"Copied with {wrote.name}; could not check.", is_sure=False)
        return Copied(
            "Sent to the terminal. If pasting gives something else, your terminal "
            "does not allow it: select the text with Shift and the mouse.",
            is_sure=False,
        )

    def _tools(self) -> Sequence[Tool]:
        is_remote = "SSH_CONNECTION" in self._environ
        return [
            tool
            for tool in TOOLS
            if (tool.is_remote_too or not is_remote)
            and (not tool.needs or self._environ.get(tool.needs))
            and self._which(tool.write[0])
        ]

    async def _write(self, tool: Tool, text: str) -> bool:
        return await _run(tool.write, text.encode(errors="replace")) is not None

    async def _read(self, tool: Tool) -> str | None:
        if not tool.read or not self._which(tool.read[0]):
            return None
        output = await _run(tool.read, b"")
        return None if output is None else output.decode(errors="replace")


async def _run(command: Sequence[str], given: bytes) -> bytes | None:
    """Run a tool; its output, or None when it failed or hung.

    A tool that stays behind to own the selection (xclip, wl-copy) keeps standard
    output open, so it gets none when it writes.
    """
    output = asyncio.subprocess.DEVNULL if given else asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=output,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return None
    try:
        async with asyncio.timeout(TOOL_TIMEOUT_S):
            written, _ = await process.communicate(given)
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        return None
    is_fit = process.returncode == 0 and len(written or b"") <= READ_BACK_BYTES_MAX
    return (written or b"") if is_fit else None
