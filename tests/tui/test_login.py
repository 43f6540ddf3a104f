"""Logging in and registering, and the words when it does not work."""

from __future__ import annotations

import pytest

from peerchat.api import ApiError, ErrorCode, Phase
from peerchat.testing.node import ScriptedNode, solo_state, swarm_state
from peerchat.tui.screens.login import LoginScreen
from peerchat.tui.widgets.field import Field

from .conftest import fill, frame_text, open_app, prompt_of, say, until

EMAIL = "ada@example.org"


async def login_open(pilot) -> None:
    await until(pilot, lambda: isinstance(pilot.app.screen, LoginScreen))
    await until(pilot, lambda: pilot.app.focused is not None)


async def test_login_opens_by_itself_and_logs_in(clock) -> None:
    node = ScriptedNode(swarm_state(account=None))
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await login_open(pilot)
        await pilot.press(*EMAIL, "enter", *"secret-pw", "enter")
        await until(pilot, lambda: app.screen is app.chat)
        assert node.accounts == [("login", EMAIL, "secret-pw")]
        await until(pilot, lambda: EMAIL in frame_text(app))
        await until(pilot, lambda: prompt_of(pilot).has_focus)


async def test_password_is_not_shown_nor_copied(clock) -> None:
    app = open_app(ScriptedNode(swarm_state(account=None)), clock)
    async with app.run_test() as pilot:
        await login_open(pilot)
        await pilot.press(*EMAIL, "enter", *"secret-pw")
        password = app.screen.query_one("#password", Field)
        password.select_all()
        await pilot.press("ctrl+c", "ctrl+x")
        assert app.clipboard == ""
        assert "secret-pw" not in frame_text(app)
        assert password.value == "secret-pw"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (ErrorCode.UNAUTHORIZED, "Wrong email or password"),
        (ErrorCode.CONFLICT, "This account exists already"),
        (ErrorCode.NO_AUTH, "No auth peer answers"),
        (ErrorCode.NO_GATEWAY, "No gateway answers"),
        (ErrorCode.STORE_FAILED, "The store failed"),
    ],
)
async def test_refusals_have_words(clock, code, words) -> None:
    error = ApiError(code, "It did not work", status=401)
    node = ScriptedNode(swarm_state(account=None), login_error=error)
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await login_open(pilot)
        await fill(pilot, EMAIL, "secret-pw")
        await until(pilot, lambda: words in frame_text(app))
        assert isinstance(app.screen, LoginScreen)


async def test_too_many_attempts_count_down(clock) -> None:
    error = ApiError(ErrorCode.RATE_LIMITED, "slow down", retry_after_s=20)
    node = ScriptedNode(swarm_state(account=None), login_error=error)
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await login_open(pilot)
        await fill(pilot, EMAIL, "secret-pw")
        await until(pilot, lambda: "Try again in 20 s" in frame_text(app))
        clock.now_s += 5
        await until(pilot, lambda: "Try again in 15 s" in frame_text(app))
        await pilot.press("enter")
        assert len(node.accounts) == 1
        clock.now_s += 15
        await until(pilot, lambda: "You can try again now" in frame_text(app))


async def test_register_and_what_is_checked_before(clock) -> None:
    node = ScriptedNode(swarm_state(account=None))
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await login_open(pilot)
        await pilot.click("#register")
        await until(pilot, lambda: "This is no email address" in frame_text(app))
        register = app.screen.query_one("#register")
        await until(pilot, lambda: not register.has_class("-active"))
        await fill(pilot, EMAIL)
        await pilot.press(*"short")
        await pilot.click("#register")
        await until(pilot, lambda: "The password is too short" in frame_text(app))
        assert node.accounts == []
        await until(pilot, lambda: not register.has_class("-active"))
        app.screen.query_one("#password", Field).value = "long-enough"
        await pilot.click("#register")
        await until(pilot, lambda: app.screen is app.chat)
        assert node.accounts[0] == ("register", EMAIL, "long-enough")


async def test_slash_register_makes_enter_register(clock) -> None:
    node = ScriptedNode(solo_state())
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await say(pilot, "/register")
        await login_open(pilot)
        await fill(pilot, EMAIL, "long-enough")
        await until(pilot, lambda: node.accounts)
        assert node.accounts[0][0] == "register"


async def test_login_does_not_interrupt_typing(clock) -> None:
    node = ScriptedNode(swarm_state(account=None, phase=Phase.CONNECTING))
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await pilot.press(*"hel")
        node.change(phase=Phase.READY)
        await pilot.press(*"lo")
        assert app.screen is app.chat
        assert prompt_of(pilot).text == "hello"
        await until(pilot, lambda: "Not logged in" in frame_text(app))
        await pilot.press("enter")
        await login_open(pilot)
        await fill(pilot, EMAIL, "secret-pw")
        await until(pilot, lambda: node.asked)
        assert node.asked[0].prompt == "hello"


async def test_failed_local_account_says_why(clock) -> None:
    error = ApiError(ErrorCode.STORE_FAILED, "The disk is full")
    node = ScriptedNode(solo_state(account=None), local_error=error)
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await until(pilot, lambda: "The disk is full" in frame_text(app))
        assert "No local account" in frame_text(app)
