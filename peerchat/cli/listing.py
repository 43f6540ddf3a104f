"""`peerchat peers` and `peerchat models`."""

from __future__ import annotations

from peerchat.api import Closed, ModelDetails, ModelInfo, PeerView
from peerchat.closed_text import closed_words, peer_words
from peerchat.model_text import kind_words
from peerchat.sanitize import display_line
from peerchat.settings import Settings

from .options import Invocation
from .session import open_client


async def run_peers(settings: Settings, call: Invocation) -> None:
    """A line for each peer: role, key, round-trip time, models, load."""
    async with open_client(settings, call) as client:
        for peer in await client.peers():
            call.out.line(peer_line(peer), peer_fields(peer))


async def run_models(settings: Settings, call: Invocation) -> None:
    """A line for each model and how many processors serve it."""
    async with open_client(settings, call) as client:
        models = await client.models()
        if not models:
            call.out.note("no model is served: start `peerchat serve --role processor`")
        for model in models:
            call.out.line(model_line(model), model_fields(model))


def peer_line(peer: PeerView) -> str:
    if not peer.is_reachable:
        rtt = "no answer"
    else:
        rtt = "-" if peer.rtt_s is None else f"{peer.rtt_s * 1000:.1f} ms"
    load = "" if peer.slots is None else f"  {peer.busy or 0}/{peer.slots} busy"
    state = f"  {words}" if (words := peer_words(peer)) else ""
    models = ", ".join(display_line(name) for name in peer.models)
    here = "  (this machine)" if peer.is_self else ""
    told = f"{rtt:>9}{load}{state}  {models}{here}"
    return f"{peer.role:<10} {peer.key}  {told}".rstrip()


def peer_fields(peer: PeerView) -> dict[str, object]:
    return {
        "role": peer.role,
        "key": peer.key,
        "rtt_ms": None if peer.rtt_s is None else round(peer.rtt_s * 1000, 3),
        "models": [display_line(name) for name in peer.models],
        "busy": peer.busy,
        "slots": peer.slots,
        "is_self": peer.is_self,
        "is_reachable": peer.is_reachable,
        "is_well": peer.is_well,
        "closed": closed_fields(peer.closed),
    }


def closed_fields(closed: Closed | None) -> dict[str, object] | None:
    """Why nothing new is taken, and until when."""
    if closed is None:
        return None
    return {"reason": closed.reason, "opens_in_s": closed.opens_in_s}


def model_line(model: ModelInfo) -> str:
    count = len(model.peers)
    peers = f"{count} peer" if count == 1 else f"{count} peers"
    engine, kind = display_line(model.engine), " ".join(kind_words(model))
    loaded = "loaded" if model.loaded else ""
    closed = closed_words(model.closed) if model.closed else ""
    words = [peers, *(word for word in (engine, kind, loaded, closed) if word)]
    return f"{display_line(model.name):<32} {'  '.join(words)}"


def model_fields(model: ModelInfo) -> dict[str, object]:
    return {
        "name": display_line(model.name),
        "engine": display_line(model.engine),
        "peers": list(model.peers),
        "context_tokens": model.context_tokens,
        "is_loaded": model.loaded is not None,
        "closed": closed_fields(model.closed),
        **(_details_fields(model.details) if model.details else {}),
    }


def _details_fields(details: ModelDetails) -> dict[str, object]:
    return {
        "family": display_line(details.family),
        "parameters": display_line(details.parameters),
        "quantization": display_line(details.quantization),
        "size": details.size_bytes,
        "digest": details.digest,
        "capabilities": [display_line(word) for word in sorted(details.capabilities)],
    }
