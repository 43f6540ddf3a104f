"""Markdown that is still being written.

Appending every fragment to a `Markdown` widget re-parses and re-mounts its last block
each time, which costs a core on long fences and lists. Here blocks that are closed are
appended once, and the open block is a plain `Static` below them, so that every
character shows at once and typing stays smooth. `Feed` decides where to cut and is
pure; `StreamingMarkdown` shows what it decides.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from markdown_it import MarkdownIt
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Markdown

from .inert import Inert

APPEND_CHARS_MAX = 4_000
"""Appended at once: a burst is spread over ticks, so that keys are handled between."""

TAIL_CHARS_MAX = 8_000
"""Of an open block, so much is shown while it grows; wrapping it is what costs."""

WIDGETS_MAX = 1_500
"""Weight of Markdown mounted for one answer; the rest of it is shown as plain text.
Textual mounts about 300 widgets a second, and every list item and table cell is one."""

_FENCE = re.compile(
    r"[ \t]*(?P<ticks>`{3,}(?=[^`]*$)|~{3,})(?P<info>[^\n]*)", re.MULTILINE
)
_LEAD = " \t>*+-"
"""What stands before the text of nested lists and quotes."""

_REFERENCE = re.compile(r"^ {0,3}\[[^\]\n]+\]:[ \t]*\S", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Step:
    """What to do now: append this, and show that below it."""

    closed: str
    tail: str


class Feed:
    """Cuts a growing Markdown text into closed blocks and an open rest.

    A block is closed by a blank line outside a fence, and by the end of a fence.
    Whatever is given out as closed stays so; the concatenation of all `closed` and the
    last `tail` is the text, to the character.
    """

    def __init__(self) -> None:
        self._rest = ""
        self._scanned = 0
        """How far ``_rest`` was looked through, always at the start of a line."""
        self._cut = 0
        """The end of the last closed block in ``_rest``."""
        self._fence = ""
        self._weight = 0
        self._is_plain = False

    def add(self, text: str) -> None:
        """Take more text."""
        self._rest += text

    def step(self, *, is_final: bool = False) -> Step:
        """Give what became closed, at most `APPEND_CHARS_MAX` or one block of it.

        Args:
            is_final: no more text comes, so that all of it is closed.
        """
        closed = ""
        while not self._is_plain and len(closed) < APPEND_CHARS_MAX:
            block = self._next_block(is_final=is_final)
            if not block:
                break
            closed += block
        return Step(closed, self._rest)

    @property
    def has_more(self) -> bool:
        """A final step left something that still can be appended."""
        return bool(self._rest) and not self._is_plain

    @property
    def is_plain(self) -> bool:
        """The rest is too heavy for Markdown and is shown as plain text for good."""
        return self._is_plain

    def _next_block(self, *, is_final: bool) -> str:
        while self._cut == 0 and self._scan_line():
            pass
        if self._cut == 0 and is_final:
            self._cut = len(self._rest)
        weight = _weight(self._rest[: self._cut])
        if self._weight + weight > WIDGETS_MAX:
            self._is_plain = True
            return ""
        self._weight += weight
        block, self._rest = self._rest[: self._cut], self._rest[self._cut :]
        self._scanned = max(0, self._scanned - self._cut)
        self._cut = 0
        return block

    def _scan_line(self) -> bool:
        """Look at one complete line; False when there is none."""
        end = self._rest.find("\n", self._scanned) + 1
        if end == 0:
            return False
        line = self._rest[self._scanned : end]
        self._scanned = end
        fence = _FENCE.match(line)
        if self._fence:
            if fence and _closes(fence, self._fence):
                self._fence = ""
                self._cut = end
        elif fence:
            self._fence = fence["ticks"]
        elif not line.strip():
            self._cut = end
        return True


def _closes(fence: re.Match[str], opened: str) -> bool:
    ticks = fence["ticks"]
    return ticks.startswith(opened) and not fence["info"].strip()


def _weight(block: str) -> int:
    """About how many widgets Textual makes of a block; a fence is one."""
    if _FENCE.match(block):
        return 1
    return sum(
        1 + line.count("|") + len(line) - len(line.lstrip(_LEAD))
        for line in block.splitlines()
        if line.strip()
    )


def has_reference(text: str) -> bool:
    """It defines a reference, which appending parses too late for its links."""
    return _REFERENCE.search(text) is not None


def inert_parser() -> MarkdownIt:
    """The parser for foreign Markdown: HTML stays text.

    An HTML block has no widget, and `Markdown.append` would overwrite the block before
    it with the one after it.
    """
    return MarkdownIt("gfm-like", {"html": False})


class StreamingMarkdown(Vertical):
    """Shows Markdown while it arrives; links are never opened."""

    def __init__(self) -> None:
        super().__init__()
        self._markdown = Markdown(open_links=False, parser_factory=inert_parser)
        self._tail = Inert(classes="tail")
        self._feed = Feed()
        self._text = ""
        self._shown_tail = ""

    def compose(self) -> ComposeResult:
        yield self._markdown
        yield self._tail

    def on_mount(self) -> None:
        self._markdown.display = bool(self._markdown.source)
        self._show_tail(self._shown_tail)

    async def advance(self, text: str, *, is_final: bool) -> None:
        """Show the answer's text so far.

        Args:
            text: all of it, sanitised; it only ever grows.
            is_final: it is over, in whatever way: everything is shown and parsed.
        """
        self._feed.add(text[len(self._text) :])
        self._text = text
        step = self._feed.step(is_final=is_final)
        if step.closed:
            with self.app.batch_update():
                self._show_tail(step.tail)
                self._markdown.display = True
                await self._markdown.append(step.closed)
        else:
            self._show_tail(step.tail)

    @property
    def is_behind(self) -> bool:
        """After the final text: another `advance` is due."""
        return self._feed.has_more

    async def settle(self) -> None:
        """Parse the whole once when links refer to definitions; after the last step."""
        if has_reference(self._text) and not self._shown_tail:
            await self._markdown.update(self._text)

    def _show_tail(self, tail: str) -> None:
        self._shown_tail = tail
        hidden = 0 if self._feed.is_plain else len(tail) - TAIL_CHARS_MAX
        shown = tail.strip("\n")
        if hidden > 0:
            shown = (
                f"⋯ {hidden} characters above appear when this block ends\n"
                + (tail[-TAIL_CHARS_MAX:])
            )
        self._tail.display = bool(shown.strip())
        self._tail.update(shown)
