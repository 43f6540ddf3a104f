"""OpenAI's API on the bridge, over a scripted swarm."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import struct
from dataclasses import replace

import aiohttp
import pytest

from peerchat.api import (
    ApiError,
    Embeddings,
    ErrorCode,
    Fragment,
    Message,
    Progress,
    Role,
    ToolCall,
    ToolCalls,
)
from peerchat.services.bridge import streaming
from peerchat.services.bridge.answering import BODY_BYTES_MAX
from tests.bridge_world import BEARER, Bridge, Starter, bridge, start
from tests.scripted_swarm import (
    TOKEN,
    ScriptedPeer,
    ScriptedSwarm,
    finished,
    gateway,
    healthy,
)

__all__ = ["bridge", "start"]

CHAT = "/v1/chat/completions"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
HI = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
TOOL = {"type": "function", "function": {"name": "now", "parameters": {}}}
VECTORS = (struct.pack("<2f", 0.5, -1),) * 2
CALL = ToolCall("call_1", "now", '{"zone":"UTC"}')


async def lines_of(response: aiohttp.ClientResponse) -> list[str]:
    assert response.status == 200
    assert response.content_type == "text/event-stream"
    text = await response.text()
    assert text.endswith("data: [DONE]\n\n")
    return text.removesuffix("data: [DONE]\n\n").strip().split("\n\n")


async def chunks(bridge: Bridge, body: dict, path: str = CHAT) -> list[dict]:
    async with bridge.session.post(
        bridge.url + path, json={**body, "stream": True}, headers=BEARER
    ) as response:
        lines = await lines_of(response)
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def asked(bridge: Bridge):
    (answer,) = bridge.gateway.answers
    return answer.request


def check_error(body: dict, words: str, kind: str = "invalid_request_error") -> str:
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["type"] == kind
    assert words in body["error"]["message"]
    return body["error"]["code"]


# Answers


async def test_a_whole_answer(bridge: Bridge) -> None:
    thought = Fragment("hm", is_thinking=True)
    bridge.gateway.steps = [thought, Fragment("Hello"), Fragment(" you"), finished()]
    status, body, response = await bridge.post(CHAT, HI, **BEARER)
    assert status == 200
    assert body.pop("created") > 0
    identifier = response.headers["X-Request-Id"]
    assert body.pop("peerchat")["request_id"] == identifier
    assert body == {
        "id": f"chatcmpl-{identifier}",
        "object": "chat.completion",
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "Hello you",
                    "refusal": None,
                    "reasoning_content": "hm",
                },
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 0, "completion_tokens": 2, "total_tokens": 2},
    }
    assert asked(bridge).prompt == "Hi"
    assert asked(bridge).model == "m"


async def test_a_stream(bridge: Bridge) -> None:
    thought = Fragment("hm", is_thinking=True)
    bridge.gateway.steps = [thought, Fragment("Hel\nlo"), finished()]
    found = await chunks(bridge, HI)
    assert {chunk["id"] for chunk in found} == {found[0]["id"]}
    assert {chunk["object"] for chunk in found} == {"chat.completion.chunk"}
    assert [chunk["choices"][0]["delta"] for chunk in found] == [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "hm"},
        {"content": "Hel\nlo"},
        {},
    ]
    assert [c["choices"][0]["finish_reason"] for c in found] == [*[None] * 3, "stop"]
    assert not any("usage" in chunk for chunk in found)


async def test_identifiers_are_unique(bridge: Bridge) -> None:
    found = {(await bridge.post(CHAT, HI, **BEARER))[1]["id"] for _ in range(5)}
    assert len(found) == 5


async def test_a_stream_with_usage(bridge: Bridge) -> None:
    usage = {"stream_options": {"include_usage": True}}
    *before, last = await chunks(bridge, {**HI, **usage})
    assert all(chunk["usage"] is None for chunk in before)
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 2


async def test_the_end_says_why(bridge: Bridge) -> None:
    end = finished()
    end = replace(end, usage=replace(end.usage, finish_reason="length"))
    bridge.gateway.steps = [Fragment("x"), end]
    assert (await chunks(bridge, HI))[-1]["choices"][0]["finish_reason"] == "length"


async def test_calls_of_functions(bridge: Bridge) -> None:
    other = replace(CALL, call_id="call_2")
    bridge.gateway.steps = [ToolCalls((CALL,)), ToolCalls((other,)), finished()]
    _, body, _ = await bridge.post(CHAT, {**HI, "tools": [TOOL]}, **BEARER)
    (choice,) = body["choices"]
    shown = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "now", "arguments": '{"zone":"UTC"}'},
    }
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert choice["message"]["tool_calls"] == [shown, {**shown, "id": "call_2"}]
    assert asked(bridge).tools == (TOOL,)
    found = await chunks(bridge, {**HI, "tools": [TOOL]})
    deltas = [chunk["choices"][0]["delta"] for chunk in found]
    assert deltas[1] == {"tool_calls": [{"index": 0, **shown}]}
    assert deltas[2]["tool_calls"][0]["index"] == 1
    assert found[-1]["choices"][0]["finish_reason"] == "tool_calls"


async def test_the_place_in_the_queue_is_a_comment(bridge: Bridge) -> None:
    bridge.gateway.steps = [
        Progress("queued", position=3, estimate_s=12.4),
        Progress("queued", position=2),
        Progress("loading"),
        Progress("serving"),
        Fragment("Hello"),
        finished(),
    ]
    async with bridge.session.post(
        bridge.url + CHAT, json={**HI, "stream": True}, headers=BEARER
    ) as response:
        lines = await lines_of(response)
    assert lines[:3] == [": queued 3, about 12 s", ": queued 2", ": loading the model"]
    assert all(line.startswith("data: ") for line in lines[3:])


async def test_a_silent_stream_shows_signs_of_life(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "KEEP_ALIVE_S", 0.01)
    gate = asyncio.Event()
    bridge.gateway.steps = [gate, Fragment("Hello"), finished()]
    async with bridge.session.post(
        bridge.url + CHAT, json={**HI, "stream": True}, headers=BEARER
    ) as response:
        assert await response.content.readline() == b": waiting\n"
        gate.set()
        assert await lines_of(response)


async def test_completions_go_on_raw(bridge: Bridge) -> None:
    body = {"model": "m", "prompt": ["The sky"], "suffix": "."}
    _, answer, _ = await bridge.post("/v1/completions", body, **BEARER)
    assert answer["object"] == "text_completion"
    assert answer["id"].startswith("cmpl-")
    assert answer["choices"][0]["text"] == "Hello you"
    request = asked(bridge)
    assert (request.prompt, request.suffix, request.is_raw) == ("The sky", ".", True)
    found = await chunks(bridge, body, "/v1/completions")
    assert [c["choices"][0]["text"] for c in found] == ["Hello", " you", ""]


async def test_completions_give_the_prompt_back_if_wanted(bridge: Bridge) -> None:
    body = {"model": "m", "prompt": "The sky ", "echo": True}
    _, answer, _ = await bridge.post("/v1/completions", body, **BEARER)
    assert answer["choices"][0]["text"] == "The sky Hello you"
    found = await chunks(bridge, body, "/v1/completions")
    texts = [c["choices"][0]["text"] for c in found]
    assert texts == ["The sky ", "Hello", " you", ""]


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"prompt": ["a", "b"]}, "neither several nor tokens"),
        ({"prompt": [1, 2]}, "neither several nor tokens"),
        ({"n": 2}, "n must be 1"),
        ({"best_of": 3}, "best_of must be 1"),
        ({"logprobs": 0}, "logprobs"),
        ({"echo": "yes"}, "echo"),
    ],
)
async def test_completions_that_are_not_served(
    bridge: Bridge, extra: dict, words: str
) -> None:
    body = {"model": "m", "prompt": "a", **extra}
    status, answer, _ = await bridge.post("/v1/completions", body, **BEARER)
    assert status == 400
    check_error(answer, words)


# What is asked


async def test_everything_that_a_chat_may_hold(bridge: Bridge) -> None:
    schema = {"type": "object"}
    url = "data:image/png;base64," + base64.b64encode(PNG).decode()
    body = {
        "model": "m",
        "messages": [
            {"role": "developer", "content": "Be short."},
            {"role": "user", "content": "When?", "name": "ann"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "now", "arguments": '{"zone":"UTC"}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "noon"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "And"},
                    {"type": "image_url", "image_url": {"url": url}},
                    {"type": "text", "text": "this?"},
                ],
            },
        ],
        "tools": [TOOL],
        "tool_choice": "required",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "x", "schema": schema},
        },
        "stop": "END",
        "temperature": 0.5,
        "top_p": 1,
        "max_completion_tokens": 7,
        "seed": 42,
        "reasoning_effort": "minimal",
        "n": 1,
        "logit_bias": {"1": 2},
        "store": True,
        "metadata": {"a": "b"},
    }
    status, answer, _ = await bridge.post(CHAT, body, **BEARER)
    assert status == 200, answer
    request = asked(bridge)
    assert request.prompt == "And\nthis?"
    assert request.images == (PNG,)
    assert request.history == (
        Message("system", "Be short."),
        Message("user", "When?"),
        Message("assistant", "", tool_calls=(CALL,)),
        Message("tool", "noon", tool_call_id="call_1", tool_name="now"),
    )
    assert request.options == {
        "stop": ["END"],
        "temperature": 0.5,
        "top_p": 1,
        "max_tokens": 7,
        "seed": 42,
        "reasoning_effort": "low",
        "tool_choice": "required",
    }
    assert request.response_format == schema
    assert request.tools == (TOOL,)


async def test_a_result_of_a_function_is_answered(bridge: Bridge) -> None:
    call = {"id": "c", "function": {"name": "now", "arguments": ""}}
    turns = [
        {"role": "user", "content": "When?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "noon"},
    ]
    status, _, _ = await bridge.post(CHAT, {"model": "m", "messages": turns}, **BEARER)
    assert status == 200
    assert asked(bridge).prompt == ""
    assert asked(bridge).history[-1].role == "tool"
    assert asked(bridge).history[1].tool_calls == (ToolCall("c", "now", "{}"),)


async def test_a_begun_answer_is_gone_on_with(bridge: Bridge) -> None:
    turns = [*HI["messages"], {"role": "assistant", "content": "Hel"}]
    await bridge.post(CHAT, {"model": "m", "messages": turns}, **BEARER)
    request = asked(bridge)
    assert (request.prompt, request.prefix, request.history) == ("Hi", "Hel", ())


@pytest.mark.parametrize("path", [CHAT, "/api/chat"])
@pytest.mark.parametrize("before", [[], HI["messages"]])
async def test_an_instruction_alone_is_answered(
    bridge: Bridge, path: str, before: list[dict]
) -> None:
    turns = [*before, {"role": "system", "content": "Greet the user."}]
    body = {"model": "m", "messages": turns, "stream": False}
    status, answer, _ = await bridge.post(path, body, **BEARER)
    assert status == 200, answer
    assert asked(bridge).prompt == ""
    assert asked(bridge).history[-1] == Message("system", "Greet the user.")
    assert len(asked(bridge).history) == len(turns)


@pytest.mark.parametrize(
    ("extra", "field", "value"),
    [
        ({"tools": [TOOL], "tool_choice": "none"}, "tools", ()),
        ({"response_format": {"type": "json_object"}}, "response_format", "json"),
        ({"response_format": {"type": "text"}}, "response_format", None),
        ({"max_tokens": 5}, "options", {"max_tokens": 5}),
        ({"stop": ["a", "b"]}, "options", {"stop": ["a", "b"]}),
        ({"stop": None, "temperature": None, "tools": None}, "options", {}),
        (
            {
                "tools": [TOOL],
                "tool_choice": {"type": "function", "function": {"name": "now"}},
            },
            "options",
            {"tool_choice": "now"},
        ),
    ],
)
async def test_single_fields(
    bridge: Bridge, extra: dict, field: str, value: object
) -> None:
    status, body, _ = await bridge.post(CHAT, {**HI, **extra}, **BEARER)
    assert status == 200, body
    assert getattr(asked(bridge), field) == value


async def post_large(bridge: Bridge, body: dict) -> tuple[int, dict]:
    data = io.BytesIO(json.dumps(body).encode())
    status, answer, _ = await bridge.call("POST", CHAT, data=data, headers=BEARER)
    return status, answer


def user(*parts: object) -> dict:
    return {"messages": [{"role": "user", "content": list(parts)}]}


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"n": 2}, "n must be 1"),
        ({"n": True}, "n must be 1"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 3}, "logprobs"),
        ({"functions": [{"name": "now"}]}, "send tools"),
        ({"model": ""}, "model is required"),
        ({"model": None}, "model is required"),
        ({"model": "x" * 300}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": ["x"]}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "role"),
        ({"messages": [{"role": "user"}]}, "empty"),
        ({"messages": [{"role": "user", "content": 1}]}, "content"),
        ({"messages": [{"role": "system", "content": " "}]}, "empty"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "user, tool or system"),
        ({"messages": [HI["messages"][0]] * 1001}, "1000"),
        (user({"type": "input_audio"}), "text or image_url"),
        (
            user(
                {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}
            ),
            "data: URL",
        ),
        (user({"type": "image_url", "image_url": "data:image/png,x"}), "base64"),
        (user({"type": "image_url", "image_url": "data:a;base64,%"}), "base64"),
        (user({"type": "image_url", "image_url": "data:a;base64,"}), "empty"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"seed": 1.5}, "seed"),
        ({"seed": 2**80}, "seed"),
        ({"stop": [1]}, "stop"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"tools": [{"type": "retrieval"}]}, "tools"),
        ({"tools": {}}, "tools"),
        ({"tool_choice": "any"}, "tool_choice"),
        ({"tool_choice": {"type": "function"}}, "tool_choice"),
        ({"tool_choice": "required"}, "no tools"),
        (
            {"tools": [TOOL], "tool_choice": {"function": {"name": "later"}}},
            "'later', which is not among tools",
        ),
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
        ({"max_tokens": -5}, "max_tokens must be at least 1"),
        ({"max_completion_tokens": -1}, "max_completion_tokens must be at least 1"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "schema"),
        ({"stream": "yes"}, "stream"),
    ],
)
async def test_wrong_fields_are_named(bridge: Bridge, extra: dict, words: str) -> None:
    status, body, _ = await bridge.post(CHAT, {**HI, **extra}, **BEARER)
    assert status == 400
    check_error(body, words)
    assert bridge.gateway.answers == []


async def test_too_long_a_chat(bridge: Bridge) -> None:
    turns = [{"role": "user", "content": "x" * 256 * 1024}]
    long = {"model": "m", "messages": turns * 4}
    assert (await post_large(bridge, long))[0] == 200
    long = {"model": "m", "messages": turns * 5}
    status, body = await post_large(bridge, long)
    assert status == 400
    check_error(body, "oldest")


# Refusals


@pytest.mark.parametrize(
    ("error", "status", "kind", "code"),
    [
        (
            ApiError(ErrorCode.UNAUTHORIZED, "expired", status=401),
            401,
            "invalid_request_error",
            "invalid_api_key",
        ),
        (
            ApiError(ErrorCode.MODEL_MISSING, "none", status=404),
            404,
            "invalid_request_error",
            "model_not_found",
        ),
        (
            ApiError(ErrorCode.RATE_LIMITED, "slow", status=429, retry_after_s=7),
            429,
            "requests",
            "rate_limit_exceeded",
        ),
        (
            ApiError(ErrorCode.BUSY, "full", status=503, retry_after_s=3),
            503,
            "server_error",
            "busy",
        ),
        (
            ApiError(ErrorCode.ENGINE_FAILED, "died", status=502),
            502,
            "server_error",
            "engine_failed",
        ),
    ],
)
@pytest.mark.parametrize("is_stream", [False, True])
async def test_refusals(
    bridge: Bridge,
    error: ApiError,
    status: int,
    kind: str,
    code: str,
    is_stream: bool,
) -> None:
    bridge.gateway.steps = [Progress("serving"), error]
    body = {**HI, "stream": is_stream}
    got, answer, response = await bridge.post(CHAT, body, **BEARER)
    assert got == status
    assert check_error(answer, error.message.split(":")[0], kind) == code
    if error.retry_after_s:
        assert response.headers["Retry-After"] == str(error.retry_after_s)


async def test_a_failure_in_mid_stream(bridge: Bridge) -> None:
    lost = ApiError(ErrorCode.PEER_LOST, "Lost.", status=502, is_partial=True)
    bridge.gateway.steps = [Fragment("Hel"), lost]
    async with bridge.session.post(
        bridge.url + CHAT, json={**HI, "stream": True}, headers=BEARER
    ) as response:
        text = await response.text()
    *_, last = text.strip().split("\n\n")
    error = json.loads(last.removeprefix("data: "))["error"]
    assert (error["message"], error["code"], error["partial"]) == (
        "Lost.",
        "peer_lost",
        True,
    )
    assert "[DONE]" not in text


async def test_nobody_is_asked_without_a_token(bridge: Bridge) -> None:
    for path in (CHAT, "/v1/completions", "/v1/embeddings"):
        status, body, _ = await bridge.post(path, HI)
        assert status == 401
        assert check_error(body, "Bearer") == "invalid_api_key"
    assert bridge.gateway.answers == []


async def test_what_is_not_there(bridge: Bridge) -> None:
    status, body, _ = await bridge.call("GET", "/v1/nothing")
    assert status == 404
    assert check_error(body, "no such path") == "not_found"
    status, body, response = await bridge.call("GET", CHAT)
    assert status == 405
    assert response.headers["Allow"] == "POST"
    assert check_error(body, "method") == "method_not_allowed"


async def test_bodies_may_hold_images_but_not_more(bridge: Bridge) -> None:
    url = "data:image/png;base64," + base64.b64encode(PNG + bytes(6 << 20)).decode()
    body = {**HI, **user({"type": "image_url", "image_url": url})}
    assert (await post_large(bridge, body))[0] == 200
    assert len(asked(bridge).images[0]) > 6 << 20
    status, answer = await post_large(bridge, {"x": "x" * BODY_BYTES_MAX})
    assert status == 413
    check_error(answer, str(BODY_BYTES_MAX))


async def test_malformed_bodies(bridge: Bridge) -> None:
    for data in (b"", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"a":1e999}'):
        status, body, _ = await bridge.call("POST", CHAT, data=data, headers=BEARER)
        assert status == 400
        check_error(body, "JSON")


# Stops


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_caller_who_goes_away_closes_the_answer(
    bridge: Bridge, is_stream: bool
) -> None:
    bridge.gateway.steps = [Fragment("Hel"), asyncio.Event()]
    body = {**HI, "stream": is_stream}
    asking = asyncio.ensure_future(bridge.post(CHAT, body, **BEARER))
    await bridge.gateway.was_asked.wait()
    (answer,) = bridge.gateway.answers
    await answer.is_waiting.wait()
    asking.cancel()
    async with asyncio.timeout(1):
        await answer.is_closed.wait()
    await asyncio.gather(asking, return_exceptions=True)


async def test_a_caller_who_reads_no_more_is_given_up(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "WRITE_TIMEOUT_S", 0.2)
    bridge.gateway.steps = [Fragment("x" * 65536)] * 1000 + [finished()]
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", int(bridge.url.rpartition(":")[2]), limit=1024
    )
    body = json.dumps({**HI, "stream": True})
    writer.write(
        f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        f"Authorization: {BEARER['Authorization']}\r\n\r\n{body}".encode()
    )
    await reader.readline()
    (answer,) = bridge.gateway.answers
    async with asyncio.timeout(10):
        await answer.is_closed.wait()
    assert answer.steps
    writer.transport.abort()


# Models and vectors


@pytest.fixture
def swarm() -> ScriptedSwarm:
    models = healthy("processor", models=["llama3.2:latest", "hf.co/a/b:Q4"])
    processor = ScriptedPeer(Role.PROCESSOR, ping={**models, "engine": "ollama"})
    entry = gateway()
    entry.steps = [Embeddings("m", VECTORS, 3), finished()]
    return ScriptedSwarm(a=entry, b=processor)


async def test_models(start: Starter, swarm: ScriptedSwarm) -> None:
    bridge = await start(swarm)
    _, body, _ = await bridge.call("GET", "/v1/models")
    assert body["object"] == "list"
    assert [model["id"] for model in body["data"]] == [
        "hf.co/a/b:Q4",
        "llama3.2:latest",
    ]
    assert body["data"][0]["owned_by"] == "ollama"
    assert body["data"][0]["object"] == "model"
    _, one, _ = await bridge.call("GET", "/v1/models/hf.co/a/b:Q4")
    assert one == body["data"][0]
    _, one, _ = await bridge.call("GET", "/v1/models/llama3.2")
    assert one["id"] == "llama3.2:latest"
    status, body, _ = await bridge.call("GET", "/v1/models/gpt-4")
    assert status == 404
    assert check_error(body, "gpt-4") == "model_not_found"


@pytest.mark.parametrize("form", ["float", "base64", None])
async def test_embeddings(
    start: Starter, swarm: ScriptedSwarm, form: str | None
) -> None:
    bridge = await start(swarm)
    body = {"model": "m", "input": ["a", "b"], "dimensions": 2, "encoding_format": form}
    status, answer, _ = await bridge.post("/v1/embeddings", body, **BEARER)
    assert status == 200, answer
    assert answer["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    first, second = answer["data"]
    assert (first["index"], second["index"]) == (0, 1)
    if form == "base64":
        assert struct.unpack("<2f", base64.b64decode(first["embedding"])) == (0.5, -1)
    else:
        assert first["embedding"] == [0.5, -1]
    request = asked(bridge)
    assert (request.inputs, request.model, request.dimensions) == (("a", "b"), "m", 2)
    assert bridge.gateway.tokens == [TOKEN]


@pytest.mark.parametrize(
    "extra",
    [
        {"input": []},
        {"input": ""},
        {"input": [""]},
        {"input": [1, 2]},
        {"input": None},
        {"input": ["x"] * 513},
        {"input": "x" * (256 * 1024 + 1)},
        {"dimensions": 0},
        {"dimensions": "2"},
        {"encoding_format": "hex"},
        {"model": None},
    ],
)
async def test_wrong_inputs(start: Starter, swarm: ScriptedSwarm, extra: dict) -> None:
    bridge = await start(swarm)
    body = {"model": "m", "input": "x", **extra}
    status, answer, _ = await bridge.post("/v1/embeddings", body, **BEARER)
    assert status == 400
    check_error(answer, "")


async def test_too_few_vectors(start: Starter, swarm: ScriptedSwarm) -> None:
    bridge = await start(swarm)
    body = {"model": "m", "input": ["a", "b", "c"]}
    status, answer, _ = await bridge.post("/v1/embeddings", body, **BEARER)
    assert status == 502
    assert check_error(answer, "vector", "server_error") == "engine_failed"
