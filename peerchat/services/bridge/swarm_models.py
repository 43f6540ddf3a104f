"""Which models the swarm serves, asked for seldom and on behalf of everybody."""

from __future__ import annotations

from peerchat.api import ApiError, ErrorCode, ModelInfo
from peerchat.gateways import Gateways

from .kept import Kept
from .ollama_models import find

MODELS_KEPT_S = 2.0
"""Anyone who reaches the port may ask; the swarm is asked no more often than this."""


class SwarmModels:
    """The list, and one of it."""

    def __init__(self, gateways: Gateways) -> None:
        self._gateways = gateways
        self._kept = Kept[list[ModelInfo]](MODELS_KEPT_S)

    async def all(self) -> list[ModelInfo]:
        """By name."""
        return await self._kept.get(self._gateways.models)

    async def one(self, name: str) -> ModelInfo:
        """The model of this name; raises `ApiError` (404)."""
        found = find(name, await self.all())
        if found is None:
            raise ApiError(
                ErrorCode.MODEL_MISSING,
                f"The model '{name}' does not exist in this swarm; GET /v1/models "
                "lists those that do.",
                status=404,
            )
        return found
