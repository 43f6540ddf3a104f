"""Text of others stays text: nothing it holds reaches the terminal or the app."""

from __future__ import annotations

import dataclasses
from collections import deque

import pytest
from textual.app import App, ComposeResult
from textual.content import Content

from peerchat.api import (
    Account,
    ApiError,
    ErrorCode,
    Finished,
    Fragment,
    ModelInfo,
    NodeState,
    PeerView,
    Phase,
    Progress,
    Role,
)
from peerchat.testing.node import ScriptedNode, swarm_state, usage
from peerchat.testing.swarms import INVITES, LAB, MEMBERS
from peerchat.tui.clipboard import Clipboard
from peerchat.tui.conversation import Turn, TurnState
from peerchat.tui.screens.dialogs import ModelScreen
from peerchat.tui.screens.invite import InviteLineScreen
from peerchat.tui.screens.login import LoginScreen
from peerchat.tui.widgets.bars import Notice, StatusBar, TopBar
from peerchat.tui.widgets.empty import Empty
from peerchat.tui.widgets.inert import Inert
from peerchat.tui.widgets.message import TurnView
from peerchat.tui.widgets.metrics import MetricsPanel
from peerchat.tui.widgets.peers import PeersPanel
from peerchat.tui.wording import Words

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

HOSTILE = (
    "press\x1b]0;owned\x07\x1b[31mred\x1b]52;c;ZXZpbA==\x1b\\\x9b2J\x90q\x9c"
    "[@click=app.boom]here[/][/nope][bold"
    "\u202egnp.exe\u2066\u200b end"
)

FORBIDDEN = [chr(code) for code in (*range(9), *range(11, 32), *range(127, 160))]
FORBIDDEN += ["\u202e", "\u2066", "\u200b"]


def assert_inert(app: App[None]) -> None:
    """Nothing in the frame obeys: no control byte, no direction, no action."""
    frame = frame_text(app)
    found = [char for char in FORBIDDEN if char in frame]
    assert found == []
    for strip in app.screen._compositor.render_strips():
        for segment in strip:
            meta = segment.style.meta if segment.style else {}
            assert str(meta.get("@click", "link(")).startswith("link(")
    assert app.booms == 0


class Bench(App[None]):
    """Shows one widget."""

    booms = 0

    def __init__(self, widget) -> None:
        super().__init__()
        self._widget = widget

    def compose(self) -> ComposeResult:
        yield self._widget

    def action_boom(self) -> None:
        self.booms += 1


async def assert_widget_is_inert(widget, fill=lambda widget: None) -> None:
    app = Bench(widget)
    async with app.run_test(size=(120, 20)) as pilot:
        result = fill(widget)
        if result is not None:
            await result
        await pilot.pause()
        assert "press" in frame_text(app)
        assert_inert(app)
        await pilot.click(offset=(40, 0))
        assert app.booms == 0


def hostile_state() -> NodeState:
    return swarm_state(
        mode=HOSTILE,
        swarm=HOSTILE,
        engine=HOSTILE,
        problem=HOSTILE,
        account=Account(HOSTILE),
        peers=(
            PeerView(Role.GATEWAY, HOSTILE, 0.1),
            PeerView(Role.PROCESSOR, "ab" * 32, 0.1, (HOSTILE,) * 5, 1, 1),
        ),
        models=(ModelInfo(HOSTILE, HOSTILE, ("ab" * 32,)),),
    )


async def test_inert_widget() -> None:
    await assert_widget_is_inert(Inert(HOSTILE))
    await assert_widget_is_inert(Inert(), lambda widget: widget.update(HOSTILE))


async def test_bars() -> None:
    state = hostile_state()
    await assert_widget_is_inert(TopBar(), lambda bar: bar.show_state(state, HOSTILE))
    await assert_widget_is_inert(StatusBar(), lambda bar: bar.show_state(state))
    words = Words(HOSTILE, HOSTILE)
    await assert_widget_is_inert(Notice(), lambda bar: bar.show_words(words))


async def test_panels() -> None:
    state = hostile_state()
    await assert_widget_is_inert(PeersPanel(), lambda panel: panel.show_state(state))
    private = dataclasses.replace(state, mode="private")
    await assert_widget_is_inert(Empty(), lambda empty: empty.show_state(private))


async def test_metrics_panel_shows_numbers_only() -> None:
    panel = MetricsPanel()
    app = Bench(panel)
    async with app.run_test(size=(60, 20)):
        assert_inert(app)


@pytest.mark.parametrize("state", [TurnState.RUNNING, TurnState.DONE, TurnState.FAILED])
async def test_turn(state) -> None:
    turn = Turn(1, HOSTILE)
    turn.begin(0.0)
    turn.add(HOSTILE, is_thinking=True)
    for char in HOSTILE:
        turn.add(char, is_thinking=False)
    turn.add(f"\n\n> {HOSTILE}\n\n- {HOSTILE}\n", is_thinking=False)
    turn.add(
        f"\n```{HOSTILE}\n{HOSTILE}\n```\n\n|{HOSTILE}|\n|---|\n|{HOSTILE}|\n\n",
        is_thinking=False,
    )
    turn.add(
        f"# {HOSTILE}\n\n[{HOSTILE}](https://x.org/'app.boom')\n\n", is_thinking=False
    )
    turn.progress = Progress("loading", peer=HOSTILE, model=HOSTILE)
    if state is not TurnState.RUNNING:
        turn.usage = usage(model=HOSTILE, peer=HOSTILE)
        turn.problem = Words(HOSTILE, HOSTILE)
        turn.end(state, 1.0)
    view = TurnView(turn)
    app = Bench(view)
    async with app.run_test(size=(120, 70)) as pilot:
        for _ in range(4):
            await view.refresh_turn(1.0, is_animated=False)
        view.toggle_thinking()
        await pilot.pause()
        assert frame_text(app).count("press") > 3
        assert_inert(app)


