"""What Ollama tells of its models, and which of them are served.

Lists are read here and not by the `ollama` package, whose types have no place for
capabilities and for whose a model is.

Some models are proxied to a cloud, which a node that promises privacy must not offer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from .base import (
    CHAT,
    COMPLETION,
    EMBED,
    IMAGES,
    JSON,
    PREFIX,
    THINKING,
    TOOLS,
    ModelDetails,
)

if TYPE_CHECKING:
    import ollama

PORT = 11434
CLOUD_SUFFIXES = (":cloud", "-cloud")
_CHATS = frozenset({CHAT, COMPLETION, JSON, PREFIX})
_WORDS = {
    "completion": _CHATS,
    "tools": frozenset({TOOLS}),
    "vision": frozenset({IMAGES}),
    "thinking": frozenset({THINKING}),
    "embedding": frozenset({EMBED}),
}
"""Ollama's words for what a model can do (ollama/types/model/capability.go)."""


class Details(msgspec.Struct):
    """Part of an entry."""

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


def details_of(model: Model, shown: ollama.ShowResponse) -> ModelDetails:
    """What the two endpoints say together."""
    details = shown.details or model.details or Details()
    told = shown.capabilities
    return ModelDetails(
        name=name_of(model),
        family=details.family or "",
        parameters=details.parameter_size or "",
        quantization=details.quantization_level or "",
        size_bytes=model.size,
        context_tokens=_context(shown.modelinfo or {}),
        capabilities=capabilities_of(model) if told is None else _in_our_words(told),
        modified_at=model.modified_at or "",
        digest=model.digest or "",
    )


def _in_our_words(words: Iterable[str]) -> frozenset[str]:
    none: frozenset[str] = frozenset()
    return none.union(*(_WORDS.get(word, none) for word in words))


def _context(info: Mapping[str, object]) -> int | None:
    for key, value in info.items():
        if key.endswith(".context_length") and isinstance(value, int) and value > 0:
            return value
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
