"""Private swarms in the app: make, join, switch, invite, revoke."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import deque

import pytest
from textual import events

from peerchat.api import ApiError, ErrorCode, Fragment
from peerchat.settings import Home, Settings
from peerchat.testing.node import ScriptedNode, private_state, solo_state
from peerchat.testing.swarms import FAMILY, INVITES, LAB, LINE, MEMBERS
from peerchat.tui.app import PeerchatApp
from peerchat.tui.screens.confirm import ConfirmScreen
from peerchat.tui.screens.create_swarm import CreateSwarmScreen
from peerchat.tui.screens.invite import CodeScreen, InviteLineScreen, InviteScreen
from peerchat.tui.screens.join_swarm import JoinSwarmScreen
from peerchat.tui.screens.login import LoginScreen
from peerchat.tui.screens.members import MembersScreen
from peerchat.tui.screens.swarms import SwarmsScreen

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


async def opened(pilot, screen: type, command: str) -> None:
    await say(pilot, command)
    await until(pilot, lambda: isinstance(pilot.app.screen, screen))
    await until(pilot, lambda: pilot.app.focused is not None)


def ruled_by_us(**changes: object) -> ScriptedNode:
    """A node in a swarm of its own that also belongs to another one."""
    node = ScriptedNode(private_state(**changes))
    node.private_swarms.known = [dataclasses.replace(LAB, is_current=True), FAMILY]
    return node


# The first choice


async def test_first_choice_blocks_no_prompt_and_is_gone_with_it(clock) -> None:
    node = ScriptedNode(solo_state())
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await until(pilot, lambda: "Create a swarm" in frame_text(app))
        assert prompt_of(pilot).has_focus
        await pilot.press(*"hi", "enter")
        await settled(pilot)
        assert [asked.prompt for asked in node.asked] == ["hi"]
        await say(pilot, "/clear")
        await until(pilot, lambda: "/create makes" in frame_text(app))
        assert "Join a swarm" not in frame_text(app)


async def test_first_choice_by_keys(clock) -> None:
    node = ScriptedNode(solo_state())
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await pilot.press("tab", "down", "enter")
        await until(pilot, lambda: isinstance(app.screen, CreateSwarmScreen))
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.chat)
        assert "Create a swarm" in frame_text(app)
        await pilot.press("tab", "up", "up", "enter")
        await until(pilot, lambda: "Create a swarm" not in frame_text(app))
        assert prompt_of(pilot).has_focus


async def test_first_choice_is_made_once_for_a_home(clock, tmp_path) -> None:
    settings = Settings(Home(*(tmp_path / name for name in "abcd")))
    for is_first in (True, False):
        app = PeerchatApp(ScriptedNode(solo_state()), settings, clock=clock)
        async with app.run_test() as pilot:
            await pilot.pause()
            assert ("Join a swarm" in frame_text(app)) is is_first
            await say(pilot, "/solo")


async def test_first_choice_survives_a_folder_that_cannot_be_written(
    clock, tmp_path
) -> None:
    (tmp_path / "file").write_text("no folder")
    settings = Settings(Home(*(tmp_path / "file" / name for name in "abcd")))
    app = PeerchatApp(ScriptedNode(solo_state()), settings, clock=clock)
    async with app.run_test() as pilot:
        await say(pilot, "/solo")
        await until(pilot, lambda: "Join a swarm" not in frame_text(app))


async def test_private_home_is_offered_nothing(clock) -> None:
    app = open_app(ScriptedNode(private_state()), clock)
    async with app.run_test() as pilot:
        await until(pilot, lambda: "◆ lab · admin" in frame_text(app))
        assert "Join a swarm" not in frame_text(app)


# Create and join


async def test_create_leads_to_the_first_account(clock) -> None:
    node = ScriptedNode(solo_state())
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await opened(pilot, CreateSwarmScreen, "/create")
        await fill(pilot, "My Lab", "correct horse", "correct horse")
        await until(pilot, lambda: isinstance(app.screen, LoginScreen))
        calls = node.private_swarms.calls
        assert calls == [("create", ("my-lab", "correct horse"))]
        await until(pilot, lambda: "The swarm my-lab is yours" in frame_text(app))
        assert "◆ my-lab · admin" in frame_text(app)
        await fill(pilot, "ada@example.org", "long-enough", "")
        await until(pilot, lambda: app.screen is app.chat)
        assert node.accounts == [("register", "ada@example.org", "long-enough")]


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (("no/good", "", ""), "This cannot be a name"),
        (("", "", ""), "This cannot be a name"),
        (("lab", "one", "another"), "The two passphrases differ"),
        (("lab", "one", ""), "Once more, please"),
    ],
)
async def test_create_checks_before_it_asks(clock, typed, words) -> None:
    node = ScriptedNode(solo_state())
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await opened(pilot, CreateSwarmScreen, "/create")
        await fill(pilot, *typed)
        await until(pilot, lambda: words in frame_text(app))
        assert node.private_swarms.calls == []


async def test_refusal_keeps_what_was_typed(clock) -> None:
    node = ScriptedNode(solo_state())
    node.private_swarms.error = ApiError(
        ErrorCode.CONFLICT, "A swarm lab is here already", status=409
    )
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await opened(pilot, CreateSwarmScreen, "/create lab")
        await fill(pilot, "", "", "")
        await until(pilot, lambda: "A swarm lab is here already" in frame_text(app))
        assert "lab" in frame_text(app)
        await pilot.press("enter")
        await until(pilot, lambda: node.current.swarm == "lab")


async def test_slow_call_blocks_no_key_and_is_made_once(clock) -> None:
    node = ScriptedNode(solo_state())
    node.private_swarms.gate = asyncio.Event()
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await opened(pilot, CreateSwarmScreen, "/create lab")
        await fill(pilot, "", "", "")
        await until(pilot, lambda: "Making the swarm" in frame_text(app))
        await pilot.press("enter", "x")
        assert len(node.private_swarms.calls) == 1
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.chat)
        await pilot.press(*"hello", "enter")
        assert "Going into another swarm" in frame_text(app)
        assert node.asked == []
        node.private_swarms.gate.set()
        await until(pilot, lambda: node.current.swarm == "lab")
        assert chat_of(pilot).session.conversation.queue[0].prompt == "hello"


async def test_join_shows_what_the_invite_is_for(clock) -> None:
    node = ScriptedNode(solo_state())
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await opened(pilot, JoinSwarmScreen, "/join")
        broken = "\n".join(LINE[i : i + 70] for i in range(0, len(LINE), 70))
        app.focused.post_message(events.Paste(f"  {broken}\r\n"))
        await until(pilot, lambda: "into the swarm family" in frame_text(app))
        assert "c0ffee11" in frame_text(app)
        assert "2030-01-01" in frame_text(app)
        assert node.private_swarms.calls == []
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, LoginScreen))
        assert node.private_swarms.calls == [("join", LINE)]
        await until(pilot, lambda: "You are in the swarm family" in frame_text(app))


async def test_half_an_invite_says_so(clock) -> None:
    app = open_app(ScriptedNode(solo_state()), clock)
    async with app.run_test() as pilot:
        await opened(pilot, JoinSwarmScreen, f"/join {LINE[:80]}")
        await until(pilot, lambda: "not a whole invite" in frame_text(app))


@pytest.mark.parametrize("how", ["paste", "enter", "command"])
async def test_invite_is_never_sent_as_a_prompt(clock, how) -> None:
    """It is a secret: it opens the form and stays out of the history."""
    node = ScriptedNode(solo_state())
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        if how == "paste":
            prompt_of(pilot).post_message(events.Paste(f"{LINE}\n"))
        else:
            await say(pilot, LINE if how == "enter" else f"/join {LINE}")
        await until(pilot, lambda: isinstance(app.screen, JoinSwarmScreen))
        await until(pilot, lambda: "into the swarm family" in frame_text(app))
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.chat)
        await pilot.press("up")
        assert prompt_of(pilot).text == ""
        assert node.asked == []


async def test_lines_of_an_invite_that_are_typed_stay_one_invite(clock) -> None:
    """A terminal without bracketed paste: every line comes as keys, with Enter."""
    node = ScriptedNode(solo_state())
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        for start in range(0, len(LINE), 140):
            for char in LINE[start : start + 140]:
                app.post_message(events.Key(char, char))
            app.post_message(events.Key("enter", "\r"))
        await until(pilot, lambda: isinstance(app.screen, JoinSwarmScreen))
        await until(pilot, lambda: "into the swarm family" in frame_text(app))
        assert node.asked == []
        assert app.screen.query_one("#invite").value == LINE
        await pilot.press("escape")
        await say(pilot, "an ordinary prompt")
        await until(pilot, lambda: node.asked)


# Going elsewhere


async def test_switch_by_the_list(clock) -> None:
    node = ruled_by_us()
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await pilot.press("f6")
        await until(pilot, lambda: "family" in frame_text(app))
        await pilot.press("down", "enter")
        await until(pilot, lambda: node.current.swarm == "family")
        await until(pilot, lambda: "◆ family" in frame_text(app))


async def test_pause_and_resume(clock) -> None:
    node = ruled_by_us()
    app = open_app(node, clock)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("f7")
        await until(pilot, lambda: node.current.is_paused)
        await until(pilot, lambda: "ready · paused" in frame_text(app))
        await say(pilot, "/pause")
        await until(pilot, lambda: not node.current.is_paused)


@pytest.mark.parametrize("command", ["/solo", "/swarm family"])
async def test_nothing_said_in_one_swarm_is_sent_to_another(clock, command) -> None:
    node = ruled_by_us()
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await say(pilot, "a secret of the lab")
        await settled(pilot)
        await say(pilot, command)
        await until(pilot, lambda: node.current.swarm != "lab")
        node.change(account=dataclasses.replace(private_state().account))
        await say(pilot, "and now?")
        await until(pilot, lambda: len(node.asked) == 2)
        assert node.asked[1].history == ()
        turns = chat_of(pilot).session.conversation.turns
        assert [turn.prompt for turn in turns] == ["a secret of the lab", "and now?"]


async def test_going_elsewhere_stops_the_answer_and_gives_back_what_waits(
    clock,
) -> None:
    node = ruled_by_us()
    node.script = deque([[Fragment("half"), asyncio.Event()]])
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await say(pilot, "first")
        await until(pilot, lambda: "half" in frame_text(app))
        await say(pilot, "second")
        await say(pilot, "third")
        await say(pilot, "/solo")
        await until(pilot, lambda: node.current.mode == "solo")
        assert node.asked[0].answer.is_closed
        await until(pilot, lambda: prompt_of(pilot).text == "second\nthird")
        assert len(node.asked) == 1


async def test_move_that_fails_sends_nothing_typed_meanwhile(clock) -> None:
    """It was meant for the swarm that was not reached."""
    node = ruled_by_us()
    node.private_swarms.gate = asyncio.Event()
    node.private_swarms.error = ApiError(ErrorCode.TIMEOUT, "Nobody is there")
    app = open_app(node, clock)
    async with app.run_test(notifications=True) as pilot:
        await say(pilot, "/swarm family")
        await until(pilot, lambda: "Going into another swarm" in frame_text(app))
        await say(pilot, "for the family only")
        node.private_swarms.gate.set()
        await until(pilot, lambda: "Nobody answered" in frame_text(app))
        assert prompt_of(pilot).text == "for the family only"
        assert node.asked == []
        await say(pilot, "for the lab")
        await until(pilot, lambda: node.asked)


async def test_unknown_swarm_says_so(clock) -> None:
    app = open_app(ruled_by_us(), clock)
    async with app.run_test(notifications=True) as pilot:
        await say(pilot, "/swarm nowhere")
        await until(pilot, lambda: "That cannot be done" in frame_text(app))


async def test_swarms_lead_on_to_the_other_forms(clock) -> None:
    app = open_app(ruled_by_us(), clock)
    async with app.run_test() as pilot:
        for button, screen in (("create", CreateSwarmScreen), ("invite", InviteScreen)):
            await opened(pilot, SwarmsScreen, "/swarm")
            await until(pilot, lambda: "family" in frame_text(app))
            await pilot.click(f"#{button}")
            await until(pilot, lambda screen=screen: isinstance(app.screen, screen))
            await pilot.press("escape")
            await until(pilot, lambda: app.screen is app.chat)


# Invites and members


async def test_invite_is_made_copied_and_shown_as_a_code(clock) -> None:
    node = ruled_by_us()
    app = open_app(node, clock)
    async with app.run_test(size=(120, 40)) as pilot:
        await opened(pilot, InviteScreen, "/invite Grace")
        await pilot.click("#processor")
        app.screen.query_one("#uses").focus()
        await until(pilot, lambda: app.focused.id == "uses")
        await pilot.press("backspace", "3", "enter")
        await fill(pilot, "")
        await until(pilot, lambda: isinstance(app.screen, InviteLineScreen))
        assert node.private_swarms.calls == [
            ("invite", (("processor",), 3, 86_400.0, "Grace"))
        ]
        assert "peerchat:iQWx" in frame_text(app)
        app.screen._clipboard._which = lambda name: None
        await pilot.press("c")
        await until(pilot, lambda: "Sent to the terminal" in frame_text(app))
        assert app.clipboard == LINE
        await pilot.press("q")
        await until(pilot, lambda: isinstance(app.screen, CodeScreen))
        assert "█▀▀▀▀▀█" in frame_text(app)
        await pilot.press("escape", "escape")
        await until(pilot, lambda: app.screen is app.chat)


async def test_code_needs_room_and_says_how_much(clock) -> None:
    app = open_app(ruled_by_us(), clock)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot, InviteScreen, "/invite")
        await fill(pilot, "", "", "")
        await until(pilot, lambda: isinstance(app.screen, InviteLineScreen))
        await pilot.press("q")
        await until(pilot, lambda: "It needs 73x37, this is 80x24" in frame_text(app))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("uses", "0", "A number from 1 to 1000"),
        ("uses", "²", "A number from 1 to 1000"),
        ("expires", "soon", "Write it as 30m"),
        ("expires", "9999d", "at most a year"),
    ],
)
async def test_invite_checks_its_numbers(clock, field, value, words) -> None:
    node = ruled_by_us()
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await opened(pilot, InviteScreen, "/invite")
        app.screen.query_one(f"#{field}").value = value
        await pilot.click("#submit")
        await until(pilot, lambda: words in frame_text(app))
        assert node.private_swarms.calls == []


async def test_revoke_asks_first_and_for_the_passphrase_when_it_must(clock) -> None:
    node = ruled_by_us()
    node.private_swarms.passphrase = "horse"
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await opened(pilot, MembersScreen, "/members")
        await until(pilot, lambda: "Ada's laptop" in frame_text(app))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        assert "Passphrase" not in frame_text(app)
        assert app.focused.id == "leave"
        await pilot.click("#submit")
        await until(pilot, lambda: "The root key is locked" in frame_text(app))
        await fill(pilot, "donkey")
        await until(pilot, lambda: "does not fit" in frame_text(app))
        await fill(pilot, "horse")
        await until(pilot, lambda: isinstance(app.screen, MembersScreen))
        await until(pilot, lambda: frame_text(app).count("revoked") == 2)
        peers = [how for what, how in node.private_swarms.calls if what == "revoke"]
        assert peers[-1] == (MEMBERS[0].peer, "horse")


async def test_enter_twice_revokes_nobody(clock) -> None:
    node = ruled_by_us()
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await opened(pilot, MembersScreen, "/members")
        await until(pilot, lambda: "Ada's laptop" in frame_text(app))
        await pilot.press("enter", "enter")
        await until(pilot, lambda: isinstance(app.screen, MembersScreen))
        assert node.private_swarms.calls == []


async def test_withdraw_an_invite(clock) -> None:
    node = ruled_by_us()
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await opened(pilot, MembersScreen, "/members")
        await until(pilot, lambda: "Grace" in frame_text(app))
        await pilot.press("down", "down", "down", "enter")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        await pilot.click("#submit")
        await until(pilot, lambda: "withdrawn" in frame_text(app))
        assert node.private_swarms.calls == [("withdraw", INVITES[0].invite_id)]


async def test_list_that_cannot_be_fetched_says_why(clock) -> None:
    node = ruled_by_us()

    async def fail() -> None:
        raise ApiError(ErrorCode.STORE_FAILED, "The disk is full")

    node.private_swarms.members = fail
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await opened(pilot, MembersScreen, "/members")
        await until(pilot, lambda: "The disk is full" in frame_text(app))


@pytest.mark.parametrize("command", ["/invite", "/members"])
async def test_members_cannot_invite_and_are_told(clock, command) -> None:
    app = open_app(ruled_by_us(is_swarm_admin=False), clock)
    async with app.run_test(notifications=True) as pilot:
        await say(pilot, command)
        await until(pilot, lambda: "Only an admin" in frame_text(app))
        assert app.screen is app.chat
