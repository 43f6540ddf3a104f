"""What an engine knows of its models, asked for seldom and in the background.

An engine may need a request for each model, so nobody waits for this: what the list of
models said counts until then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence

from peerchat.api import ApiError, ModelDetails, ModelInfo

from .engines.base import CHAT, EMBED, Engine
from .status_wire import MODELS_MAX

LOOK_EVERY_S = 600.0
"""Between two times that everything is asked anew: files get their hashes late, and
models change under their names where lists do not tell."""

logger = logging.getLogger(__name__)


class ModelCatalog:
    """Details of the models that are served.

    Args:
        engine: asked.
        on_change: called when there is something new to tell.
    """

    def __init__(self, engine: Engine, on_change: Callable[[], None]) -> None:
        self._engine = engine
        self._on_change = on_change
        self._served: Sequence[ModelInfo] = ()
        self._shown: dict[ModelInfo, ModelDetails] = {}
        self._told: tuple[ModelDetails, ...] = ()
        self._is_wanted = asyncio.Event()

    @property
    def details(self) -> tuple[ModelDetails, ...]:
        """Of the models that are served, in their order."""
        return self._told

    def serve(self, models: Iterable[ModelInfo]) -> None:
        """These are served now; what is new of them is asked for soon."""
        served = tuple(models)[:MODELS_MAX]
        if served != self._served:
            self._served = served
            self._tell()
            self._is_wanted.set()

    async def run(self) -> None:
        """Ask whenever there is something to ask, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._is_wanted.wait()
            except TimeoutError:
                self._shown.clear()
            self._is_wanted.clear()
            await self._ask()

    async def _ask(self) -> None:
        served = self._served
        for model in served:
            if model not in self._shown:
                try:
                    self._shown[model] = await self._engine.show(model.name)
                except ApiError as error:
                    logger.debug("no details of %s: %s", model.name, error)
        self._shown = {one: self._shown[one] for one in served if one in self._shown}
        self._tell()

    def _tell(self) -> None:
        told = tuple(self._of(model) for model in self._served)
        if told != self._told:
            self._told = told
            self._on_change()

    def _of(self, model: ModelInfo) -> ModelDetails:
        least = frozenset({EMBED if model.is_embedder else CHAT})
        listed = model.details or ModelDetails(
            model.name, context_tokens=model.context_tokens, capabilities=least
        )
        return self._shown.get(model, listed)
