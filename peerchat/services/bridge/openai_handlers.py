"""OpenAI's paths under ``/v1``."""

from __future__ import annotations

import base64
import time

from aiohttp import web

from peerchat.api import ModelInfo
from peerchat.logs import request_id
from peerchat.services.engines.vectors import unpacked

from .answering import Answering
from .errors import invalid
from .fields import Body, dimensions, model_name, text
from .openai_answer import Shape
from .openai_request import (
    chat_of,
    check_common,
    completion_of,
    echo_of,
    is_stream,
    wants_usage,
)
from .swarm_models import SwarmModels


class OpenAiHandlers:
    """The paths of one bridge."""

    def __init__(self, answering: Answering, models: SwarmModels) -> None:
        self._answering = answering
        self._models = models
        self._started_s = int(time.time())

    async def openai_models(self, request: web.Request) -> web.StreamResponse:
        data = [self._model(model) for model in await self._models.all()]
        return web.json_response({"object": "list", "data": data})

    async def openai_model(self, request: web.Request) -> web.StreamResponse:
        model = await self._models.one(request.match_info["model"])
        return web.json_response(self._model(model))

    async def openai_chat(self, request: web.Request) -> web.StreamResponse:
        token, body = await self._answering.read(request)
        asked = chat_of(body)
        shape = _shape(body, prefix=asked.prefix)
        return await self._answering.answer(
            request, token, asked, shape, is_stream=is_stream(body)
        )

    async def openai_completions(self, request: web.Request) -> web.StreamResponse:
        token, body = await self._answering.read(request)
        asked = completion_of(body)
        shape = _shape(body, is_chat=False, echo=echo_of(body))
        return await self._answering.answer(
            request, token, asked, shape, is_stream=is_stream(body)
        )

    async def openai_embeddings(self, request: web.Request) -> web.StreamResponse:
        token, body = await self._answering.read(request)
        check_common(body)
        inputs = self._answering.inputs(body.get("input"), "input")
        if not inputs or not all(inputs):
            raise invalid("input must have texts that are not empty.")
        form = text(body, "encoding_format", default="float")
        if form not in ("float", "base64"):
            raise invalid("encoding_format must be float or base64.")
        model = model_name(body)
        vectors, tokens = await self._answering.vectors(
            request, token, inputs, model, dimensions(body)
        )
        data = [
            {
                "object": "embedding",
                "index": number,
                "embedding": base64.b64encode(vector).decode()
                if form == "base64"
                else unpacked(vector),
            }
            for number, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return web.json_response(
            {"object": "list", "data": data, "model": model, "usage": usage}
        )

    def _model(self, model: ModelInfo) -> dict[str, object]:
        details = model.details
        known_s = int(details.modified_s or 0) if details else 0
        found: dict[str, object] = {
            "id": model.name,
            "object": "model",
            "created": known_s or self._started_s,
            "owned_by": model.engine or "peerchat",
        }
        if model.context_tokens:
            # As vLLM has it, whose name for it clients know.
            found["max_model_len"] = model.context_tokens
        return found


def _shape(
    body: Body, *, is_chat: bool = True, echo: str = "", prefix: str = ""
) -> Shape:
    return Shape(
        request_id.get(),
        model_name(body),
        int(time.time()),
        is_chat=is_chat,
        has_usage=wants_usage(body),
        echo=echo,
        prefix=prefix,
    )
