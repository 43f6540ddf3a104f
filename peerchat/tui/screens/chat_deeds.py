"""What the chat itself does when it is told to, by key, command or palette."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from peerchat.tui.clipboard import Clipboard
from peerchat.tui.wording import count

from .dialogs import HelpScreen, ModelScreen

if TYPE_CHECKING:
    from .chat import ChatScreen

Deed = Callable[[str], Awaitable[None]]


class ChatDeeds:
    """The actions of the registry that need nothing beyond the chat."""

    def __init__(self, chat: ChatScreen, clipboard: Clipboard) -> None:
        self._chat = chat
        self._clipboard = clipboard
        self.table: Mapping[str, Deed] = {
            "copy": self._copy,
            "retry": self._retry,
            "models": self._pick_model,
            "model": self._use_model,
            "thinking": self._toggle_thinking,
            "stop": self._stop,
            "clear": self._clear,
            "help": self._help,
            "peers": self._toggle_peers,
            "metrics": self._toggle_metrics,
        }

    async def _copy(self, argument: str) -> None:
        """Copy the last answer's Markdown source."""
        answer = self._chat.session.conversation.last_answer()
        self._chat.run_worker(
            self._copy_text(answer), group="copy", exclusive=True, exit_on_error=False
        )

    async def _copy_text(self, text: str) -> None:
        copied = await self._clipboard.copy(text)
        words = f"{count(len(text), 'character')} of Markdown. {copied.words}"
        self._chat.tell(words, "information" if copied.is_sure else "warning")

    async def _retry(self, argument: str) -> None:
        """Send the last failed prompt once more."""
        turn = self._chat.session.conversation.last_failed()
        if turn is not None:
            self._chat.session.conversation.remove(turn)
            await self._chat.send(turn.prompt)

    async def _pick_model(self, argument: str) -> None:
        chat = self._chat

        def picked(name: str | None) -> None:
            if name is not None:
                chat.use_model(name or None)

        models = chat.situation().state.models
        chat.app.push_screen(ModelScreen(models, chat.model), picked)

    async def _use_model(self, argument: str) -> None:
        self._chat.use_model(argument or None)

    async def _toggle_thinking(self, argument: str) -> None:
        """Unfold or fold the thinking of the newest answer that has some."""
        for view in reversed(self._chat.transcript.views):
            if view.turn.thinking:
                view.toggle_thinking()
                return
        self._chat.tell("No answer here came with thinking.")

    async def _stop(self, argument: str) -> None:
        await self._chat.action_stop()

    async def _clear(self, argument: str) -> None:
        """Forget what was said; a running answer goes on."""
        self._chat.session.conversation.clear()
        await self._chat.show_turns()

    async def _help(self, argument: str) -> None:
        self._chat.app.push_screen(HelpScreen(self._chat.situation()))

    async def _toggle_peers(self, argument: str) -> None:
        self._chat.sidebar.toggle("peers")

    async def _toggle_metrics(self, argument: str) -> None:
        self._chat.sidebar.toggle("metrics")
