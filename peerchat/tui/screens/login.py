"""Log in, register, or go on as the local user."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable

from textual import on
from textual.widget import Widget
from textual.widgets import Button

from peerchat.api import Account, ApiError, ErrorCode, Node
from peerchat.tui.widgets.field import Field
from peerchat.tui.wording import Tone, Words, login_words

from .form import FormScreen

PASSWORD_CHARS_MIN = 8
"""What auth peers demand; checked here only to spare a round trip."""

CODE_CHARS_MAX = 128

_MAY_WANT_CODE = (
    ErrorCode.FORBIDDEN,
    ErrorCode.UNAUTHORIZED,
    ErrorCode.INVALID_REQUEST,
)

HINT = Words("", "New here? Type both and choose Register.", Tone.INFO)
CODE_HINT = Words("", "A code only if this swarm asks for one.", Tone.INFO)


class LoginScreen(FormScreen[Account]):
    """Asks for an account; dismissed with it, or with None by Esc."""

    TITLE_WORDS = "Welcome to peerchat"
    SUBTITLE_WORDS = "Esc: later"

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
        self._first_words = note
        self._blocked_until_s = 0.0
        state = node.state()
        self._takes_code = state.mode == "private" and not state.is_swarm_admin
        """Where codes are usual; elsewhere only after a refusal. The swarm's admin
        makes its first account, before anybody could have given a code."""
        self._email = Field("Email", "you@example.org", id="email")
        self._password = Field(
            "Password", "8 characters or more", id="password", is_secret=True
        )
        self._code = Field(
            "Registration code",
            "may stay empty",
            id="code",
            max_length=CODE_CHARS_MAX,
        )
        self._login = Button("Log in", id="login")
        self._register_button = Button("Register", id="register")

    def fields(self) -> Iterable[Widget]:
        return (self._email, self._password, self._code)

    def buttons(self) -> Iterable[Button]:
        yield self._login
        yield self._register_button
        if self._node.state().mode == "solo":
            yield Button("Local user", id="local")

    def hint(self) -> Words | None:
        if self._first_words is not None:
            return self._first_words
        return CODE_HINT if self._code.display else HINT

    def on_mount(self) -> None:
        self._show_mode()
        self.set_interval(1.0, self._count_down)

    def _show_mode(self) -> None:
        """The primary button is what Enter does; a code is for registering only."""
        main = self._register_button if self._is_register else self._login
        for button in (self._login, self._register_button):
            button.variant = "primary" if button is main else "default"
        self._code.display = self._is_register and self._takes_code

    def submitted(self) -> None:
        if self._is_register:
            self._register_now()
        else:
            self.log_in()

    @on(Button.Pressed, "#login")
    def log_in(self) -> None:
        self._is_register = False
        self._show_mode()
        pair = self._pair()
        if pair is not None:
            self._try("Logging in…", lambda: self._node.login(*pair))

    @on(Button.Pressed, "#register")
    def register(self) -> None:
        """Register; where a code may be asked for, show its field first."""
        if self._takes_code and not self._is_register:
            self._is_register = True
            self._show_mode()
            self.say(CODE_HINT)
            self.set_focus(self._password if self._email.value else self._email)
        else:
            self._register_now()

    def _register_now(self) -> None:
        pair = self._pair()
        if pair is None:
            return
        if len(pair[1]) < PASSWORD_CHARS_MIN:
            advice = "Take 8 characters or more"
            self.complain("The password is too short", advice, self._password)
            return
        self._is_register = True
        self._show_mode()
        self._try("Making the account…", lambda: self._register(*pair))

    @on(Button.Pressed, "#local")
    def go_on_locally(self) -> None:
        self._try("One moment…", self._node.use_local_account)

    async def _register(self, email: str, password: str) -> Account:
        account = await self._node.register(email, password, self._code.value.strip())
        if self._node.state().account is not None:
            return account
        return await self._node.login(email, password)

    def _pair(self) -> tuple[str, str] | None:
        email = self._email.value.strip()
        password = self._password.value
        name, at, domain = email.partition("@")
        if not (name and at and domain):
            advice = "Write it as you@example.org"
            self.complain("This is no email address", advice, self._email)
        elif not password:
            self.complain("The password is missing", "Type it above", self._password)
        else:
            return email, password
        return None

    def _try(self, words: str, call: Callable[[], Awaitable[Account]]) -> None:
        if self._blocked_until_s <= self._clock():
            self.attempt(words, call, self._done)

    def _done(self, account: Account) -> None:
        self._password.value = ""
        self.dismiss(account)

    def words_of(self, error: ApiError) -> Words:
        return login_words(error, is_register=self._is_register)

    def refused(self, error: ApiError) -> None:
        if error.code is ErrorCode.RATE_LIMITED and error.retry_after_s:
            self._blocked_until_s = self._clock() + error.retry_after_s
        super().refused(error)
        if self._is_register:
            self._takes_code |= error.code in _MAY_WANT_CODE
            self._show_mode()
        elif error.code is ErrorCode.UNAUTHORIZED:
            self._password.value = ""
            self.set_focus(self._password)

    def _count_down(self) -> None:
        if self._blocked_until_s:
            left_s = math.ceil(self._blocked_until_s - self._clock())
            if left_s > 0:
                advice = f"Try again in {left_s} s"
                self.say(Words("Too many attempts", advice, Tone.WARNING))
            else:
                self._blocked_until_s = 0.0
                self.say(Words("You can try again now", "", Tone.INFO))
