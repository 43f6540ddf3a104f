"""`peerchat pause` and `peerchat resume`: whether this home serves prompts."""

from __future__ import annotations

from peerchat.settings import Settings

from .output import Output


def run_set_paused(settings: Settings, out: Output, *, is_paused: bool) -> None:
    """Say so in the home's state; returns when a running serve or app keeps to it.

    Without one it is saved for the next one, which is no failure.
    """
    from peerchat.services.contribution_file import ContributionFile

    file = ContributionFile(settings.home)
    file.set_paused(is_paused)
    is_running = file.wait_taken(is_paused=is_paused)
    out.line(
        _words(is_paused=is_paused, is_running=is_running),
        {"paused": is_paused, "running": is_running},
    )


def _words(*, is_paused: bool, is_running: bool) -> str:
    if is_running and is_paused:
        return "paused: running answers finish, nothing new is taken"
    if is_running:
        return "resumed: prompts are taken again"
    done, will = ("paused", "nothing") if is_paused else ("resumed", "prompts")
    return (
        f"{done}, but no processor runs in this home now: the next one that starts in "
        f"it takes {will}"
    )
