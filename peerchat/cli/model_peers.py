"""What `peerchat models pull NAME@PEER` and `peerchat models list --peer` do."""

from __future__ import annotations

import re
from collections.abc import Sequence

from peerchat.api import ApiError, ErrorCode, Role
from peerchat.model_text import size_text
from peerchat.net.errors import NetError
from peerchat.net.identity import PublicKey
from peerchat.services.models.pull_peers import (
    PeerOffers,
    ask_offers,
    choose_offer,
    pull_from_peers,
)
from peerchat.services.models.store import ModelStore
from peerchat.services.node_runtime import NodeRuntime
from peerchat.services.swarm import Swarm, api_error_of
from peerchat.settings import Settings

from .model_text import Bar, show_pulled
from .options import Invocation
from .session import open_node

ANY_PEER = "swarm"
_KEY = re.compile("[0-9a-f]{4,64}")


async def run_pull_from_peer(
    settings: Settings, call: Invocation, source: str, name: str, sha256: str
) -> None:
    """Get a file from who has it."""
    wanted, _, peer = source.rpartition("@")
    _check_peer(peer)
    store = ModelStore(settings.home.models_dir)
    store.path(name or wanted)  # refuses what cannot name a file
    async with open_node(settings, call) as node:
        swarm = _swarm_of(node)
        told = await ask_offers(swarm, await _processors(swarm, peer))
        found = choose_offer(told, wanted, sha256.lower())
        if found is None:
            raise _nobody(told, wanted, peer)
        offer, keys = found
        bar = Bar(call, name or wanted)
        pulled = await pull_from_peers(
            store, swarm, offer, keys, name=name, on_progress=bar.show
        )
        bar.end()
    show_pulled(call, pulled)


async def run_offers(settings: Settings, call: Invocation, peer: str) -> None:
    """A line for each file of each peer."""
    _check_peer(peer)
    async with open_node(settings, call) as node:
        swarm = _swarm_of(node)
        told = await ask_offers(swarm, await _processors(swarm, peer))
    if not any(one.offers for one in told):
        call.out.note("no model file is given there")
    for one in told:
        for offer in one.offers:
            key, digest = one.key.hex(), offer.sha256.hex()
            size = size_text(offer.size_bytes)
            call.out.line(
                f"{f'{offer.name}@{key[:8]}':<40} {size:>10}  sha256 {digest}",
                {
                    "name": offer.name,
                    "peer": key,
                    "size": offer.size_bytes,
                    "sha256": digest,
                    "root": offer.root.hex(),
                    "pieces": offer.pieces,
                },
            )


def _check_peer(peer: str) -> None:
    if peer != ANY_PEER and not _KEY.fullmatch(peer.lower()):
        raise _wrong(
            f"{peer!r} is no peer: give at least 4 digits of a processor's key "
            f"(peerchat peers), or {ANY_PEER!r} for any."
        )


def _swarm_of(node: NodeRuntime) -> Swarm:
    if node.mode == "solo":
        raise _wrong("No swarm is named: add --swarm NAME, or --open.")
    return node.swarm


async def _processors(swarm: Swarm, peer: str) -> Sequence[PublicKey]:
    """Those that are meant, but for this home's own."""
    own = swarm.identity.role_key_pair(Role.PROCESSOR).public_key
    try:
        found = await swarm.find(Role.PROCESSOR, max_age_s=0)
    except NetError as error:
        raise api_error_of(error) from error
    others = [key for key in found if key != own]
    if peer == ANY_PEER:
        return others
    meant = [key for key in others if key.hex().startswith(peer.lower())]
    if len(meant) > 1:
        raise _wrong(f"More than one processor has a key that begins with {peer}.")
    if not meant:
        raise _missing(f"No processor with the key {peer}… is in the swarm now.")
    return meant


def _nobody(told: Sequence[PeerOffers], name: str, peer: str) -> ApiError:
    """Say why, where the one peer that was asked said so."""
    if peer != ANY_PEER and told and told[0].problem:
        return _missing(f"The peer {peer} {told[0].problem}.")
    return _missing(
        f"No model file {name!r} is given there: peerchat models list --peer {peer}."
    )


def _missing(message: str) -> ApiError:
    return ApiError(ErrorCode.MODEL_MISSING, message, status=404)


def _wrong(message: str) -> ApiError:
    return ApiError(ErrorCode.INVALID_REQUEST, message, status=400)
