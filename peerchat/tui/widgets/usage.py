"""The line under an answer: live state while it runs, what it cost when it is over."""

from __future__ import annotations

from textual.content import Content

from peerchat.api import Progress
from peerchat.sanitize import display_line
from peerchat.tui.conversation import Turn, TurnState
from peerchat.tui.wording import count, short_key, usage_words

from .inert import Inert

SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
SPINS_PER_S = 10


class UsageLine(Inert):
    """One line of state for one turn."""

    def show_turn(self, turn: Turn, now: float, *, is_animated: bool) -> None:
        """Show where the turn stands; cheap enough for every tick.

        What is cut off while it changes has room once the turn is over.
        """
        is_over = turn.is_over
        self.set_class(is_over, "-over")
        self.update(usage_line(turn, now, is_animated=is_animated), layout=is_over)


def usage_line(turn: Turn, now: float, *, is_animated: bool) -> Content:
    """The line's content; a pure function of the turn and the time."""
    if turn.state is TurnState.QUEUED:
        return Content.styled("◌ waits for its turn", "dim")
    if turn.state is TurnState.RUNNING:
        elapsed_s = max(0.0, now - turn.started_s)
        spin = SPINNER[int(elapsed_s * SPINS_PER_S) % len(SPINNER)]
        words = " · ".join(_live(turn, elapsed_s))
        return Content.assemble(
            (spin if is_animated else "●", "$primary"), (f" {words}", "dim")
        )
    if turn.state is TurnState.STOPPED:
        words = usage_words(turn.usage) if turn.usage else " · ".join(_so_far(turn))
        rest = f" · {words}" if words else ""
        return Content.assemble(("■ interrupted", "$warning"), (rest, "dim"))
    if turn.usage is not None:
        return Content.styled(usage_words(turn.usage), "dim")
    return Content("")


def _live(turn: Turn, elapsed_s: float) -> list[str]:
    """What is known while it runs, what matters most first: the end may be cut."""
    parts = [_progress(turn.progress, has_text=turn.has_arrived), f"{elapsed_s:.1f} s"]
    if turn.progress is not None and turn.progress.peer:
        why = display_line(turn.progress.reason)
        reason = f", {why}" if why else ""
        parts.append(f"peer {short_key(turn.progress.peer)}{reason}")
    if turn.is_continued:
        parts.append("continued")
    if turn.fragments:
        parts.append(count(turn.fragments, "fragment"))
    return parts


def _so_far(turn: Turn) -> list[str]:
    """Of an answer that was cut off: what is told at the end of a whole one."""
    progress = turn.progress
    if progress is None or not turn.has_arrived:
        return []
    parts = [display_line(progress.model), f"{turn.ended_s - turn.started_s:.1f} s"]
    if progress.peer:
        parts.append(f"peer {short_key(progress.peer)}")
    if turn.is_continued:
        parts.append("continued")
    return [part for part in parts if part]


def _progress(progress: Progress | None, *, has_text: bool) -> str:
    if progress is None:
        return "answering" if has_text else "sending"
    model = display_line(progress.model)
    match progress.state:
        case "queued" if progress.position is not None:
            left_s = progress.estimate_s
            about = f", about {left_s:.0f} s" if left_s else ""
            return f"queued, position {progress.position}{about}"
        case "queued":
            return "queued"
        case "loading" if not has_text:
            return f"loading {model}" if model else "loading the model"
        case "retrying":
            return "the peer went away, asking another"
        case _:
            return f"{model} answers" if model else "answering"
