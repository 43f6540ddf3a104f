"""What a processor tells of its models: how fast they write, how long they load.

No clock: `now_s` comes with each call.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from peerchat.api import Usage

from .status_wire import MODELS_MAX, ModelStatus

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

    def of(self, names: Iterable[str], now_s: float) -> list[ModelStatus]:
        """What there is to tell of these models."""
        return [self._of(name, now_s) for name in list(names)[:MODELS_MAX]]

    def _of(self, name: str, now_s: float) -> ModelStatus:
        known = self._models.get(name)
        if known is None:
            return ModelStatus(name)
        is_warm = now_s - known.used_s < WARM_S
        return ModelStatus(name, known.tokens_per_s, 0.0 if is_warm else known.load_s)
