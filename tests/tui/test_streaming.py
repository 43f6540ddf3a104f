"""Streamed Markdown: nothing lost or doubled, and the same blocks as in one piece."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.app import App, ComposeResult
from textual.widgets import Markdown

from peerchat.testing.node import SAMPLE_ANSWER
from peerchat.tui.widgets.streaming import (
    APPEND_CHARS_MAX,
    WIDGETS_MAX,
    Feed,
    StreamingMarkdown,
    has_reference,
    inert_parser,
)

DOCUMENTS = {
    "sample": SAMPLE_ANSWER,
    "paragraphs": "One.\n\nTwo\nlines.\n\n\n\nThree.",
    "fence with blank lines": "A\n\n```py\nx = 1\n\n\ny = 2\n```\nB\n\nC",
    "fence never closed": "A\n\n```py\nx = 1\n\ny = 2",
    "fence in fence": "~~~~md\n```\nx\n```\n~~~~\nafter",
    "list then list": "1. a\n2. b\n\npara\n\n3. c\n4. d",
    "loose list": "- a\n\n- b\n\n  more b\n\n- c\n\npara",
    "list with fences": "1. Do\n\n   ```sh\n   a\n\n   b\n   ```\n\n2. Then\n\nend",
    "nested list": "- a\n  - b\n    - c\n- d\n\npara",
    "quote": "> a\n> b\n\n> c\n\nd",
    "table": "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n\nafter",
    "headings": "# A\n\ntext\n## B\ntext\n\nSetext\n===\n\nx",
    "html": "Para\n\n<div>x</div>\n\nMore\n\n<!-- a\n\nb -->\n\nend",
    "inline ticks": "```not a fence``` really\n\nnext\n\nlast",
    "rule": "a\n\n---\n\nb\n\n***\n\nc",
    "reference": "See [the page][1].\n\nMore.\n\n[1]: https://example.org/\n",
}


class Bench(App[None]):
    def __init__(self) -> None:
        super().__init__()
        self.streaming = StreamingMarkdown()
        self.whole = Markdown(open_links=False, parser_factory=inert_parser)

    def compose(self) -> ComposeResult:
        yield self.streaming
        yield self.whole


def tree(widget) -> list[tuple[str, str]]:
    """Kinds and texts of all blocks, in order."""
    found = []
    for block in widget.query("MarkdownBlock"):
        content = getattr(block, "_content", None)
        code = getattr(block, "code", "")
        found.append((type(block).__name__, str(content or code)))
    return found


@pytest.mark.parametrize("name", DOCUMENTS)
@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_streamed_equals_whole(name: str, size: int) -> None:
    text = DOCUMENTS[name]
    app = Bench()
    async with app.run_test() as pilot:
        for end in range(size, len(text) + size, size):
            await app.streaming.advance(text[:end], is_final=False)
        await app.streaming.advance(text, is_final=True)
        while app.streaming.is_behind:
            await app.streaming.advance(text, is_final=True)
        await app.streaming.settle()
        await app.whole.update(text)
        await pilot.pause()
        assert tree(app.streaming.query_one(Markdown)) == tree(app.whole)


@given(
    st.lists(
        st.sampled_from(["a", " ", "\n", "\n\n", "```", "~~~", "- ", "> ", "|", "x\n"])
    ),
    st.integers(0, 2**32),
)
def test_feed_loses_and_doubles_nothing(pieces: list[str], seed: int) -> None:
    """The closed parts and the tail are always the text so far."""
    chance = random.Random(seed)
    feed, closed, so_far = Feed(), "", ""
    for piece in pieces:
        so_far += piece
        feed.add(piece)
        if chance.random() < 0.5:
            step = feed.step()
            closed += step.closed
            assert closed + step.tail == so_far
    step = feed.step(is_final=True)
    while feed.has_more:
        closed += step.closed
        step = feed.step(is_final=True)
    assert closed + step.closed + step.tail == so_far


def test_feed_cuts_at_blank_lines_and_after_fences_only() -> None:
    feed = Feed()
    feed.add("one\n\ntwo\n```py\na\n\nb\n")
    step = feed.step()
    assert step.closed == "one\n\n"
    assert step.tail == "two\n```py\na\n\nb\n"
    feed.add("```\nrest")
    step = feed.step()
    assert step.closed == "two\n```py\na\n\nb\n```\n"
    assert step.tail == "rest"


def test_feed_spreads_a_burst_over_steps() -> None:
    feed = Feed()
    feed.add("word " * 100 + "\n\n")
    for _ in range(100):
        feed.add("word " * 100 + "\n\n")
    assert len(feed.step().closed) < 2 * APPEND_CHARS_MAX


@pytest.mark.parametrize(
    "line", ["- x\n", "|" + "a|" * 200 + "\n", "> " * 40 + "x\n\n", "x\n\n"]
)
def test_feed_mounts_no_more_than_it_may(line: str) -> None:
    """What would make too many widgets stays plain text, and all of it is there."""
    text = line * 5_000
    feed, closed = Feed(), ""
    feed.add(text)
    step = feed.step(is_final=True)
    while feed.has_more:
        closed += step.closed
        step = feed.step(is_final=True)
    closed += step.closed
    assert feed.is_plain
    assert closed + step.tail == text
    assert closed.count("\n\n") <= WIDGETS_MAX


def test_reference_definitions_are_found() -> None:
    assert has_reference("see [a]\n\n[a]: https://x.org\n")
    assert not has_reference("a [b]: c\n")
