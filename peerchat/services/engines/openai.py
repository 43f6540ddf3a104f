"""Any server that speaks OpenAI's API as an engine: llama.cpp, vLLM, LM Studio, ….

Closing the HTTP request is how such servers are stopped. The `openai` package is not
used: it would be the only reader of what is one line of JSON here.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from urllib.parse import urlsplit

import httpx
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
    PromptRequest,
)

from .base import (
    EMBED,
    EngineHealth,
    engine_down,
    engine_failed,
    engine_timeout,
    match_model,
    model_missing,
)
from .engine_http import (
    FIRST_BYTE_TIMEOUT_S,
    STALL_TIMEOUT_S,
    EngineHttp,
    EngineTimeouts,
    HttpRefusal,
    Silence,
    is_unreachable,
)
from .forced_calls import forced_calls
from .openai_answer import OpenAiAnswer, Piece, refusal
from .openai_models import Entry, Listing, capabilities_of, details_of, entries_of
from .openai_request import Dialect, chat_body, raw_body
from .options import engine_options
from .turns import check_needs, embeds_only
from .vectors import packed

WHO = "The engine"
MODELS_FRESH_S = 15.0


class _Vector(msgspec.Struct):
    embedding: list[float]
    index: int = 0


class _Tokens(msgspec.Struct):
    prompt_tokens: int | None = None


class _Embedded(msgspec.Struct):
    data: list[_Vector]
    usage: _Tokens | None = None


class OpenAiEngine:
    """Answers with the models of one server.

    Args:
        url: such as ``http://127.0.0.1:8080/v1``; without a path, ``/v1`` is added.
        key: bearer token, where the server wants one.
        model: the default model; empty for the first that the server lists.
        first_byte_timeout_s: longest silence before an answer begins.
        stall_timeout_s: longest silence within an answer.
    """

    def __init__(
        self,
        *,
        url: str,
        key: str = "",
        model: str = "",
        first_byte_timeout_s: float = FIRST_BYTE_TIMEOUT_S,
        stall_timeout_s: float = STALL_TIMEOUT_S,
    ) -> None:
        self.url = api_url(url)
        self._model = model
        self._http = EngineHttp(
            self.url, EngineTimeouts(first_byte_timeout_s, stall_timeout_s), key=key
        )
        self._entries: dict[str, Entry] = {}
        self._listed_at_s = -MODELS_FRESH_S

    @property
    def name(self) -> str:
        """The engine's short name."""
        return "openai"

    async def models(self) -> Sequence[ModelInfo]:
        """What ``/models`` lists and is not known to be for vectors only."""
        entries = await self._list()
        if self._model:
            entries = sorted(entries, key=lambda entry: entry.id != self._model)
        return [
            ModelInfo(
                entry.id,
                self.name,
                context_tokens=entry.context_tokens,
                details=details_of(entry),
            )
            for entry in entries
            if capabilities_of(entry) != {EMBED}
        ]

    async def embedders(self) -> Sequence[str]:
        """Those for vectors only first: the others may or may not."""
        entries = await self._list()
        return [
            entry.id
            for entry in sorted(entries, key=lambda e: capabilities_of(e) != {EMBED})
            if EMBED in capabilities_of(entry)
        ]

    async def capabilities(self, model: str) -> frozenset[str]:
        """What the server tells, else what such servers can do."""
        return capabilities_of(await self._find(model))

    async def show(self, model: str) -> ModelDetails:
        """What ``/models`` tells."""
        return details_of(await self._find(model))

    async def loaded(self) -> Mapping[str, LoadedModel] | None:
        """Such servers do not tell."""
        return None

    async def health(self) -> EngineHealth:
        """Up when the server answers and lists the model."""
        try:
            entries = await self._list()
        except ApiError as error:
            detail = f"engine at {self.url}: {error.message}"
            if error.code is ErrorCode.ENGINE_DOWN:
                detail = f"no engine answers at {self.url}: start it"
            return EngineHealth(is_up=False, detail=detail)
        names = [entry.id for entry in entries]
        if not names:
            return EngineHealth(False, f"engine at {self.url} serves no model")
        if self._model and self._model not in names:
            detail = f"engine at {self.url} has no model {self._model!r}"
            return EngineHealth(is_up=False, detail=f"{detail}: it has {names[0]!r}")
        count = "1 model" if len(names) == 1 else f"{len(names)} models"
        return EngineHealth(is_up=True, detail=f"OpenAI API at {self.url}, {count}")

    async def close(self) -> None:
        """Close the HTTP connections."""
        await self._http.close()

    async def stream(self, request: PromptRequest) -> AsyncGenerator[AnswerEvent, None]:
        """Answer; closing this closes the HTTP request."""
        options = engine_options(request.options)
        make_body = raw_body if request.is_raw else chat_body
        make_body("", request, options, Dialect())  # Refuses what is wrong first.
        entry = await self._find(request.model or "")
        if capabilities_of(entry) == {EMBED}:
            raise embeds_only(entry.id, [one.name for one in await self.models()])
        check_needs(request, capabilities_of(entry), f"The model {entry.id}")

        def answer_of(asked: PromptRequest) -> AsyncGenerator[AnswerEvent, None]:
            return self._stream(asked, entry)

        # Others know the word `tool_choice`, and what they refuse is told.
        is_llama = entry.is_llama
        events = forced_calls(answer_of, request) if is_llama else answer_of(request)
        async with aclosing(events):
            async for event in events:
                yield event

    async def _stream(
        self, request: PromptRequest, entry: Entry
    ) -> AsyncGenerator[AnswerEvent, None]:
        began_s = time.monotonic()
        options = engine_options(request.options)
        make_body = raw_body if request.is_raw else chat_body
        dialect = Dialect(is_llama=entry.is_llama)
        body = make_body(entry.id, request, options, dialect)
        path = "/completions" if request.is_raw else "/chat/completions"
        answer = OpenAiAnswer(entry.id, began_s, WHO)
        try:
            async with aclosing(self._http.lines(path, body)) as lines:
                async for line in lines:
                    data = data_of(line)
                    if data == b"[DONE]":
                        break
                    if data:
                        piece = msgspec.json.decode(data, type=Piece)
                        for event in answer.events(piece):
                            yield event
        except Exception as error:
            raise failure(error, entry.id) from None
        yield answer.finished(request.request_id)

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """Make vectors with ``/embeddings``."""
        wanted = request.model or next(iter(await self.embedders()), "")
        model = (await self._find(wanted)).id
        body: dict[str, object] = {"model": model, "input": list(request.inputs)}
        if request.dimensions is not None:
            body["dimensions"] = request.dimensions
        try:
            data = await self._http.post("/embeddings", body)
            got = msgspec.json.decode(data, type=_Embedded)
        except Exception as error:
            raise failure(error, model) from None
        if len(got.data) != len(request.inputs):
            raise engine_failed(f"{WHO} gave another number of vectors than of texts.")
        ordered = sorted(got.data, key=lambda vector: vector.index)
        vectors = tuple(packed(vector.embedding) for vector in ordered)
        return Embeddings(
            model, vectors, got.usage.prompt_tokens if got.usage else None
        )

    async def _find(self, wanted: str) -> Entry:
        wanted = wanted or self._model
        if time.monotonic() - self._listed_at_s > MODELS_FRESH_S:
            await self._list()
        found = match_model(wanted, list(self._entries))
        if found is None:
            await self._list()
            found = match_model(wanted, list(self._entries))
        if found is None:
            known = ", ".join(list(self._entries)[:3])
            raise model_missing(
                f"{WHO} has no model {wanted!r}; it has {known}."
                if known
                else f"{WHO} serves no model."
            )
        return self._entries[found]

    async def _list(self) -> list[Entry]:
        try:
            data = await self._http.get("/models")
            entries = entries_of(msgspec.json.decode(data, type=Listing))
        except Exception as error:
            raise failure(error, "") from None
        self._entries = {entry.id: entry for entry in entries}
        self._listed_at_s = time.monotonic()
        return entries


