"""The app: one node, one chat, and what is above both (accounts, themes, the end)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import PurePath
from typing import ClassVar

from textual.app import App, SystemCommand
from textual.events import Event, Key, Paste
from textual.screen import Screen

from peerchat.api import ApiError, Node, NodeState
from peerchat.settings import PROMPT_BYTES_MAX, Settings

from .accounts import AccountDesk
from .clipboard import Clipboard
from .first_run import FirstRun
from .messages import NodeChanged
from .registry import ACTIONS
from .screens.chat import ChatScreen
from .screens.dialogs import ClosingScreen
from .swarms import SwarmDesk
from .themes import DARK, LIGHT
from .wording import failure_words

_log = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 15.0
"""What `Node.close` promises; past it the app leaves without it."""

TWICE_WITHIN_S = 3.0
"""Two presses of Ctrl+C closer than this quit."""


EARLY_KEYS_MAX = 4096
"""Keys before the screen stands: more than anyone types in a second."""


def _as_typed(text: str) -> Iterator[Event]:
    """Lines as the events of typing them."""
    for line in text.splitlines(keepends=True):
        if words := line.rstrip("\n"):
            yield Paste(words)
        if line.endswith("\n"):
            yield Key("enter", "\r")


class PeerchatApp(App[None]):
    """The terminal app in front of a node.

    Opens at once and starts the node; closes it before it ends. The node is the
    caller's: the app never builds one.

    Args:
        settings: for the limits that are checked before a prompt is sent.
        clock: seconds, monotonic; tests give their own.
        typed: lines that were typed before the app could listen.
    """

    TITLE = "peerchat"
    CSS_PATH: ClassVar[list[str | PurePath]] = ["app.tcss", "screens/chat.tcss"]
    # Textual loads a screen's own CSS_PATH when it is pushed; the chat never is.
    ENABLE_COMMAND_PALETTE = True

    def __init__(
        self,
        node: Node,
        settings: Settings | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        typed: str = "",
    ) -> None:
        super().__init__()
        self._node = node
        self._clock = clock
        prompt_max = settings.prompt_bytes_max if settings else PROMPT_BYTES_MAX
        self.first_run = FirstRun(settings.home.state_dir if settings else None)
        clipboard = Clipboard(self.copy_to_clipboard)
        self.chat = ChatScreen(node, clock, prompt_max, self.first_run, clipboard)
        self._accounts = AccountDesk(self, node, clock, self.chat)
        swarms = SwarmDesk(
            self, node, self.chat, self._accounts, self.first_run, clipboard
        )
        self._deeds: dict[str, Callable[[str], object]] = {
            **self._accounts.deeds,
            **swarms.deeds,
            "pause": lambda argument: self._run_switch_pause(),
            "theme": lambda argument: self._switch_theme(),
            "quit": lambda argument: self.call_later(self.action_quit),
        }
        self._place = ("", "")
        """Mode and swarm of the newest state."""
        self._unsubscribe: Callable[[], None] = lambda: None
        self._is_open = False
        self._typed_early: list[Event] = list(_as_typed(typed))
        self._is_closing = False
        self._code = 0
        self._interrupted_s = -TWICE_WITHIN_S
        self.register_theme(DARK)
        self.register_theme(LIGHT)
        self.theme = DARK.name

    def get_default_screen(self) -> Screen[None]:
        return self.chat

    async def on_event(self, event: Event) -> None:
        """Keep what is typed before there is a prompt to type into."""
        is_typed = isinstance(event, Key | Paste)
        if is_typed and not self._is_open and len(self._typed_early) < EARLY_KEYS_MAX:
            self._typed_early.append(event)
            return
        await super().on_event(event)

    def on_chat_screen_opened(self) -> None:
        """Start the node now that there is a prompt to type into."""
        self._is_open = True
        for event in self._typed_early:
            # The terminal itself turned Enter into a newline until it was set up.
            is_newline = isinstance(event, Key) and event.key == "ctrl+j"
            self.post_message(Key("enter", "\r") if is_newline else event)
        self._typed_early.clear()
        self._unsubscribe = self._node.subscribe(self._hear)
        self._apply(self._node.state())
        # The node's modules load beside the app's loop, and slow it down: first comes
        # the picture.
        self.call_after_refresh(self._node.start)

    def on_unmount(self) -> None:
        self._unsubscribe()

    # The node

    def _hear(self, state: NodeState) -> None:
        """Take a state from the node's thread; the one thing that thread may call."""
        try:
            self.post_message(NodeChanged(state))
        except RuntimeError:
            _log.debug("A state came after the app's loop had ended")

    def on_node_changed(self, message: NodeChanged) -> None:
        self._apply(message.state)

    def _apply(self, state: NodeState) -> None:
        place = (state.mode, state.swarm)
        if place != self._place:
            self._place = place
            self._accounts.moved()
        if state.mode == "private":
            self.first_run.choose()
        self.chat.show_state(state)
        self._accounts.consider(state)

    def on_chat_screen_account_wanted(self) -> None:
        self._accounts.session_over()

    # Commands

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        situation = self.chat.situation()
        for action in ACTIONS:
            if action.is_available(situation) and not action.needs_argument:
                run = partial(self.chat.perform, action)
                yield SystemCommand(action.title, action.help, run)
        yield SystemCommand(
            "Theme", "Pick any of Textual's themes", self.action_change_theme
        )

    def on_chat_screen_wanted(self, message: ChatScreen.Wanted) -> None:
        self._deeds[message.action_id](message.argument)

    def knows(self, action_id: str) -> bool:
        """Something does this action."""
        return action_id in self._deeds or action_id in self.chat.deeds.table

    def _switch_theme(self) -> None:
        """Switch between dark and light."""
        self.theme = LIGHT.name if self.current_theme.dark else DARK.name

    def _run_switch_pause(self) -> None:
        self.run_worker(self._switch_pause(), group="pause", exclusive=True)

    async def _switch_pause(self) -> None:
        """Let this machine's processor take nothing new, or take it again."""
        is_paused = not self._node.state().is_paused
        try:
            await self._node.set_paused(is_paused)
        except ApiError as error:
            self.chat.tell(failure_words(error).advice)
            return
        self.chat.tell(
            "Paused: running answers finish, nothing new is taken."
            if is_paused
            else "Prompts are taken again.",
            "information",
        )

    # The end

    def action_help_quit(self) -> None:
        """Ctrl+C without a selection: stop what runs; a second press quits."""
        now = self._clock()
        if now - self._interrupted_s < TWICE_WITHIN_S:
            self.call_later(self.action_quit)
            return
        self._interrupted_s = now
        if self.chat.session.running is not None:
            self.call_later(self.chat.action_stop)
        self.chat.tell("Press Ctrl+C again to quit.", "information")

    def end(self, code: int) -> None:
        """Leave as `action_quit` does, with a code; called on the app's loop."""
        self._code = code
        self.call_later(self.action_quit)

    async def action_quit(self) -> None:
        """Close the node and leave; asked again while that goes on, leave at once."""
        if self._is_closing:
            self.exit(return_code=self._code)
            return
        self._is_closing = True
        await self.push_screen(ClosingScreen())
        self.run_worker(self._close(), group="close", exit_on_error=False)

    async def _close(self) -> None:
        """Stop the answer, close the node, exit; never waits longer than it may."""
        closing = asyncio.get_running_loop().create_task(self._close_node())
        try:
            await asyncio.wait((closing,), timeout=CLOSE_TIMEOUT_S)
            if not closing.done():
                _log.warning("The node did not close within %s s", CLOSE_TIMEOUT_S)
        finally:
            closing.cancel()
            self.exit(return_code=self._code)

    async def _close_node(self) -> None:
        for step in (self.chat.dispatch.close, self._node.close):
            try:
                await step()
            except Exception:
                _log.exception("Closing went on past a failure")
