"""The stub answers as Ollama does, byte by byte where clients may look."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator

import httpx
import pytest

from peerchat.testing.ollama_stub import OllamaStub


@pytest.fixture
async def stub() -> AsyncIterator[OllamaStub]:
    async with OllamaStub() as running:
        yield running


@pytest.fixture
async def http(stub: OllamaStub) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=stub.url, trust_env=False) as client:
        yield client


CHAT = {"model": "llama3.2", "messages": [{"role": "user", "content": "<x>"}]}


def lines_of(response: httpx.Response) -> list[dict[str, object]]:
    return [json.loads(line) for line in response.text.splitlines()]


async def test_chat_streams_ndjson(http: httpx.AsyncClient) -> None:
    response = await http.post("/api/chat", json=CHAT)
    assert response.headers["content-type"] == "application/x-ndjson"
    lines = lines_of(response)
    assert lines[0]["message"] == {"role": "assistant", "content": "Hello"}
    assert lines[0]["done"] is False
    assert lines[-1]["done_reason"] == "stop"
    assert lines[-1]["eval_count"] == 5
    assert str(lines[0]["created_at"]).endswith("Z")


async def test_generate_has_its_own_shape(http: httpx.AsyncClient) -> None:
    body = {"model": "llama3.2", "prompt": "why?"}
    lines = lines_of(await http.post("/api/generate", json=body))
    assert lines[0]["response"] == "Hello"
    assert lines[-1]["context"] == [1, 2, 3]
    whole = await http.post("/api/generate", json={**body, "stream": False})
    assert whole.headers["content-type"].startswith("application/json")
    assert whole.json()["response"] == "Hello from the stub!"


async def test_figures_of_zero_are_omitted(
    stub: OllamaStub, http: httpx.AsyncClient
) -> None:
    stub.models["llama3.2:latest"].fragments = ()
    last = lines_of(await http.post("/api/chat", json=CHAT))[-1]
    assert "eval_count" not in last
    assert "eval_duration" not in last


async def test_an_empty_prompt_loads_and_unloads(http: httpx.AsyncClient) -> None:
    load = {"model": "llama3.2", "messages": []}
    assert lines_of(await http.post("/api/chat", json=load))[0]["done_reason"] == "load"
    loaded = (await http.get("/api/ps")).json()["models"]
    assert [entry["name"] for entry in loaded] == ["llama3.2:latest"]
    assert loaded[0]["expires_at"].endswith("Z")
    unload = {**load, "keep_alive": 0}
    lines = lines_of(await http.post("/api/chat", json=unload))
    assert lines[0]["done_reason"] == "unload"
    assert (await http.get("/api/ps")).json() == {"models": []}


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("/api/chat", b"", 400, "missing request body"),
        ("/api/chat", {"messages": []}, 400, "model is required"),
        ("/api/chat", {**CHAT, "model": "x"}, 404, "model 'x' not found"),
        ("/api/show", {"model": "x"}, 404, "model 'x' not found"),
        ("/api/chat", {**CHAT, "think": True}, 400, "does not support thinking"),
        ("/api/chat", {**CHAT, "model": "nomic-embed-text"}, 400, "support chat"),
        ("/api/chat", {**CHAT, "keep_alive": True}, 400, "Unsupported type: 'bool'"),
        ("/api/chat", {**CHAT, "keep_alive": "5 min"}, 400, "invalid duration"),
        (
            "/api/chat",
            {**CHAT, "options": {"top_k": "x"}},
            500,
            'option "top_k" must be of type integer',
        ),
        (
            "/api/chat",
            {**CHAT, "model": "busy"},
            503,
            "server busy, please try again.  maximum pending requests exceeded",
        ),
    ],
)
async def test_errors_have_ollamas_words(
    http: httpx.AsyncClient, path: str, body: object, status: int, text: str
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = await http.post(path, content=content)
    assert response.status_code == status
    assert response.headers["content-type"].startswith("application/json")
    assert text in response.json()["error"]


async def test_unknown_paths_and_methods_are_plain_text(
    http: httpx.AsyncClient,
) -> None:
    missing = await http.get("/nothing")
    assert (missing.status_code, missing.text) == (404, "404 page not found")
    assert (await http.get("/api/chat")).status_code == 405


async def test_pull_shows_progress_and_adds_the_model(
    stub: OllamaStub, http: httpx.AsyncClient
) -> None:
    lines = lines_of(await http.post("/api/pull", json={"model": "new"}))
    assert lines[0] == {"status": "pulling manifest"}
    assert "completed" not in lines[1]
    assert lines[3]["completed"] == lines[3]["total"]
    assert lines[-1] == {"status": "success"}
    assert "new:latest" in stub.models
    failed = lines_of(await http.post("/api/pull", json={"model": "missing"}))
    assert "error" in failed[-1]


async def test_other_runner_options_reload_the_model(
    stub: OllamaStub, http: httpx.AsyncClient
) -> None:
    await http.post("/api/chat", json=CHAT)
    await http.post("/api/chat", json={**CHAT, "options": {"num_ctx": 8192}})
    assert stub.state.reloads == 1


async def test_waits_in_silence_beyond_its_slots(
    stub: OllamaStub, http: httpx.AsyncClient
) -> None:
    silent = {**CHAT, "model": "silent"}
    tasks = [asyncio.ensure_future(http.post("/api/chat", json=silent)) for _ in "ab"]
    await stub.wait_for(lambda state: (state.active, state.waiting) == (1, 1))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await stub.wait_for(lambda state: (state.active, state.waiting) == (0, 0))
    assert stub.state.closed_by_client == 2
    assert stub.state.active_max == 1


async def test_runs_as_a_program() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "peerchat.testing.ollama_stub", "--port", "0"),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        url = (await process.stdout.readline()).decode().strip()
        async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
            assert (await http.get("/")).text == "Ollama is running"
            change = {"model": "llama3.2:latest", "fragments": ["a<b"]}
            await http.post("/_stub/behaviour", json=change)
            response = await http.post("/api/chat", json=CHAT)
            assert "a\\u003cb" in response.text
            state = (await http.get("/_stub/state")).json()
            assert state["completed"] == 1
    finally:
        process.terminate()
        await process.wait()
