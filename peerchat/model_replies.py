"""Reads what a gateway answers to ``models``; whatever is wrong in it is left out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from .api import LoadedModel, ModelDetails, ModelInfo
from .replies import MODELS_MAX, closed_of, number_of, text_of, whole_of

LISTED_MAX = 1000
"""Models of a swarm that are read, as many as a gateway tells."""

PEERS_MAX = 64
WORDS_MAX = 32
WORD_CHARS_MAX = 64

_KEY = re.compile(r"[0-9a-f]{64}")


def models_of(reply: Mapping[str, object]) -> list[ModelInfo]:
    """The models of a swarm, by name."""
    told = reply.get("processors")
    keys = told[: PEERS_MAX * MODELS_MAX] if isinstance(told, list) else []
    listed = reply.get("models")
    entries = listed[:LISTED_MAX] if isinstance(listed, list) else []
    found = [_model(one, keys) for one in entries if isinstance(one, Mapping)]
    by_name = {model.name: model for model in found if model.name}
    return [by_name[name] for name in sorted(by_name)]


def _model(entry: Mapping[str, object], keys: Sequence[object]) -> ModelInfo:
    details = _details(entry)
    loaded = entry.get("loaded")
    return ModelInfo(
        details.name,
        text_of(entry.get("engine")),
        _peers(entry.get("processors"), keys),
        details.context_tokens,
        is_embedder=entry.get("isEmbedder") is True,
        details=details,
        loaded=_loaded(loaded) if isinstance(loaded, Mapping) else None,
        closed=closed_of(entry.get("closed")),
    )


def _details(entry: Mapping[str, object]) -> ModelDetails:
    digest = entry.get("digest")
    is_digest = isinstance(digest, str) and _KEY.fullmatch(digest)
    return ModelDetails(
        name=text_of(entry.get("name"), 256),
        family=_word(entry.get("family")),
        families=_words(entry.get("families")),
        parameters=_word(entry.get("parameters")),
        quantization=_word(entry.get("quantization")),
        file_format=_word(entry.get("format")),
        size_bytes=whole_of(entry.get("sizeBytes")),
        context_tokens=whole_of(entry.get("contextTokens")),
        vector_length=whole_of(entry.get("vectorLength")),
        capabilities=frozenset(_words(entry.get("capabilities"))),
        modified_s=number_of(entry.get("modifiedS")),
        digest=str(digest) if is_digest else "",
    )


def _loaded(entry: Mapping[str, object]) -> LoadedModel:
    return LoadedModel(
        number_of(entry.get("keptS")),
        size_bytes=whole_of(entry.get("sizeBytes")),
        vram_bytes=whole_of(entry.get("vramBytes")),
        context_tokens=whole_of(entry.get("contextTokens")),
    )


def _peers(places: object, keys: Sequence[object]) -> tuple[str, ...]:
    told = places[:PEERS_MAX] if isinstance(places, list) else []
    inside = (one for one in told if type(one) is int and 0 <= one < len(keys))
    found = (keys[one] for one in inside)
    return tuple(k for k in found if isinstance(k, str) and _KEY.fullmatch(k))


def _word(value: object) -> str:
    return text_of(value, WORD_CHARS_MAX)


def _words(value: object) -> tuple[str, ...]:
    told = value[:WORDS_MAX] if isinstance(value, list) else []
    return tuple(word for one in told if (word := _word(one)))
