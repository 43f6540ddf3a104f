"""Pictures of the app, compared with those in `__snapshots__`.

They change with Textual and are made on the pinned version only:
``pytest tests/tui/test_pictures.py --snapshot-update``, then look at each.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import deque
from dataclasses import dataclass

import pytest
from textual.pilot import Pilot

from peerchat.api import (
    ApiError,
    ErrorCode,
    Fragment,
    Phase,
    Progress,
    RateLimit,
)
from peerchat.testing.node import (
    PROCESSOR_KEY,
    SAMPLE_ANSWER,
    ScriptedNode,
    private_state,
    seed_metrics,
    solo_state,
    swarm_state,
    whole,
)
from peerchat.testing.swarms import FAMILY, LAB, LINE
from peerchat.tui.clipboard import Clipboard
from peerchat.tui.screens.invite import CodeScreen, InviteLineScreen
from peerchat.tui.screens.login import LoginScreen

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

SIZES = [(80, 24), (120, 40)]


@dataclass
class Picture:
    """Takes one picture; the cursor stands still in all of them."""

    compare: object
    clock: object
    size: tuple[int, int]

    def take(self, node: ScriptedNode, act=None) -> None:
        app = open_app(node, self.clock)

        async def run(pilot: Pilot[None]) -> None:
            await until(pilot, lambda: node.is_started)
            prompt_of(pilot).cursor_blink = False
            await pilot.pause()
            if act is not None:
                await act(pilot)
            await pilot.pause()

        assert self.compare(app, terminal_size=self.size, run_before=run)


@pytest.fixture(params=SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def picture(request, snap_compare, clock) -> Picture:
    return Picture(snap_compare, clock, request.param)


def test_first_open(picture) -> None:
    picture.take(ScriptedNode(solo_state(account=None)))


def test_connecting_with_a_prompt_that_waits(picture) -> None:
    async def act(pilot) -> None:
        await say(pilot, "Why is the sky blue?")

    picture.take(ScriptedNode(solo_state(phase=Phase.CONNECTING, dht_nodes=0)), act)


def test_chat_with_answer(picture) -> None:
    async def act(pilot) -> None:
        await say(pilot, "How do two peers find each other?")
        await settled(pilot)

    picture.take(ScriptedNode(script=deque([whole(SAMPLE_ANSWER)])), act)


def test_streaming(picture) -> None:
    steps = [
        Progress("serving", peer=PROCESSOR_KEY, model="llama3.2:3b"),
        Fragment("The user asks about peers. Keep it short.", is_thinking=True),
        Fragment(SAMPLE_ANSWER[:330]),
        asyncio.Event(),
    ]

    async def act(pilot) -> None:
        await say(pilot, "How do two peers find each other?")
        await until(pilot, lambda: "key up and" in frame_text(pilot.app))
        await say(pilot, "And through a firewall?")

    picture.take(ScriptedNode(script=deque([steps])), act)


def test_login_with_error(picture) -> None:
    refusal = ApiError(ErrorCode.UNAUTHORIZED, "Invalid credentials", status=401)

    async def act(pilot) -> None:
        await until(pilot, lambda: isinstance(pilot.app.screen, LoginScreen))
        for field in pilot.app.screen.query("Input"):
            field.cursor_blink = False
        await fill(pilot, "ada@example.org", "not-it-at-all")
        await until(pilot, lambda: "Wrong email" in frame_text(pilot.app))

    picture.take(ScriptedNode(swarm_state(account=None), login_error=refusal), act)


def test_offline(picture) -> None:
    problem = "No bootstrap node answers (3 tried)"
    picture.take(ScriptedNode(swarm_state(phase=Phase.OFFLINE, problem=problem)))


def test_limit_reached(picture) -> None:
    refusal = ApiError(
        ErrorCode.RATE_LIMITED, "Rate limit exceeded", status=429, retry_after_s=42
    )
    limit = RateLimit(0, 10, 42, 1.0)

    async def act(pilot) -> None:
        await say(pilot, "Hello?")
        await settled(pilot)
        await say(pilot, "One more question")
        await until(pilot, lambda: "42 s left" in frame_text(pilot.app))

    script = deque([whole("Hello!"), [refusal]])
    picture.take(ScriptedNode(swarm_state(rate_limit=limit), script), act)


def test_failure(picture) -> None:
    refusal = ApiError(ErrorCode.NO_PROCESSOR, "No processor in this swarm answers")

    async def act(pilot) -> None:
        await say(pilot, "Is anybody there?")
        await settled(pilot)

    picture.take(ScriptedNode(script=deque([[refusal]])), act)


def test_panels(picture) -> None:
    async def act(pilot) -> None:
        chat = chat_of(pilot)
        seed_metrics(chat.sidebar.history)
        if pilot.app.size.width < 100:
            await pilot.press("f2", "f3")
        chat.show_state(chat._state)

    picture.take(ScriptedNode(), act)


def test_help(picture) -> None:
    async def act(pilot) -> None:
        await pilot.press("f1")

    picture.take(ScriptedNode(), act)


def test_models(picture) -> None:
    async def act(pilot) -> None:
        await pilot.press("ctrl+o")
        for field in pilot.app.screen.query("Input"):
            field.cursor_blink = False

    picture.take(ScriptedNode(), act)


def still(pilot) -> None:
    """No cursor blinks in a form."""
    for field in pilot.app.screen.query("Input"):
        field.cursor_blink = False


def test_slash(picture) -> None:
    async def act(pilot) -> None:
        await pilot.press("/", "m")

    picture.take(ScriptedNode(private_state()), act)


def test_create_swarm(picture) -> None:
    async def act(pilot) -> None:
        await say(pilot, "/create lab")
        await until(pilot, lambda: "Passphrase" in frame_text(pilot.app))
        still(pilot)

    picture.take(ScriptedNode(solo_state()), act)


def test_join_swarm(picture) -> None:
    async def act(pilot) -> None:
        await say(pilot, f"/join {LINE}")
        await until(pilot, lambda: "An invite into" in frame_text(pilot.app))
        still(pilot)

    picture.take(ScriptedNode(solo_state()), act)


def test_swarms(picture) -> None:
    async def act(pilot) -> None:
        await say(pilot, "/swarm")
        await until(pilot, lambda: "family" in frame_text(pilot.app))

    node = ScriptedNode(private_state())
    node.private_swarms.known = [dataclasses.replace(LAB, is_current=True), FAMILY]
    picture.take(node, act)


def test_invite_form(picture) -> None:
    async def act(pilot) -> None:
        await say(pilot, "/invite Grace")
        await until(pilot, lambda: "For whom" in frame_text(pilot.app))
        still(pilot)
        pilot.app.screen.query_one("#processor").value = True

    picture.take(ScriptedNode(private_state()), act)


def test_invite_line(picture) -> None:
    async def act(pilot) -> None:
        pilot.app.push_screen(InviteLineScreen(LINE, Clipboard(lambda text: None)))
        await until(pilot, lambda: "The invite" in frame_text(pilot.app))

    picture.take(ScriptedNode(private_state()), act)


def test_invite_code(picture) -> None:
    async def act(pilot) -> None:
        pilot.app.push_screen(InviteLineScreen(LINE, Clipboard(lambda text: None)))
        await until(pilot, lambda: "The invite" in frame_text(pilot.app))
        await pilot.press("q")
        await until(
            pilot,
            lambda: (
                "Make the terminal bigger" in frame_text(pilot.app)
                or isinstance(pilot.app.screen, CodeScreen)
            ),
        )

    picture.take(ScriptedNode(private_state()), act)


def test_members(picture) -> None:
    async def act(pilot) -> None:
        await say(pilot, "/members")
        await until(pilot, lambda: "Grace" in frame_text(pilot.app))

    picture.take(ScriptedNode(private_state()), act)


def test_revoke_with_locked_root_key(picture) -> None:
    async def act(pilot) -> None:
        await say(pilot, "/members")
        await until(pilot, lambda: "Grace" in frame_text(pilot.app))
        await pilot.press("enter")
        await until(pilot, lambda: "Revoke Ada's laptop" in frame_text(pilot.app))
        pilot.app.screen.submitted()
        await until(pilot, lambda: "is locked" in frame_text(pilot.app))
        still(pilot)

    node = ScriptedNode(private_state())
    node.private_swarms.passphrase = "horse"
    picture.take(node, act)


def test_register_with_code(picture) -> None:
    async def act(pilot) -> None:
        await until(pilot, lambda: isinstance(pilot.app.screen, LoginScreen))
        await pilot.press("escape")
        await say(pilot, "/register")
        await until(pilot, lambda: "Registration code" in frame_text(pilot.app))
        still(pilot)

    state = private_state(account=None, is_swarm_admin=False)
    picture.take(ScriptedNode(state), act)


def test_change_password(picture) -> None:
    async def act(pilot) -> None:
        await say(pilot, "/password")
        await until(pilot, lambda: "Password now" in frame_text(pilot.app))
        still(pilot)

    picture.take(ScriptedNode(private_state()), act)


def test_light(picture) -> None:
    async def act(pilot) -> None:
        await say(pilot, "/theme")
        await say(pilot, "How do two peers find each other?")
        await settled(pilot)

    picture.take(ScriptedNode(script=deque([whole(SAMPLE_ANSWER)])), act)
