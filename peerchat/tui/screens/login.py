"""Log in, register, or go on as the local user."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Input

from peerchat.api import Account, ApiError, ErrorCode, Node
from peerchat.tui.widgets.inert import Inert
from peerchat.tui.wording import Tone, Words, login_words

PASSWORD_CHARS_MIN = 8
"""What auth peers demand; checked here only to spare a round trip."""


class PasswordInput(Input):
    """Hides what is typed, also from the clipboard."""

    def __init__(self) -> None:
        super().__init__(
            password=True, placeholder="8 characters or more", id="password"
        )

    def action_copy(self) -> None:
        """Copy nothing."""

    def action_cut(self) -> None:
        """Cut nothing."""


class LoginScreen(ModalScreen[Account | None]):
    """Asks for an account; dismissed with it, or with None by Esc."""

    CSS_PATH = "login.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Back", show=False)
    ]

    def __init__(
        self,
        node: Node,
        clock: Callable[[], float],
        *,
        is_register: bool = False,
        note: Words | None = None,
    ) -> None:
        super().__init__()
        self._node = node
        self._clock = clock
        self._is_register = is_register
        self._note = note
        self._blocked_until_s = 0.0
        self._email = Input(placeholder="you@example.org", id="email")
        self._password = PasswordInput()
        self._words = Inert("", id="login-note")
        self._login = Button("Log in", id="login")
        self._register_button = Button("Register", id="register")

    def compose(self) -> ComposeResult:
        is_solo = self._node.state().mode == "solo"
        with Vertical(classes="dialog") as dialog:
            dialog.border_title = "Welcome to peerchat"
            dialog.border_subtitle = "Esc: later"
            yield Inert("Email", classes="field-label")
            yield self._email
            yield Inert("Password", classes="field-label")
            yield self._password
            yield self._words
            with Horizontal(id="login-buttons"):
                yield self._login
                yield self._register_button
                if is_solo:
                    yield Button("Local user", id="local")

    def on_mount(self) -> None:
        main = self._register_button if self._is_register else self._login
        main.variant = "primary"
        self._show(self._note)
        self.set_interval(1.0, self._count_down)

    @on(Input.Submitted, "#email")
    def to_password(self) -> None:
        self._password.focus()

    @on(Input.Submitted, "#password")
    @on(Button.Pressed, "#login")
    def log_in(self) -> None:
        if self._is_register and self.focused is self._password:
            self.register()
        elif (pair := self._pair()) is not None:
            self._run("Logging in…", lambda: self._node.login(*pair))

    @on(Button.Pressed, "#register")
    def register(self) -> None:
        pair = self._pair()
        if pair is None:
            return
        if len(pair[1]) < PASSWORD_CHARS_MIN:
            self._complain("The password is too short", "Take 8 characters or more")
            return
        self._run("Making the account…", lambda: self._register(*pair))

    @on(Button.Pressed, "#local")
    def go_on_locally(self) -> None:
        self._run("One moment…", self._node.use_local_account)

    def action_leave(self) -> None:
        """Close without an account; /login brings it back."""
        self.dismiss(None)

    async def _register(self, email: str, password: str) -> Account:
        account = await self._node.register(email, password)
        if self._node.state().account is not None:
            return account
        return await self._node.login(email, password)

    def _pair(self) -> tuple[str, str] | None:
        email = self._email.value.strip()
        password = self._password.value
        name, at, domain = email.partition("@")
        if not (name and at and domain):
            self._complain("This is no email address", "Write it as you@example.org")
            self._email.focus()
        elif not password:
            self._complain("The password is missing", "Type it above")
            self._password.focus()
        else:
            return email, password
        return None

    def _run(self, words: str, call: Callable[[], Awaitable[Account]]) -> None:
        if self._blocked_until_s <= self._clock():
            self._show(Words(words, "", Tone.INFO))
            self._attempt(call)

    @work(exclusive=True, group="login")
    async def _attempt(self, call: Callable[[], Awaitable[Account]]) -> None:
        self._set_busy(is_busy=True)
        try:
            account = await call()
        except ApiError as error:
            self._refused(error)
        else:
            self._password.value = ""
            self.dismiss(account)
        finally:
            self._set_busy(is_busy=False)

    def _refused(self, error: ApiError) -> None:
        if error.code is ErrorCode.RATE_LIMITED and error.retry_after_s:
            self._blocked_until_s = self._clock() + error.retry_after_s
        self._show(login_words(error))
        if error.code is ErrorCode.UNAUTHORIZED:
            self._password.value = ""
            self._password.focus()

    def _set_busy(self, *, is_busy: bool) -> None:
        for button in self.query(Button):
            button.disabled = is_busy

    def _complain(self, title: str, advice: str) -> None:
        self._show(Words(title, advice))

    def _count_down(self) -> None:
        if self._blocked_until_s:
            left_s = math.ceil(self._blocked_until_s - self._clock())
            if left_s > 0:
                advice = f"Try again in {left_s} s"
                self._show(Words("Too many attempts", advice, Tone.WARNING))
            else:
                self._blocked_until_s = 0.0
                self._show(Words("You can try again now", "", Tone.INFO))

    def _show(self, words: Words | None) -> None:
        note = self._words
        if words is None:
            hint = "New here? Type both and choose Register."
            note.set_classes("-info")
            note.update(Content.styled(hint, "dim"))
        else:
            note.set_classes(f"-{words.tone.value}")
            note.update(Content.assemble((words.title, "bold"), f"\n{words.advice}"))
