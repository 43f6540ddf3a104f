"""How a process of a home comes into the network: by a serve of its home, or alone.

One `peerchat serve` runs in a home at a time. Other processes of the home use it when
they are in the same swarm, or are told no swarm at all; they are clients then. A serve
of another swarm is no obstacle to them, and no help.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass

from peerchat.api import ApiError, ErrorCode
from peerchat.net import PUBLIC_BOOTSTRAP
from peerchat.settings import Settings

from .membership import SwarmHomes
from .run_file import (
    RunFile,
    answers,
    is_process_alive,
    read_run_file,
    remove_run_file,
)

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
EVERYWHERE = "0.0.0.0"


@dataclass(frozen=True, slots=True)
class WayIn:
    """What to join, and as what."""

    settings: Settings
    """Those of the process; with the serve's swarm when they named none."""
    mode: str
    """``solo``, ``open`` or ``private``."""
    bootstrap: tuple[str, ...]
    """Empty: the first node of a network of its own."""
    host: str
    """To bind."""
    attached_to: RunFile | None = None
    """The running serve of this home that this process uses."""


async def find_way_in(settings: Settings, *, is_serving: bool) -> WayIn:
    """Look for a serve of this home, else join as the settings say.

    Raises:
        ApiError: a serve runs here and this process wants to be one too; or this home
            is not in the private swarm.
    """
    run = _running_serve(settings)
    if run is not None and await _is_there(run, settings):
        if is_serving:
            raise ApiError(
                ErrorCode.CONFLICT,
                f"peerchat serve runs in this home already (process {run.pid}): stop "
                "it with peerchat stop, or use another home with --home.",
                status=409,
            )
        way = _by_serve(run, settings)
        if way is not None:
            return way
    return _alone(settings)


def bootstrap_of(settings: Settings, hints: Sequence[str] = ()) -> tuple[str, ...]:
    """The nodes to join by: those that were named, the swarm's, the public ones."""
    if settings.bootstrap is not None:
        return settings.bootstrap
    return tuple(hints or PUBLIC_BOOTSTRAP)


def _alone(settings: Settings) -> WayIn:
    if settings.is_solo:
        return WayIn(settings, "solo", (), LOOPBACK)
    mode, hints = "open", tuple[str, ...]()
    if settings.swarm:
        mode = "private"
        hints = SwarmHomes(settings.home).load(settings.swarm).bootstrap
    bootstrap = bootstrap_of(settings, hints)
    return WayIn(settings, mode, bootstrap, EVERYWHERE if bootstrap else LOOPBACK)


def _by_serve(run: RunFile, settings: Settings) -> WayIn | None:
    """How to use the serve; None when it is not in this process's swarm."""
    if settings.is_open or (settings.swarm and settings.swarm != run.swarm):
        return None
    if run.mode == "solo":
        return WayIn(settings, "solo", (run.dht,), LOOPBACK, run)
    if run.swarm:
        settings = dataclasses.replace(settings, swarm=run.swarm)
    # Its node may be one that stores nothing: join where it joined.
    bootstrap = tuple(run.bootstrap) or (run.dht,)
    return WayIn(settings, run.mode, bootstrap, EVERYWHERE, run)


def _running_serve(settings: Settings) -> RunFile | None:
    """The live serve of this home, if there is one; clears up after a dead one."""
    path = settings.home.run_path
    run = read_run_file(path)
    if run is None or run.pid == os.getpid():
        return None
    if not is_process_alive(run.pid):
        logger.info("removed %s: process %d is gone", path, run.pid)
        remove_run_file(path)
        return None
    return run


async def _is_there(run: RunFile, settings: Settings) -> bool:
    """Whether the serve answers; a file that lies is removed."""
    if await answers(run):
        return True
    logger.warning(
        "process %d does not answer at %s: it is not a running serve", run.pid, run.dht
    )
    remove_run_file(settings.home.run_path, pid=run.pid)
    return False
