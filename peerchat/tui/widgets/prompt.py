"""Where prompts are typed: grows to ten lines, walks the history, loses nothing."""

from __future__ import annotations

from textual import events
from textual.message import Message
from textual.timer import Timer
from textual.widgets import TextArea

from peerchat.sanitize import display_text
from peerchat.tui.swarm_wording import INVITE_START, is_invite

HISTORY_MAX = 200
"""Prompts that Up walks through; kept in memory only."""

BLINK_S = 10.0
"""So long after the last key the cursor blinks: then it stays, as those of terminals
do, and an app that nobody uses paints nothing."""

NEW_LINE_KEYS = frozenset({"shift+enter", "alt+enter", "ctrl+j", "ctrl+enter"})
"""Several, since Shift+Enter reaches an app in few terminals."""


class Prompt(TextArea):
    """A text area that sends on Enter."""

    class Submitted(Message):
        """A prompt or command, not empty."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class InviteGiven(Message):
        """An invite was pasted or entered; it is out of the prompt again."""

        def __init__(self, line: str) -> None:
            super().__init__()
            self.line = line

    class CompletionWanted(Message):
        """Tab behind a slash."""

    def __init__(self) -> None:
        super().__init__(
            soft_wrap=True,
            tab_behavior="focus",
            show_line_numbers=False,
            highlight_cursor_line=False,
            placeholder="Ask anything, or /help",
            id="prompt",
        )
        self._history: list[str] = []
        self._position = 0
        """Index into the history; its length: at what is being typed."""
        self._draft = ""
        self._is_amid_invite = False
        self._still: Timer | None = None
        self._is_still = False

    def on_mount(self) -> None:
        self._blink_on()

    def _blink_on(self) -> None:
        """Blink for some seconds more."""
        if self._is_still:
            self._is_still = False
            self.cursor_blink = True
        if self._still is not None:
            self._still.stop()
        self._still = self.set_timer(BLINK_S, self._hold_still)

    def _hold_still(self) -> None:
        self._is_still, self.cursor_blink = self.cursor_blink, False

    def submit(self) -> None:
        """Hand the text over, if there is any, and begin anew."""
        text = self.text.strip()
        if text and (self._is_amid_invite or is_invite(text)):
            self.clear()
            self._give_invite(text)
        elif text:
            self.remember(text)
            self.clear()
            self.post_message(self.Submitted(text))

    def _give_invite(self, text: str) -> None:
        """Hand an invite over; the lines that follow at once belong to it.

        Mail programs break it, and a terminal without bracketed paste types each line
        with Enter: the second would go out as a prompt.
        """
        self._is_amid_invite = True
        self.post_message(self.InviteGiven(text))

    def end_invite(self) -> None:
        """What is typed from now on is no part of an invite."""
        self._is_amid_invite = False

    def remember(self, text: str) -> None:
        """Put a prompt into the history, unless it holds a secret."""
        if INVITE_START in text:
            return
        if not self._history or self._history[-1] != text:
            self._history.append(text)
            del self._history[:-HISTORY_MAX]
        self._position = len(self._history)
        self._draft = ""

    def fill(self, text: str) -> None:
        """Replace what is typed, the cursor behind it."""
        self.load_text(text)
        self.move_cursor(self.document.end)

    def give_back(self, text: str) -> None:
        """Return a prompt for editing, before whatever was typed meanwhile."""
        typed = self.text
        self.fill(f"{text}\n{typed}" if typed.strip() else text)

    async def _on_key(self, event: events.Key) -> None:
        self._blink_on()
        if event.key in NEW_LINE_KEYS:
            event.stop()
            event.prevent_default()
            self.insert("\n")
        elif event.key == "enter":
            event.stop()
            event.prevent_default()
            self.submit()
        elif event.key == "tab" and self.text.startswith("/"):
            event.stop()
            event.prevent_default()
            self.post_message(self.CompletionWanted())
        else:
            await super()._on_key(event)

    async def _on_paste(self, event: events.Paste) -> None:
        """Paste as text: a page may put escape sequences on the clipboard."""
        event.prevent_default()
        if is_invite(event.text) and not self.text.strip():
            event.stop()
            self._give_invite(event.text)
            return
        clean = events.Paste(display_text(event.text))
        await super()._on_paste(clean)

    def action_cursor_up(self, select: bool = False) -> None:
        """Move up; from the very start, walk back through the history."""
        if not select and self.cursor_location == (0, 0):
            self._walk(-1)
        else:
            super().action_cursor_up(select)

    def action_cursor_down(self, select: bool = False) -> None:
        """Move down; from the very end, walk forward again."""
        if not select and self.cursor_location == self.document.end:
            self._walk(1)
        else:
            super().action_cursor_down(select)

    def _walk(self, step: int) -> None:
        position = self._position + step
        if not 0 <= position <= len(self._history):
            return
        if self._position == len(self._history):
            self._draft = self.text
        self._position = position
        is_draft = position == len(self._history)
        self.load_text(self._draft if is_draft else self._history[position])
        self.move_cursor((0, 0) if step < 0 else self.document.end)
