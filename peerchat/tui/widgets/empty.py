"""What a chat shows before its first prompt."""

from __future__ import annotations

from textual.content import Content

from peerchat.api import NodeState
from peerchat.sanitize import display_line

from .inert import Inert

_LOGO = "┏━┓┏━╸┏━╸┏━┓┏━╸╻ ╻┏━┓╺┳╸\n┣━┛┣╸ ┣╸ ┣┳┛┃  ┣━┫┣━┫ ┃ \n╹  ┗━╸┗━╸╹┗╸┗━╸╹ ╹╹ ╹ ╹ "


class Empty(Inert):
    """The name, what this is, and the first keys to know."""

    def show_state(self, state: NodeState) -> None:
        self.update(empty_content(state))


def empty_content(state: NodeState) -> Content:
    """Words for the first minute, which differ with the mode."""
    if state.mode == "solo":
        where = "Solo: everything runs on this machine, nothing leaves it."
    elif state.mode == "open":
        where = "Open swarm: anyone may serve, and reads the prompts they answer."
    else:
        where = f"In the swarm {display_line(state.mode)}, peers answer you."
    keys = Content("   ").join(
        Content.assemble((key, "bold $primary"), (f" {what}", "dim"))
        for key, what in (("Enter", "send"), ("Esc", "stop"), ("/", "commands"))
    )
    return Content("\n").join(
        [
            Content.styled(_LOGO, "bold $primary"),
            Content(""),
            Content("Language models, peer to peer"),
            Content.styled(where, "dim"),
            Content(""),
            keys,
        ]
    )
