"""The swarm's models as Ollama lists them.

What no processor tells is left empty, or made up where clients cannot do without it: a
digest of the name, and a template that shows no more than which parts of a request the
model takes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from peerchat.api import LoadedModel, ModelDetails, ModelInfo
from peerchat.model_names import served_name
from peerchat.services.engines.base import (
    CHAT,
    COMPLETION,
    EMBED,
    IMAGES,
    INSERT,
    THINKING,
    TOOLS,
)

VERSION = "0.12.0"
"""Of Ollama's API: clients ask before they use what came later than they know."""

KEPT_S = 300.0
"""Ollama's own, for a processor that does not tell how long a model stays loaded."""

_WORDS = (
    ("completion", frozenset({CHAT, COMPLETION})),
    ("vision", frozenset({IMAGES})),
    ("tools", frozenset({TOOLS})),
    ("insert", frozenset({INSERT})),
    ("thinking", frozenset({THINKING})),
    ("embedding", frozenset({EMBED})),
)
"""Ollama's words for what a model can do (ollama/types/model/capability.go)."""


def tag(model: ModelInfo, started: datetime) -> dict[str, object]:
    """An entry of ``/api/tags``."""
    details = _told(model)
    return {
        "name": model.name,
        "model": model.name,
        "modified_at": _modified(details, started),
        "size": details.size_bytes or 0,
        "digest": _digest(details),
        "details": _details(model),
        "capabilities": capabilities(model),
    }


def running(model: ModelInfo, loaded: LoadedModel, now: datetime) -> dict[str, object]:
    """An entry of ``/api/ps``."""
    details = _told(model)
    kept_s = KEPT_S if loaded.kept_s is None else loaded.kept_s
    context = loaded.context_tokens or model.context_tokens
    found: dict[str, object] = {
        "name": model.name,
        "model": model.name,
        "size": loaded.size_bytes or details.size_bytes or 0,
        "digest": _digest(details),
        "details": _details(model),
        "expires_at": time_text(now + timedelta(seconds=min(kept_s, 366 * 86_400))),
        "size_vram": loaded.vram_bytes or 0,
    }
    return found | ({"context_length": context} if context else {})


def shown(model: ModelInfo, started: datetime) -> dict[str, object]:
    """What ``/api/show`` says."""
    details = _told(model)
    words = capabilities(model)
    return {
        "modelfile": "",
        "parameters": _parameters(model.loaded),
        "template": _template(words),
        "details": _details(model),
        "model_info": _information(model),
        "capabilities": words,
        "modified_at": _modified(details, started),
    }


def find(wanted: str, models: list[ModelInfo]) -> ModelInfo | None:
    """The served model for a name: people leave ``:latest`` out."""
    named = {model.name: model for model in models}
    name = served_name(wanted, named)
    return None if name is None else named[name]


def capabilities(model: ModelInfo) -> list[str]:
    """What it can do; one of a peer that does not tell chats, or gives vectors."""
    told = _told(model).capabilities
    words = [word for word, ours in _WORDS if told & ours]
    return words or ["embedding" if model.is_embedder else "completion"]


def time_text(when: datetime) -> str:
    """A time as Go writes it (RFC 3339, UTC)."""
    return when.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _told(model: ModelInfo) -> ModelDetails:
    return model.details or ModelDetails(model.name)


def _details(model: ModelInfo) -> dict[str, object]:
    details, family = _told(model), _family(model)
    return {
        "parent_model": "",
        "format": details.file_format,
        "family": family,
        "families": list(details.families) or [family],
        "parameter_size": details.parameters,
        "quantization_level": details.quantization,
    }


def _information(model: ModelInfo) -> Mapping[str, object]:
    """GGUF's names of what clients look for: how much it reads, and who it is."""
    details, family = _told(model), _family(model)
    numbers = {
        f"{family}.context_length": model.context_tokens,
        f"{family}.embedding_length": details.vector_length,
    }
    return {
        "general.architecture": family,
        "general.basename": _short(model),
        **{name: number for name, number in numbers.items() if number},
    }


def _parameters(loaded: LoadedModel | None) -> str:
    """As a Modelfile has them: the context that it was loaded for, where it was."""
    tokens = loaded.context_tokens if loaded else None
    return f"{'num_ctx':<30} {tokens}" if tokens else ""


def _template(words: list[str]) -> str:
    """Some clients take a model for one that fills gaps, or calls functions, only if
    its template names what that takes."""
    named = [(".Suffix", "insert"), (".Tools", "tools")]
    parts = ["{{ .Prompt }}"]
    parts += [f"{{{{ {name} }}}}" for name, word in named if word in words]
    return "".join(parts)


def _digest(details: ModelDetails) -> str:
    return details.digest or hashlib.sha256(details.name.encode()).hexdigest()


def _modified(details: ModelDetails, started: datetime) -> str:
    try:
        when = datetime.fromtimestamp(details.modified_s or 0.0, UTC)
    except (ValueError, OverflowError, OSError):
        return time_text(started)
    return time_text(when if details.modified_s else started)


def _family(model: ModelInfo) -> str:
    return _told(model).family or _short(model)


def _short(model: ModelInfo) -> str:
    return model.name.partition(":")[0].rpartition("/")[2] or model.name
