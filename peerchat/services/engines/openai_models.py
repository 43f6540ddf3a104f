"""What ``/models`` tells: OpenAI says little, llama.cpp and vLLM say more."""

from __future__ import annotations

import msgspec

from peerchat.api import ModelDetails

from .base import (
    CHAT,
    COMPLETION,
    EMBED,
    IMAGES,
    JSON,
    PREFIX,
    THINKING,
    TOOLS,
)

_LIKELY = frozenset({CHAT, COMPLETION, EMBED, IMAGES, JSON, PREFIX, THINKING, TOOLS})
"""Where a server tells nothing: it refuses by itself what it cannot do."""


class _Meta(msgspec.Struct):
    """Of llama.cpp (tools/server/server.cpp, ``/v1/models``)."""

    n_ctx: int | None = None
    n_ctx_train: int | None = None
    n_params: int | None = None
    n_embd: int | None = None
    size: int | None = None


class Entry(msgspec.Struct):
    """One model of ``data``."""

    id: str
    owned_by: str | None = None
    meta: _Meta | None = None
    max_model_len: int | None = None
    """Of vLLM."""
    max_context_length: int | None = None
    """Of LM Studio."""
    type: str | None = None
    """Of LM Studio: ``llm``, ``vlm``, ``embeddings``; and the next two."""
    arch: str | None = None
    quantization: str | None = None
    has_vision: bool | None = None
    """Whether llama.cpp says so; None for other servers."""

    @property
    def is_llama(self) -> bool:
        """The server is llama.cpp."""
        return self.owned_by == "llamacpp"

    @property
    def context_tokens(self) -> int | None:
        """How much the model reads at once."""
        meta = self.meta or _Meta()
        told = self.max_model_len or self.max_context_length
        return meta.n_ctx or meta.n_ctx_train or told


class _Named(msgspec.Struct):
    """An entry of the second list, which llama.cpp gives for Ollama's clients."""

    name: str = ""
    capabilities: list[str] | None = None


class Listing(msgspec.Struct):
    """What ``/models`` answers."""

    data: list[Entry] = []
    models: list[_Named] = []


def entries_of(listing: Listing) -> list[Entry]:
    """The models, with what both lists say of them."""
    words = {one.name: one.capabilities for one in listing.models}
    for entry in listing.data:
        told = words.get(entry.id)
        if told is not None:
            entry.has_vision = "multimodal" in told
    return listing.data


def capabilities_of(entry: Entry) -> frozenset[str]:
    """What is told, else what is likely."""
    if entry.type == "embeddings":
        return frozenset({EMBED})
    if entry.has_vision is False or entry.type == "llm":
        return _LIKELY - {IMAGES}
    return _LIKELY


def details_of(entry: Entry) -> ModelDetails:
    """What is known, and of what is likely only what any model of such a server can."""
    meta = entry.meta or _Meta()
    unsure = set() if entry.type == "embeddings" else {EMBED, IMAGES, THINKING}
    if entry.has_vision or entry.type == "vlm":
        unsure.discard(IMAGES)
    return ModelDetails(
        name=entry.id,
        family=entry.arch or "",
        parameters=parameters_text(meta.n_params),
        quantization=entry.quantization or "",
        file_format="gguf" if entry.is_llama else "",
        size_bytes=meta.size,
        context_tokens=entry.context_tokens,
        vector_length=meta.n_embd,
        capabilities=capabilities_of(entry) - unsure,
    )


def parameters_text(count: int | None) -> str:
    """As people write it: ``3.2B``."""
    if not count:
        return ""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return str(count)
