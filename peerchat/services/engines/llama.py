"""Embedded llama.cpp as an engine: GGUF files, and no other program.

One model is loaded at a time, when it is first asked for. Each running answer has a
thread, in which `LlamaServer` blocks; stopping it frees the slot within milliseconds.
"""

from __future__ import annotations

import asyncio
import importlib.util
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import msgspec

from peerchat.api import (
    AnswerEvent,
    Embeddings,
    EmbedRequest,
    LoadedModel,
    ModelDetails,
    ModelInfo,
    Progress,
    PromptRequest,
)

from .base import (
    EngineHealth,
    engine_busy,
    engine_failed,
    invalid_request,
)
from .forced_calls import forced_calls
from .gguf_header import GgufHeader
from .llama_files import ModelFiles, capabilities_of
from .llama_server import LlamaServer, Piece
from .llama_thread import pieces_of
from .openai_answer import OpenAiAnswer, refusal
from .openai_answer import Piece as AnswerPiece
from .openai_request import Dialect, chat_body, raw_body
from .options import engine_options
from .turns import cannot_embed, check_needs, embeds_only
from .vectors import packed

WHO = "llama.cpp"
CONTEXT_TOKENS = 8192
"""For each slot, unless the model has less: memory for it is taken at once."""

INSTALL = "pip install 'peerchat[llama]'"
T = TypeVar("T")


def is_installed() -> bool:
    """Whether the extra is there; does not load it."""
    return importlib.util.find_spec("xllamacpp") is not None


