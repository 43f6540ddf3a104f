"""What `peerchat ask` and `peerchat trace` print."""

from __future__ import annotations

import sys

import pytest

from peerchat.api import Finished, Fragment, Hop, Progress, PromptRequest, Usage
from peerchat.cli.ask import print_answer, usage_line
from peerchat.cli.output import Output
from peerchat.cli.trace import hop_line
from tests.scripted_swarm import ScriptedAnswer


def answer_of(*events) -> ScriptedAnswer:
    return ScriptedAnswer(PromptRequest("why?", "r1"), events)


def test_lines_for_people() -> None:
    hop = Hop("gateway", "ab" * 32, "chosen", 0.0123, "idle")
    assert hop_line(hop) == "    0.012 s  gateway   chosen     abababab  idle"
    usage = Usage("m", "ab" * 32, "stop", 1.0, continued=1, path="direct")
    assert usage_line(usage) == "m · 1.0 s · peer abababab (direct) · continued 1x"


@pytest.mark.parametrize("is_terminal", [True, False], ids=["terminal", "file"])
async def test_a_place_in_the_queue_is_one_line_that_changes(
    capsys, monkeypatch, is_terminal
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    usage = Usage("m", "", "stop", 1.0)
    events = [
        Progress("queued", 1, estimate_s=2.0),
        Progress("queued", 1, estimate_s=1.0),
        Progress("serving"),
        Fragment("yes"),
        Finished(usage),
    ]
    await print_answer(answer_of(*events), Output(is_json=False))
    shown = capsys.readouterr()
    assert shown.out == "yes\n"
    if not is_terminal:
        assert shown.err == ""
        return
    lines = shown.err.split("\r\x1b[K")
    assert lines[:3] == [
        "",
        "queued at place 1, about 2 s",
        "queued at place 1, about 1 s",
    ]
    assert lines[3].splitlines() == ["m · 1.0 s"]
