"""Private swarms above the chat: create, join, switch, invite, members.

Going into another swarm takes the chat along: the answer that runs is stopped, prompts
that waited come back to where they were typed, and earlier turns are not sent to peers
they were not meant for.

The forms are imported when they are first wanted: the app opens without them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from textual.app import App
from textual.screen import ModalScreen

from peerchat.api import ApiError, Node, Swarms, SwarmView
from peerchat.sanitize import display_line

from .accounts import AccountDesk
from .clipboard import Clipboard
from .first_run import FirstRun
from .screens.chat import ChatScreen
from .swarm_wording import day_words, swarm_failure_words
from .wording import Tone, Words


class SwarmDesk:
    """Everything about private swarms that is above the chat."""

    def __init__(
        self,
        app: App[None],
        node: Node,
        chat: ChatScreen,
        accounts: AccountDesk,
        first_run: FirstRun,
        clipboard: Clipboard,
    ) -> None:
        self._app = app
        self._node = node
        self._chat = chat
        self._accounts = accounts
        self._first_run = first_run
        self._clipboard = clipboard
        self.deeds: Mapping[str, Callable[[str], None]] = {
            "swarm": self._show_swarms,
            "create": self._show_create,
            "join": self._show_join,
            "solo": self._go_solo,
            "invite": self._show_invite,
            "members": self._show_members,
        }

    @property
    def _has_dialog(self) -> bool:
        return isinstance(self._app.screen, ModalScreen)

    # Forms

    def _show_swarms(self, name: str) -> None:
        if name:
            self._app.run_worker(self._switch(name), group="swarm", exclusive=True)
        elif not self._has_dialog:
            from .screens.swarms import SwarmsScreen

            screen = SwarmsScreen(self._swarms, self._node.state(), self._use)
            self._app.push_screen(screen, self._go_on)

    def _show_create(self, name: str) -> None:
        if not self._has_dialog:
            from .screens.create_swarm import CreateSwarmScreen

            self._app.push_screen(CreateSwarmScreen(self._create, name), self._entered)

    def _show_join(self, line: str) -> None:
        from .screens.join_swarm import JoinSwarmScreen

        if isinstance(self._app.screen, JoinSwarmScreen):
            self._app.screen.add(line)
        elif not self._has_dialog:
            screen = JoinSwarmScreen(self._swarms.read_invite, self._join, line)
            self._app.push_screen(screen, self._entered)

    def _show_invite(self, name: str) -> None:
        if not self._has_dialog:
            from .screens.invite import InviteScreen

            self._app.push_screen(InviteScreen(self._swarms, name), self._invited)

    def _show_members(self, nothing: str) -> None:
        if not self._has_dialog:
            from .screens.members import MembersScreen

            self._app.push_screen(MembersScreen(self._swarms), self._go_on)

    def _go_on(self, deed: str | None) -> None:
        if deed:
            self.deeds[deed]("")

    def _entered(self, view: SwarmView | None) -> None:
        if view is not None:
            self._accounts.consider(self._node.state())

    def _invited(self, line: str | None) -> None:
        if line:
            from .screens.invite import InviteLineScreen

            self._app.push_screen(InviteLineScreen(line, self._clipboard))

    # Going elsewhere

    def _go_solo(self, nothing: str) -> None:
        if self._node.state().mode == "solo":
            self._first_run.choose()
            self._chat.show_state(self._node.state())
            self._chat.tell("Solo: nothing leaves this machine.", "information")
        else:
            self._app.run_worker(self._switch(""), group="swarm", exclusive=True)

    async def _switch(self, name: str) -> None:
        try:
            await self._use(name)
        except ApiError as error:
            words = swarm_failure_words(error)
            self._chat.tell(f"{words.title}. {words.advice}", "error")

    async def _use(self, name: str) -> None:
        async with self._chat.dispatch.moving():
            await self._swarms.use_swarm(name)

    async def _create(self, name: str, passphrase: str) -> SwarmView:
        async with self._chat.dispatch.moving():
            view = await self._swarms.create_swarm(name, passphrase)
        words = Words(
            f"The swarm {display_line(view.name, 32)} is yours",
            "Make its first account, which is its admin. Then: /invite",
            Tone.INFO,
        )
        self._accounts.welcome(words, is_first_account=True)
        return view

    async def _join(self, line: str) -> SwarmView:
        async with self._chat.dispatch.moving():
            view = await self._swarms.join_swarm(line)
        words = Words(
            f"You are in the swarm {display_line(view.name, 32)}",
            f"until {day_words(view.not_after_s)}. Log in, or register there.",
            Tone.INFO,
        )
        self._accounts.welcome(words, is_first_account=False)
        return view

    @property
    def _swarms(self) -> Swarms:
        return self._node.private_swarms
