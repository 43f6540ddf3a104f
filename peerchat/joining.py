"""Joins a swarm for a client that no other part of this process runs a network for.

Such a client serves nothing. Solo, it uses the `peerchat serve` of its home, and in a
private swarm it is what its home is there; the app and the command line, which run
roles themselves when there is none, have their own way (`peerchat.services.host`).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .api import ApiError, ErrorCode
from .options import parse_bootstrap
from .settings import Settings

if TYPE_CHECKING:
    from .services.dht_face import Dht
    from .services.swarm import Swarm

RUN_BYTES_MAX = 64 * 1024
"""What a serving process says of itself is far shorter."""


@asynccontextmanager
async def joined(settings: Settings) -> AsyncIterator[Swarm]:
    """A swarm of its own, left at the end.

    Raises:
        ApiError: no DHT node answers, solo nothing serves in this home, or the home is
            not in the private swarm.
    """
    from .net import HyperDHT, system_env
    from .net.errors import DhtUnreachable
    from .services.swarm import api_error_of

    bootstrap = await _bootstrap_of(settings)
    dht = HyperDHT(system_env(), bootstrap=bootstrap, ephemeral=True)
    try:
        await dht.start()
    except DhtUnreachable as error:
        raise api_error_of(error) from error
    try:
        way = _private(dht, settings) if settings.swarm else _plain(dht)
        async with way as swarm:
            yield swarm
    finally:
        await dht.close()


@asynccontextmanager
async def _plain(dht: Dht) -> AsyncIterator[Swarm]:
    from .services.identity import Identity
    from .services.swarm import Swarm

    # Nothing on disk: a client alone needs no identity that outlives it.
    swarm = Swarm(dht, Identity.generate())
    try:
        yield swarm
    finally:
        await swarm.close()


@asynccontextmanager
async def _private(dht: Dht, settings: Settings) -> AsyncIterator[Swarm]:
    """As the peer that this home is in the swarm: others would not talk to it."""
    from .services.identity import load_identity
    from .services.private_mode import PrivateMode
    from .services.swarm import Swarm

    identity = load_identity(settings.home.seed_path)
    private = PrivateMode(dht, settings, identity)
    try:
        await private.start(is_staying=False)
        swarm = Swarm(dht, private.trust.identity, trust=private.trust)
        try:
            yield swarm
        finally:
            await swarm.close()
    finally:
        await private.close()


async def _bootstrap_of(settings: Settings) -> tuple[str, ...]:
    if not settings.swarm:
        return bootstrap_of(settings)
    from .services.way_in import find_way_in

    # Also through a serve of this home, which may be alone in its network.
    return (await find_way_in(settings, is_serving=False)).bootstrap


def bootstrap_of(settings: Settings) -> tuple[str, ...]:
    """The nodes to join through: those that were named, or this home's own."""
    from .net import PUBLIC_BOOTSTRAP

    if settings.is_solo:
        return _serving_here(settings.home.run_path)
    if settings.bootstrap is None:
        return tuple(PUBLIC_BOOTSTRAP)
    return settings.bootstrap


def _serving_here(run_path: Path) -> tuple[str, ...]:
    """Where the `peerchat serve` of this home can be bootstrapped from."""
    try:
        with run_path.open("rb") as file:
            said = json.loads(file.read(RUN_BYTES_MAX))
        return parse_bootstrap(said["bootstrap"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ApiError(
            ErrorCode.NO_GATEWAY,
            "Nothing serves in this home. Start it with: peerchat serve --role all; or "
            "name a swarm with open=True and bootstrap.",
            status=503,
        ) from None
