"""Who is logged in: the local user without asking, the login by itself, the forms.

The forms are imported when they are first wanted: solo, the app opens without them.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping

from textual.app import App
from textual.screen import ModalScreen

from peerchat.api import Account, ApiError, Node, NodeState, Phase

from .screens.chat import ChatScreen
from .wording import Words, failure_words

EXPIRED = Words("The session is over", "Log in again; your prompt is kept")


class AccountDesk:
    """Everything about accounts that is above the chat."""

    def __init__(
        self, app: App[None], node: Node, clock: Callable[[], float], chat: ChatScreen
    ) -> None:
        self._app = app
        self._node = node
        self._clock = clock
        self._chat = chat
        self._wants_local = True
        """Solo: take the local account without asking, until the user logs out."""
        self._was_login_offered = False
        self._welcome: Words | None = None
        self._is_first_account = False
        self.deeds: Mapping[str, Callable[[str], None]] = {
            "login": lambda argument: self.show_login(),
            "register": lambda argument: self.show_login(is_register=True),
            "logout": lambda argument: self._run(self._log_out()),
            "password": lambda argument: self._show_password(),
            "everywhere": lambda argument: self._show_everywhere(),
        }

    def consider(self, state: NodeState) -> None:
        """Get an account for a node that is ready and has none."""
        if state.phase is not Phase.READY or state.account is not None:
            return
        if state.mode == "solo" and self._wants_local:
            self._wants_local = False
            self._run(self._use_local_account())
        elif state.mode != "solo" and not self._was_login_offered:
            self._offer_login()

    def moved(self) -> None:
        """Another swarm: its accounts are other ones."""
        self._wants_local = True
        self._was_login_offered = False

    def welcome(self, words: Words, *, is_first_account: bool) -> None:
        """What the next login says, after a swarm was made or joined."""
        self._welcome = words
        self._is_first_account = is_first_account
        self._was_login_offered = False

    def session_over(self) -> None:
        """A prompt waits for an account, or was refused for want of one."""
        account = self._node.state().account
        has_expired = self._chat.session.needs_login
        if has_expired and account is not None and account.is_local:
            self._run(self._use_local_account())
        else:
            self.show_login(note=EXPIRED if has_expired else None)

    def show_login(
        self, *, is_register: bool = False, note: Words | None = None
    ) -> None:
        """Ask for an account, unless that or another dialog is open."""
        if not self._has_dialog:
            from .screens.login import LoginScreen

            note, self._welcome = note or self._welcome, None
            login = LoginScreen(
                self._node, self._clock, is_register=is_register, note=note
            )
            self._app.push_screen(login, self._logged_in)

    @property
    def _has_dialog(self) -> bool:
        return isinstance(self._app.screen, ModalScreen)

    def _offer_login(self) -> None:
        """Show the login once by itself, unless somebody types already."""
        is_typing = bool(self._chat.prompt.text)
        if not is_typing and not self._has_dialog:
            self._was_login_offered = True
            self.show_login(is_register=self._is_first_account)
            self._is_first_account = False

    async def _use_local_account(self) -> None:
        try:
            await self._node.use_local_account()
        except ApiError as error:
            words = failure_words(error)
            self._chat.account_problem = Words(
                f"No local account: {words.title.lower()}",
                f"{words.advice}. Then: /login",
                words.tone,
            )
            self._chat.show_state(self._node.state())
        else:
            self._logged_in(None)

    def _logged_in(self, account: Account | None) -> None:
        state = self._node.state()
        if state.account is not None:
            self._chat.session.needs_login = False
            self._chat.account_problem = None
        self._chat.show_state(state)

    async def _log_out(self) -> None:
        self._wants_local = False
        self._was_login_offered = True
        try:
            await self._node.logout()
        except ApiError as error:
            self._chat.tell(f"Not logged out. {failure_words(error).advice}")
        else:
            self.show_login()

    def _show_password(self) -> None:
        def changed(is_done: bool | None) -> None:
            if is_done:
                self._chat.tell("The password is changed.", "information")

        if not self._has_dialog:
            from .screens.password import PasswordScreen

            self._app.push_screen(PasswordScreen(self._node), changed)

    def _show_everywhere(self) -> None:
        async def log_out(passphrase: str) -> None:
            await self._node.logout_everywhere()

        def ended(is_done: bool | None) -> None:
            if is_done:
                self._was_login_offered = True
                self.show_login()

        if not self._has_dialog:
            from .screens.confirm import ConfirmScreen

            text = "Every session of this account ends, this one too, at every gateway."
            screen = ConfirmScreen("Log out everywhere?", text, "Log out", log_out)
            self._app.push_screen(screen, ended)

    def _run(self, work: Coroutine[None, None, None]) -> None:
        self._app.run_worker(work, group="account", exclusive=True)
