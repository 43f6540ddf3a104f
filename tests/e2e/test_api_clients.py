"""Clients that people have, unchanged, against the installed command.

The Python packages `openai` and `ollama`, and the npm packages of the same names.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import ollama
import openai
import pytest

pytestmark = pytest.mark.e2e

PASSWORD = "correct horse battery"
TURNS = [{"role": "user", "content": "What is a gateway?"}]
NODE_DIR = Path(__file__).parents[1] / "node"
NODE = shutil.which("node")
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAA"
    "AABJRU5ErkJggg=="
)

needs_node = pytest.mark.skipif(
    NODE is None or not (NODE_DIR / "node_modules" / "openai").is_dir(),
    reason="Node.js or the packages of tests/node are not installed",
)


@dataclass
class Serving:
    """A running serve, and a user's token for it."""

    http: str
    ollama: str
    token: str
    stack: ExitStack

    def openai(self, url: str = "", **options: object) -> openai.OpenAI:
        given = {"api_key": self.token, "max_retries": 0, "timeout": 60, **options}
        client = openai.OpenAI(base_url=f"{url or self.http}/v1", **given)
        return self.stack.enter_context(client)

    def ollama_client(self, url: str = "", **options: object) -> ollama.Client:
        client = ollama.Client(host=url or self.ollama, timeout=60, **options)
        self.stack.callback(client._client.close)
        return client


def post(url: str, body: object) -> dict:
    request = urllib.request.Request(
        url,
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


@pytest.fixture
def serve(spawn, tmp_path: Path):
    def start(*options: str, **environ: str) -> Serving:
        running = spawn(
            "serve", "--role", "all", "--json", "--home", str(tmp_path / "home"),
            "--http-port", "0", "--ollama-port", "0", "--metrics-port", "0",
            *options, **environ,
        )  # fmt: skip
        ready = running.event("ready")
        who = {"email": "ann@example.org", "password": PASSWORD}
        post(f"{ready['http']}/register", who)
        token = post(f"{ready['http']}/login", who)["key"]
        return Serving(ready["http"], ready["ollama"], token, stack)

    with ExitStack() as stack:
        yield start


@pytest.fixture
def guide(serve) -> Serving:
    return serve("--engine", "guide", "--max-requests", "1000")


@pytest.fixture
def engine(serve, ollama_stub: str) -> Serving:
    return serve(
        "--engine", "ollama", "--max-requests", "1000", OLLAMA_HOST=ollama_stub
    )


def idle(stub: str) -> dict:
    """The stub answers this once no request is running any more."""
    with urllib.request.urlopen(f"{stub}/_stub/idle", timeout=10) as response:
        return json.load(response)


# The package openai


def test_openai(guide: Serving):
    client = guide.openai()
    (model,) = client.models.list().data
    assert (model.id, model.owned_by) == ("guide", "guide")
    assert client.models.retrieve("guide") == model
    whole = client.chat.completions.create(model="guide", messages=TURNS)
    (choice,) = whole.choices
    assert choice.finish_reason == "stop"
    assert "gateway" in choice.message.content
    assert whole.usage.total_tokens > whole.usage.completion_tokens > 0
    *pieces, last = client.chat.completions.create(
        model="guide",
        messages=TURNS,
        stream=True,
        stream_options={"include_usage": True},
    )
    assert pieces[0].choices[0].delta.role == "assistant"
    texts = [chunk.choices[0].delta.content or "" for chunk in pieces]
    assert "".join(texts) == choice.message.content
    assert len(pieces) > 5
    assert pieces[-1].choices[0].finish_reason == "stop"
    assert last.usage == whole.usage
    assert len({whole.id, last.id}) == 2


def test_openai_errors(guide: Serving):
    client = guide.openai()

    def ask(**options: object) -> object:
        asked = {"model": "guide", "messages": TURNS, **options}
        return client.chat.completions.create(**asked)

    with pytest.raises(openai.NotFoundError) as caught:
        ask(model="gpt-4")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4")
    with pytest.raises(openai.BadRequestError, match="n must be 1"):
        ask(n=2)
    link = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    with pytest.raises(openai.BadRequestError, match="data: URL"):
        ask(messages=[{"role": "user", "content": [link]}])
    with pytest.raises(openai.BadRequestError, match="guide"):
        list(ask(stream=True, response_format={"type": "json_object"}))
    with pytest.raises(openai.BadRequestError, match="guide"):
        client.embeddings.create(model="guide", input="x")
    with pytest.raises(openai.AuthenticationError) as caught:
        guide.openai(api_key="sk-wrong").chat.completions.create(
            model="guide", messages=TURNS
        )
    assert caught.value.code == "invalid_api_key"


def test_openai_hears_of_the_limit(serve):
    client = serve("--engine", "guide", "--max-requests", "1").openai()
    client.chat.completions.create(model="guide", messages=TURNS)
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model="guide", messages=TURNS)
    assert int(caught.value.response.headers["Retry-After"]) > 0
    assert caught.value.code == "rate_limit_exceeded"


def test_openai_stops_in_mid_stream(engine: Serving, ollama_stub: str):
    stream = engine.openai().chat.completions.create(
        model="stall", messages=TURNS, stream=True
    )
    for chunk in stream:
        if chunk.choices[0].delta.content:
            break
    stream.close()
    assert idle(ollama_stub)["closed_by_client"] >= 1


