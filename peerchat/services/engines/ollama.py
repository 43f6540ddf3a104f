"""Ollama as an engine, through the `ollama` package.

How Ollama behaves decides the shape of this file (ollama/server/routes.go, sched.go):
no byte comes before the first token, however long loading and waiting take; requests
beyond its slots wait in silence without end, which is why the processor admits only
as many as there are slots. Closing the HTTP request is how Ollama is stopped.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing

import msgspec

from peerchat.api import (
    AnswerEvent,
    ApiError,
    Embeddings,
    EmbedRequest,
    ErrorCode,
    LoadedModel,
    ModelDetails,
    ModelInfo,
    Progress,
    PromptRequest,
)

from .base import (
    CHAT,
    EMBED,
    EngineHealth,
    engine_failed,
    match_model,
    model_missing,
)
from .engine_http import FIRST_BYTE_TIMEOUT_S, STALL_TIMEOUT_S, EngineTimeouts
from .forced_calls import forced_calls
from .ollama_answer import OllamaAnswer, failure
from .ollama_client import OllamaClient
from .ollama_models import (
    CLOUD_SUFFIXES,
    Model,
    Models,
    capabilities_of,
    details_of,
    is_local,
    listed_of,
    loaded_of,
    name_of,
)
from .ollama_probe import is_down_text, url_of
from .ollama_request import chat_body, raw_body
from .options import engine_options
from .turns import cannot_embed, embeds_only
from .vectors import packed

MODELS_FRESH_S = 15.0
"""How long the list of models is believed; a model that is missing is looked for."""


class OllamaEngine:
    """Answers with the models of one Ollama.

    Args:
        host: as ``OLLAMA_HOST``, which is taken when this is empty.
        model: the default model; empty for the first that Ollama lists.
        first_byte_timeout_s: longest silence before an answer begins.
        stall_timeout_s: longest silence within an answer.
    """

    def __init__(
        self,
        *,
        host: str = "",
        model: str = "",
        first_byte_timeout_s: float = FIRST_BYTE_TIMEOUT_S,
        stall_timeout_s: float = STALL_TIMEOUT_S,
    ) -> None:
        self.url = url_of(host)
        self._model = model
        self._client = OllamaClient(
            self.url, EngineTimeouts(first_byte_timeout_s, stall_timeout_s)
        )
        self._local: dict[str, Model] = {}
        self._listed_at_s = -MODELS_FRESH_S

    @property
    def name(self) -> str:
        """The engine's short name."""
        return "ollama"

    async def models(self) -> Sequence[ModelInfo]:
        """The local models that can chat, the default one first."""
        names = await self._names(CHAT, is_fresh=True)
        if self._model:
            default = match_model(self._model, names)
            names = sorted(names, key=lambda name: name != default)
        return [
            ModelInfo(name, self.name, details=listed_of(self._local[name]))
            for name in names
        ]

    async def embedders(self) -> Sequence[str]:
        """The local models that are made for it."""
        return await self._names(EMBED)

    async def capabilities(self, model: str) -> frozenset[str]:
        """As Ollama lists them."""
        return capabilities_of(await self._find(model, ""))

    async def show(self, model: str) -> ModelDetails:
        """What ``/api/tags`` and ``/api/show`` say together."""
        entry = await self._find(model, "")
        try:
            return details_of(entry, await self._client.details(name_of(entry)))
        except Exception as error:
            raise failure(error, model) from None

    async def loaded(self) -> Mapping[str, LoadedModel] | None:
        """What ``/api/ps`` says."""
        try:
            now_s = time.time()
            entries = await self._read("/api/ps")
        except ApiError:
            return None
        return {name_of(one): loaded_of(one, now_s) for one in entries}

    async def health(self) -> EngineHealth:
        """Up when Ollama answers and has a model that is served."""
        try:
            names = await self._names(CHAT, is_fresh=True)
        except ApiError as error:
            detail = is_down_text(self.url)
            if error.code is not ErrorCode.ENGINE_DOWN:
                detail = f"Ollama at {self.url}: {error.message}"
            return EngineHealth(is_up=False, detail=detail)
        if not names:
            detail = f"Ollama at {self.url} has no model: ollama pull llama3.2"
            return EngineHealth(is_up=False, detail=detail)
        if self._model and match_model(self._model, names) is None:
            detail = f"Ollama at {self.url} has no model {self._model!r}"
            return EngineHealth(is_up=False, detail=f"{detail}: ollama pull it")
        count = "1 model" if len(names) == 1 else f"{len(names)} models"
        return EngineHealth(is_up=True, detail=f"Ollama at {self.url}, {count}")

    async def close(self) -> None:
        """Close the HTTP connections."""
        await self._client.close()

    def stream(self, request: PromptRequest) -> AsyncGenerator[AnswerEvent, None]:
        """Answer; closing this closes the HTTP request, which frees Ollama's slot."""
        return forced_calls(self._stream, request)

    async def _stream(
        self, request: PromptRequest
    ) -> AsyncGenerator[AnswerEvent, None]:
        began_s = time.monotonic()
        options = engine_options(request.options)
        make_body = raw_body if request.is_raw else chat_body
        make_body("", request, options)  # Refuses what is wrong before anything else.
        model = name_of(await self._find(request.model or self._model, CHAT))
        if not await self._is_loaded(model):
            yield Progress("loading", model=model)
        answer = OllamaAnswer(model, began_s)
        path = "/api/generate" if request.is_raw else "/api/chat"
        body = make_body(model, request, options)
        try:
            async with aclosing(self._client.parts(path, body)) as parts:
                async for part in parts:
                    for event in answer.events(part):
                        yield event
                    if answer.is_done:
                        break
        except Exception as error:
            raise failure(error, model) from None
        if not answer.is_done:
            raise engine_failed(
                "Ollama ended the answer before it was complete; ask again."
            )
        yield answer.finished(request.request_id)

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """Make vectors; the default model is the first that is made for it."""
        model = name_of(await self._find(request.model or "", EMBED))
        body: dict[str, object] = {"model": model, "input": list(request.inputs)}
        if request.dimensions is not None:
            body["dimensions"] = request.dimensions
        try:
            got = await self._client.vectors(body)
        except Exception as error:
            raise failure(error, model) from None
        if len(got.embeddings) != len(request.inputs):
            raise engine_failed("Ollama gave another number of vectors than of texts.")
        vectors = tuple(packed(vector) for vector in got.embeddings)
        return Embeddings(model, vectors, got.prompt_eval_count)

    async def _find(self, wanted: str, purpose: str) -> Model:
        """A local model for a purpose (``""``: any), or MODEL_MISSING."""
        if wanted.lower().endswith(CLOUD_SUFFIXES):
            raise model_missing(
                f"{wanted!r} is a cloud model: the prompt would leave the swarm. "
                "Choose a local one."
            )
        found = match_model(wanted, await self._names(purpose))
        if found is None:
            found = match_model(wanted, await self._names(purpose, is_fresh=True))
        if found is not None:
            return self._local[found]
        other = match_model(wanted, list(self._local)) if wanted else None
        if other is not None:
            names = await self._names(purpose)
            raise (embeds_only if purpose == CHAT else cannot_embed)(other, names)
        if not wanted:
            example = "nomic-embed-text" if purpose == EMBED else "llama3.2"
            raise model_missing(
                f"Ollama has no model yet; run 'ollama pull {example}' on the "
                "processor."
            )
        raise model_missing(
            f"Ollama has no model {wanted!r}; choose another, or run "
            f"'ollama pull {wanted}' on the processor."
        )

    async def _names(self, purpose: str, *, is_fresh: bool = False) -> list[str]:
        """Names of the local models for a purpose, in Ollama's order."""
        if is_fresh or time.monotonic() - self._listed_at_s > MODELS_FRESH_S:
            listed = await self._read("/api/tags")
            self._local = {name_of(one): one for one in listed if is_local(one)}
            self._listed_at_s = time.monotonic()
        return [
            name
            for name, model in self._local.items()
            if not purpose or purpose in capabilities_of(model)
        ]

    async def _is_loaded(self, model: str) -> bool:
        """Whether the answer can begin soon; True when it cannot be known."""
        try:
            loaded = await self._read("/api/ps")
        except ApiError:
            # Only a hint for the one who waits; the prompt itself reports failures.
            return True
        return any(model in (entry.model, entry.name) for entry in loaded)

    async def _read(self, path: str) -> list[Model]:
        try:
            data = await self._client.read(path)
            return msgspec.json.decode(data, type=Models).models or []
        except Exception as error:
            raise failure(error, "") from None
