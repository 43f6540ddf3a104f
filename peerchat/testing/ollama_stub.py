"""A stand-in for Ollama that behaves as the real one does, its oddities included.

In a test::

    async with OllamaStub() as stub:
        engine = OllamaEngine(host=stub.url)

As a program: ``python -m peerchat.testing.ollama_stub --port 0`` prints its URL. What
a model does is in its `Behaviour`; the names of `STANDARD_MODELS` have fitting ones,
and ``POST /_stub/behaviour`` with ``{"model": …, …}`` changes one. ``GET /_stub/state``
gives the counters, ``GET /_stub/idle`` gives them once nothing runs any more. Modelled
on ollama/server/routes.go and sched.go.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import hashlib
import json
import re
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from .ollama_behaviour import BUSY_TEXT, STANDARD_MODELS, Behaviour, State
from .ollama_stub_answer import (
    Piece,
    StubAnswer,
    json_response,
    line_bytes,
    ndjson,
    now,
    ns_since,
    present,
    rfc3339,
)

KEEP_ALIVE_DEFAULT_S = 300.0
INTEGER_OPTIONS = frozenset(
    [
        "num_ctx",
        "num_batch",
        "num_gpu",
        "main_gpu",
        "num_thread",
        "num_keep",
        "seed",
        "num_predict",
        "top_k",
        "repeat_last_n",
        "mirostat",
    ]
)
FLOAT_OPTIONS = frozenset({"temperature", "top_p", "min_p", "repeat_penalty"})
RUNNER_OPTIONS = frozenset({"num_ctx", "num_batch", "num_gpu", "num_thread"})
"""A request that changes one of these reloads the model for everybody."""


class StubError(Exception):
    """Answered with a status and ``{"error"}``."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class OllamaStub:
    """The server; use as an async context manager.

    Args:
        models: behaviours by name; all standard ones when left out.
        parallel: slots for each model, as OLLAMA_NUM_PARALLEL.
        version: for ``/api/version``.
    """

    def __init__(
        self,
        models: Mapping[str, Behaviour] | None = None,
        *,
        parallel: int = 1,
        version: str = "0.33.0",
        port: int = 0,
    ) -> None:
        chosen = STANDARD_MODELS if models is None else models
        self.models = {
            name: dataclasses.replace(behaviour) for name, behaviour in chosen.items()
        }
        self.state = State()
        self.is_busy = False
        """Every prompt gets a 503, as when the scheduler's queue is full."""
        self.version = version
        self.port = port
        self._parallel = parallel
        self._slots: dict[str, asyncio.Semaphore] = {}
        self._expires: dict[str, datetime] = {}
        self._runner_options: dict[str, dict[str, Any]] = {}
        self._changed = asyncio.Condition()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Listen; a port of 0 is replaced by the one that was found."""
        # A handler is cancelled when its client goes, as Go's request context is.
        self._runner = web.AppRunner(
            self._app(), handler_cancellation=True, access_log=None, shutdown_timeout=0
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def close(self) -> None:
        """Cut every connection and stop listening; `start` works again."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def wait_for(self, condition: Callable[[State], bool]) -> None:
        """Return once the counters are as the condition wants them."""
        async with self._changed:
            await self._changed.wait_for(lambda: condition(self.state))

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[_errors], client_max_size=64 * 2**20)
        app.add_routes(
            [
                web.get("/", self._root),
                web.get("/api/version", self._get_version),
                web.get("/api/tags", self._tags),
                web.get("/api/ps", self._ps),
                web.get("/api/status", self._status),
                web.post("/api/show", self._show),
                web.post("/api/pull", self._pull),
                web.post("/api/chat", self._chat),
                web.post("/api/generate", self._generate),
                web.post("/api/embed", self._embed),
                web.get("/_stub/state", self._get_state),
                web.get("/_stub/idle", self._get_idle_state),
                web.post("/_stub/behaviour", self._set_behaviour),
            ]
        )
        return app

    # Read endpoints.

    async def _root(self, _request: web.Request) -> web.Response:
        return web.Response(text="Ollama is running")

    async def _get_version(self, _request: web.Request) -> web.Response:
        return json_response({"version": self.version})

    async def _status(self, _request: web.Request) -> web.Response:
        return json_response({"cloud": {"disabled": False, "source": "none"}})

    async def _tags(self, _request: web.Request) -> web.Response:
        return json_response({"models": [self._entry(name) for name in self.models]})

    async def _ps(self, _request: web.Request) -> web.Response:
        loaded = [
            {
                **self._entry(name),
                "expires_at": rfc3339(self._expiry(name)),
                "size_vram": 0,
                "context_length": 4096,
            }
            for name, behaviour in self.models.items()
            if behaviour.is_loaded
        ]
        return json_response({"models": loaded})

    async def _show(self, request: web.Request) -> web.Response:
        name, behaviour = self._find((await _body(request)).get("model"))
        return json_response(
            {
                "modelfile": f"FROM {name}",
                "details": _details(behaviour),
                "model_info": {
                    "general.architecture": "llama",
                    "llama.context_length": 131072,
                },
                "capabilities": list(behaviour.capabilities),
                "modified_at": rfc3339(now()),
            }
        )

    def _entry(self, name: str) -> dict[str, Any]:
        behaviour = self.models[name]
        entry = {
            "name": name,
            "model": name,
            "modified_at": rfc3339(now()),
            "size": 2019393189,
            "digest": hashlib.sha256(name.encode()).hexdigest(),
            "details": _details(behaviour),
            "capabilities": list(behaviour.capabilities),
            "remote_model": behaviour.remote_model,
            "remote_host": behaviour.remote_host,
        }
        return {key: value for key, value in entry.items() if value != ""}

    def _expiry(self, name: str) -> datetime:
        fallback = now() + timedelta(seconds=KEEP_ALIVE_DEFAULT_S)
        return self._expires.get(name, fallback)

    def _find(self, wanted: object) -> tuple[str, Behaviour]:
        if not isinstance(wanted, str) or not wanted:
            raise StubError(400, "model is required")
        for name in (wanted, f"{wanted}:latest"):
            if name in self.models:
                return name, self.models[name]
        raise StubError(404, f"model '{wanted}' not found")

    # Pulling.

    async def _pull(self, request: web.Request) -> web.StreamResponse:
        body = await _body(request)
        name = str(body.get("model") or body.get("name") or "")
        if not name:
            raise StubError(400, "model is required")
        digest = hashlib.sha256(name.encode()).hexdigest()
        lines: list[dict[str, Any]] = [{"status": "pulling manifest"}]
        if name.startswith("missing"):
            lines.append({"error": "pull model manifest: file does not exist"})
        else:
            layer = {
                "status": f"pulling {digest[:12]}",
                "digest": f"sha256:{digest}",
                "total": 100,
            }
            lines += [layer, {**layer, "completed": 50}, {**layer, "completed": 100}]
            for status in ("verifying sha256 digest", "writing manifest", "success"):
                lines.append({"status": status})
            self.models.setdefault(
                name if ":" in name else f"{name}:latest", Behaviour()
            )
        if body.get("stream") is False:
            return json_response(lines[-1], 500 if "error" in lines[-1] else 200)
        response = ndjson()
        await response.prepare(request)
        for line in lines:
            await response.write(line_bytes(line))
        return response

    # Prompts.

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(
            request,
            "messages",
            lambda text, thinking: {
                "message": present(role="assistant", thinking=thinking)
                | {"content": text}
            },
        )

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(
            request,
            "prompt",
            lambda text, thinking: {"response": text} | present(thinking=thinking),
        )

    async def _embed(self, request: web.Request) -> web.Response:
        """Lengths of texts, so that a test sees which vector is whose."""
        body = await _body(request)
        name, _behaviour = self._find(body.get("model"))
        self.state.requests.append(body)
        inputs = body.get("input")
        texts = [inputs] if isinstance(inputs, str) else list(inputs or ())
        width = body.get("dimensions") or 4
        vectors = [[float(len(text)), *[0.5] * (width - 1)] for text in texts]
        return json_response(
            {"model": name, "embeddings": vectors, "prompt_eval_count": len(texts)}
        )

    async def _answer(
        self, request: web.Request, prompt_field: str, piece: Piece
    ) -> web.StreamResponse:
        body = await _body(request)
        began_s = time.monotonic()
        name, behaviour = self._find(body.get("model"))
        self.state.requests.append(body)
        _check(body, name, behaviour)
        if self.is_busy:
            raise StubError(503, BUSY_TEXT)
        if behaviour.status != 200:
            raise StubError(behaviour.status, behaviour.error_text)
        answer = StubAnswer(request, body, behaviour, piece, name, began_s)
        if not body.get(prompt_field):
            return await answer.nothing_to_say()
        try:
            async with self._slot(name):
                await self._load(name, behaviour, body)
                answer.load_ns = ns_since(began_s)
                response = await answer.run()
                self.state.completed += 1
                return response
        except (asyncio.CancelledError, ConnectionError):
            self.state.closed_by_client += 1
            raise
        finally:
            self._expires[name] = now() + _keep_alive(body.get("keep_alive"))
            await self._notify()

    @contextlib.asynccontextmanager
    async def _slot(self, name: str) -> Any:
        """Waits without limit and without a byte, as Ollama does."""
        slots = self._slots.setdefault(name, asyncio.Semaphore(self._parallel))
        self.state.waiting += 1
        await self._notify()
        try:
            await slots.acquire()
        finally:
            self.state.waiting -= 1
        self.state.active += 1
        self.state.active_max = max(self.state.active_max, self.state.active)
        try:
            await self._notify()
            yield
        finally:
            self.state.active -= 1
            slots.release()
            await self._notify()

    async def _load(
        self, name: str, behaviour: Behaviour, body: dict[str, Any]
    ) -> None:
        options = body.get("options") or {}
        wanted = {key: options[key] for key in options if key in RUNNER_OPTIONS}
        if behaviour.is_loaded and wanted != self._runner_options.get(name, {}):
            self.state.reloads += 1
            behaviour.is_loaded = False
        if not behaviour.is_loaded:
            await asyncio.sleep(behaviour.load_s)
            behaviour.is_loaded = True
            self._runner_options[name] = wanted

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    # The stub's own endpoints.

    async def _get_idle_state(self, request: web.Request) -> web.Response:
        await self.wait_for(lambda state: not state.active and not state.waiting)
        return await self._get_state(request)

    async def _get_state(self, _request: web.Request) -> web.Response:
        return json_response(dataclasses.asdict(self.state))

    async def _set_behaviour(self, request: web.Request) -> web.Response:
        body = await _body(request)
        name = str(body.pop("model"))
        if "is_busy" in body:
            self.is_busy = bool(body.pop("is_busy"))
        for key in ("fragments", "thinking", "capabilities"):
            if key in body:
                body[key] = tuple(body[key])
        current = self.models.get(name, Behaviour())
        self.models[name] = dataclasses.replace(current, **body)
        return json_response({"model": name})


