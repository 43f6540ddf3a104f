"""The answer to a gateway's method ``models``: docs/PROTOCOL.md section 11. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from peerchat.api import Closed, LoadedModel, ModelDetails, ModelInfo


class LoadedEntry(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A model in the memory of some processor."""

    kept_s: float | None = None
    size_bytes: int | None = None
    vram_bytes: int | None = None
    context_tokens: int | None = None


class ClosedEntry(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Why a processor takes nothing new, and until when."""

    reason: str
    opens_in_s: float | None = None

    @classmethod
    def of(cls, closed: Closed | None) -> ClosedEntry | None:
        """As it is told; None stays None."""
        if closed is None:
            return None
        opens_in_s = closed.opens_in_s
        seconds = None if opens_in_s is None else round(opens_in_s, 1)
        return cls(closed.reason.value, seconds)


class ModelEntry(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A model of the swarm."""

    name: str
    engine: str = ""
    processors: Sequence[int] = ()
    """Places in the list of processors."""
    is_embedder: bool = False
    family: str = ""
    families: Sequence[str] = ()
    parameters: str = ""
    quantization: str = ""
    format: str = ""
    size_bytes: int | None = None
    digest: str = ""
    context_tokens: int | None = None
    vector_length: int | None = None
    capabilities: Sequence[str] = ()
    modified_s: float | None = None
    loaded: LoadedEntry | None = None
    closed: ClosedEntry | None = None


class ModelsReply(msgspec.Struct, frozen=True, kw_only=True):
    """All of them."""

    success: bool = True
    status: int = 200
    processors: Sequence[str]
    """Their public keys, in hex."""
    models: Sequence[ModelEntry]


def models_reply(models: Iterable[ModelInfo]) -> ModelsReply:
    """The list for the wire, which names each processor once."""
    places: dict[str, int] = {}
    entries = [_entry(model, places) for model in models]
    return ModelsReply(processors=list(places), models=entries)


def _entry(model: ModelInfo, places: dict[str, int]) -> ModelEntry:
    details = model.details or ModelDetails(model.name)
    return ModelEntry(
        model.name,
        engine=model.engine,
        processors=[places.setdefault(key, len(places)) for key in model.peers],
        is_embedder=model.is_embedder,
        family=details.family,
        families=details.families,
        parameters=details.parameters,
        quantization=details.quantization,
        format=details.file_format,
        size_bytes=details.size_bytes,
        digest=details.digest,
        context_tokens=model.context_tokens,
        vector_length=details.vector_length,
        capabilities=sorted(details.capabilities),
        modified_s=details.modified_s,
        loaded=_loaded(model.loaded),
        closed=ClosedEntry.of(model.closed),
    )


def _loaded(model: LoadedModel | None) -> LoadedEntry | None:
    if model is None:
        return None
    return LoadedEntry(
        model.kept_s, model.size_bytes, model.vram_bytes, model.context_tokens
    )
