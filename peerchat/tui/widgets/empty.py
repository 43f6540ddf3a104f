"""What a chat shows before its first prompt, and the first choice of a new home."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.containers import Center, Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from peerchat.api import NodeState
from peerchat.sanitize import display_line

from .inert import Inert

_LOGO = "┏━┓┏━╸┏━╸┏━┓┏━╸╻ ╻┏━┓╺┳╸\n┣━┛┣╸ ┣╸ ┣┳┛┃  ┣━┫┣━┫ ┃ \n╹  ┗━╸┗━╸╹┗╸┗━╸╹ ╹╹ ╹ ╹ "

_CHOICES = (
    ("solo", "Stay solo", "or just type a prompt"),
    ("create", "Create a swarm", "your machines and friends, nobody else"),
    ("join", "Join a swarm", "paste an invite"),
)
"""Ids of actions."""


class Empty(Vertical):
    """The name, what this is, the first keys to know; the choice while it is open."""

    class Chosen(Message):
        """One of the choices, by the id of its action."""

        def __init__(self, action_id: str) -> None:
            super().__init__()
            self.action_id = action_id

    def __init__(self) -> None:
        super().__init__()
        self._words = Inert(classes="words")
        self._choices = OptionList(
            *[Option(_choice(title, what)) for _, title, what in _CHOICES],
            markup=False,
            compact=True,
        )
        self._keys = Inert(classes="words")

    def compose(self) -> ComposeResult:
        yield self._words
        with Center():
            yield self._choices
        yield self._keys

    def show_state(self, state: NodeState, *, is_offered: bool = False) -> None:
        """Draw the words of a state, with the choice or without."""
        self._words.update(empty_content(state, is_offered=is_offered))
        self._choices.display = is_offered
        self._keys.update(_keys(is_offered=is_offered))

    @on(OptionList.OptionSelected)
    def _choose(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.post_message(self.Chosen(_CHOICES[event.option_index][0]))


def _choice(title: str, what: str) -> Content:
    return Content.assemble((f" {title:<16}", "bold"), (f"{what} ", "dim"))


def _keys(*, is_offered: bool) -> Content:
    choose = (("Tab", "choose"),) if is_offered else (("Esc", "stop"),)
    pairs = (("Enter", "send"), *choose, ("/", "commands"))
    return Content("   ").join(
        Content.assemble((key, "bold $primary"), (f" {what}", "dim"))
        for key, what in pairs
    )


def empty_content(state: NodeState, *, is_offered: bool = False) -> Content:
    """Words for the first minute, which differ with the mode."""
    more = ""
    if state.mode == "solo":
        where = "Solo: everything runs on this machine, nothing leaves it."
        more = "" if is_offered else "/create makes a private swarm, /join enters one"
    elif state.mode == "open":
        where = "Open swarm: anyone may serve, and reads the prompts they answer."
    else:
        name = display_line(state.swarm, 32)
        where = f"Private swarm {name}: only peers that were invited."
        more = "/invite lets somebody in" if state.is_swarm_admin else ""
    lines = [
        Content.styled(_LOGO, "bold $primary"),
        Content(""),
        Content("Language models, peer to peer"),
        Content.styled(where, "dim"),
    ]
    if more:
        lines.append(Content.styled(more, "dim"))
    return Content("\n").join([*lines, Content("")])
