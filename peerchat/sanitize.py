"""The one door from foreign text to text that may be shown.

Names, errors and answers of other peers come as arbitrary Unicode. A terminal obeys
some of it (escape sequences: clipboard, title, colours) and a reader is fooled by some
(bidirectional overrides, "Trojan Source", CVE-2021-42574; invisible characters). What
leaves here is inert: printable characters, tab and newline.

A well-formed CSI sequence (colours, cursor) goes as a whole; of every other sequence
only the bytes go that make a terminal listen, so that no text is ever lost with it.

This does not escape markup: widgets take `markup=False` besides.
"""

from __future__ import annotations

import re

LINE_CHARS_MAX = 200
"""Default length of a one-line label; longer ones are cut with an ellipsis."""

LINE_INPUT_CHARS_MAX = 16 * 1024
"""Of a label only so much is looked at: whoever sends more gains nothing by it."""

# ECMA-48 section 5.4 sets no limit to a sequence. No real one comes near these, and
# with them a stream never holds back more than 38 characters.
_CSI_HEAD = r"(?:\x1b\[|\x9b)[0-?]{0,32}[ -/]{0,4}"
_CSI = re.compile(_CSI_HEAD + "[@-~]")
_CSI_BEGUN = re.compile(rf"(?:\x1b|{_CSI_HEAD})\Z")

_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_NEWLINE = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")

_LIVE = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but tab and newline, DEL, C1
    "\u200b\u2060-\u2065\ufeff"  # zero-width space, word joiner, operators, BOM
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"  # bidirectional controls
    "\u180e\ufff9-\ufffb\U0001d173-\U0001d17a"  # other format controls
    "\U000e0000-\U000e0fff"  # tags and supplementary selectors smuggle text
    "\ufdd0-\ufdef\ufffe\uffff"  # noncharacters
    "]"
)
"""Never shown. Zero-width joiner and non-joiner are not here, nor the sixteen plain
variation selectors: emoji, Persian and Indic scripts need them."""

_BLANK = re.compile(
    "[\u00ad\u034f\u115f\u1160\u17b4\u17b5\u200c\u200d\u3164\uffa0\ufe00-\ufe0f]"
)
"""Shows as nothing: two labels that differ only here would look the same."""


def display_text(text: str, *, keep_newlines: bool = True) -> str:
    """Make foreign text fit to show.

    Args:
        text: anything, lone surrogates included.
        keep_newlines: every kind of line end becomes a newline; else a space.
    """
    if text.isascii() and text.isprintable():
        return text
    shown = _plain(_NEWLINE.sub("\n", _without_surrogates(_CSI.sub("", text))))
    return shown if keep_newlines else shown.replace("\n", " ")


def display_line(text: str, limit: int = LINE_CHARS_MAX) -> str:
    """Make foreign text fit for a label: one line of at most ``limit`` characters.

    Runs of white space become one space, and characters that show as nothing go, so
    that names that look alike compare alike more often.
    """
    shown = display_text(text[:LINE_INPUT_CHARS_MAX], keep_newlines=False)
    line = " ".join(_BLANK.sub("", shown).split())
    return line if len(line) <= limit else line[: max(limit - 1, 0)].rstrip() + "…"


class StreamSanitizer:
    """`display_text` for text that comes in fragments.

    A sequence, a line end or a surrogate pair that is split between fragments is
    treated as if it came whole: the joined results equal `display_text` of the joined
    fragments, however they were cut.
    """

    def __init__(self) -> None:
        self._sequence = ""
        """The start of what may become a CSI sequence."""
        self._surrogate = ""
        """A high surrogate whose low one may follow."""
        self._is_after_return = False

    def feed(self, fragment: str) -> str:
        """Give what can be shown by now; may be empty."""
        text = self._sequence + fragment
        begun = _CSI_BEGUN.search(text)
        self._sequence = begun.group() if begun else ""
        if begun:
            text = text[: begun.start()]
        return self._show(_CSI.sub("", text), is_last=False)

    def finish(self) -> str:
        """Give what was held back; the stream is over."""
        text, self._sequence = self._sequence, ""
        return self._show(text, is_last=True)

    def _show(self, text: str, *, is_last: bool) -> str:
        text, self._surrogate = self._surrogate + text, ""
        if not is_last and text and "\ud800" <= text[-1] <= "\udbff":
            text, self._surrogate = text[:-1], text[-1]
        if not text:
            return ""
        text = _without_surrogates(text)
        is_rest_of_line_end = self._is_after_return and text[0] == "\n"
        self._is_after_return = text[-1] == "\r"
        return _plain(_NEWLINE.sub("\n", text[is_rest_of_line_end:]))


def _plain(text: str) -> str:
    return _LIVE.sub("", text)


def _without_surrogates(text: str) -> str:
    paired = _PAIR.sub(lambda match: _join(match.group()), text)
    return _SURROGATE.sub("\ufffd", paired)


def _join(pair: str) -> str:
    return pair.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
