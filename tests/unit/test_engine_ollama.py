"""The Ollama engine against a stub that has the real one's oddities."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator

import ollama
import pytest

from peerchat.api import (
    AnswerEvent,
    ApiError,
    ErrorCode,
    Finished,
    Fragment,
    Message,
    Progress,
    PromptRequest,
    ToolCalls,
)
from peerchat.services.engines.ollama import OllamaEngine
from peerchat.services.engines.ollama_answer import OllamaAnswer
from peerchat.services.engines.ollama_client import ChatPart
from peerchat.services.engines.ollama_models import client_url
from peerchat.testing.ollama_behaviour import STANDARD_MODELS, Behaviour
from peerchat.testing.ollama_stub import OllamaStub


@pytest.fixture
async def stub() -> AsyncIterator[OllamaStub]:
    async with OllamaStub() as running:
        yield running


@pytest.fixture
async def engine(stub: OllamaStub) -> AsyncIterator[OllamaEngine]:
    made = OllamaEngine(host=stub.url, first_byte_timeout_s=30, stall_timeout_s=30)
    yield made
    await made.close()


def request(model: str | None = None, **fields: object) -> PromptRequest:
    fields.setdefault("prompt", "why?")
    return PromptRequest(request_id="r1", model=model, **fields)  # type: ignore[arg-type]


async def collect(
    engine: OllamaEngine, asked: PromptRequest
) -> tuple[list[AnswerEvent], ApiError | None]:
    events: list[AnswerEvent] = []
    try:
        async for event in engine.stream(asked):
            events.append(event)  # noqa: PERF401, kept when it fails later
    except ApiError as error:
        return events, error
    return events, None


def text_of(events: list[AnswerEvent], *, is_thinking: bool = False) -> str:
    return "".join(
        event.text
        for event in events
        if isinstance(event, Fragment) and event.is_thinking == is_thinking
    )


async def test_streams_with_the_default_model(
    stub: OllamaStub, engine: OllamaEngine
) -> None:
    events, error = await collect(
        engine, request(history=(Message("user", "a"), Message("assistant", "b")))
    )
    assert error is None
    assert text_of(events) == "Hello from the stub!"
    end = events[-1]
    assert isinstance(end, Finished)
    assert end.request_id == "r1"
    assert end.usage.model == "llama3.2:latest"
    assert end.usage.finish_reason == "stop"
    assert end.usage.answer_tokens == 5
    assert end.usage.prompt_tokens
    assert end.usage.tokens_per_s == pytest.approx(100.0)
    assert end.usage.first_fragment_s is not None
    sent = stub.state.requests[0]
    assert [m["content"] for m in sent["messages"]] == ["a", "b", "why?"]
    assert sent["options"] == {"num_predict": 4096}
    assert "keep_alive" not in sent
    assert "think" not in sent


async def test_says_when_the_model_must_be_loaded_first(engine: OllamaEngine) -> None:
    first, _ = await collect(engine, request("load"))
    again, _ = await collect(engine, request("load"))
    assert first[0] == Progress("loading", model="load:latest")
    assert isinstance(again[0], Fragment)


async def test_passes_on_only_what_is_allowed(
    stub: OllamaStub, engine: OllamaEngine
) -> None:
    options = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "seed": 7,
        "stop": ["END"],
        "max_tokens": 10**9,
        "num_ctx": 131072,
        "num_gpu": 0,
        "keep_alive": -1,
        "mirostat": 2,
        "think": False,
    }
    _, error = await collect(engine, request(options=options))
    assert error is None
    await collect(engine, request(options={"num_ctx": 1}))
    sent = stub.state.requests[0]
    assert sent["options"] == {
        "num_predict": 16384,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "seed": 7,
        "stop": ["END"],
    }
    assert sent["think"] is False
    assert "keep_alive" not in sent
    assert stub.state.reloads == 0


@pytest.mark.parametrize(
    ("seed", "sent"), [(-1, -1), (2**31 - 1, 2**31 - 1), (2**31 + 5, 5), (2**53, 0)]
)
async def test_large_seeds_are_folded(
    stub: OllamaStub, engine: OllamaEngine, seed: int, sent: int
) -> None:
    _, error = await collect(engine, request(options={"seed": seed}))
    assert error is None
    assert stub.state.requests[0]["options"]["seed"] == sent


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": "hot"},
        {"temperature": 3},
        {"temperature": float("nan")},
        {"temperature": True},
        {"top_p": 1.5},
        {"top_k": 1.5},
        {"top_k": -1},
        {"seed": "x"},
        {"stop": 5},
        {"stop": ["x"] * 9},
        {"stop": [""]},
        {"num_predict": 0},
        {"num_predict": "many"},
        {"num_predict": 2.0},
    ],
)
async def test_refuses_bad_options_before_asking_ollama(
    stub: OllamaStub, engine: OllamaEngine, options: dict[str, object]
) -> None:
    events, error = await collect(engine, request(options=options))
    assert events == []
    assert error is not None
    assert error.code is ErrorCode.INVALID_REQUEST
    assert error.status == 400
    assert stub.state.requests == []


async def test_num_predict_limits_the_answer(engine: OllamaEngine) -> None:
    events, _ = await collect(engine, request(options={"num_predict": 2}))
    assert text_of(events) == "Hello from"
    end = events[-1]
    assert isinstance(end, Finished)
    assert end.usage.finish_reason == "length"


async def test_unlimited_is_capped(stub: OllamaStub, engine: OllamaEngine) -> None:
    await collect(engine, request(options={"num_predict": -1}))
    assert stub.state.requests[0]["options"]["num_predict"] == 16384


async def test_thinking_is_marked(engine: OllamaEngine) -> None:
    events, _ = await collect(engine, request("think"))
    assert text_of(events, is_thinking=True) == "Let me see."
    assert text_of(events) == "Hello from the stub!"


async def test_text_of_the_last_part_is_kept(engine: OllamaEngine) -> None:
    events, _ = await collect(engine, request("tail"))
    assert text_of(events) == "Hello from the stub! The end."


async def test_length_is_reported(engine: OllamaEngine) -> None:
    events, _ = await collect(engine, request("length"))
    end = events[-1]
    assert isinstance(end, Finished)
    assert end.usage.finish_reason == "length"


@pytest.mark.parametrize(
    ("model", "code", "words", "text"),
    [
        ("eof", ErrorCode.ENGINE_FAILED, "before it was complete", "Hello from"),
        ("drop", ErrorCode.ENGINE_FAILED, "closed the connection", "Hello from"),
        ("error", ErrorCode.ENGINE_FAILED, "unexpectedly stopped", "Hello from"),
        ("garbage", ErrorCode.ENGINE_FAILED, "unexpected", "Hello from"),
        ("broken", ErrorCode.ENGINE_FAILED, "unexpectedly stopped", ""),
        ("busy", ErrorCode.BUSY, "too many requests", ""),
        ("nothing", ErrorCode.MODEL_MISSING, "ollama pull nothing", ""),
        ("nomic-embed-text", ErrorCode.INVALID_REQUEST, "llama3.2:latest", ""),
        ("gpt-oss:120b-cloud", ErrorCode.MODEL_MISSING, "cloud", ""),
        ("x:cloud", ErrorCode.MODEL_MISSING, "cloud", ""),
        ("hidden-remote", ErrorCode.MODEL_MISSING, "has no model", ""),
    ],
)
async def test_failures_say_what_happened(
    engine: OllamaEngine, model: str, code: ErrorCode, words: str, text: str
) -> None:
    events, error = await collect(engine, request(model))
    assert error is not None
    assert error.code is code
    assert words in error.message
    assert "\n" not in error.message
    assert text_of(events) == text
    assert not any(isinstance(event, Finished) for event in events)


async def test_prompts_for_remote_models_never_leave(
    stub: OllamaStub, engine: OllamaEngine
) -> None:
    for model in ("gpt-oss:120b-cloud", "hidden-remote", "x:cloud"):
        await collect(engine, request(model))
    assert stub.state.requests == []


async def test_silence_before_the_first_byte_ends(stub: OllamaStub) -> None:
    engine = OllamaEngine(host=stub.url, first_byte_timeout_s=0.1)
    events, error = await collect(engine, request("silent"))
    assert [type(event) for event in events] == [Progress]
    assert error is not None
    assert error.code is ErrorCode.TIMEOUT
    await stub.wait_for(lambda state: state.active == 0)
    await engine.close()


async def test_a_stall_ends(stub: OllamaStub) -> None:
    engine = OllamaEngine(host=stub.url, stall_timeout_s=0.1)
    events, error = await collect(engine, request("stall"))
    assert text_of(events) == "Hello from"
    assert error is not None
    assert error.code is ErrorCode.TIMEOUT
    await stub.wait_for(lambda state: state.active == 0)
    await engine.close()


async def test_closing_the_answer_frees_the_slot(
    stub: OllamaStub, engine: OllamaEngine
) -> None:
    answer = engine.stream(request("slow"))
    async for event in answer:
        if isinstance(event, Fragment):
            break
    assert stub.state.active == 1
    await answer.aclose()
    await asyncio.wait_for(stub.wait_for(lambda state: state.active == 0), 5)
    assert stub.state.closed_by_client == 1
    assert stub.state.completed == 0


async def test_cancelling_in_the_silence_frees_the_slot(
    stub: OllamaStub, engine: OllamaEngine
) -> None:
    waiting = asyncio.ensure_future(collect(engine, request("silent")))
    await stub.wait_for(lambda state: state.active == 1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.wait_for(stub.wait_for(lambda state: state.active == 0), 5)
    assert stub.state.closed_by_client == 1


async def test_cancelling_while_ollama_queues_leaves_the_queue(
    stub: OllamaStub, engine: OllamaEngine
) -> None:
    first = asyncio.ensure_future(collect(engine, request("slow")))
    await stub.wait_for(lambda state: state.active == 1)
    second = asyncio.ensure_future(collect(engine, request("slow")))
    await stub.wait_for(lambda state: state.waiting == 1)
    second.cancel()
    await asyncio.wait_for(stub.wait_for(lambda state: state.waiting == 0), 5)
    assert stub.state.active == 1
    first.cancel()
    await asyncio.gather(first, second, return_exceptions=True)


async def test_lists_only_local_chat_models_default_first(stub: OllamaStub) -> None:
    engine = OllamaEngine(host=stub.url, model="think")
    names = [model.name for model in await engine.models()]
    assert names[0] == "think:latest"
    hidden = {"gpt-oss:120b-cloud", "hidden-remote:latest", "nomic-embed-text:latest"}
    assert set(names) == set(STANDARD_MODELS) - hidden
    await engine.close()


async def test_older_servers_without_capabilities_are_judged_by_family() -> None:
    models = {
        "chat:latest": Behaviour(),
        "nomic-embed-text:latest": Behaviour(capabilities=("embedding",)),
    }
    async with OllamaStub(models) as stub:
        whole = stub._entry

        def older(name: str) -> dict[str, object]:
            entry = whole(name)
            del entry["capabilities"]
            return entry

        stub._entry = older  # type: ignore[method-assign]
        engine = OllamaEngine(host=stub.url)
        assert [model.name for model in await engine.models()] == ["chat:latest"]
        await engine.close()


async def test_a_default_model_that_is_missing_is_told(stub: OllamaStub) -> None:
    engine = OllamaEngine(host=stub.url, model="mistral")
    _, error = await collect(engine, request())
    assert error is not None
    assert error.code is ErrorCode.MODEL_MISSING
    assert "ollama pull mistral" in error.message
    health = await engine.health()
    assert not health.is_up
    assert "mistral" in health.detail
    await engine.close()


async def test_a_model_pulled_later_is_found(
    stub: OllamaStub, engine: OllamaEngine
) -> None:
    _, error = await collect(engine, request("new"))
    assert error is not None
    stub.models["new:latest"] = dataclasses.replace(STANDARD_MODELS["llama3.2:latest"])
    _, error = await collect(engine, request("new"))
    assert error is None


async def test_a_model_deleted_meanwhile_is_told(
    stub: OllamaStub, engine: OllamaEngine
) -> None:
    await collect(engine, request("tail"))
    del stub.models["tail:latest"]
    _, error = await collect(engine, request("tail"))
    assert error is not None
    assert error.code is ErrorCode.MODEL_MISSING


async def test_no_model_at_all() -> None:
    async with OllamaStub({}) as stub:
        engine = OllamaEngine(host=stub.url)
        _, error = await collect(engine, request())
        assert error is not None
        assert error.code is ErrorCode.MODEL_MISSING
        assert not (await engine.health()).is_up
        await engine.close()


async def test_down_and_up_again(stub: OllamaStub) -> None:
    engine = OllamaEngine(host=stub.url)
    await stub.close()
    _, error = await collect(engine, request())
    assert error is not None
    assert error.code is ErrorCode.ENGINE_DOWN
    assert "ollama serve" in error.message
    assert "127.0.0.1" not in error.message
    health = await engine.health()
    assert not health.is_up
    assert stub.url in health.detail
    await stub.start()
    _, error = await collect(engine, request())
    assert error is None
    assert (await engine.health()).is_up
    await engine.close()


async def test_gone_after_the_models_were_read(stub: OllamaStub) -> None:
    engine = OllamaEngine(host=stub.url)
    await collect(engine, request())
    await stub.close()
    _, error = await collect(engine, request())
    assert error is not None
    assert error.code is ErrorCode.ENGINE_DOWN
    await engine.close()


async def test_refuses_an_unknown_role(engine: OllamaEngine) -> None:
    _, error = await collect(engine, request(history=(Message("wizard", "x"),)))
    assert error is not None
    assert error.code is ErrorCode.INVALID_REQUEST


async def test_something_else_on_the_port() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    engine = OllamaEngine(host=f"127.0.0.1:{port}")
    _, error = await collect(engine, request())
    assert error is not None
    assert error.code is ErrorCode.ENGINE_FAILED
    assert "OLLAMA_HOST" in error.message
    await engine.close()
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:8080", "http://127.0.0.1:8080"),
        (":8080", "http://127.0.0.1:8080"),
        ("[::]:8080", "http://127.0.0.1:8080"),
        ("[::1]", "http://[::1]:11434"),
        ("gpu.example", "http://gpu.example:11434"),
        ("http://gpu.example", "http://gpu.example:80"),
        ("https://gpu.example/ollama/", "https://gpu.example:443/ollama"),
        ("127.0.0.1:notaport", "http://127.0.0.1:11434"),
    ],
)
def test_where_ollama_is(host: str, url: str) -> None:
    assert client_url(host) == url


def test_the_environment_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "10.1.2.3:99")
    assert OllamaEngine().url == "http://10.1.2.3:99"
    assert OllamaEngine(host="gpu").url == "http://gpu:11434"


async def test_a_function_with_a_nested_schema_reaches_ollama_whole(
    stub: OllamaStub, engine: OllamaEngine
) -> None:
    stub.models["fn:latest"] = Behaviour(capabilities=("completion", "tools"))
    tool = {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {
                "type": "object",
                "properties": {
                    "when": {
                        "type": "object",
                        "properties": {"day": {"type": "string", "pattern": "^x"}},
                        "additionalProperties": False,
                    },
                    "where": {"type": "array", "items": {"enum": ["a", 1, None]}},
                    "how": {"anyOf": [{"type": "null"}, {"type": "number"}]},
                },
            },
            "strict": True,
        },
    }
    _, error = await collect(engine, request("fn", tools=(tool,)))
    assert error is None
    assert stub.state.requests[0]["tools"] == [tool]


async def test_functions_keep_their_ids() -> None:
    said = {
        "model": "m",
        "message": {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "call_7", "function": {"name": "f", "arguments": {"a": [1]}}}
            ],
        },
        "done": False,
    }
    (event,) = OllamaAnswer("m", 0.0).events(ChatPart.model_validate(said))
    assert isinstance(event, ToolCalls)
    assert [(one.call_id, one.name, one.arguments) for one in event.calls] == [
        ("call_7", "f", '{"a": [1]}')
    ]


async def test_it_is_asked_through_the_package(engine: OllamaEngine) -> None:
    assert isinstance(engine._client, ollama.AsyncClient)
