"""How a processor's engine is and what it serves, asked no more often than needed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from peerchat.api import ApiError, LoadedModel, ModelInfo

from .engines.base import Engine, EngineHealth

HEALTH_FRESH_S = 5.0
"""What was found out so recently is told again; many gateways ask one processor."""

logger = logging.getLogger(__name__)


class EngineLook:
    """What is known of an engine.

    Args:
        engine: asked.
        offers: whether the owner gives a model.
    """

    def __init__(self, engine: Engine, offers: Callable[[str], bool]) -> None:
        self.health = EngineHealth(is_up=False, detail="not looked at yet")
        self.models: tuple[ModelInfo, ...] = ()
        self.loaded: Mapping[str, LoadedModel] | None = None
        """In memory, when it was looked; None: the engine does not tell."""
        self._engine = engine
        self._offers = offers
        self._looked_at_s = -HEALTH_FRESH_S
        self._loaded_at_s = 0.0
        self._looking = asyncio.Lock()

    @property
    def names(self) -> list[str]:
        """Of the models that are served, the default one first."""
        return [model.name for model in self.models]

    @property
    def loaded_age_s(self) -> float:
        """Since the engine told what is loaded."""
        return time.monotonic() - self._loaded_at_s

    def forget(self) -> None:
        """The next look asks the engine: it failed."""
        self._looked_at_s = -HEALTH_FRESH_S

    async def look(self) -> bool:
        """Ask, unless it was asked just now; whether anything changed."""
        async with self._looking:
            if time.monotonic() - self._looked_at_s < HEALTH_FRESH_S:
                return False
            before = self._seen()
            self.health = await self._engine.health()
            try:
                self.models = await self._served()
            except ApiError:
                self.models = ()
            self.loaded = await self._engine.loaded() if self.health.is_up else None
            self._looked_at_s = self._loaded_at_s = time.monotonic()
        if before[0].is_up != self.health.is_up:
            level = logging.INFO if self.health.is_up else logging.WARNING
            name = self._engine.name
            logger.log(level, "engine %s: %s", name, self.health.detail)
        return before != self._seen()

    def _seen(self) -> tuple[EngineHealth, tuple[ModelInfo, ...], frozenset[str]]:
        return self.health, self.models, frozenset(self.loaded or ())

    async def _served(self) -> tuple[ModelInfo, ...]:
        """Models that chat, then those that only give vectors."""
        models = list(await self._engine.models())
        names = {model.name for model in models}
        models += [
            ModelInfo(name, self._engine.name, is_embedder=True)
            for name in await self._engine.embedders()
            if name not in names
        ]
        return tuple(model for model in models if self._offers(model.name))
