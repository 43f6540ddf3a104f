"""Registration codes, changed passwords, and sessions that end everywhere."""

from __future__ import annotations

import pytest
from textual import events

from peerchat.api import ApiError, ErrorCode
from peerchat.testing.node import ScriptedNode, private_state, solo_state, swarm_state
from peerchat.tui.screens.confirm import ConfirmScreen
from peerchat.tui.screens.login import LoginScreen
from peerchat.tui.screens.password import PasswordScreen
from peerchat.tui.widgets.field import Field

from .conftest import fill, frame_text, open_app, prompt_of, say, until

EMAIL = "ada@example.org"


async def dialog(pilot, screen: type) -> None:
    await until(pilot, lambda: isinstance(pilot.app.screen, screen))
    await until(pilot, lambda: pilot.app.focused is not None)


async def test_registration_code_is_asked_for_in_private_swarms_only(clock) -> None:
    node = ScriptedNode(private_state(account=None, is_swarm_admin=False))
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await dialog(pilot, LoginScreen)
        assert "Registration code" not in frame_text(app)
        await pilot.click("#register")
        await until(pilot, lambda: "Registration code" in frame_text(app))
        await fill(pilot, EMAIL, "long-enough", " CODE-1 ")
        await until(pilot, lambda: app.screen is app.chat)
        assert node.accounts == [("register", EMAIL, "long-enough")]
        assert node.codes == ["CODE-1"]


async def test_the_first_account_of_a_swarm_is_asked_for_no_code(clock) -> None:
    node = ScriptedNode(private_state(account=None, is_swarm_admin=True))
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await dialog(pilot, LoginScreen)
        await fill(pilot, EMAIL)
        app.screen.query_one("#password", Field).value = "long-enough"
        await pilot.click("#register")
        await until(pilot, lambda: app.screen is app.chat)
        assert node.accounts == [("register", EMAIL, "long-enough")]
        assert node.codes == [""]


async def test_refused_code_says_why_and_keeps_the_rest(clock) -> None:
    error = ApiError(ErrorCode.FORBIDDEN, "This code is used up", status=403)
    state = private_state(account=None, is_swarm_admin=False)
    node = ScriptedNode(state, login_error=error)
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await dialog(pilot, LoginScreen)
        await pilot.click("#register")
        await fill(pilot, EMAIL, "long-enough", "CODE-1")
        await until(pilot, lambda: "This code is used up" in frame_text(app))
        assert app.screen.query_one("#password", Field).value == "long-enough"


async def test_code_is_asked_for_elsewhere_after_a_refusal(clock) -> None:
    error = ApiError(ErrorCode.INVALID_REQUEST, "A registration code is needed")
    node = ScriptedNode(swarm_state(account=None), login_error=error)
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await dialog(pilot, LoginScreen)
        await fill(pilot, EMAIL)
        app.screen.query_one("#password", Field).value = "long-enough"
        await pilot.click("#register")
        await until(pilot, lambda: "may stay empty" in frame_text(app))
        node.login_error = None
        app.screen.query_one("#code", Field).value = "CODE-2"
        app.screen.query_one("#code", Field).focus()
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is app.chat)
        assert node.codes == ["", "CODE-2"]


@pytest.mark.parametrize("burst", ["enter", "tab"])
async def test_burst_of_keys_ends_up_in_the_right_fields(clock, burst) -> None:
    """A password manager types everything at once; no password in the clear."""
    node = ScriptedNode(swarm_state(account=None))
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await dialog(pilot, LoginScreen)
        for key in (*EMAIL, burst, *"secret-pw"):
            app.post_message(events.Key(key, key if len(key) == 1 else None))
        password = app.screen.query_one("#password", Field)
        await until(pilot, lambda: password.value == "secret-pw")
        assert app.screen.query_one("#email", Field).value == EMAIL
        assert "secret-pw" not in frame_text(app)


async def test_change_password(clock) -> None:
    node = ScriptedNode(swarm_state())
    app = open_app(node, clock)
    async with app.run_test(notifications=True) as pilot:
        await say(pilot, "/password")
        await dialog(pilot, PasswordScreen)
        await fill(pilot, "old-secret", "new-secret", "another")
        await until(pilot, lambda: "The two new passwords differ" in frame_text(app))
        assert node.accounts == []
        await fill(pilot, "new-secret")
        await until(pilot, lambda: app.screen is app.chat)
        assert node.accounts == [("password", "old-secret", "new-secret")]
        await until(pilot, lambda: "The password is changed" in frame_text(app))


async def test_wrong_old_password_keeps_the_new_one(clock) -> None:
    error = ApiError(ErrorCode.UNAUTHORIZED, "no", status=401)
    node = ScriptedNode(swarm_state(), password_error=error)
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await say(pilot, "/password")
        await dialog(pilot, PasswordScreen)
        await fill(pilot, "old-secret", "new-secret", "new-secret")
        await until(pilot, lambda: "not the password now" in frame_text(app))
        assert app.focused.id == "old"
        assert app.screen.query_one("#new", Field).value == "new-secret"


async def test_log_out_everywhere_asks_first(clock) -> None:
    node = ScriptedNode(swarm_state())
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await say(pilot, "/everywhere")
        await dialog(pilot, ConfirmScreen)
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is app.chat)
        assert node.current.account is not None
        await say(pilot, "/everywhere")
        await dialog(pilot, ConfirmScreen)
        await pilot.click("#submit")
        await dialog(pilot, LoginScreen)
        assert node.current.account is None


@pytest.mark.parametrize("command", ["/password", "/everywhere"])
async def test_local_user_has_no_password(clock, command) -> None:
    app = open_app(ScriptedNode(solo_state()), clock)
    async with app.run_test(notifications=True) as pilot:
        await say(pilot, command)
        await until(pilot, lambda: "/login" in frame_text(app))
        assert app.screen is app.chat


async def test_slash_shows_what_it_may_become_and_tab_completes(clock) -> None:
    node = ScriptedNode(private_state())
    app = open_app(node, clock)
    async with app.run_test() as pilot:
        await pilot.press("/", "i", "n")
        await until(pilot, lambda: "/invite [NAME]" in frame_text(app))
        assert "/join" not in frame_text(app)
        await pilot.press("tab")
        await until(pilot, lambda: prompt_of(pilot).text == "/invite ")
        await pilot.press(*"Eve")
        assert "/invite [NAME]" not in frame_text(app)
        prompt_of(pilot).clear()
        await say(pilot, "/met")
        assert node.asked == []
