"""One face for every engine under test: what it serves, and how it is watched."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from peerchat.api import AnswerEvent, Finished, Fragment, PromptRequest
from peerchat.services.engines.base import Engine
from peerchat.services.engines.guide import GuideEngine
from peerchat.services.engines.llama import LlamaEngine
from peerchat.services.engines.ollama import OllamaEngine
from peerchat.services.engines.openai import OpenAiEngine
from peerchat.testing.ollama_behaviour import Behaviour
from peerchat.testing.ollama_stub import OllamaStub
from peerchat.testing.openai_stub import OpenAiStub, Thinking
from tests.tiny_gguf import Shape, tiny_model

KINDS = ("ollama", "openai", "llama-http", "llama", "guide")
PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "How the weather is.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "when": {"type": "object", "properties": {"day": {"type": "string"}}},
            },
            "required": ["city"],
        },
    },
}
SCHEMA = {
    "type": "object",
    "properties": {
        "is_sunny": {"type": "boolean"},
        "wind": {"enum": ["weak", "strong"]},
    },
    "required": ["is_sunny", "wind"],
    "additionalProperties": False,
}
"""Has no text in it: a model that talks nonsense would never end one."""

PICK_TOOL = {
    "type": "function",
    "function": {"name": "pick", "parameters": SCHEMA},
}
"""For the same models."""

WORDS = tuple(f"word{n} " for n in range(12))


async def _nothing() -> None:
    pass


@dataclass
class Harness:
    """An engine that runs, with one slot."""

    engine: Engine
    is_idle: Callable[[], Awaitable[None]] = _nothing
    """Returns once nothing runs."""
    long_model: str | None = None
    """Goes on for many seconds, if the default one does not."""
    tools_model: str | None = None
    embed_model: str | None = None
    has_calls: bool = False
    """It is certain to call functions; a real model may or may not."""
    keeps_schema: bool = False
    """It really keeps to one; a stub is only told of it."""
    options: dict[str, Any] = field(default_factory=dict)

    def request(
        self, prompt: str = "why is the sky blue?", **fields: Any
    ) -> PromptRequest:
        """A request whose answer is the same each time, and short."""
        options = {**self.options, **fields.pop("options", {})}
        return PromptRequest(prompt, "r1", options=options, **fields)

    async def collect(self, request: PromptRequest) -> list[AnswerEvent]:
        return [event async for event in self.engine.stream(request)]


def text_of(events: list[AnswerEvent], *, is_thinking: bool = False) -> str:
    return "".join(
        event.text
        for event in events
        if isinstance(event, Fragment) and event.is_thinking is is_thinking
    )


def end_of(events: list[AnswerEvent]) -> Finished:
    (end,) = (event for event in events if isinstance(event, Finished))
    assert events[-1] is end
    return end


@asynccontextmanager
async def harness(kind: str) -> AsyncIterator[Harness]:
    """Start what the engine needs, and the engine."""
    async with _MAKERS[kind]() as made:
        try:
            yield made
        finally:
            await made.engine.close()


@asynccontextmanager
async def _ollama() -> AsyncIterator[Harness]:
    models = {
        "words:latest": Behaviour(WORDS),
        "tools:latest": Behaviour(
            WORDS,
            calls=(("weather", {"city": "Graz"}), ("weather", {"city": "Wien"})),
            capabilities=("completion", "tools", "vision"),
        ),
        "long:latest": Behaviour(("tick ",) * 10_000, delay_s=0.005),
        "embed:latest": Behaviour(capabilities=("embedding",)),
    }
    async with OllamaStub(models) as stub:
        yield Harness(
            OllamaEngine(host=stub.url),
            lambda: stub.wait_for(lambda state: not state.active),
            long_model="long",
            tools_model="tools",
            embed_model="embed",
            has_calls=True,
        )


@asynccontextmanager
async def _openai() -> AsyncIterator[Harness]:
    def call(index: int, **function: str) -> dict[str, Any]:
        part = {"index": index, "function": function}
        if "name" in function:
            part["id"] = f"c{index}"
        return {"choices": [{"index": 0, "delta": {"tool_calls": [part]}}]}

    models = {
        "words": WORDS,
        "tools": [
            Thinking("hm"),
            call(0, name="weather", arguments=""),
            call(0, arguments='{"city": '),
            call(1, name="weather", arguments='{"city": "Wien"}'),
            call(0, arguments='"Graz"}'),
        ],
        "long": ["tick "] * 10_000,
        "embed": WORDS,
    }
    async with OpenAiStub(models, key="secret", delay_s=0.0) as stub:
        yield Harness(
            OpenAiEngine(url=stub.url, key="secret"),
            lambda: stub.wait_for(lambda stub: not stub.active),
            long_model="long",
            tools_model="tools",
            embed_model="embed",
            has_calls=True,
        )


GREEDY = {"temperature": 0, "num_predict": 60, "seed": 1}


@asynccontextmanager
async def _llama_http() -> AsyncIterator[Harness]:
    """The HTTP server of the real llama.cpp."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(tiny_model())
    params.n_parallel = 1
    params.n_ctx = 8192
    params.n_batch = params.n_ubatch = 256
    params.cpuparams.n_threads = 1
    params.cache_ram_mib = 0
    params.cache_prompt = False
    params.warmup = params.ui = False
    params.verbosity = 0
    params.api_keys = ["secret"]
    server = xllamacpp.Server(params)
    engine = OpenAiEngine(url=f"{server.listening_address}/v1", key="secret")
    yield Harness(engine, keeps_schema=True, options=GREEDY)
    del server


@asynccontextmanager
async def _llama() -> AsyncIterator[Harness]:
    files = {
        "tiny": tiny_model(),
        "vectors": tiny_model(Shape(is_embedder=True)),
    }
    engine = LlamaEngine(files, slots=1)
    yield Harness(engine, embed_model="vectors", keeps_schema=True, options=GREEDY)


@asynccontextmanager
async def _guide() -> AsyncIterator[Harness]:
    yield Harness(GuideEngine())


_MAKERS = {
    "ollama": _ollama,
    "openai": _openai,
    "llama-http": _llama_http,
    "llama": _llama,
    "guide": _guide,
}
