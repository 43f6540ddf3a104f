"""The prompt, the commands, and the keys."""

from __future__ import annotations

from collections import deque

import pytest
from textual.color import Color

from peerchat.api import ModelInfo, Phase
from peerchat.settings import Home, Settings
from peerchat.testing.node import ScriptedNode, solo_state, swarm_state, whole
from peerchat.tui.actions import parse_command
from peerchat.tui.app import PeerchatApp
from peerchat.tui.registry import ACTIONS
from peerchat.tui.screens.dialogs import HelpScreen, ModelScreen
from peerchat.tui.screens.login import LoginScreen

from .conftest import chat_of, frame_text, open_app, prompt_of, say, settled, until


@pytest.mark.parametrize("key", ["alt+enter", "ctrl+j", "shift+enter"])
async def test_new_line_keys(clock, key) -> None:
    node = ScriptedNode()
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await pilot.press("a", key, "b")
        assert prompt_of(pilot).text == "a\nb"
        await pilot.press("enter")
        await settled(pilot)
        assert node.asked[0].prompt == "a\nb"


async def test_lines_typed_before_the_app_could_listen_are_sent(clock) -> None:
    node = ScriptedNode()
    app = PeerchatApp(node, clock=clock, typed="first line\nand a begun on")
    app.animation_level = "none"
    async with app.run_test() as pilot:
        await until(pilot, lambda: node.asked)
        assert node.asked[0].prompt == "first line"
        await until(pilot, lambda: prompt_of(pilot).text == "and a begun on")


async def test_prompt_grows_to_ten_lines(clock) -> None:
    app = open_app(ScriptedNode(), clock)
    async with app.run_test(size=(80, 40)) as pilot:
        prompt = prompt_of(pilot)
        for lines in range(1, 15):
            # Layout follows a key in its own time; one that never does hangs here.
            while prompt.outer_size.height != min(lines, 10) + 2:
                await pilot.pause(0.01)
            await pilot.press("x", "ctrl+j")
        await pilot.pause()
        assert prompt.outer_size.height == 12


async def test_the_cursor_holds_still_when_nobody_types(clock, monkeypatch) -> None:
    monkeypatch.setattr("peerchat.tui.widgets.prompt.BLINK_S", 0.05)
    app = open_app(ScriptedNode(), clock)
    async with app.run_test() as pilot:
        prompt = prompt_of(pilot)
        await until(pilot, lambda: not prompt.cursor_blink)
        monkeypatch.setattr("peerchat.tui.widgets.prompt.BLINK_S", 60)
        await pilot.press("a")
        assert prompt.cursor_blink


async def test_up_at_the_start_walks_the_history_and_keeps_the_draft(clock) -> None:
    app = open_app(ScriptedNode(), clock)
    async with app.run_test() as pilot:
        await say(pilot, "first")
        await say(pilot, "second")
        await settled(pilot)
        prompt = prompt_of(pilot)
        await pilot.press(*"draft", "up")
        assert prompt.text == "draft"
        seen = []
        for key in ("up", "up", "up"):
            await pilot.press(key)
            seen.append(prompt.text)
        assert seen == ["second", "first", "first"]
        await pilot.press("end", "down", "down")
        assert prompt.text == "draft"


async def test_typing_reaches_the_prompt_wherever_the_focus_is(clock) -> None:
    app = open_app(ScriptedNode(), clock)
    async with app.run_test() as pilot:
        app.screen.set_focus(None)
        await pilot.press("h", "i")
        assert prompt_of(pilot).text == "hi"


def test_parse_command() -> None:
    assert parse_command("tell me") is None
    assert parse_command("/etc/hosts is what?") is None
    assert parse_command("//help") is None
    command = parse_command("/model llama3.2:3b ")
    assert command is not None
    assert command.argument == "llama3.2:3b"
    unknown = parse_command("/nonsense")
    assert unknown is not None
    assert unknown.action is None


