"""A node of the DHT for as long as one piece of work in a private swarm takes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from peerchat.api import ApiError, ErrorCode
from peerchat.net import PUBLIC_BOOTSTRAP, HyperDHT, system_env
from peerchat.net.errors import NetError
from peerchat.settings import Settings

from .dht_face import Dht
from .run_file import is_process_alive, read_run_file
from .swarm import api_error_of


@asynccontextmanager
async def join_network(settings: Settings, hints: Sequence[str]) -> AsyncIterator[Dht]:
    """A started node.

    Args:
        settings: of this process; its bootstrap nodes come first.
        hints: of the swarm.

    Raises:
        ApiError: no DHT node answers.
    """
    dht = HyperDHT(system_env(), bootstrap=bootstrap_of(settings, hints))
    try:
        try:
            await dht.start()
        except NetError as error:
            raise api_error_of(error) from error
        yield dht
    finally:
        await dht.close()


def bootstrap_of(settings: Settings, hints: Sequence[str]) -> Sequence[str]:
    """Where to join: as told, through this home's own serve, or by the swarm's hints.

    Raises:
        ApiError: a DHT of this machine alone is asked for, and nothing runs it.
    """
    if settings.bootstrap:
        return settings.bootstrap
    run = read_run_file(settings.home.run_path)
    is_ours = run is not None and run.swarm and run.swarm == settings.swarm
    if run is not None and is_ours and is_process_alive(run.pid):
        return run.bootstrap or [run.dht]
    if hints:
        return hints
    if settings.bootstrap is None:
        return PUBLIC_BOOTSTRAP
    raise ApiError(
        ErrorCode.DHT_UNREACHABLE,
        "Nothing runs on this machine to join by: start peerchat serve, or name nodes "
        "with --bootstrap HOST:PORT.",
        status=503,
    )