async def test_whole_app_under_hostile_peers(clock) -> None:
    steps = [
        Progress("serving", model=HOSTILE, peer=HOSTILE),
        *[Fragment(char) for char in HOSTILE],
        Finished(usage(model=HOSTILE, peer=HOSTILE)),
    ]
    error = ApiError(ErrorCode.ENGINE_FAILED, HOSTILE)
    node = ScriptedNode(hostile_state(), deque([steps, [error]]))
    app = open_app(node, clock)
    app.booms = 0
    async with app.run_test(size=(140, 50), notifications=True) as pilot:
        await say(pilot, HOSTILE)
        await settled(pilot)
        await say(pilot, "again")
        await settled(pilot)
        chat_of(pilot).tell(HOSTILE)
        await pilot.pause()
        assert frame_text(app).count("press") > 3
        assert_inert(app)
        node.change(phase=Phase.OFFLINE)
        await pilot.pause()
        assert_inert(app)


async def test_model_picker_and_login(clock) -> None:
    node = ScriptedNode(hostile_state())
    app = open_app(node, clock)
    app.booms = 0
    async with app.run_test(size=(120, 40)) as pilot:
        await app.push_screen(ModelScreen(node.current.models, HOSTILE))
        await pilot.pause()
        assert "press" in frame_text(app)
        assert_inert(app)
        app.pop_screen()
        node.login_error = ApiError(ErrorCode.CONFLICT, HOSTILE)
        app._accounts.show_login()
        await pilot.pause()
        await fill(pilot, "a@b.org", "password")
        await until(pilot, lambda: "press" in frame_text(app))
        assert isinstance(app.screen, LoginScreen)
        assert_inert(app)


async def test_swarm_screens(clock) -> None:
    """Names in swarms, members and invites, and what refuses them, are others' text."""
    node = ScriptedNode(hostile_state())
    node.change(mode="private", is_swarm_admin=True)
    swarms = node.private_swarms
    swarms.known = [dataclasses.replace(LAB, name=HOSTILE, roles=(HOSTILE,))]
    swarms.let_in = [dataclasses.replace(MEMBERS[0], name=HOSTILE, roles=(HOSTILE,))]
    swarms.given = [dataclasses.replace(INVITES[1], name=HOSTILE, state=HOSTILE)]
    app = open_app(node, clock)
    app.booms = 0
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        for command in ("/swarm", "/members"):
            await say(pilot, command)
            await until(pilot, lambda: frame_text(app).count("press") > 3)
            assert_inert(app)
            if command == "/members":
                await pilot.press("enter")
                await until(pilot, lambda: "Revoke press" in frame_text(app))
                swarms.error = ApiError(ErrorCode.CONFLICT, HOSTILE)
                await pilot.click("#submit")
                await until(pilot, lambda: "There is one already" in frame_text(app))
                assert_inert(app)
                await pilot.press("escape")
            await pilot.press("escape")
            await until(pilot, lambda: app.screen is app.chat)
        app.push_screen(InviteLineScreen(HOSTILE, Clipboard(app.copy_to_clipboard)))
        await until(pilot, lambda: "The invite" in frame_text(app))
        assert_inert(app)


async def test_pasted_text_is_inert_and_nothing_is_sent(clock) -> None:
    from textual import events

    node = ScriptedNode()
    app = open_app(node, clock)
    app.booms = 0
    async with app.run_test() as pilot:
        prompt_of(pilot).post_message(events.Paste(f"one\n{HOSTILE}\n"))
        await until(pilot, lambda: "press" in prompt_of(pilot).text)
        assert prompt_of(pilot).text.startswith("one\npress")
        assert_inert(app)
        assert node.asked == []


async def test_links_are_shown_and_never_opened(clock, monkeypatch) -> None:
    opened: list[str] = []
    steps = [Fragment("[press](https://evil.example/)\n"), Finished(usage())]
    app = open_app(ScriptedNode(script=deque([steps])), clock)
    monkeypatch.setattr(app, "open_url", lambda url, **_: opened.append(url))
    async with app.run_test() as pilot:
        await say(pilot, "go")
        await settled(pilot)
        row = next(
            y for y, line in enumerate(frame_text(app).split("\n")) if "press" in line
        )
        column = frame_text(app).split("\n")[row].index("press")
        await pilot.click(offset=(column + 1, row))
        await pilot.pause()
        assert opened == []


async def test_what_is_shown_already_costs_no_layout() -> None:
    line = Inert("same")

    class Shown(App[None]):
        def compose(self) -> ComposeResult:
            yield line

    async with Shown().run_test():
        painted: list[bool] = []
        line.refresh = lambda *_, layout=False, **__: painted.append(layout) or line
        line.update("same")
        assert painted == []
        for content in (Content("same"), Content.styled("same", "bold")):
            line.update(content)
            line.update(content)
        assert painted == [True, True]
