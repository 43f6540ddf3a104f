"""A QR code in half blocks: two modules a character, dark on light in every theme."""

from __future__ import annotations

from dataclasses import dataclass

from textual.content import Content

QUIET = 2
"""Modules of margin. ISO 18004 asks for four; phones read two; screens are small."""

_STYLE = "#000000 on #ffffff"
_BLOCKS = {(0, 0): " ", (1, 0): "▀", (0, 1): "▄", (1, 1): "█"}


@dataclass(frozen=True, slots=True)
class Code:
    """A code as lines of characters."""

    lines: tuple[str, ...]

    @property
    def columns(self) -> int:
        return len(self.lines[0])

    @property
    def rows(self) -> int:
        return len(self.lines)

    def content(self) -> Content:
        """To show: black on white whatever the theme, which is what cameras expect."""
        return Content.styled("\n".join(self.lines), _STYLE)


def make_code(text: str) -> Code | None:
    """Encode a text; None when it is too long for any code.

    The lowest error correction: a screen has no scratches, and every module counts.
    """
    import segno  # 20 ms that nobody waits for before the first code

    try:
        code = segno.make(text, error="l", boost_error=False, micro=False)
    except segno.DataOverflowError:
        return None
    side = len(code.matrix)
    width = side + 2 * QUIET
    empty = bytes(width)
    margin = bytes(QUIET)
    rows = [empty] * QUIET
    rows += [margin + bytes(row) + margin for row in code.matrix]
    rows += [empty] * (QUIET + (len(rows) + QUIET) % 2)
    pairs = zip(rows[::2], rows[1::2], strict=True)
    return Code(tuple(_line(above, below) for above, below in pairs))


def _line(above: bytes, below: bytes) -> str:
    return "".join(_BLOCKS[pair] for pair in zip(above, below, strict=True))
