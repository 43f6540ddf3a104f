"""The top line, the notice above the prompt, and the status line below it."""

from __future__ import annotations

from textual.content import Content

from peerchat.api import NodeState, Phase
from peerchat.sanitize import display_line
from peerchat.tui.wording import Words, count, phase_words

from .inert import Inert

_PHASE_STYLE = {
    Phase.READY: "$success",
    Phase.OFFLINE: "$warning",
    Phase.FAILED: "$error",
}

KEY_HINTS = (("F1", "help"), ("^P", "commands"), ("^Q", "quit"))


class TopBar(Inert):
    """What this is, who is logged in, which model answers."""

    def show_state(self, state: NodeState, model: str | None) -> None:
        self.update(top_line(state, model))


def top_line(state: NodeState, model: str | None) -> Content:
    """The top line's content."""
    account = state.account
    if account is None:
        who = "not logged in" if state.mode != "solo" else ""
    else:
        who = "local user" if account.is_local else display_line(account.email, 40)
    parts = [who, display_line(model, 40) if model else "any model"]
    rest = " · ".join(display_line(part) for part in parts if part)
    return Content.assemble(
        ("peerchat", "bold $primary"), "  ", _mode(state), (f" · {rest}", "dim")
    )


def _mode(state: NodeState) -> Content:
    """Where prompts go: what one should always be able to see."""
    if state.mode == "private":
        part = " · admin" if state.is_swarm_admin else ""
        name = display_line(state.swarm, 32)
        return Content.assemble(("◆ ", "$success"), (name, "bold"), (part, "dim"))
    if state.mode == "open":
        return Content.styled("open swarm", "$warning")
    return Content.styled(display_line(state.mode), "dim")


class StatusBar(Inert):
    """How far the node is, on what engine, and the keys that lead on."""

    _state = NodeState()

    def show_state(self, state: NodeState) -> None:
        self._state = state
        self.update(status_line(state, self.size.width), layout=False)

    def on_resize(self) -> None:
        self.show_state(self._state)


def status_line(state: NodeState, width: int) -> Content:
    """The status line's content, cut to the width; the key hints come first."""
    hints = Content("  ").join(
        Content.assemble((key, "bold"), (f" {what}", "dim")) for key, what in KEY_HINTS
    )
    phase = Content.assemble(
        ("● ", _PHASE_STYLE.get(state.phase, "$primary")), phase_words(state.phase)
    )
    room = width - hints.cell_length - phase.cell_length - 2
    rest = Content("")
    for detail in _details(state):
        if rest.cell_length + detail.cell_length <= room:
            rest += detail
    gap = max(1, width - phase.cell_length - rest.cell_length - hints.cell_length)
    return Content.assemble(phase, rest, " " * gap, hints)


def _details(state: NodeState) -> list[Content]:
    words = ["paused"] if state.is_paused else []
    if state.engine:
        words.append(display_line(state.engine))
    if state.dht_nodes:
        words.append(count(state.dht_nodes, "DHT node"))
    return [Content.styled(f" · {word}", "dim") for word in words]


class Notice(Inert):
    """What stands in the way now, and what to do; hidden when nothing does."""

    def show_words(self, words: Words | None) -> None:
        self.display = words is not None
        if words is not None:
            self.set_classes(f"notice -{words.tone.value}")
            advice = f"\n{display_line(words.advice, 400)}" if words.advice else ""
            self.update(Content.assemble((display_line(words.title), "bold"), advice))
