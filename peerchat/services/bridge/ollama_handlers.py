"""Ollama's paths under ``/api``, and ``/``, which its clients look at first."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime

from aiohttp import web

from peerchat.api import ApiError, ErrorCode
from peerchat.services.engines.vectors import unpacked

from .answering import Answering
from .asking import Asked
from .body import json_body
from .exchange import exchange
from .fields import Body, dimensions, flag
from .ollama_answer import NS, Shape
from .ollama_models import VERSION, running, shown, tag
from .ollama_request import chat_of, generate_of, options_of, required_model
from .swarm_models import SwarmModels

RUNNING = "Ollama is running"
"""What clients look for; a peerchat bridge says it for them."""

REFUSED = (
    "a swarm's models are its processors' own: nothing is pulled, pushed, made or "
    "deleted here; run peerchat models pull, or ollama pull, on a processor"
)


class OllamaHandlers:
    """The paths of one bridge."""

    def __init__(self, answering: Answering, models: SwarmModels) -> None:
        self._answering = answering
        self._models = models
        self._started = datetime.now(UTC)

    async def ollama_root(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text=RUNNING)

    async def ollama_version(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"version": VERSION})

    async def ollama_tags(self, request: web.Request) -> web.StreamResponse:
        models = [tag(model, self._started) for model in await self._models.all()]
        return web.json_response({"models": models})

    async def ollama_ps(self, request: web.Request) -> web.StreamResponse:
        """What some processor has in memory."""
        now = datetime.now(UTC)
        models = [
            running(model, model.loaded, now)
            for model in await self._models.all()
            if model.loaded is not None
        ]
        return web.json_response({"models": models})

    async def ollama_show(self, request: web.Request) -> web.StreamResponse:
        name = exchange.get().model = required_model(await json_body(request))
        model = await self._models.one(name)
        return web.json_response(shown(model, self._started))

    async def ollama_chat(self, request: web.Request) -> web.StreamResponse:
        began_s = time.monotonic()
        token, body = await self._answering.read(request)
        asked = chat_of(body)
        shape = Shape(asked.model, began_s, prefix=asked.prefix)
        if not asked.prompt and not asked.history and not asked.images:
            return await self._loaded(body, asked, shape)
        return await self._answer(request, token, body, asked, shape)

    async def ollama_generate(self, request: web.Request) -> web.StreamResponse:
        began_s = time.monotonic()
        token, body = await self._answering.read(request)
        asked = generate_of(body)
        shape = Shape(asked.model, began_s, is_chat=False)
        if not asked.prompt and not asked.images:
            return await self._loaded(body, asked, shape)
        return await self._answer(request, token, body, asked, shape)

    async def ollama_embed(self, request: web.Request) -> web.StreamResponse:
        began_s = time.monotonic()
        token, body = await self._answering.read(request)
        model = required_model(body)
        inputs = self._answering.inputs(body.get("input", []), "input")
        options_of(body)
        inputs = [text for text in inputs if text]
        vectors: Sequence[bytes] = ()
        tokens = 0
        if inputs:
            vectors, tokens = await self._answering.vectors(
                request, token, inputs, model, dimensions(body)
            )
        figures = {
            "total_duration": round((time.monotonic() - began_s) * NS),
            "prompt_eval_count": tokens,
        }
        return web.json_response(
            {
                "model": model,
                "embeddings": [unpacked(vector) for vector in vectors],
                **{name: value for name, value in figures.items() if value},
            }
        )

    async def ollama_embeddings(self, request: web.Request) -> web.StreamResponse:
        """The older form: one text."""
        token, body = await self._answering.read(request)
        model = required_model(body)
        (text,) = self._answering.inputs([body.get("prompt") or ""], "prompt")
        if not text:
            return web.json_response({"embedding": []})
        vectors, _ = await self._answering.vectors(request, token, [text], model)
        return web.json_response({"embedding": unpacked(vectors[0])})

    async def ollama_refused(self, request: web.Request) -> web.StreamResponse:
        raise ApiError(ErrorCode.FORBIDDEN, REFUSED, status=403)

    async def _answer(
        self, request: web.Request, token: str, body: Body, asked: Asked, shape: Shape
    ) -> web.StreamResponse:
        is_stream = flag(body, "stream", default=True)
        return await self._answering.answer(
            request, token, asked, shape, is_stream=is_stream
        )

    async def _loaded(
        self, body: Body, asked: Asked, shape: Shape
    ) -> web.StreamResponse:
        """Nobody loads or unloads a model from afar; whether it exists, is told."""
        await self._models.one(asked.model)
        is_unload = body.get("keep_alive") in (0, "0", "0s")
        return web.json_response(shape.loaded("unload" if is_unload else "load"))
