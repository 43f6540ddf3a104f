"""What the chat does: send, stream, stop, queue, fail, and say so."""

from __future__ import annotations

import asyncio
from collections import deque

import pytest

from peerchat.api import (
    ApiError,
    ErrorCode,
    Finished,
    Fragment,
    Phase,
    Progress,
    RateLimit,
)
from peerchat.testing.node import (
    SAMPLE_ANSWER,
    ScriptedNode,
    solo_state,
    swarm_state,
    usage,
    whole,
)
from peerchat.tui.conversation import TurnState
from peerchat.tui.screens.login import LoginScreen
from peerchat.tui.widgets import transcript

from .conftest import (
    chat_of,
    fill,
    frame_text,
    open_app,
    prompt_of,
    say,
    settled,
    until,
)


async def test_keys_typed_before_the_node_is_ready_are_sent_later(clock) -> None:
    node = ScriptedNode(swarm_state(phase=Phase.CONNECTING))
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await until(pilot, lambda: node.is_started)
        await pilot.press(*"hello", "enter", *"more")
        assert node.asked == []
        assert "waits for its turn" in frame_text(app)
        assert "1 prompt kept" in frame_text(app)
        node.change(phase=Phase.READY)
        await settled(pilot)
        assert [asked.prompt for asked in node.asked] == ["hello"]
        assert prompt_of(pilot).text == "more"


async def test_answer_and_usage_are_shown_and_history_is_sent(clock) -> None:
    node = ScriptedNode(script=deque([whole("Blue **light** scatters."), whole("b")]))
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await say(pilot, "why?")
        await settled(pilot)
        frame = frame_text(app)
        assert "Blue light scatters." in frame
        assert "llama3.2:3b · 118 tokens · 49.2 tok/s · 2.4 s · peer e94bd310" in frame
        await say(pilot, "and then?")
        await settled(pilot)
        sent = [(message.role, message.content) for message in node.asked[1].history]
        assert sent == [("user", "why?"), ("assistant", "Blue **light** scatters.")]


async def test_text_is_on_screen_before_the_answer_ends(clock) -> None:
    gate = asyncio.Event()
    steps = [
        Progress("queued", position=2),
        Fragment("First words"),
        gate,
        Finished(usage()),
    ]
    app = open_app(ScriptedNode(script=deque([steps])), clock)
    async with app.run_test() as pilot:
        await say(pilot, "go")
        await until(pilot, lambda: "First words" in frame_text(app))
        assert "queued, position 2" in frame_text(app)
        assert chat_of(pilot).session.running is not None
        gate.set()
        await settled(pilot)


async def test_escape_keeps_the_partial_answer_and_closes_it(clock) -> None:
    gate = asyncio.Event()
    node = ScriptedNode(script=deque([[Fragment("Half an ans"), gate]]))
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await say(pilot, "go")
        await until(pilot, lambda: "Half an ans" in frame_text(app))
        await pilot.press("escape")
        await settled(pilot)
        assert node.asked[0].answer.is_closed
        assert "Half an ans" in frame_text(app)
        assert "interrupted" in frame_text(app)
        assert prompt_of(pilot).text == ""


async def test_escape_before_anything_came_gives_the_prompt_back(clock) -> None:
    node = ScriptedNode(script=deque([[asyncio.Event()]]))
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await say(pilot, "a long question")
        await until(pilot, lambda: node.asked)
        await pilot.press("escape")
        await until(pilot, lambda: prompt_of(pilot).text == "a long question")
        assert chat_of(pilot).session.conversation.turns == []
        assert node.asked[0].answer.is_closed


async def test_prompts_typed_during_an_answer_wait_their_turn(clock) -> None:
    gate = asyncio.Event()
    node = ScriptedNode(script=deque([[Fragment("one"), gate, Finished(usage())]]))
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await say(pilot, "first")
        await until(pilot, lambda: node.asked)
        await say(pilot, "second")
        await say(pilot, "third")
        assert [asked.prompt for asked in node.asked] == ["first"]
        gate.set()
        await settled(pilot)
        assert [asked.prompt for asked in node.asked] == ["first", "second", "third"]


async def test_burst_leaves_room_for_keys(clock) -> None:
    """Keys pressed when a burst begins are handled before it has been read."""
    seen_when_typed: list[int] = []
    total = 1_500

    def burst():
        for number in range(total):
            if number == 10:
                for key in "quick":
                    app.simulate_key(key)
            turn = chat_of(pilot).session.running
            if prompt_of(pilot).text == "quick" and not seen_when_typed:
                seen_when_typed.append(turn.fragments)
            yield Fragment(f"word{number} " + ("\n\n" if number % 20 == 19 else ""))
        yield Finished(usage())

    node = ScriptedNode(script=deque([burst()]))
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await say(pilot, "go")
        await settled(pilot)
        turn = chat_of(pilot).session.conversation.turns[0]
        assert turn.fragments == total
        assert seen_when_typed
        assert seen_when_typed[0] < total
        assert "word1499" in frame_text(app)


