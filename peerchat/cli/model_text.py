"""How the commands about model files show them."""

from __future__ import annotations

import time

from peerchat.model_text import size_text
from peerchat.services.models.pull import Pulled, PullProgress

from .live_line import LiveLine
from .options import Invocation

BAR_CHARS = 30
TOLD_EVERY_S = 0.2


class Bar:
    """Progress on standard error where a person looks, as JSON lines for programs."""

    def __init__(self, call: Invocation, name: str) -> None:
        self._out = call.out
        self._name = name
        self._line = LiveLine(is_wanted=not call.out.is_json)
        self._told_s = float("-inf")

    def show(self, progress: PullProgress) -> None:
        now_s = time.monotonic()
        if now_s - self._told_s < TOLD_EVERY_S and not progress.is_checking:
            return
        self._told_s = now_s
        if self._out.is_json:
            fields = {"completed": progress.completed, "total": progress.total}
            self._out.line("", {"name": self._name, **fields})
        else:
            self._line.show(bar_text(self._name, progress))

    def end(self) -> None:
        self._line.clear()


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


def show_pulled(call: Invocation, pulled: Pulled) -> None:
    """The last line of a pull."""
    call.out.line(
        f"{pulled.name}  {size_text(pulled.size_bytes)}  sha256 {pulled.sha256}",
        {
            "name": pulled.name,
            "path": str(pulled.path),
            "size": pulled.size_bytes,
            "sha256": pulled.sha256,
        },
    )
