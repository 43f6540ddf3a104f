"""One line of a form: what is typed fast ends up in the field it was meant for."""

from __future__ import annotations

from textual import events
from textual.widget import Widget
from textual.widgets import Input

from peerchat.sanitize import display_text


class Field(Input):
    """An input whose Enter and Tab move on at once.

    Textual moves the focus a few messages later. Whatever came in the same read, from
    a password manager or a fast typist, would land in the field before: a password in
    the clear.
    """

    def __init__(
        self,
        label: str,
        placeholder: str = "",
        *,
        id: str,  # noqa: A002  Textual's own name for it
        value: str = "",
        is_secret: bool = False,
        max_length: int = 0,
    ) -> None:
        super().__init__(
            value,
            placeholder,
            password=is_secret,
            id=id,
            max_length=max_length,
            select_on_focus=False,
        )
        self.border_title = label
        self._is_secret = is_secret

    async def _on_key(self, event: events.Key) -> None:
        if self.screen.focused is not self:
            _take(event)
            self.app.post_message(events.Key(event.key, event.character))
        elif event.key in ("tab", "shift+tab"):
            _take(event)
            step = 1 if event.key == "tab" else -1
            self._focus(self._neighbour(step, Widget))
        elif event.key == "enter":
            _take(event)
            following = self._neighbour(1, Field)
            if following is not None:
                self._focus(following)
            else:
                await self.action_submit()

    def _on_paste(self, event: events.Paste) -> None:
        """Paste the first line, as text: the clipboard may hold anything."""
        _take(event)
        lines = display_text(event.text).splitlines()
        self._insert(lines[0] if lines else "")

    def _insert(self, text: str) -> None:
        self.replace(text, *self.selection)

    def action_copy(self) -> None:
        """Copy what is selected, never a secret."""
        if not self._is_secret:
            super().action_copy()

    def action_cut(self) -> None:
        """Cut what is selected, never a secret."""
        if not self._is_secret:
            super().action_cut()

    def _neighbour(self, step: int, kind: type[Widget]) -> Widget | None:
        """The next widget to focus; of fields, none after the last."""
        chain = [
            widget for widget in self.screen.focus_chain if isinstance(widget, kind)
        ]
        position = chain.index(self) + step
        if kind is Field and position >= len(chain):
            return None
        return chain[position % len(chain)]

    def _focus(self, widget: Widget | None) -> None:
        if widget is not None:
            self.screen.set_focus(widget)


def _take(event: events.Event) -> None:
    """Nobody else handles this event."""
    event.stop()
    event.prevent_default()
