"""What `peerchat models pull|list|rm` do."""

from __future__ import annotations

import re
import sys
import time
from urllib.parse import urlsplit

from peerchat.api import ApiError, ErrorCode
from peerchat.services.models.pull import PullProgress, pull_url
from peerchat.services.models.store import ModelStore, name_of_file
from peerchat.settings import Settings

from .options import Invocation

BAR_CHARS = 30
TOLD_EVERY_S = 0.2
_SHA256 = re.compile("[0-9a-fA-F]{64}")


async def run_pull(
    settings: Settings, call: Invocation, source: str, name: str, sha256: str
) -> None:
    """Get a file by its URL."""
    parts = urlsplit(source)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise _wrong(f"{source!r} is no URL: give one that begins with https://.")
    if sha256 and not _SHA256.fullmatch(sha256):
        raise _wrong("--sha256 wants 64 hexadecimal digits.")
    name = name or name_of_file(parts.path)
    if not name:
        raise _wrong("The URL does not name a file: name the model with --name.")
    bar = _Bar(call, name)
    pulled = await pull_url(
        ModelStore(settings.home.models_dir),
        source,
        name,
        sha256=sha256,
        on_progress=bar.show,
    )
    bar.end()
    call.out.line(
        f"{pulled.name}  {size_text(pulled.size_bytes)}  sha256 {pulled.sha256}",
        {
            "name": pulled.name,
            "path": str(pulled.path),
            "size": pulled.size_bytes,
            "sha256": pulled.sha256,
        },
    )


async def run_list(settings: Settings, call: Invocation) -> None:
    """A line for each file."""
    found = ModelStore(settings.home.models_dir).list()
    if not found:
        call.out.note("no model file: peerchat models pull URL")
    for one in found:
        state = "" if one.is_whole else "  (not whole: pull again)"
        call.out.line(
            f"{one.name:<40} {size_text(one.size_bytes)}{state}",
            {
                "name": one.name,
                "path": str(one.path),
                "size": one.size_bytes,
                "is_whole": one.is_whole,
            },
        )


async def run_remove(settings: Settings, call: Invocation, name: str) -> None:
    """Delete a file."""
    ModelStore(settings.home.models_dir).remove(name)
    call.out.line(f"removed {name}", {"name": name, "removed": True})


class _Bar:
    """Progress on standard error where a person looks, as JSON lines for programs."""

    def __init__(self, call: Invocation, name: str) -> None:
        self._out = call.out
        self._name = name
        self._is_live = sys.stderr.isatty() and not call.out.is_json
        self._told_s = float("-inf")

    def show(self, progress: PullProgress) -> None:
        now_s = time.monotonic()
        if now_s - self._told_s < TOLD_EVERY_S and not progress.is_checking:
            return
        self._told_s = now_s
        if self._out.is_json:
            fields = {"completed": progress.completed, "total": progress.total}
            self._out.line("", {"name": self._name, **fields})
        elif self._is_live:
            sys.stderr.write(f"\r\x1b[K{bar_text(self._name, progress)}")
            sys.stderr.flush()

    def end(self) -> None:
        if self._is_live:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def bar_text(name: str, progress: PullProgress) -> str:
    """One line that shows how far it is."""
    done = size_text(progress.completed)
    if progress.is_checking:
        return f"{name}  checking {done}"
    if not progress.total:
        return f"{name}  {done}"
    share = min(1.0, progress.completed / progress.total)
    filled = round(share * BAR_CHARS)
    bar = "█" * filled + "░" * (BAR_CHARS - filled)
    return f"{name}  {bar} {share:4.0%}  {done} of {size_text(progress.total)}"


def size_text(size: int) -> str:
    """Bytes as people read them."""
    for limit, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= limit:
            return f"{size / limit:.1f} {unit}"
    return f"{size} B"


def _wrong(message: str) -> ApiError:
    return ApiError(ErrorCode.INVALID_REQUEST, message, status=400)
