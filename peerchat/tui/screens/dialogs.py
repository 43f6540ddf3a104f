"""The small screens over the chat: help, the model picker, closing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.cells import cell_len
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option

from peerchat.api import ModelInfo
from peerchat.closed_text import closed_words
from peerchat.model_text import context_text, kind_words
from peerchat.sanitize import display_line
from peerchat.tui.actions import EXTRA_KEYS, key_label
from peerchat.tui.registry import ACTIONS, Action, Group, Situation
from peerchat.tui.widgets.inert import Inert
from peerchat.tui.wording import count

MODELS_LISTED_MAX = 200
"""Entries of the picker; a filter finds the rest."""

NAME_CHARS_MAX = 32
"""Of a model, where names stand in a column."""


class HelpScreen(ModalScreen[None]):
    """Keys and commands, from the registry."""

    CSS_PATH = "dialogs.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,f1,q,enter", "dismiss", "Close", show=False)
    ]

    def __init__(self, situation: Situation) -> None:
        super().__init__()
        self._situation = situation

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog") as dialog:
            dialog.border_title = "Keys and commands"
            dialog.border_subtitle = "Esc: back"
            yield Inert(help_content(self._situation))


def help_content(situation: Situation) -> Content:
    """The help page: what belongs to the prompt, then the registry by groups."""
    lines = [
        Content.assemble((f"{key:<25}", "bold $primary"), what)
        for key, what in EXTRA_KEYS
    ]
    for group in Group:
        lines += [Content(""), Content.styled(group.value, "bold")]
        actions = [action for action in ACTIONS if action.group is group]
        lines += [_help_line(action, situation) for action in actions]
    lines += [
        Content(""),
        Content.styled("//text sends a prompt that begins with /", "dim"),
        Content.styled("Dim: makes no sense now", "dim"),
    ]
    return Content("\n").join(lines)


def _help_line(action: Action, situation: Situation) -> Content:
    slash = f"/{action.slash} {action.argument}".strip() if action.slash else ""
    key = key_label(action.key) if action.key else ""
    is_fit = action.is_available(situation)
    return Content.assemble(
        (f"{slash:<17}", "bold $primary" if is_fit else "dim"),
        (f"{key:<8}", "bold $secondary" if is_fit else "dim"),
        (action.help, "" if is_fit else "dim"),
    )


class ModelScreen(ModalScreen[str | None]):
    """Pick a model; dismissed with its name, ``""`` for any, None by Esc."""

    CSS_PATH = "dialogs.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Back", show=False),
        Binding("down", "to_list", "List", show=False),
    ]

    def __init__(self, models: Sequence[ModelInfo], current: str | None) -> None:
        super().__init__()
        chatting = (model for model in models if not model.is_embedder)
        self._models = sorted(chatting, key=lambda model: model.name)
        self._current = current or ""
        self._shown: list[str] = []
        self._options = OptionList(id="models", markup=False)

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as dialog:
            dialog.border_title = "Models in this swarm"
            dialog.border_subtitle = "Enter: use   Esc: back"
            yield Input(placeholder="Type to filter", id="filter")
            yield self._options

    def on_mount(self) -> None:
        self._list("")

    @on(Input.Changed, "#filter")
    def filter_models(self, event: Input.Changed) -> None:
        self._list(event.value)

    @on(Input.Submitted, "#filter")
    def take_highlighted(self) -> None:
        self._options.action_select()

    @on(OptionList.OptionSelected)
    def take(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self._shown[event.option_index])

    def action_leave(self) -> None:
        """Keep the model as it is."""
        self.dismiss(None)

    def action_to_list(self) -> None:
        """Move from the filter into the list."""
        self._options.focus()

    def _list(self, text: str) -> None:
        wanted = text.strip().lower()
        found = [m for m in self._models if wanted in m.name.lower()]
        found = found[:MODELS_LISTED_MAX]
        self._shown = ["", *(model.name for model in found)]
        names = ["any model", *(display_line(model.name, 60) for model in found)]
        notes = ["the gateway decides", *map(_served, found)]
        width = min(NAME_CHARS_MAX, max(map(cell_len, names)))
        options = self._options
        options.clear_options()
        for name, note, value in zip(names, notes, self._shown, strict=True):
            room = " " * (width - cell_len(name))
            options.add_option(Option(self._line(f"{name}{room}", note, value)))
        is_listed = self._current in self._shown and not wanted
        first = 1 if wanted and found else 0
        options.highlighted = self._shown.index(self._current) if is_listed else first

    def _line(self, name: str, note: str, value: str) -> Content:
        mark = "●" if value == self._current else " "
        return Content.assemble((mark, "$primary"), f" {name}  ", (note, "dim"))


def _served(model: ModelInfo) -> str:
    parts = [count(len(model.peers), "peer")] if model.peers else []
    if model.closed:
        parts.append(closed_words(model.closed))
    if model.loaded:
        parts.append("loaded")
    parts += kind_words(model)
    if model.context_tokens:
        parts.append(f"{context_text(model.context_tokens)} context")
    if model.engine:
        parts.append(display_line(model.engine, 40))
    return " · ".join(parts)


class ClosingScreen(ModalScreen[None]):
    """Shown while the node withdraws what it announced."""

    CSS_PATH = "dialogs.tcss"

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as dialog:
            dialog.border_title = "Closing"
            yield Inert("Withdrawing announcements, closing connections…")
            yield Inert("Ctrl+Q again leaves at once.", classes="muted")
