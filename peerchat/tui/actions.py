"""Everything a user can tell the app to do: one registry for all ways to say it.

Keys, slash commands, the command palette and the help page are made from `ACTIONS`, so
that none of them can know of something that another one does not.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from textual.binding import Binding

from peerchat.api import NodeState


@dataclass(frozen=True, slots=True)
class Situation:
    """What decides which actions make sense."""

    state: NodeState
    is_running: bool = False
    has_answer: bool = False
    has_failed: bool = False


def _always(situation: Situation) -> bool:
    return True


def _is_logged_in(situation: Situation) -> bool:
    return situation.state.account is not None


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do.

    Attributes:
        id: stable name; ``action_<id>`` of the chat screen does it.
        slash: what to type in the prompt, without the slash; empty for none.
        argument: the name of the slash command's argument, for the help.
        key: Textual's name of the key; empty for none.
    """

    id: str
    title: str
    help: str
    slash: str = ""
    argument: str = ""
    key: str = ""
    is_available: Callable[[Situation], bool] = _always


ACTIONS: tuple[Action, ...] = (
    Action("help", "Help", "Keys and commands", "help", key="f1"),
    Action("peers", "Peers panel", "Show or hide the peers", "peers", key="f2"),
    Action("metrics", "Metrics panel", "Show or hide figures", "metrics", key="f3"),
    Action(
        "copy",
        "Copy answer",
        "Copy the last answer as Markdown",
        "copy",
        key="f4",
        is_available=lambda situation: situation.has_answer,
    ),
    Action(
        "retry",
        "Try again",
        "Send the last prompt that failed once more",
        "retry",
        key="f5",
        is_available=lambda situation: situation.has_failed,
    ),
    Action("models", "Pick a model", "List who serves what", "models", key="ctrl+o"),
    Action("model", "Use a model", "Ask this model from now on", "model", "NAME"),
    Action("thinking", "Thinking", "Unfold or fold thinking", "thinking", key="ctrl+t"),
    Action(
        "stop",
        "Stop",
        "Stop the answer; take back a prompt that waits",
        key="escape",
        is_available=lambda situation: situation.is_running,
    ),
    Action("clear", "Clear", "Forget this chat and its history", "clear"),
    Action("login", "Log in", "Log in with another account", "login"),
    Action("register", "Register", "Make an account", "register"),
    Action(
        "logout",
        "Log out",
        "Forget the session on this machine",
        "logout",
        is_available=_is_logged_in,
    ),
    Action("theme", "Dark or light", "Switch between the two themes", "theme"),
    Action("quit", "Quit", "Close peerchat", "quit", key="ctrl+q"),
)

_BY_SLASH = {action.slash: action for action in ACTIONS if action.slash}

_COMMAND = re.compile(r"/([a-zA-Z]+)(?:\s+(.*))?\Z", re.DOTALL)

EXTRA_KEYS: tuple[tuple[str, str], ...] = (
    ("Enter", "Send"),
    ("Alt+Enter, Ctrl+J", "New line; also Shift+Enter, where it works"),
    ("Up at the start", "Earlier prompts"),
    ("PageUp, PageDown", "Scroll; earlier turns at the top"),
    ("Ctrl+End", "Follow the newest answer"),
    ("Ctrl+C", "Copy the selection; stop; twice: quit"),
    ("Ctrl+P", "Commands"),
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

    A path such as ``/etc/hosts`` is no command. Two slashes send one as a prompt.
    """
    match = _COMMAND.match(text.strip())
    if match is None:
        return None
    name = match[1].lower()
    return Command(name, (match[2] or "").strip(), _BY_SLASH.get(name))


def key_bindings() -> list[Binding]:
    """The registry's keys; they win over the prompt's own."""
    return [
        Binding(action.key, action.id, action.title, show=False, priority=True)
        for action in ACTIONS
        if action.key and action.key != "escape"
    ]


def key_label(key: str) -> str:
    """``ctrl+o`` as people write it: ``Ctrl+O``."""
    names = {"escape": "Esc"}
    return "+".join(names.get(part, part.capitalize()) for part in key.split("+"))