@pytest.mark.parametrize(
    ("code", "words", "advice"),
    [
        (ErrorCode.NO_GATEWAY, "No gateway answers", "peerchat serve --role all"),
        (ErrorCode.NO_PROCESSOR, "No processor answers", "--role processor"),
        (ErrorCode.ENGINE_DOWN, "The engine is down", "ollama serve"),
        (ErrorCode.PEER_LOST, "The peer went away", "F5"),
        (ErrorCode.STORE_FAILED, "The store failed", "peerchat doctor"),
        (ErrorCode.MODEL_MISSING, "Nobody serves this model", "/models"),
    ],
)
async def test_failure_says_what_to_do(clock, code, words, advice) -> None:
    node = ScriptedNode(script=deque([[ApiError(code, "It broke")]]))
    app = open_app(node, clock)
    async with app.run_test(size=(99, 30)) as pilot:
        await say(pilot, "go")
        await settled(pilot)
        frame = frame_text(app)
        assert words in frame
        assert advice in " ".join(frame.split())
        await pilot.press("f5")
        await settled(pilot)
        assert [asked.prompt for asked in node.asked] == ["go", "go"]
        assert words not in frame_text(app)


async def test_answer_without_an_end_is_a_failure_that_keeps_its_text(clock) -> None:
    app = open_app(ScriptedNode(script=deque([[Fragment("cut")]])), clock)
    async with app.run_test() as pilot:
        await say(pilot, "go")
        await settled(pilot)
        assert "cut" in frame_text(app)
        assert "The peer went away" in frame_text(app)


async def test_node_that_breaks_its_word_does_not_end_the_app(clock) -> None:
    def broken():
        yield Fragment("x")
        raise ZeroDivisionError

    app = open_app(ScriptedNode(script=deque([broken()])), clock)
    async with app.run_test() as pilot:
        await say(pilot, "go")
        await settled(pilot)
        assert "peerchat failed inside" in frame_text(app)


async def test_limit_counts_down_and_sends_the_prompt_by_itself(clock) -> None:
    refusal = ApiError(
        ErrorCode.RATE_LIMITED,
        "Rate limit exceeded",
        status=429,
        rate_limit=RateLimit(0, 10, 30, 1.0),
    )
    node = ScriptedNode(script=deque([[refusal], whole("at last")]))
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await say(pilot, "go")
        await until(pilot, lambda: "30 s left" in frame_text(app))
        clock.now_s += 12
        await until(pilot, lambda: "18 s left" in frame_text(app))
        assert len(node.asked) == 1
        clock.now_s += 18
        await until(pilot, lambda: "at last" in frame_text(app))
        assert "Limit reached" not in frame_text(app)


async def test_escape_takes_a_prompt_back_that_waits_for_the_limit(clock) -> None:
    refusal = ApiError(ErrorCode.RATE_LIMITED, "no", retry_after_s=30)
    app = open_app(ScriptedNode(script=deque([[refusal]])), clock)
    async with app.run_test() as pilot:
        await say(pilot, "go")
        await until(pilot, lambda: "30 s left" in frame_text(app))
        await pilot.press("escape")
        assert prompt_of(pilot).text == "go"


async def test_expired_session_asks_for_the_login_and_keeps_the_prompt(clock) -> None:
    refusal = ApiError(ErrorCode.UNAUTHORIZED, "expired", status=401)
    node = ScriptedNode(script=deque([[refusal], whole("welcome back")]))
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await say(pilot, "go")
        await until(pilot, lambda: isinstance(app.screen, LoginScreen))
        assert "The session is over" in frame_text(app)
        await fill(pilot, "ada@x.org", "secret-pw")
        await until(pilot, lambda: "welcome back" in frame_text(app))
        assert [asked.prompt for asked in node.asked] == ["go", "go"]


async def test_expired_local_session_is_renewed_without_asking(clock) -> None:
    refusal = ApiError(ErrorCode.UNAUTHORIZED, "expired", status=401)
    node = ScriptedNode(solo_state(), deque([[refusal], whole("still here")]))
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await say(pilot, "go")
        await until(pilot, lambda: "still here" in frame_text(app))


