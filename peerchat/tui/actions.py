"""Ways to name an action of the registry: slash commands as typed, keys, completion."""

from __future__ import annotations

import re
from dataclasses import dataclass

from textual.binding import Binding

from .registry import ACTIONS, Action, Situation

_BY_ID = {action.id: action for action in ACTIONS}

_BY_SLASH = {action.slash: action for action in ACTIONS if action.slash}

_COMMAND = re.compile(r"/([a-zA-Z]+)(?:\s+(.*))?\Z", re.DOTALL)

_SLASH_BEGUN = re.compile(r"/([a-zA-Z]*)\Z")

EXTRA_KEYS: tuple[tuple[str, str], ...] = (
    ("Enter", "Send"),
    ("Alt+Enter, Ctrl+J", "New line; also Shift+Enter, where it works"),
    ("Up at the start", "Earlier prompts"),
    ("PageUp, PageDown", "Scroll; earlier turns at the top"),
    ("Ctrl+End", "Follow the newest answer"),
    ("Ctrl+C", "Copy the selection; stop; twice: quit"),
    ("Ctrl+P", "Commands; or type / and Tab"),
)
"""Keys that belong to a widget rather than to an action; for the help page."""


@dataclass(frozen=True, slots=True)
class Command:
    """A slash command as typed; ``action`` is None when there is no such one."""

    name: str
    argument: str
    action: Action | None


def parse_command(text: str) -> Command | None:
    """Read a slash command; None when the text is a prompt.

    A path such as ``/etc/hosts`` is no command. Two slashes send one as a prompt. The
    beginning of a command is enough when no other one begins so.
    """
    match = _COMMAND.match(text.strip())
    if match is None:
        return None
    name = match[1].lower()
    begun = [full for full in _BY_SLASH if full.startswith(name)]
    full = begun[0] if len(begun) == 1 else name
    return Command(name, (match[2] or "").strip(), _BY_SLASH.get(full))


def matching(text: str, situation: Situation) -> list[Action]:
    """The commands that a slash and some letters may become, what fits now first."""
    begun = _SLASH_BEGUN.match(text)
    if begun is None:
        return []
    letters = begun[1].lower()
    found = [action for name, action in _BY_SLASH.items() if name.startswith(letters)]
    return sorted(found, key=lambda action: not action.is_available(situation))


def action_of(action_id: str) -> Action:
    """The action of this id."""
    return _BY_ID[action_id]


def key_bindings() -> list[Binding]:
    """The registry's keys; they win over the prompt's own."""
    return [
        Binding(
            action.key,
            f"perform('{action.id}')",
            action.title,
            show=False,
            priority=True,
        )
        for action in ACTIONS
        if action.key and action.key != "escape"
    ]


def key_label(key: str) -> str:
    """``ctrl+o`` as people write it: ``Ctrl+O``."""
    names = {"escape": "Esc"}
    return "+".join(names.get(part, part.capitalize()) for part in key.split("+"))
