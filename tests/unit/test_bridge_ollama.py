"""Ollama's API on the bridge, over a scripted swarm."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import ollama
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
    Usage,
)
from peerchat.config import find_home
from peerchat.services.bridge.api_errors import OLLAMA_BUSY
from peerchat.services.bridge.ollama_answer import figures
from peerchat.services.bridge.own_account import OwnAccount
from peerchat.session_file import Session, SessionFile, swarm_scope
from peerchat.settings import Settings
from tests.bridge_world import BEARER, Bridge, Starter, start
from tests.scripted_swarm import (
    TOKEN,
    ScriptedPeer,
    ScriptedSwarm,
    finished,
    gateway,
    healthy,
)

__all__ = ["start"]

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
IMAGE = base64.b64encode(PNG).decode()
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
GENERATE = {"model": "m", "prompt": "Hi"}
BODIES = {"/api/chat": CHAT, "/api/generate": GENERATE}
TOOL = {"type": "function", "function": {"name": "now", "parameters": {}}}
CALL = ToolCall("c1", "now", '{"zone":"UTC"}')


@pytest.fixture
async def bridge(start: Starter) -> Bridge:
    models = healthy(
        "processor",
        models=["m:latest", "guide", "vectors"],
        embedders=["vectors"],
        engine="ollama",
    )
    processor = ScriptedPeer(Role.PROCESSOR, ping=models)
    return await start(ScriptedSwarm(a=gateway(), b=processor))


async def lines(bridge: Bridge, path: str, body: dict) -> list[dict]:
    async with bridge.session.post(
        bridge.url + path, json=body, headers=BEARER
    ) as response:
        assert response.status == 200
        assert response.content_type == "application/x-ndjson"
        text = await response.text()
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def asked(bridge: Bridge):
    (answer,) = bridge.gateway.answers
    return answer.request


def slow_end():
    usage = Usage(
        "m",
        "",
        "stop",
        5.0,
        first_fragment_s=1.5,
        prompt_tokens=26,
        answer_tokens=100,
        tokens_per_s=50.0,
        load_s=0.5,
    )
    return replace(finished(), usage=usage)


# Answers


async def test_a_chat_streams_lines(bridge: Bridge) -> None:
    bridge.gateway.steps = [
        Progress("queued", position=2),
        Fragment("hm", is_thinking=True),
        Fragment("Hel"),
        Fragment("lo"),
        slow_end(),
    ]
    *pieces, last = await lines(bridge, "/api/chat", CHAT)
    assert [piece["message"] for piece in pieces] == [
        {"role": "assistant", "content": "", "thinking": "hm"},
        {"role": "assistant", "content": "Hel"},
        {"role": "assistant", "content": "lo"},
    ]
    assert all(set(p) == {"model", "created_at", "message", "done"} for p in pieces)
    assert not any(piece["done"] for piece in pieces)
    assert last.pop("created_at").endswith("Z")
    assert last.pop("total_duration") > 0
    assert last.pop("peerchat")["model"] == "m"
    assert last == {
        "model": "m",
        "message": {"role": "assistant", "content": ""},
        "done": True,
        "done_reason": "stop",
        "load_duration": 500_000_000,
        "prompt_eval_count": 26,
        "prompt_eval_duration": 1_000_000_000,
        "eval_count": 100,
        "eval_duration": 2_000_000_000,
    }


async def test_a_prompt_streams_lines(bridge: Bridge) -> None:
    bridge.gateway.steps = [Fragment("h", is_thinking=True), Fragment("x"), slow_end()]
    first, second, last = await lines(bridge, "/api/generate", GENERATE)
    assert (first["response"], first["thinking"]) == ("", "h")
    assert second["response"] == "x"
    assert (last["response"], last["done"], last["eval_count"]) == ("", True, 100)


@pytest.mark.parametrize("path", BODIES)
async def test_a_whole_answer(bridge: Bridge, path: str) -> None:
    bridge.gateway.steps = [Fragment("Hel"), Fragment("lo"), slow_end()]
    body = {**BODIES[path], "stream": False}
    status, answer, response = await bridge.post(path, body, **BEARER)
    assert (status, response.content_type) == (200, "application/json")
    said = answer["response"] if "generate" in path else answer["message"]["content"]
    assert said == "Hello"
    assert (answer["done"], answer["done_reason"]) == (True, "stop")
    assert isinstance(answer["total_duration"], int)


def test_figures_that_are_unknown_are_left_out() -> None:
    assert figures(Usage("m", "", "stop", 0.0), 2.0) == {"total_duration": 2 * 10**9}
    told = Usage("m", "", "stop", 3.0, first_fragment_s=1.0, answer_tokens=4)
    assert figures(told, 3.0) == {
        "total_duration": 3 * 10**9,
        "prompt_eval_duration": 10**9,
        "eval_count": 4,
        "eval_duration": 2 * 10**9,
    }


async def test_calls_have_their_arguments_as_objects(bridge: Bridge) -> None:
    odd = ToolCall("c2", "odd", "no JSON")
    bridge.gateway.steps = [ToolCalls((CALL, odd)), finished()]
    found = await lines(bridge, "/api/chat", {**CHAT, "tools": [TOOL]})
    assert found[0]["message"]["tool_calls"] == [
        {
            "id": "c1",
            "function": {"index": 0, "name": "now", "arguments": {"zone": "UTC"}},
        },
        {"id": "c2", "function": {"index": 1, "name": "odd", "arguments": {}}},
    ]
    assert asked(bridge).tools == (TOOL,)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/generate", {"model": "m"}),
        ("/api/generate", {"model": "m", "prompt": ""}),
        ("/api/chat", {"model": "m"}),
        ("/api/chat", {"model": "m", "messages": []}),
    ],
)
async def test_nothing_to_answer_loads(bridge: Bridge, path: str, body: dict) -> None:
    status, answer, _ = await bridge.post(path, body, **BEARER)
    assert status == 200
    assert (answer["done"], answer["done_reason"]) == (True, "load")
    _, answer, _ = await bridge.post(path, {**body, "keep_alive": 0}, **BEARER)
    assert answer["done_reason"] == "unload"
    status, answer, _ = await bridge.post(path, {**body, "model": "nope"}, **BEARER)
    assert (status, answer) == (404, {"error": "model 'nope' not found"})
    assert bridge.gateway.answers == []


# What is asked


async def test_everything_that_a_chat_may_hold(bridge: Bridge) -> None:
    schema = {"type": "object"}
    body = {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "When?"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [
                    {"function": {"name": "where", "arguments": {}}},
                    {"function": {"name": "now", "arguments": {"zone": "UTC"}}},
                ],
            },
            {"role": "tool", "content": "noon", "tool_name": "now"},
            {"role": "tool", "content": "here"},
            {"role": "user", "content": "And this?", "images": [IMAGE]},
        ],
        "tools": [TOOL],
        "format": schema,
        "think": False,
        "keep_alive": "5m",
        "options": {
            "temperature": 0.1,
            "num_predict": 9.0,
            "num_ctx": 99999,
            "stop": ["END"],
            "seed": None,
            "mirostat": "x",
        },
    }
    assert await lines(bridge, "/api/chat", body)
    request = asked(bridge)
    where = ToolCall("call_2_0", "where", "{}")
    now = ToolCall("call_2_1", "now", '{"zone":"UTC"}')
    assert request.prompt == "And this?"
    assert request.images == (PNG,)
    assert request.history == (
        Message("system", "Be short."),
        Message("user", "When?"),
        Message("assistant", "", tool_calls=(where, now)),
        Message("tool", "noon", tool_call_id="call_2_1", tool_name="now"),
        Message("tool", "here", tool_call_id="call_2_0", tool_name="where"),
    )
    assert request.options == {
        "temperature": 0.1,
        "num_predict": 9,
        "stop": ["END"],
        "think": False,
    }
    assert request.response_format == schema
    assert request.tools == (TOOL,)


async def test_everything_that_a_prompt_may_hold(bridge: Bridge) -> None:
    body = {**GENERATE, "system": "Be short.", "images": [IMAGE], "format": "json"}
    assert await lines(bridge, "/api/generate", body)
    request = asked(bridge)
    assert request.history == (Message("system", "Be short."),)
    assert (request.prompt, request.images) == ("Hi", (PNG,))
    assert (request.response_format, request.is_raw) == ("json", False)


@pytest.mark.parametrize("extra", [{"raw": True}, {"suffix": "."}])
async def test_raw_prompts(bridge: Bridge, extra: dict) -> None:
    assert await lines(bridge, "/api/generate", {**GENERATE, **extra})
    assert asked(bridge).is_raw
    assert asked(bridge).suffix == extra.get("suffix", "")


@pytest.mark.parametrize(
    ("path", "extra", "status", "words"),
    [
        ("/api/chat", {"model": ""}, 400, "model is required"),
        ("/api/chat", {"model": None}, 400, "model is required"),
        ("/api/generate", {"model": ""}, 404, "model '' not found"),
        ("/api/chat", {"model": 1}, 400, "model must be a text."),
        ("/api/chat", {"messages": [{"role": "robot"}]}, 400, "messages[0].role"),
        ("/api/chat", {"messages": {}}, 400, "messages must be"),
        ("/api/chat", {"tools": [{}]}, 400, "tools"),
        ("/api/chat", {"stream": "no"}, 400, "stream"),
        ("/api/chat", {"format": "xml"}, 400, "format"),
        ("/api/chat", {"think": 1}, 400, "think"),
        ("/api/chat", {"think": "much"}, 400, "invalid think value: 'much'"),
        ("/api/generate", {"context": [1, 2]}, 400, "context is not served"),
        (
            "/api/chat",
            {"options": {"top_k": "x"}},
            400,
            'option "top_k" must be of type integer',
        ),
        (
            "/api/chat",
            {"options": {"temperature": []}},
            400,
            'option "temperature" must be of type float32',
        ),
        ("/api/chat", {"options": []}, 400, "options"),
        ("/api/generate", {"images": ["%"]}, 400, "base64"),
        ("/api/generate", {"images": "x"}, 400, "images"),
        ("/api/generate", {"template": "x"}, 400, "template"),
        (
            "/api/generate",
            {"raw": True, "system": "x"},
            400,
            "raw mode does not support template, system, or context",
        ),
    ],
)
async def test_wrong_fields_are_named(
    bridge: Bridge, path: str, extra: dict, status: int, words: str
) -> None:
    got, answer, _ = await bridge.post(path, {**BODIES[path], **extra}, **BEARER)
    assert got == status
    assert set(answer) == {"error"}
    assert words in answer["error"]
    assert bridge.gateway.answers == []


# Refusals


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ApiError(ErrorCode.MODEL_MISSING, "x", status=404), "model 'm' not found"),
        (ApiError(ErrorCode.BUSY, "x", status=503, retry_after_s=3), f"{OLLAMA_BUSY}x"),
        (ApiError(ErrorCode.RATE_LIMITED, "slow: in 7", status=429), "slow: in 7"),
        (ApiError(ErrorCode.UNAUTHORIZED, "who", status=401), "who"),
    ],
)
async def test_refusals(bridge: Bridge, path: str, error: ApiError, words: str) -> None:
    bridge.gateway.steps = [Progress("queued", position=1), error]
    got, answer, response = await bridge.post(path, BODIES[path], **BEARER)
    assert (got, answer) == (error.status, {"error": words})
    assert response.headers.get("Retry-After") == ("3" if error.retry_after_s else None)


async def test_a_failure_in_mid_stream_is_a_line(bridge: Bridge) -> None:
    lost = ApiError(ErrorCode.PEER_LOST, "Lost.", status=502)
    bridge.gateway.steps = [Fragment("Hel"), lost]
    first, last = await lines(bridge, "/api/chat", CHAT)
    assert first["message"]["content"] == "Hel"
    assert last["error"].startswith("The answer breaks off here")
    assert last["error"].endswith("Lost.")


async def test_a_caller_who_goes_away_closes_the_answer(bridge: Bridge) -> None:
    bridge.gateway.steps = [asyncio.Event()]
    asking = asyncio.ensure_future(bridge.post("/api/chat", CHAT, **BEARER))
    await bridge.gateway.was_asked.wait()
    (answer,) = bridge.gateway.answers
    await answer.is_waiting.wait()
    asking.cancel()
    async with asyncio.timeout(1):
        await answer.is_closed.wait()
    await asyncio.gather(asking, return_exceptions=True)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/pull"),
        ("POST", "/api/push"),
        ("POST", "/api/create"),
        ("POST", "/api/copy"),
        ("DELETE", "/api/delete"),
    ],
)
async def test_models_are_not_changed_from_afar(
    bridge: Bridge, method: str, path: str
) -> None:
    status, body, _ = await bridge.call(method, path, json={"model": "m"})
    assert status == 403
    assert "processor" in body["error"]


async def test_what_is_not_there_is_told_as_gin_does(bridge: Bridge) -> None:
    for method, path, status, words in (
        ("GET", "/api/nothing", 404, "404 page not found"),
        ("GET", "/api/chat", 405, "405 method not allowed"),
        ("POST", "/api/tags", 405, "405 method not allowed"),
    ):
        async with bridge.session.request(method, bridge.url + path) as response:
            assert response.status == status
            assert response.content_type == "text/plain"
            assert await response.text() == words


# Reading


async def test_the_models(bridge: Bridge) -> None:
    _, body, _ = await bridge.call("GET", "/api/tags")
    guide, model, _ = body["models"]
    assert (guide["name"], model["name"], model["model"]) == (
        "guide",
        "m:latest",
        "m:latest",
    )
    assert len(model["digest"]) == 64
    assert model["details"]["family"] == "m"
    assert (model["size"], model["capabilities"]) == (0, ["completion"])
    _, body, _ = await bridge.call("GET", "/api/ps")
    assert body == {"models": []}


TOLD = {
    "success": True,
    "status": 200,
    "processors": ["ab" * 32],
    "models": [
        {
            "name": "llama3.2:latest",
            "engine": "ollama",
            "processors": [0],
            "family": "llama",
            "families": ["llama", "clip"],
            "parameters": "3.2B",
            "quantization": "Q4_K_M",
            "format": "gguf",
            "sizeBytes": 2019393189,
            "digest": "a1" * 32,
            "contextTokens": 131072,
            "vectorLength": 3072,
            "capabilities": ["chat", "completion", "images", "insert", "tools"],
            "modifiedS": 1700000000,
            "loaded": {
                "keptS": 60,
                "sizeBytes": 3000000000,
                "vramBytes": 2500000000,
                "contextTokens": 4096,
            },
        },
        {"name": "guide", "engine": "guide", "processors": [0], "loaded": {}},
    ],
}


@pytest.fixture
async def told(start: Starter) -> Bridge:
    """A bridge whose gateway knows what the models are."""
    return await start(ScriptedSwarm(a=gateway(models=TOLD)))


async def test_what_the_swarm_knows_of_its_models(told: Bridge) -> None:
    _, body, _ = await told.call("GET", "/api/tags")
    guide, model = body["models"]
    details = {
        "parent_model": "",
        "format": "gguf",
        "family": "llama",
        "families": ["llama", "clip"],
        "parameter_size": "3.2B",
        "quantization_level": "Q4_K_M",
    }
    assert model == {
        "name": "llama3.2:latest",
        "model": "llama3.2:latest",
        "modified_at": "2023-11-14T22:13:20.000000Z",
        "size": 2019393189,
        "digest": "a1" * 32,
        "details": details,
        "capabilities": ["completion", "vision", "tools", "insert"],
    }
    assert (guide["size"], guide["details"]["family"]) == (0, "guide")
    _, shown, _ = await told.post("/api/show", {"model": "llama3.2"})
    assert shown["model_info"] == {
        "general.architecture": "llama",
        "general.basename": "llama3.2",
        "llama.context_length": 131072,
        "llama.embedding_length": 3072,
    }
    assert shown["parameters"].split() == ["num_ctx", "4096"]
    assert shown["template"] == "{{ .Prompt }}{{ .Suffix }}{{ .Tools }}"
    assert shown["details"] == details
    _, body, _ = await told.call("GET", "/v1/models/llama3.2")
    assert (body["created"], body["max_model_len"]) == (1700000000, 131072)


async def test_what_is_loaded(told: Bridge) -> None:
    _, body, _ = await told.call("GET", "/api/ps")
    guide, model = body["models"]
    left = datetime.fromisoformat(model["expires_at"]) - datetime.now(UTC)
    assert 55 < left.total_seconds() <= 60
    assert (model["size"], model["size_vram"]) == (3000000000, 2500000000)
    assert model["context_length"] == 4096
    # Of one that does not tell, what Ollama does unless told otherwise.
    left = datetime.fromisoformat(guide["expires_at"]) - datetime.now(UTC)
    assert 290 < left.total_seconds() <= 300
    assert "context_length" not in guide


async def test_ollamas_own_client_reads_it(told: Bridge) -> None:
    client = ollama.AsyncClient(told.url)
    model = (await client.list()).models[1]
    assert (model.model, int(model.size or 0)) == ("llama3.2:latest", 2019393189)
    assert model.details is not None
    assert model.details.quantization_level == "Q4_K_M"
    assert model.modified_at == datetime.fromtimestamp(1700000000, UTC)
    shown = await client.show("llama3.2")
    assert shown.modelinfo is not None
    assert shown.modelinfo["llama.context_length"] == 131072
    assert shown.capabilities == ["completion", "vision", "tools", "insert"]
    running = (await client.ps()).models[1]
    assert (running.name, running.context_length) == ("llama3.2:latest", 4096)
    assert running.expires_at is not None
    for refused in (
        client.pull("x"),
        client.create("x", from_="y"),
        client.delete("x"),
    ):
        with pytest.raises(ollama.ResponseError) as caught:
            await refused
        assert caught.value.status_code == 403
        assert "processor" in caught.value.error
    await client.close()


@pytest.mark.parametrize("asking", [{"model": "m"}, {"name": "m:latest"}])
async def test_show(bridge: Bridge, asking: dict) -> None:
    status, body, _ = await bridge.post("/api/show", asking)
    assert status == 200
    assert body["capabilities"] == ["completion"]
    assert body["model_info"] == {
        "general.architecture": "m",
        "general.basename": "m",
    }


async def test_show_of_a_model_for_vectors(bridge: Bridge) -> None:
    _, body, _ = await bridge.post("/api/show", {"model": "vectors"})
    assert body["capabilities"] == ["embedding"]


async def test_show_of_nothing(bridge: Bridge) -> None:
    status, body, _ = await bridge.post("/api/show", {"model": "nope"})
    assert (status, body) == (404, {"error": "model 'nope' not found"})
    status, body, _ = await bridge.post("/api/show", {})
    assert (status, body) == (400, {"error": "model is required"})


@pytest.mark.parametrize("path", ["/", "/api/version", "/api/tags"])
async def test_heads(bridge: Bridge, path: str) -> None:
    async with bridge.session.head(bridge.url + path) as response:
        assert response.status == 200
        assert await response.read() == b""


async def test_the_first_look(bridge: Bridge) -> None:
    async with bridge.session.get(bridge.url + "/") as response:
        assert await response.text() == "Ollama is running"
    _, body, _ = await bridge.call("GET", "/api/version")
    assert len(body["version"].split(".")) == 3


async def test_vectors(bridge: Bridge) -> None:
    vector = struct.pack("<2f", 0.5, -1)
    bridge.gateway.steps = [Embeddings("m", (vector, vector), 3), finished()]
    body = {"model": "m", "input": ["a", "b"], "truncate": True, "keep_alive": "1m"}
    status, answer, _ = await bridge.post("/api/embed", body, **BEARER)
    assert status == 200
    assert answer.pop("total_duration") > 0
    assert answer == {
        "model": "m",
        "embeddings": [[0.5, -1]] * 2,
        "prompt_eval_count": 3,
    }
    bridge.gateway.steps = [Embeddings("m", (vector,), 1), finished()]
    body = {"model": "m", "prompt": "a"}
    _, answer, _ = await bridge.post("/api/embeddings", body, **BEARER)
    assert answer == {"embedding": [0.5, -1]}


async def test_vectors_of_nothing(bridge: Bridge) -> None:
    for body in ({"model": "m"}, {"model": "m", "input": ""}):
        _, answer, _ = await bridge.post("/api/embed", body, **BEARER)
        assert answer["embeddings"] == []
    _, answer, _ = await bridge.post("/api/embeddings", {"model": "m"}, **BEARER)
    assert answer == {"embedding": []}
    assert bridge.gateway.answers == []


# Its own port


def settings_of(tmp_path: Path) -> Settings:
    return Settings(find_home(tmp_path, {})[0])


async def local_token() -> str:
    return "local.user.token"


async def ask(bridge: Bridge, **headers: str) -> int:
    url = bridge.ollama_url + "/api/chat"
    async with bridge.session.post(url, json=CHAT, headers=headers) as response:
        await response.read()
        return response.status


async def test_in_solo_nobody_needs_a_token_there(
    start: Starter, tmp_path: Path
) -> None:
    start.own = OwnAccount(settings_of(tmp_path), local_token)
    bridge = await start(ollama_port=0)
    assert await ask(bridge) == 200
    assert await ask(bridge, Authorization="Bearer ollama") == 200
    assert await ask(bridge, Authorization=f"Bearer {TOKEN}") == 200
    assert await ask(bridge, Authorization="Bearer pk_1_x") == 200
    own = "local.user.token"
    assert bridge.gateway.tokens == [own, own, TOKEN, "pk_1_x"]
    # Never on the main port.
    status, _, _ = await bridge.post("/api/chat", CHAT)
    assert status == 401


async def test_in_a_swarm_it_is_who_is_logged_in_now(
    start: Starter, tmp_path: Path
) -> None:
    settings = replace(settings_of(tmp_path), is_open=True)
    start.own = OwnAccount(settings)
    bridge = await start(ollama_port=0)
    assert await ask(bridge) == 401
    file, scope = SessionFile(settings.home.session_path), swarm_scope(settings)
    file.save(scope, Session("ann@example.org", "a.b.c"))
    assert await ask(bridge) == 200
    file.clear(scope)
    assert await ask(bridge) == 401
    assert bridge.gateway.tokens == ["a.b.c"]


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "203.0.113.9"},
        {"Forwarded": "for=203.0.113.9"},
        {"Via": "1.1 proxy"},
        {"Host": "evil.example"},
        {"Origin": "https://evil.example"},
    ],
)
async def test_nobody_from_elsewhere_is_this_homes_user(
    start: Starter, tmp_path: Path, headers: dict[str, str]
) -> None:
    start.own = OwnAccount(settings_of(tmp_path), local_token)
    bridge = await start(ollama_port=0)
    assert await ask(bridge, **headers) in (401, 403)
    assert bridge.gateway.answers == []


async def test_a_port_for_everybody_is_for_nobody_without_a_token(
    start: Starter, tmp_path: Path
) -> None:
    start.own = OwnAccount(settings_of(tmp_path), local_token)
    bridge = await start(ollama_port=0, http_host="0.0.0.0")
    port = bridge.ollama_url.rpartition(":")[2]
    bridge.ollama_url = f"http://127.0.0.1:{port}"
    assert await ask(bridge) == 401
    assert await ask(bridge, **BEARER) == 200


async def test_its_port_has_both_apis_and_nothing_else(start: Starter) -> None:
    bridge = await start(ollama_port=0)
    for path, status in (
        ("/", 200),
        ("/api/version", 200),
        ("/v1/models", 200),
        ("/health", 404),
        ("/login", 404),
        ("/metrics", 404),
    ):
        async with bridge.session.get(bridge.ollama_url + path) as response:
            assert response.status == status, path
            if status == 404:
                assert await response.text() == "404 page not found"


async def test_a_taken_port_is_named(start: Starter) -> None:
    bridge = await start()
    port = int(bridge.url.rpartition(":")[2])
    with pytest.raises(ApiError, match=f"{port}.*--ollama-port"):
        await start(ollama_port=port)
