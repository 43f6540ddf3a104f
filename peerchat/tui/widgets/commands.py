"""What a slash may become, while it is typed."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content

from peerchat.tui.actions import key_label
from peerchat.tui.registry import Action, Situation

from .inert import Inert

COMMANDS_SHOWN_MAX = 6
"""More would push the answer out of sight on a terminal of 24 lines."""


class CommandHints(Inert):
    """The commands that fit; hidden when none does."""

    def show(self, actions: Sequence[Action], situation: Situation) -> None:
        self.display = bool(actions)
        if actions:
            self.update(hints_content(actions, situation))


def hints_content(actions: Sequence[Action], situation: Situation) -> Content:
    """One line a command, what makes no sense now dimmed."""
    lines = [_line(action, situation) for action in actions[:COMMANDS_SHOWN_MAX]]
    hidden = len(actions) - len(lines)
    end = f"and {hidden} more: F1   " if hidden > 0 else ""
    lines.append(Content.styled(f"{end}Tab completes the first", "dim"))
    return Content("\n").join(lines)


def _line(action: Action, situation: Situation) -> Content:
    is_fit = action.is_available(situation)
    name = f"/{action.slash} {action.argument}".rstrip()
    key = f"  {key_label(action.key)}" if action.key else ""
    return Content.assemble(
        (f"{name:<17}", "bold $primary" if is_fit else "dim"),
        (action.help, "" if is_fit else "dim"),
        (key, "dim"),
    )
