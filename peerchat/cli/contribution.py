"""`peerchat pause` and `peerchat resume`: whether this home serves prompts."""

from __future__ import annotations

from peerchat.settings import Settings

from .output import Output
from .status import alive


def run_set_paused(settings: Settings, out: Output, *, is_paused: bool) -> None:
    """Say so in the home's state; a running serve or app looks there every second."""
    from peerchat.services.contribution_file import ContributionFile

    ContributionFile(settings.home).set_paused(is_paused)
    run = alive(settings)
    has_processor = run is not None and "processor" in run.roles
    if is_paused:
        text = "paused: running answers finish, nothing new is taken"
    else:
        text = "resumed: prompts are taken again"
    if not has_processor:
        text += "; no processor runs in this home now"
    out.line(text, {"paused": is_paused, "running": has_processor})