def test_every_action_can_be_done(clock) -> None:
    """Ids, slashes and keys are unique, and something does each action."""
    app = open_app(ScriptedNode(), clock)
    for field in ("id", "slash", "key"):
        values = [getattr(action, field) for action in ACTIONS]
        given = [value for value in values if value]
        assert len(given) == len(set(given))
    for action in ACTIONS:
        assert app.knows(action.id)


async def test_unknown_command_is_given_back(clock) -> None:
    node = ScriptedNode()
    app = open_app(node, clock)
    async with app.run_test(notifications=True) as pilot:
        await say(pilot, "/hlep me")
        assert prompt_of(pilot).text == "/hlep me"
        await until(pilot, lambda: "There is no /hlep" in frame_text(app))
        await say(pilot, "//hlep me")
        await settled(pilot)
        assert node.asked[0].prompt == "/hlep me"


async def test_help_models_and_model(clock) -> None:
    node = ScriptedNode()
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await say(pilot, "/help")
        assert isinstance(app.screen, HelpScreen)
        assert "/copy" in frame_text(app)
        await pilot.press("escape")
        await say(pilot, "/models")
        assert isinstance(app.screen, ModelScreen)
        await pilot.press(*"qwen", "enter")
        await say(pilot, "hi")
        await settled(pilot)
        await say(pilot, "/model guide")
        await say(pilot, "hi")
        await settled(pilot)
        await say(pilot, "/model")
        await say(pilot, "hi")
        await settled(pilot)
        models = [asked.model for asked in node.asked]
        assert models == ["qwen2.5-coder:7b", "guide", None]


async def test_the_picker_opens_at_the_model_in_use(clock) -> None:
    node = ScriptedNode()
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        served = tuple(
            ModelInfo(name, context_tokens=131072, is_embedder=name == "embed")
            for name in ("embed", "guide", "llama3.2:latest")
        )
        node.change(models=served)
        await until(pilot, lambda: app.chat.situation().state.models == served)
        await say(pilot, "/model llama3.2")
        await say(pilot, "/models")
        frame = frame_text(app)
        assert "● llama3.2:latest  128K context" in frame
        assert "embed" not in frame
        await pilot.press("enter")
        assert app.chat.model == "llama3.2:latest"


async def test_a_model_is_known_without_its_tag(clock) -> None:
    node = ScriptedNode()
    app = open_app(node, clock)
    async with app.run_test(notifications=True) as pilot:
        served = (ModelInfo("llama3.2:latest"), ModelInfo("guide"))
        node.change(models=served)
        await until(pilot, lambda: app.chat.situation().state.models == served)
        await say(pilot, "/model llama3.2")
        assert "llama3.2:latest answers" in frame_text(app)
        await say(pilot, "/model llama3")
        assert "Nobody serves llama3 now" in frame_text(app)


async def test_copy_gives_the_markdown_source(clock) -> None:
    app = open_app(ScriptedNode(script=deque([whole("- **a**\n- b")])), clock)
    async with app.run_test(notifications=True) as pilot:
        await say(pilot, "/copy")
        await until(pilot, lambda: "no answer to copy" in frame_text(app))
        await say(pilot, "go")
        await settled(pilot)
        await pilot.press("f4")
        assert app.clipboard == "- **a**\n- b"


async def test_clear_forgets_the_history(clock) -> None:
    node = ScriptedNode()
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await say(pilot, "one")
        await settled(pilot)
        await say(pilot, "/clear")
        assert "Language models, peer to peer" in frame_text(app)
        await say(pilot, "two")
        await settled(pilot)
        assert node.asked[1].history == ()


async def test_palette_offers_the_registry(clock) -> None:
    app = open_app(ScriptedNode(), clock)
    async with app.run_test() as pilot:
        titles = {command.title for command in app.get_system_commands(app.screen)}
        assert {"Pick a model", "Log in", "Clear", "Quit", "Theme"} <= titles
        assert "Copy answer" not in titles
        await pilot.press("ctrl+p")
        await pilot.press(*"pick a mod")
        await until(pilot, lambda: "List who serves" in frame_text(app))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ModelScreen))