def api_url(url: str) -> str:
    """Where the API begins, without a slash at the end."""
    text = url.strip().rstrip("/")
    if "://" not in text:
        text = f"http://{text}"
    return text if urlsplit(text).path else f"{text}/v1"


def data_of(line: bytes) -> bytes:
    """The data of a line of server-sent events; nothing for comments and the like.

    llama.cpp names the event of a late error in the field's place: ``error: {…}``.
    """
    name, _, value = line.partition(b":")
    if name == b"error":
        return b'{"error":' + value.strip() + b"}"
    return value.strip() if name == b"data" else b""


def failure(error: Exception, model: str) -> ApiError:
    """What an exception means for the one who asked."""
    match error:
        case ApiError():
            return error
        case HttpRefusal():
            return refusal(error.status, error.text, model, WHO)
        case Silence():
            return engine_timeout(
                f"{WHO} was silent for {error.limit_s:.0f} s and was stopped; ask "
                "again, or look at its log."
            )
        case _ if is_unreachable(error):
            return engine_down(
                f"{WHO} does not answer on the processor; start it there, or start "
                "the processor with another --engine."
            )
        case httpx.HTTPError():
            return engine_failed(
                f"{WHO} closed the connection during the answer; ask again."
            )
        case _:
            return engine_failed(
                f"{WHO} sent something unexpected ({type(error).__name__}); check "
                "that PEERCHAT_ENGINE_URL names an OpenAI-compatible server."
            )