class LlamaEngine:
    """Answers with models of this machine's files.

    Args:
        files: paths of GGUF files by the names they are served as.
        model: the default model; empty for the first.
        slots: answers at once; the processor admits no more.
        context_tokens: for each slot, at most.
        digest_of: SHA-256 of a file by name and path, empty where nobody knows it.
    """

    def __init__(
        self,
        files: Mapping[str, Path],
        *,
        model: str = "",
        slots: int = 1,
        context_tokens: int = CONTEXT_TOKENS,
        digest_of: Callable[[str, Path], str] = lambda _name, _path: "",
    ) -> None:
        self._files = ModelFiles(files, model, digest_of)
        self._slots = slots
        self._context_tokens = context_tokens
        self._threads = ThreadPoolExecutor(slots + 2, "llama")
        self._server: LlamaServer | None = None
        self._loaded = ""
        self._loading: asyncio.Future[None] | None = None
        self._running = 0

    @property
    def name(self) -> str:
        """The engine's short name."""
        return "llama"

    async def models(self) -> Sequence[ModelInfo]:
        """Files that chat, the default one first."""
        return [
            ModelInfo(name, self.name, context_tokens=self._context(header))
            for name, header in self._files.usable().items()
            if not header.is_embedder
        ]

    async def embedders(self) -> Sequence[str]:
        """Files of embedding models."""
        usable = self._files.usable()
        return [name for name, header in usable.items() if header.is_embedder]

    async def capabilities(self, model: str) -> frozenset[str]:
        """As the file's architecture and chat template have it."""
        return capabilities_of(self._files.find(model)[1])

    async def show(self, model: str) -> ModelDetails:
        """What the file says of itself, with the context that it is given here."""
        name, header = self._files.find(model)
        details = self._files.details(name)
        return replace(details, context_tokens=self._context(header))

    async def loaded(self) -> Mapping[str, LoadedModel] | None:
        """The one; it stays until another one is asked for."""
        if self._server is None:
            return {}
        header = self._files.find(self._loaded)[1]
        return {self._loaded: LoadedModel(context_tokens=self._context(header))}

    async def health(self) -> EngineHealth:
        """Up when the extra is installed and there is a file that can be used."""
        if not is_installed():
            return EngineHealth(False, f"llama.cpp is not installed: {INSTALL}")
        problem = self._files.problem()
        if problem:
            return EngineHealth(is_up=False, detail=problem)
        names = ", ".join(list(self._files.usable())[:3])
        return EngineHealth(is_up=True, detail=f"llama.cpp with {names}")

    async def close(self) -> None:
        """Unload; running answers end first."""
        server, self._server, self._loaded = self._server, None, ""
        if server is not None:
            await asyncio.get_running_loop().run_in_executor(None, server.close)
        self._threads.shutdown(wait=False)

    def stream(self, request: PromptRequest) -> AsyncGenerator[AnswerEvent, None]:
        """Answer; closing this waits until the slot is free, which is at once."""
        return forced_calls(self._stream, request)

    async def _stream(
        self, request: PromptRequest
    ) -> AsyncGenerator[AnswerEvent, None]:
        began_s = time.monotonic()
        options = engine_options(request.options)
        name, header = self._files.find(request.model)
        if header.is_embedder:
            raise embeds_only(name, [one.name for one in await self.models()])
        check_needs(request, capabilities_of(header), f"The model {name}")
        make_body = raw_body if request.is_raw else chat_body
        body = make_body(name, request, options, Dialect(is_llama=True))
        if self._loaded != name:
            yield Progress("loading", model=name)
        self._running += 1
        try:
            server = await self._load(name, header)
            load_s = time.monotonic() - began_s
            work = server.complete if request.is_raw else server.chat
            answer = OpenAiAnswer(name, began_s, WHO)
            async with aclosing(pieces_of(self._threads, work, body)) as pieces:
                async for piece in pieces:
                    for event in answer.events(_converted(piece, AnswerPiece)):
                        yield event
        finally:
            self._running -= 1
        end = answer.finished(request.request_id)
        yield replace(end, usage=replace(end.usage, load_s=load_s))

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """Make vectors with an embedding model."""
        wanted = request.model or next(iter(await self.embedders()), "")
        name, header = self._files.find(wanted)
        if not header.is_embedder:
            raise cannot_embed(name, await self.embedders())
        if request.dimensions is not None:
            raise invalid_request(f"The model {name} has one number of dimensions.")
        self._running += 1
        try:
            server = await self._load(name, header)
            body = {"input": list(request.inputs), "encoding_format": "float"}
            loop = asyncio.get_running_loop()
            answer = await loop.run_in_executor(self._threads, server.embed, body)
        except (ValueError, RuntimeError) as error:
            raise engine_failed(f"{WHO} failed: {error}") from None
        finally:
            self._running -= 1
        return _embeddings(name, answer)

    async def _load(self, name: str, header: GgufHeader) -> LlamaServer:
        """The loaded model; loads it unless another one is at work."""
        while self._loading is not None and not self._loading.done():
            await asyncio.wait([self._loading])
        if self._server is not None and self._loaded == name:
            return self._server
        if self._server is not None and self._running > 1:
            raise engine_busy(f"Another model than {name} is at work here; try soon.")
        if not is_installed():
            raise engine_failed(f"llama.cpp is not on the processor: {INSTALL}")
        loop = asyncio.get_running_loop()
        self._loading = loop.run_in_executor(self._threads, self._swap, name, header)
        # Who goes meanwhile leaves the loading to the next one.
        await asyncio.shield(self._loading)
        if self._server is None:
            raise engine_failed("The engine was closed.")
        return self._server

    def _swap(self, name: str, header: GgufHeader) -> None:
        """Unload what is loaded and load another; in a thread."""
        before, self._server, self._loaded = self._server, None, ""
        if before is not None:
            before.close()
        self._server = LlamaServer(
            self._files.path(name),
            slots=self._slots,
            context_tokens=self._context(header),
            is_embedder=header.is_embedder,
        )
        self._loaded = name

    def _context(self, header: GgufHeader) -> int:
        return min(header.context_tokens or self._context_tokens, self._context_tokens)


class _Vector(msgspec.Struct):
    embedding: list[float]


class _Tokens(msgspec.Struct):
    prompt_tokens: int | None = None


class _Embedded(msgspec.Struct):
    data: list[_Vector] = []
    usage: _Tokens | None = None
    error: object = None


def _embeddings(name: str, answer: Piece) -> Embeddings:
    got = _converted(answer, _Embedded)
    if got.error is not None:
        raise refusal(0, got.error, name, WHO)
    vectors = tuple(packed(one.embedding) for one in got.data)
    return Embeddings(name, vectors, got.usage.prompt_tokens if got.usage else None)


def _converted(value: object, kind: type[T]) -> T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise engine_failed(f"{WHO} sent something unexpected: {error}") from None