@pytest.mark.parametrize(
    ("phase", "problem", "words"),
    [
        (Phase.OFFLINE, "No node answers", "Offline: the DHT cannot be reached"),
        (Phase.FAILED, "The store is damaged", "peerchat cannot run"),
    ],
)
async def test_phase_has_words(clock, phase, problem, words) -> None:
    app = open_app(ScriptedNode(swarm_state(phase=phase, problem=problem)), clock)
    async with app.run_test() as pilot:
        await pilot.pause()
        assert words in frame_text(app)
        assert problem in frame_text(app)


async def test_at_most_a_window_of_turns_is_mounted(clock, monkeypatch) -> None:
    mounted_max = 6
    monkeypatch.setattr(transcript, "TURNS_MOUNTED_MAX", mounted_max)
    monkeypatch.setattr(transcript, "PAGE_TURNS", 3)
    app = open_app(ScriptedNode(), clock)
    total = mounted_max + 5
    async with app.run_test() as pilot:
        for number in range(total):
            await say(pilot, f"prompt-{number}")
            await settled(pilot)
        shown = chat_of(pilot).transcript
        assert len(shown.views) == mounted_max
        assert shown.views[-1].turn.prompt == f"prompt-{total - 1}"
        pages = 0
        while shown.views[0].turn.prompt != "prompt-0":
            await pilot.press("pageup")
            pages += 1
        assert pages <= 4, "the window went back by itself"
        assert len(shown.views) == mounted_max
        await pilot.press("ctrl+end")
        await until(pilot, lambda: f"prompt-{total - 1}" in frame_text(app))


async def test_quit_waits_for_the_node_and_shows_it(clock) -> None:
    node = ScriptedNode(close_gate=asyncio.Event())
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await pilot.press("ctrl+q")
        await until(pilot, lambda: "Withdrawing announcements" in frame_text(app))
        assert not node.is_closed
        node.close_gate.set()
        await until(pilot, lambda: node.is_closed)


async def test_quit_gives_up_on_a_node_that_hangs(clock, monkeypatch) -> None:
    monkeypatch.setattr("peerchat.tui.app.CLOSE_TIMEOUT_S", 0.01)
    app = open_app(ScriptedNode(close_gate=asyncio.Event()), clock)
    async with app.run_test() as pilot:
        await pilot.press("ctrl+q")
        await until(pilot, lambda: not app.is_running)


async def test_control_c_twice_quits_and_stops_the_answer(clock) -> None:
    node = ScriptedNode(script=deque([[Fragment("text"), asyncio.Event()]]))
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await say(pilot, "go")
        await until(pilot, lambda: "text" in frame_text(app))
        await pilot.press("ctrl+c")
        await settled(pilot)
        turn = chat_of(pilot).session.conversation.turns[0]
        assert turn.state is TurnState.STOPPED
        assert not node.is_closed
        await pilot.press("ctrl+c")
        await until(pilot, lambda: node.is_closed)


async def test_beside_the_panels_all_of_an_end_is_told(clock) -> None:
    app = open_app(ScriptedNode(script=deque([whole("text", continued=1)])), clock)
    async with app.run_test(size=(80, 24)) as pilot:
        await say(pilot, "/peers")
        await say(pilot, "go")
        await settled(pilot)
        assert "other peer" in " ".join(frame_text(app).split())


async def test_it_ends_with_a_code_and_stops_the_answer(clock) -> None:
    node = ScriptedNode(script=deque([[Fragment("text"), asyncio.Event()]]))
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await say(pilot, "go")
        await until(pilot, lambda: "text" in frame_text(app))
        app.end(129)
        await until(pilot, lambda: not app.is_running)
    assert node.asked[0].answer.is_closed
    assert node.is_closed
    assert app.return_code == 129


async def test_quit_during_an_answer_closes_the_answer_first(clock) -> None:
    node = ScriptedNode(script=deque([[Fragment("text"), asyncio.Event()]]))
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await say(pilot, "go")
        await until(pilot, lambda: "text" in frame_text(app))
        await pilot.press("ctrl+q")
        await until(pilot, lambda: node.is_closed)
        assert node.asked[0].answer.is_closed


async def test_whole_sample_is_rendered_as_markdown(clock) -> None:
    app = open_app(ScriptedNode(script=deque([whole(SAMPLE_ANSWER)])), clock)
    async with app.run_test(size=(120, 50)) as pilot:
        await say(pilot, "go")
        await settled(pilot)
        frame = frame_text(app)
        assert "```" not in frame
        assert "**" not in frame
        assert "checks tokens, limits users" in frame