@web.middleware
async def _errors(
    request: web.Request,
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> web.StreamResponse:
    try:
        return await handler(request)
    except StubError as error:
        return json_response({"error": error.text}, error.status)
    except web.HTTPNotFound:
        return web.Response(status=404, text="404 page not found")
    except web.HTTPMethodNotAllowed:
        return web.Response(status=405, text="405 method not allowed")


async def _body(request: web.Request) -> dict[str, Any]:
    raw = await request.read()
    if not raw:
        raise StubError(400, "missing request body")
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise StubError(400, f"invalid character: {error}") from None
    if not isinstance(body, dict):
        raise StubError(400, "json: cannot unmarshal into Go value of type api.Request")
    return body


def _check(body: dict[str, Any], name: str, behaviour: Behaviour) -> None:
    """What the real one refuses before it looks for a slot."""
    if "completion" not in behaviour.capabilities:
        raise StubError(400, f'"{name}" does not support chat')
    if body.get("tools") and "tools" not in behaviour.capabilities:
        raise StubError(400, f"{name} does not support tools")
    messages = body.get("messages") or ()
    if "vision" not in behaviour.capabilities and any("images" in m for m in messages):
        raise StubError(400, f"{name} does not support vision")
    if body.get("think") is True and "thinking" not in behaviour.capabilities:
        raise StubError(400, f'"{name}" does not support thinking')
    _keep_alive(body.get("keep_alive"))
    for option, value in (body.get("options") or {}).items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if option in INTEGER_OPTIONS and not (is_number and value == int(value)):
            raise StubError(500, f'option "{option}" must be of type integer')
        if option in FLOAT_OPTIONS and not is_number:
            raise StubError(500, f'option "{option}" must be of type float32')


def _keep_alive(value: object) -> timedelta:
    """A number of seconds or a Go duration; negative is for ever."""
    if value is None:
        return timedelta(seconds=KEEP_ALIVE_DEFAULT_S)
    if isinstance(value, bool):
        raise StubError(400, "Unsupported type: 'bool'")
    if isinstance(value, int | float):
        seconds = float(value)
    else:
        text = str(value)
        if not re.fullmatch(r"-?(\d+(\.\d+)?(ms|h|m|s))+", text):
            raise StubError(400, f'time: invalid duration "{text}"')
        units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
        pairs = re.findall(r"(\d+(?:\.\d+)?)(ms|h|m|s)", text)
        seconds = sum(float(number) * units[unit] for number, unit in pairs)
        seconds = -seconds if text.startswith("-") else seconds
    return timedelta(days=36500) if seconds < 0 else timedelta(seconds=seconds)


def _details(behaviour: Behaviour) -> dict[str, Any]:
    family = "llama" if "completion" in behaviour.capabilities else "nomic-bert"
    return {
        "parent_model": "",
        "format": "gguf",
        "family": family,
        "families": [family],
        "parameter_size": "3.2B",
        "quantization_level": "Q4_K_M",
    }


async def _run(port: int) -> None:
    async with OllamaStub(port=port) as stub:
        sys.stdout.write(f"{stub.url}\n")
        sys.stdout.flush()
        await asyncio.get_running_loop().create_future()


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_run(parser.parse_args().port))


if __name__ == "__main__":
    main()
