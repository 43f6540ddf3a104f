"""Whatever comes, what is shown is inert, and cutting it changes nothing."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from peerchat.sanitize import StreamSanitizer, display_line, display_text

NASTY = st.sampled_from(
    [
        *("\x1b", "\x1b[", "\x9b", "[", "0;", " ", "m", "\r", "\n", "\r\n", "]", "\\"),
        *("\ud83d", "\ude00", "\u202e", "\x07", "é", "\u2028", "31", "?25l", "\x00"),
    ]
)
FOREIGN = st.one_of(
    st.lists(NASTY, max_size=40).map("".join),
    st.text(st.characters(exclude_categories=[]), max_size=60),
)


def is_inert(character: str) -> bool:
    if character in "\t\n":
        return True
    category = unicodedata.category(character)
    if category in ("Cc", "Cs"):
        return False
    return unicodedata.bidirectional(character) not in {
        *("LRE", "RLE", "LRO", "RLO", "PDF"),
        *("LRI", "RLI", "FSI", "PDI"),
    }


@given(FOREIGN)
def test_what_is_shown_is_inert(text: str) -> None:
    shown = display_text(text)
    assert all(map(is_inert, shown))
    shown.encode()


@given(FOREIGN)
def test_showing_twice_is_showing_once(text: str) -> None:
    assert display_text(display_text(text)) == display_text(text)


@given(st.lists(FOREIGN, max_size=8))
def test_fragments_are_as_safe_as_the_whole(fragments: list[str]) -> None:
    stream = StreamSanitizer()
    parts = [stream.feed(fragment) for fragment in fragments]
    parts.append(stream.finish())
    assert "".join(parts) == display_text("".join(fragments))
    for part in parts:
        assert all(map(is_inert, part))


@given(FOREIGN)
def test_one_character_at_a_time_is_as_safe_as_the_whole(text: str) -> None:
    stream = StreamSanitizer()
    parts = [stream.feed(character) for character in text]
    assert "".join(parts) + stream.finish() == display_text(text)


@given(FOREIGN, st.integers(1, 30))
def test_a_label_is_one_line_within_its_limit(text: str, limit: int) -> None:
    line = display_line(text, limit)
    assert len(line) <= limit
    assert not {"\n", "\t"} & set(line)
    assert line == line.strip()


@given(st.text(st.characters(categories=["L", "N", "P"]), max_size=60))
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert display_text(text) == text
