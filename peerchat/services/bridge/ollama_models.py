"""The swarm's models as Ollama lists them.

A swarm knows names, engines and who has them. What it does not know is left empty;
digests, which clients cut and compare, are made of the name.
"""

from __future__ import annotations

import hashlib

from peerchat.api import ModelInfo

VERSION = "0.12.0"
"""Of Ollama's API: clients ask before they use what came later than they know."""


def tag(model: ModelInfo, modified_at: str) -> dict[str, object]:
    """An entry of ``/api/tags``."""
    return {
        "name": model.name,
        "model": model.name,
        "modified_at": modified_at,
        "size": 0,
        "digest": hashlib.sha256(model.name.encode()).hexdigest(),
        "details": _details(model),
    }


def shown(model: ModelInfo, modified_at: str) -> dict[str, object]:
    """What ``/api/show`` says."""
    family = _family(model)
    information: dict[str, object] = {"general.architecture": family}
    if model.context_tokens is not None:
        information[f"{family}.context_length"] = model.context_tokens
    return {
        "modelfile": "",
        "parameters": "",
        "template": "",
        "details": _details(model),
        "model_info": information,
        "capabilities": ["embedding" if model.is_embedder else "completion"],
        "modified_at": modified_at,
    }


def find(wanted: str, models: list[ModelInfo]) -> ModelInfo | None:
    """The served model for a name: people leave ``:latest`` out."""
    named = {model.name: model for model in models}
    short = wanted.removesuffix(":latest")
    return named.get(wanted) or named.get(f"{short}:latest") or named.get(short)


def _details(model: ModelInfo) -> dict[str, object]:
    family = _family(model)
    return {
        "parent_model": "",
        "format": "gguf",
        "family": family,
        "families": [family],
        "parameter_size": "",
        "quantization_level": "",
    }


def _family(model: ModelInfo) -> str:
    return model.name.partition(":")[0].rpartition("/")[2] or model.name
