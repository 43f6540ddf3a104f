"""Foreign text becomes inert, and nothing else happens to it."""

from __future__ import annotations

import pytest

from peerchat.sanitize import StreamSanitizer, display_line, display_text


@pytest.mark.parametrize(
    ("foreign", "shown"),
    [
        ("plain text", "plain text"),
        ("tab\tand\nnewline", "tab\tand\nnewline"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x9b2Jcleared", "cleared"),
        ("\x1b]52;c;cGVlcg==\x07clipboard", "]52;c;cGVlcg==clipboard"),
        ("\x1b]0;title\x1b\\after", "]0;title\\after"),
        ("bell\x07 back\x08 del\x7f", "bell back del"),
        (
            "one\r\ntwo\rthree\x85four\u2028five\x0bsix",
            "one\ntwo\nthree\nfour\nfive\nsix",
        ),
        ("/*\u202e } \u2066if (admin)\u2069 \u2066*/", "/* } if (admin) */"),
        ("zero\u200bwidth\ufeff", "zerowidth"),
        ("hidden\U000e0041\U000e0042", "hidden"),
        ("\ud83d\ude00 pair", "\U0001f600 pair"),
        ("lone \ud83d end", "lone \ufffd end"),
        (
            "\U0001f468\u200d\U0001f4bb \u2764\ufe0f",
            "\U0001f468\u200d\U0001f4bb \u2764\ufe0f",
        ),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("[@click=app.boom]x[/]", "[@click=app.boom]x[/]"),
    ],
)
def test_text_is_made_inert(foreign: str, shown: str) -> None:
    assert display_text(foreign) == shown


def test_newlines_become_spaces_on_request() -> None:
    assert display_text("a\r\nb\nc", keep_newlines=False) == "a b c"


def test_a_label_is_one_short_line() -> None:
    assert display_line("  two\n\t words\u200d ") == "two words"
    assert display_line("x" * 300, 10) == "x" * 9 + "…"
    assert display_line("x" * 10, 10) == "x" * 10
    assert len(display_line("y" * 10**6)) == 200


def test_a_sequence_cut_anywhere_never_shows() -> None:
    whole = "a\x1b[1;31mb\x1b]0;t\x07\r\nc"
    for cut in range(len(whole) + 1):
        stream = StreamSanitizer()
        parts = [stream.feed(whole[:cut]), stream.feed(whole[cut:]), stream.finish()]
        assert "".join(parts) == display_text(whole)


def test_a_stream_holds_back_only_a_little() -> None:
    stream = StreamSanitizer()
    assert stream.feed("shown at once") == "shown at once"
    assert stream.feed("\x1b[" + "1" * 500) == "[" + "1" * 500