async def test_too_long_a_prompt_is_given_back(clock, tmp_path) -> None:
    home = Home(tmp_path, tmp_path, tmp_path, tmp_path)
    settings = Settings(home, prompt_bytes_max=1024)
    node = ScriptedNode()
    app = PeerchatApp(node, settings, clock=clock)
    async with app.run_test(notifications=True) as pilot:
        await say(pilot, "ü" * 600)
        await until(pilot, lambda: "longer than 1 KiB" in frame_text(app))
        assert prompt_of(pilot).text == "ü" * 600
        assert node.asked == []


async def test_queue_has_an_end_and_loses_nothing(clock, monkeypatch) -> None:
    for module in ("conversation", "screens.dispatch"):
        monkeypatch.setattr(f"peerchat.tui.{module}.QUEUE_MAX", 4)
    node = ScriptedNode(swarm_state(phase=Phase.OFFLINE))
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        for number in range(5):
            await say(pilot, f"prompt {number}")
        assert prompt_of(pilot).text == "prompt 4"
        assert len(chat_of(pilot).session.conversation.queue) == 4


async def test_panels_fold_and_unfold(clock) -> None:
    app = open_app(ScriptedNode(), clock)
    async with app.run_test(size=(120, 30)) as pilot:
        await pilot.pause()
        assert "7c1f0a52" in frame_text(app)
        await pilot.resize_terminal(90, 30)
        await until(pilot, lambda: "7c1f0a52" not in frame_text(app))
        await pilot.press("f2")
        await until(pilot, lambda: "7c1f0a52" in frame_text(app))
        assert "limit left" not in frame_text(app)
        await pilot.press("f3")
        await until(pilot, lambda: "limit left" in frame_text(app))


async def test_hidden_panels_are_not_drawn_and_peers_not_looked_up(clock) -> None:
    node = ScriptedNode()
    app = open_app(node, clock)
    async with app.run_test(size=(80, 24)) as pilot:
        chat = chat_of(pilot)
        clock.now_s += 100
        chat._second()
        await pilot.pause()
        assert node.refreshes == 0
        await pilot.press("f2")
        chat._second()
        await until(pilot, lambda: node.refreshes == 1)


async def test_states_of_another_thread_are_coalesced(clock) -> None:
    """Two hundred states from the node's thread: the newest is shown."""
    import asyncio

    node = ScriptedNode()
    app = open_app(node, clock)
    async with app.run_test(size=(120, 30)) as pilot:
        shown = []
        original = app.chat.show_state

        def count_states(state) -> None:
            shown.append(state)
            original(state)

        app.chat.show_state = count_states

        def change() -> None:
            for number in range(200):
                node.change(requests=number)

        await asyncio.to_thread(change)
        await until(pilot, lambda: shown and shown[-1].requests == 199)
        assert len(shown) < 200


async def test_solo_uses_the_local_account_without_asking(clock) -> None:
    node = ScriptedNode(solo_state(account=None))
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await until(pilot, lambda: "local user" in frame_text(app))
        await say(pilot, "/logout")
        await until(pilot, lambda: isinstance(app.screen, LoginScreen))
        assert node.current.account is None
        await pilot.click("#local")
        await until(pilot, lambda: node.current.account is not None)


async def test_no_color_leaves_no_color(clock, monkeypatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = open_app(ScriptedNode(), clock)
    async with app.run_test() as pilot:
        await pilot.pause()
        assert app.no_color
        for strip in app.screen._compositor.render_strips():
            for segment in strip.apply_filter(app._filters[-1], Color(0, 0, 0)):
                color = segment.style.color if segment.style else None
                if color is not None and color.triplet is not None:
                    assert len(set(color.triplet)) == 1