def test_openai_with_a_model_behind_it(engine: Serving):
    client = engine.openai()
    parts = [
        {"type": "text", "text": "What is this?"},
        {
            "type": "image_url",
            "image_url": {
                "url": "data:image/png;base64," + base64.b64encode(PNG).decode()
            },
        },
    ]
    seen = client.chat.completions.create(
        model="tools", messages=[{"role": "user", "content": parts}]
    )
    assert seen.choices[0].message.content
    raw = client.completions.create(model="llama3.2", prompt="The sky", stream=True)
    assert "".join(chunk.choices[0].text for chunk in raw)
    # The package asks for base64 and makes floats of it.
    vectors = client.embeddings.create(model="nomic-embed-text", input=["a", "bcd"])
    assert [one.embedding[0] for one in vectors.data] == [1.0, 3.0]
    assert vectors.usage.prompt_tokens == 2


# The package ollama


def test_ollama_without_a_login(guide: Serving):
    client = guide.ollama_client()
    assert [model.model for model in client.list().models] == ["guide"]
    assert client.show("guide").capabilities == ["completion"]
    assert client.ps().models == []
    whole = client.chat("guide", TURNS)
    assert whole.done_reason == "stop"
    assert whole.total_duration > 0
    *pieces, last = client.chat("guide", TURNS, stream=True)
    assert "".join(part.message.content for part in pieces) == whole.message.content
    assert (last.done, last.eval_count) == (True, whole.eval_count)
    texts = [part.response for part in client.generate("guide", "hello", stream=True)]
    assert len(texts) > 2
    assert client.generate("guide", "").done_reason == "load"
    # Real Ollama has OpenAI's API too, and clients send any word as their key.
    answer = guide.openai(guide.ollama, api_key="ollama").chat.completions.create(
        model="guide", messages=TURNS
    )
    assert answer.choices[0].message.content == whole.message.content


def test_ollama_errors(guide: Serving):
    client = guide.ollama_client()
    for ask, status, words in (
        (lambda: client.chat("nope", TURNS), 404, "model 'nope' not found"),
        (lambda: client.show("nope"), 404, "model 'nope' not found"),
        (lambda: client.embed("guide", "x"), 400, "guide"),
        (lambda: client.generate("guide", "x", raw=True), 400, "guide"),
        (lambda: client.pull("llama3.2"), 403, "processor"),
        (lambda: list(client.chat("nope", TURNS, stream=True)), 404, "not found"),
    ):
        with pytest.raises(ollama.ResponseError) as caught:
            ask()
        assert caught.value.status_code == status
        assert words in caught.value.error
    with pytest.raises(ollama.ResponseError) as caught:
        guide.ollama_client(guide.http).chat("guide", TURNS)
    assert caught.value.status_code == 401
    headers = {"Authorization": f"Bearer {guide.token}"}
    client = guide.ollama_client(guide.http, headers=headers)
    assert client.chat("guide", TURNS).message.content


def test_ollama_stops_in_mid_stream(engine: Serving, ollama_stub: str):
    client = engine.ollama_client()
    stream = client.chat("stall", TURNS, stream=True)
    assert next(stream).message.content
    stream.close()
    assert idle(ollama_stub)["closed_by_client"] >= 1


def test_ollama_with_a_model_behind_it(engine: Serving):
    client = engine.ollama_client()
    listed = {model.model: model for model in client.list().models}
    tools = listed["tools:latest"]
    assert (tools.size, len(tools.digest or "")) == (2019393189, 64)
    assert tools.details.parameter_size == "3.2B"
    assert "gpt-oss:120b-cloud" not in listed
    shown = client.show("tools")
    assert shown.modelinfo["llama.context_length"] == 131072
    assert shown.capabilities == ["completion", "vision", "tools"]
    turn = {"role": "user", "content": "What is this?", "images": [PNG]}
    assert client.chat("tools", [turn]).message.content
    assert client.embed("nomic-embed-text", ["a", "bcd"]).embeddings[1][0] == 3.0
    assert client.generate("llama3.2", "The sky", raw=True).response
    until_s = time.monotonic() + 20
    loaded: set[str | None] = set()
    while not {"tools:latest", "llama3.2:latest"} <= loaded:
        assert time.monotonic() < until_s, loaded
        time.sleep(0.2)
        loaded = {model.model for model in client.ps().models}


# The npm packages


def node(script: str, *args: str) -> dict:
    assert NODE is not None
    done = subprocess.run(
        [NODE, NODE_DIR / script, *args],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@needs_node
def test_the_npm_package_openai(guide: Serving):
    seen = node("openai_client.js", f"{guide.http}/v1", guide.token, "guide")
    assert seen["models"] == ["guide"]
    assert seen["reason"] == "stop"
    assert seen["streamed"] == seen["whole"]
    assert seen["pieces"] > 5
    assert seen["tokens"] > 0
    assert seen["error"] == ["NotFoundError", 404, "model_not_found"]


@needs_node
def test_the_npm_package_ollama(guide: Serving):
    seen = node("ollama_client.js", guide.ollama, "guide")
    assert seen["models"] == ["guide"]
    assert seen["capabilities"] == ["completion"]
    assert (seen["architecture"], seen["loaded"]) == ("guide", 0)
    assert seen["reason"] == "stop"
    assert seen["streamed"] == seen["whole"]
    assert seen["pieces"] > 5
    assert seen["tokens"] > 0
    assert seen["generated"]
    assert seen["error"] == ["ResponseError", 404, "model 'no-such-model' not found"]
