"""`peerchat status` and `peerchat stop`: the `peerchat serve` of this home."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from peerchat.api import ApiError, ErrorCode, PeerView
from peerchat.closed_text import peer_words
from peerchat.settings import Settings

from .listing import closed_fields
from .options import Invocation
from .output import Output

if TYPE_CHECKING:
    from peerchat.services.run_file import RunFile

STOP_TIMEOUT_S = 20
"""Withdrawing and the ten seconds for running answers, and some more."""
POLL_S = 0.1


async def run_status(settings: Settings, call: Invocation) -> None:
    """What runs in this home, and whether it answers; nothing is no failure."""
    from peerchat.services.run_file import answers

    out = call.out
    run = alive(settings)
    if run is None:
        out.line("nothing runs in this home", {"running": False})
    elif not await answers(run):
        raise ApiError(
            ErrorCode.PEER_LOST,
            f"process {run.pid} does not answer at {run.dht}: peerchat stop clears up",
        )
    else:
        _show(out, run, await _peers(settings, call))
    if not out.is_json:
        out.line(f"logs      {settings.home.log_dir}")


async def _peers(settings: Settings, call: Invocation) -> Mapping[str, PeerView]:
    """Everybody of the swarm by key, as seen through the running serve."""
    from .session import open_client

    async with open_client(settings, call) as client:
        return {peer.key: peer for peer in await client.peers()}


def _show(out: Output, run: RunFile, peers: Mapping[str, PeerView]) -> None:
    minutes = max(0, int(time.time() - run.started_s)) // 60
    seen = {key: peers[key] for key in run.roles.values() if key in peers}
    roles = {
        name: {
            "key": key,
            "answers": key in seen and seen[key].is_reachable,
            "is_well": key in seen and seen[key].is_well,
            "closed": closed_fields(seen[key].closed) if key in seen else None,
        }
        for name, key in run.roles.items()
    }
    fields = {"running": True, "pid": run.pid, "mode": run.mode, "dht": run.dht}
    out.line(
        f"process   {run.pid}, {run.mode}, up {minutes} min",
        {**fields, "roles": roles, "http": run.http or None, "metrics": run.metrics},
    )
    if out.is_json:
        return
    for name, key in run.roles.items():
        state = "answers" if roles[name]["answers"] else "does not answer"
        words = f", {words}" if key in seen and (words := peer_words(seen[key])) else ""
        out.line(f"{name:<9} {state}{words}  {key}")
    out.line(f"dht       {run.dht}")
    if run.http:
        out.line(f"bridge    {run.http}")
    for url in run.metrics:
        out.line(f"metrics   {url}")


async def run_stop(settings: Settings, out: Output) -> None:
    """Stop it and wait for its end; clear up after one that crashed."""
    from peerchat.services.run_file import answers, read_run_file, remove_run_file

    path = settings.home.run_path
    found = read_run_file(path)
    run = alive(settings)
    if run is None or not await answers(run):
        remove_run_file(path)
        said = "nothing runs in this home"
        if found is not None:
            said = f"cleared up after process {found.pid}, which does not answer"
        out.line(said, {"stopped": False, "cleared": found is not None})
        return
    try:
        os.kill(run.pid, signal.SIGTERM)
    except PermissionError:
        raise ApiError(
            ErrorCode.UNAUTHORIZED,
            f"process {run.pid} belongs to another user: stop it as that user",
        ) from None
    except ProcessLookupError:
        pass
    await _wait_for_end(settings, run)
    out.line(f"stopped process {run.pid}", {"stopped": True, "pid": run.pid})


def alive(settings: Settings) -> RunFile | None:
    """What the running serve of this home says of itself."""
    from peerchat.services.run_file import is_process_alive, read_run_file

    run = read_run_file(settings.home.run_path)
    return run if run is not None and is_process_alive(run.pid) else None


async def _wait_for_end(settings: Settings, run: RunFile) -> None:
    deadline_s = time.monotonic() + STOP_TIMEOUT_S
    while (left := alive(settings)) is not None and left.pid == run.pid:
        if time.monotonic() > deadline_s:
            raise ApiError(
                ErrorCode.TIMEOUT,
                f"process {run.pid} did not end within {STOP_TIMEOUT_S} s: look at its"
                f" log, or kill {run.pid} by hand",
            )
        # Another process's end is no event that could be awaited everywhere.
        await asyncio.sleep(POLL_S)
