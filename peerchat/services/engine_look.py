"""How a processor's engine is and what it serves, asked no more often than needed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping

from peerchat.api import ApiError, LoadedModel, ModelInfo
from peerchat.contribution import Contribution

from .engines.base import Engine, EngineHealth

HEALTH_FRESH_S = 5.0
"""What was found out so recently is told again; many gateways ask one processor."""

NAMES_SHOWN_MAX = 10

logger = logging.getLogger(__name__)


class EngineLook:
    """What is known of an engine.

    Args:
        engine: asked.
        terms: which models the owner gives.
    """

    def __init__(self, engine: Engine, terms: Contribution) -> None:
        self.health = EngineHealth(is_up=False, detail="not looked at yet")
        self.models: tuple[ModelInfo, ...] = ()
        self.loaded: Mapping[str, LoadedModel] | None = None
        """In memory, when it was looked; None: the engine does not tell."""
        self._engine = engine
        self._terms = terms
        self._found: tuple[str, ...] = ()
        """The engine's models, those that are not given as well."""
        self._logged = ""
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
                self.models = self._found = ()
            self.loaded = await self._engine.loaded() if self.health.is_up else None
            self._looked_at_s = self._loaded_at_s = time.monotonic()
        self._log(was_up=before[0].is_up)
        return before != self._seen()

    @property
    def problem(self) -> str:
        """Why no prompt can be answered, and what to do; empty when some can."""
        if not self.health.is_up:
            return self.health.detail
        return "" if self.models else self._misfit()

    def _misfit(self) -> str:
        """What of the offer fits no model, and what there is."""
        unmatched = self._terms.unmatched(self._found)
        if not (unmatched and self._found):
            return ""
        more = ", …" if len(self._found) > NAMES_SHOWN_MAX else ""
        return (
            f"--offer {','.join(unmatched)} fits no model of the engine: it has "
            f"{', '.join(self._found[:NAMES_SHOWN_MAX])}{more}"
        )

    def _log(self, *, was_up: bool) -> None:
        """Say what is wrong whenever that is another thing, and when it is over."""
        wrong = self._misfit() if self.health.is_up else self.health.detail
        if wrong and wrong != self._logged:
            logger.warning("engine %s: %s", self._engine.name, wrong)
        elif self.health.is_up and not was_up:
            logger.info("engine %s: %s", self._engine.name, self.health.detail)
        self._logged = wrong

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
        self._found = tuple(model.name for model in models)
        return tuple(model for model in models if self._terms.offers(model.name))
