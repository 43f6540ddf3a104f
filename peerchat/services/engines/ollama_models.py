"""What Ollama tells of its models, and which of them are served.

Lists are read here and not by the `ollama` package, whose types have no place for
capabilities and for whose a model is.

Some models are proxied to a cloud, which a node that promises privacy must not offer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from peerchat.api import LoadedModel, ModelDetails

from .base import (
    CHAT,
    COMPLETION,
    EMBED,
    IMAGES,
    INSERT,
    JSON,
    PREFIX,
    THINKING,
    TOOLS,
)

if TYPE_CHECKING:
    import ollama

PORT = 11434
KEPT_S_MAX = 366 * 24 * 3600.0
"""Ollama's "for ever" is some centuries."""

CLOUD_SUFFIXES = (":cloud", "-cloud")
_CHATS = frozenset({CHAT, COMPLETION, JSON, PREFIX})
_WORDS = {
    "completion": _CHATS,
    "insert": frozenset({INSERT}),
    "tools": frozenset({TOOLS}),
    "vision": frozenset({IMAGES}),
    "thinking": frozenset({THINKING}),
    "embedding": frozenset({EMBED}),
}
"""Ollama's words for what a model can do (ollama/types/model/capability.go)."""


class Details(msgspec.Struct):
    """Part of an entry."""

    format: str | None = None
    family: str | None = None
    families: list[str] | None = None
    parameter_size: str | None = None
    quantization_level: str | None = None


class Model(msgspec.Struct):
    """An entry of ``/api/tags`` or ``/api/ps``."""

    name: str = ""
    model: str = ""
    remote_host: str | None = None
    remote_model: str | None = None
    capabilities: list[str] | None = None
    details: Details | None = None
    size: int | None = None
    digest: str | None = None
    modified_at: str | None = None
    expires_at: str | None = None
    """Of a loaded one; this and what follows."""
    size_vram: int | None = None
    context_length: int | None = None


class Models(msgspec.Struct):
    """What ``/api/tags`` and ``/api/ps`` answer."""

    models: list[Model] | None = None


def name_of(model: Model) -> str:
    """How it is asked for."""
    return model.model or model.name


def is_local(model: Model) -> bool:
    """Whether prompts to it stay on the machine of that Ollama."""
    name = name_of(model)
    if not name or name.lower().endswith(CLOUD_SUFFIXES):
        return False
    return not (model.remote_host or model.remote_model)


def capabilities_of(model: Model) -> frozenset[str]:
    """In our words; servers that list none are judged by the family, embedding models
    being of the BERT kind."""
    if model.capabilities is not None:
        return _in_our_words(model.capabilities)
    details = model.details or Details()
    families = [*(details.families or []), details.family or ""]
    is_bert = any("bert" in family for family in families)
    return frozenset({EMBED}) if is_bert else _CHATS


def listed_of(model: Model) -> ModelDetails:
    """What the list says of a model, but for times: so it differs when the model is
    another one."""
    details = model.details or Details()
    return ModelDetails(
        name=name_of(model),
        family=details.family or "",
        families=tuple(details.families or ()),
        parameters=details.parameter_size or "",
        quantization=details.quantization_level or "",
        file_format=details.format or "",
        size_bytes=model.size,
        capabilities=capabilities_of(model),
        digest=(model.digest or "").removeprefix("sha256:"),
    )


def details_of(model: Model, shown: ollama.ShowResponse) -> ModelDetails:
    """What the two endpoints say together."""
    listed, told = listed_of(model), shown.details
    info = shown.modelinfo or {}
    words = shown.capabilities
    return replace(
        listed,
        family=(told and told.family) or listed.family,
        parameters=(told and told.parameter_size) or listed.parameters,
        quantization=(told and told.quantization_level) or listed.quantization,
        context_tokens=_whole(info, ".context_length"),
        vector_length=_whole(info, ".embedding_length"),
        capabilities=listed.capabilities if words is None else _in_our_words(words),
        modified_s=_unix(model.modified_at),
    )


def loaded_of(model: Model, now_s: float) -> LoadedModel:
    """What ``/api/ps`` says of a model."""
    until_s = _unix(model.expires_at)
    return LoadedModel(
        None if until_s is None else min(max(0.0, until_s - now_s), KEPT_S_MAX),
        size_bytes=model.size,
        vram_bytes=model.size_vram,
        context_tokens=model.context_length,
    )


def _in_our_words(words: Iterable[str]) -> frozenset[str]:
    none: frozenset[str] = frozenset()
    return none.union(*(_WORDS.get(word, none) for word in words))


def _whole(info: Mapping[str, object], ending: str) -> int | None:
    """A number by the end of its name, which begins with the architecture's."""
    for key, value in info.items():
        if key.endswith(ending) and isinstance(value, int) and value > 0:
            return value
    return None


def _unix(text: str | None) -> float | None:
    """A time as Go writes it."""
    try:
        return datetime.fromisoformat(text or "").timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def client_url(host: str) -> str:
    """Where a client connects to for an ``OLLAMA_HOST``, which also is what a server
    binds to: the wildcard address means this machine."""
    text = host.strip()
    if "://" not in text:
        text = f"http://{text}"
        default_port = PORT
    else:
        default_port = 443 if text.startswith("https://") else 80
    parts = urlsplit(text)
    try:
        port = parts.port or default_port
    except ValueError:
        port = default_port
    name = parts.hostname or "127.0.0.1"
    if name in ("0.0.0.0", "::"):
        name = "127.0.0.1"
    if ":" in name:
        name = f"[{name}]"
    return f"{parts.scheme}://{name}:{port}{parts.path.rstrip('/')}"
