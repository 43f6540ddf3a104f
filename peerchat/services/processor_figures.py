"""What a processor tells of its models: how fast they write, how long they load.

No clock: `now_s` comes with each call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from peerchat.api import LoadedModel, Usage

from .status_wire import MODELS_MAX, Loaded, ModelStatus

WARM_S = 4 * 60.0
"""Ollama keeps a model in memory for five minutes after its last use."""


@dataclass(slots=True)
class _Figures:
    tokens_per_s: float | None = None
    load_s: float | None = None
    used_s: float = float("-inf")


class ProcessorFigures:
    """Learns from answers."""

    def __init__(self) -> None:
        self._models: dict[str, _Figures] = {}

    def learn(self, usage: Usage, now_s: float) -> None:
        """An answer ended well."""
        known = self._models.setdefault(usage.model, _Figures())
        known.used_s = now_s
        if usage.load_s is not None:
            known.load_s = max(usage.load_s, known.load_s or 0.0)
        if speed := usage.tokens_per_s:
            before = known.tokens_per_s or speed
            known.tokens_per_s = before + (speed - before) / 4
        while len(self._models) > MODELS_MAX:
            del self._models[next(iter(self._models))]

    def of(
        self,
        names: Iterable[str],
        now_s: float,
        memory: Mapping[str, LoadedModel] | None = None,
        memory_age_s: float = 0.0,
    ) -> list[ModelStatus]:
        """What there is to tell of these models.

        Args:
            names: of the models.
            now_s: as in `learn`.
            memory: what was loaded when the engine was asked; None: it does not tell.
            memory_age_s: since then.
        """
        warm_s = WARM_S if memory is None else memory_age_s
        is_told = memory is not None
        told = {
            name: _loaded(one, memory_age_s) for name, one in (memory or {}).items()
        }
        return [
            self._of(name, now_s - warm_s, told.get(name), is_told=is_told)
            for name in list(names)[:MODELS_MAX]
        ]

    def _of(
        self, name: str, warm_since_s: float, loaded: Loaded | None, *, is_told: bool
    ) -> ModelStatus:
        known = self._models.get(name) or _Figures()
        # What never loads, as the guide, is not in the memory of an engine that tells.
        can_load = known.load_s is not None or not is_told
        is_warm = loaded is not None or (can_load and known.used_s > warm_since_s)
        load_s = 0.0 if is_warm else known.load_s
        return ModelStatus(name, known.tokens_per_s, load_s, loaded)


def _loaded(model: LoadedModel, age_s: float) -> Loaded:
    kept_s = None if model.kept_s is None else max(0.0, model.kept_s - age_s)
    return Loaded(kept_s, model.size_bytes, model.vram_bytes, model.context_tokens)
