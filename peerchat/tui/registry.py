"""Everything a user can tell the app to do: the table.

Keys, slash commands, the command palette and the help page are made from `ACTIONS`, so
that none of them can know of something that another one does not. `actions` reads it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

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


def _has_account(situation: Situation) -> bool:
    """Logged in with an account that a password belongs to."""
    account = situation.state.account
    return account is not None and not account.is_local


def _may_invite(situation: Situation) -> bool:
    return situation.state.mode == "private" and situation.state.is_swarm_admin


class Group(enum.StrEnum):
    """Where an action stands on the help page."""

    CHAT = "Chat"
    SWARM = "Private swarms"
    ACCOUNT = "Account"
    APP = "App"


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do.

    Attributes:
        id: stable name, by which the chat or the app finds what does it.
        slash: what to type in the prompt, without the slash; empty for none.
        argument: the name of the slash command's argument; in brackets when it may
            be left out.
        key: Textual's name of the key; empty for none.
        otherwise: told when the action makes no sense now.
    """

    id: str
    title: str
    help: str
    group: Group
    slash: str = ""
    argument: str = ""
    key: str = ""
    is_available: Callable[[Situation], bool] = _always
    otherwise: str = ""

    @property
    def needs_argument(self) -> bool:
        return bool(self.argument) and not self.argument.startswith("[")


ACTIONS: tuple[Action, ...] = (
    Action(
        "copy",
        "Copy answer",
        "Copy the last answer as Markdown",
        Group.CHAT,
        "copy",
        key="f4",
        is_available=lambda situation: situation.has_answer,
        otherwise="There is no answer to copy yet. Ask something first.",
    ),
    Action(
        "retry",
        "Try again",
        "Send the prompt that failed again",
        Group.CHAT,
        "retry",
        key="f5",
        is_available=lambda situation: situation.has_failed,
        otherwise="Nothing has failed, so there is nothing to try again.",
    ),
    Action(
        "models",
        "Pick a model",
        "List who serves what",
        Group.CHAT,
        "models",
        key="ctrl+o",
    ),
    Action(
        "model",
        "Use a model",
        "Ask this model from now on",
        Group.CHAT,
        "model",
        "NAME",
    ),
    Action(
        "thinking",
        "Thinking",
        "Unfold or fold thinking",
        Group.CHAT,
        "thinking",
        key="ctrl+t",
    ),
    Action(
        "stop",
        "Stop",
        "Stop; take back a prompt that waits",
        Group.CHAT,
        key="escape",
        is_available=lambda situation: situation.is_running,
    ),
    Action("clear", "Clear", "Forget this chat and its history", Group.CHAT, "clear"),
    Action(
        "swarm",
        "Switch swarm",
        "Your swarms; switch, or go solo",
        Group.SWARM,
        "swarm",
        key="f6",
    ),
    Action(
        "create",
        "Create a swarm",
        "Make a private swarm of your own",
        Group.SWARM,
        "create",
        "[NAME]",
    ),
    Action(
        "join",
        "Join a swarm",
        "Paste an invite",
        Group.SWARM,
        "join",
        "[INVITE]",
    ),
    Action(
        "invite",
        "Invite",
        "Make an invite: a line and a QR code",
        Group.SWARM,
        "invite",
        "[NAME]",
        is_available=_may_invite,
        otherwise="Only an admin of a private swarm can invite: /swarm, /create",
    ),
    Action(
        "members",
        "Members and invites",
        "Who was let in; revoke, withdraw",
        Group.SWARM,
        "members",
        is_available=_may_invite,
        otherwise="Only an admin of a private swarm sees its members: /swarm",
    ),
    Action(
        "solo",
        "Go solo",
        "All on this machine, nothing leaves",
        Group.SWARM,
        "solo",
    ),
    Action(
        "pause",
        "Pause or resume",
        "Take no new prompts here, or again",
        Group.SWARM,
        "pause",
        key="f7",
    ),
    Action("login", "Log in", "Log in with another account", Group.ACCOUNT, "login"),
    Action("register", "Register", "Make an account", Group.ACCOUNT, "register"),
    Action(
        "password",
        "Change password",
        "Ends your other sessions too",
        Group.ACCOUNT,
        "password",
        is_available=_has_account,
        otherwise="There is no password to change: log in first with /login",
    ),
    Action(
        "logout",
        "Log out",
        "Forget the session on this machine",
        Group.ACCOUNT,
        "logout",
        is_available=lambda situation: situation.state.account is not None,
        otherwise="Nobody is logged in. Log in with /login",
    ),
    Action(
        "everywhere",
        "Log out everywhere",
        "End every session of this account",
        Group.ACCOUNT,
        "everywhere",
        is_available=_has_account,
        otherwise="Nobody is logged in here. Log in with /login",
    ),
    Action("help", "Help", "Keys and commands", Group.APP, "help", key="f1"),
    Action(
        "peers", "Peers panel", "Show or hide the peers", Group.APP, "peers", key="f2"
    ),
    Action(
        "metrics",
        "Metrics panel",
        "Show or hide figures",
        Group.APP,
        "metrics",
        key="f3",
    ),
    Action(
        "theme", "Dark or light", "Switch between the two themes", Group.APP, "theme"
    ),
    Action("quit", "Quit", "Close peerchat", Group.APP, "quit", key="ctrl+q"),
)
