"""Words that are made of other words say nothing twice."""

from __future__ import annotations

import pytest

from peerchat.api import ApiError, ErrorCode, Progress
from peerchat.tui.actions import parse_command
from peerchat.tui.conversation import Turn, TurnState
from peerchat.tui.swarm_wording import (
    date_words,
    is_invite,
    parse_duration,
    role_words,
)
from peerchat.tui.widgets.usage import usage_line
from peerchat.tui.wording import Words, failure_words, login_words


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        ("", "Start one with: peerchat serve --role all"),
        ("No gateway answers", "Start one with: peerchat serve --role all"),
        (
            "No gateway answers. Start one with: peerchat serve --role all; or wait.",
            "Start one with: peerchat serve --role all; or wait.",
        ),
        ("Three refused", "Three refused. Start one with: peerchat serve --role all"),
    ],
)
def test_failure_repeats_neither_title_nor_advice(message, advice) -> None:
    assert failure_words(ApiError(ErrorCode.NO_GATEWAY, message)).advice == advice


def test_who_writes_loads_no_more() -> None:
    turn = Turn(1, "hi", state=TurnState.RUNNING)
    turn.progress = Progress("loading", model="llama3.2")
    assert "loading llama3.2" in usage_line(turn, 0.0, is_animated=False).plain
    turn.add("Hello", is_thinking=False)
    assert "llama3.2 answers" in usage_line(turn, 0.0, is_animated=False).plain


def test_what_was_interrupted_says_whose_it_was() -> None:
    turn = Turn(1, "hi")
    turn.begin(1.0)
    turn.progress = Progress("serving", peer="ab" * 32, model="llama3.2")
    turn.add("Hello", is_thinking=False)
    turn.is_continued = True
    running = usage_line(turn, 2.0, is_animated=False).plain
    assert "continued" in running
    turn.end(TurnState.STOPPED, 3.5)
    assert usage_line(turn, 9.0, is_animated=False).plain == (
        "■ interrupted · llama3.2 · 2.5 s · peer abababab · continued"
    )


def test_a_refusal_that_no_login_helps_against_says_why() -> None:
    removed = "This home was removed from the swarm team."
    error = ApiError(ErrorCode.FORBIDDEN, removed, status=403)
    assert failure_words(error) == Words("Not allowed", removed)
    assert login_words(error).advice == removed


def test_roles() -> None:
    assert role_words(()) == "may ask"
    assert role_words(("processor", "auth")) == "processor, auth"
    assert role_words(("admin", "auth", "gateway", "processor")) == "admin, all roles"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30m", 1800),
        (" 24 h ", 86_400),
        ("2 weeks", 1_209_600),
        ("0h", None),
        ("h", None),
        ("1.5h", None),
        ("-1h", None),
        ("99999w", None),
        ("٣h", 10_800),
    ],
)
def test_durations(text, seconds) -> None:
    assert parse_duration(text) == seconds


def test_dates_of_any_number() -> None:
    assert date_words(1_893_456_000) == "2030-01-01 00:00"
    assert date_words(2**63) == "∞"
    assert date_words(-(2**63)) == "?"


def test_invites_are_told_from_talk_about_them() -> None:
    assert is_invite(" peerchat:" + "a-_9" * 10)
    assert not is_invite("peerchat: what is it?")
    assert not is_invite("How do I use peerchat:abc?")


def test_beginning_of_a_command_is_enough() -> None:
    for text, action in (("/memb", "members"), ("/model x", "model"), ("/so", "solo")):
        command = parse_command(text)
        assert command is not None
        assert command.action is not None
        assert command.action.id == action
    ambiguous = parse_command("/log")
    assert ambiguous is not None
    assert ambiguous.action is None
