"""A stand-in for a server with OpenAI's API, for what a real model does not do at will.

What it answers is a list of pieces: a string is text, ``Thinking`` is reasoning, a
dictionary is sent as it is, ``CUT`` drops the connection, ``STALL`` waits for ever,
``END`` ends the stream without the finish reason. After the last piece the answer ends
well, with usage.

    async with OpenAiStub({"m": ["Hello", " there"]}) as stub:
        engine = OpenAiEngine(url=stub.url)
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from aiohttp import web


@dataclass(frozen=True)
class Thinking:
    """A piece of reasoning."""

    text: str


class _Mark:
    pass


CUT: Final = _Mark()
STALL: Final = _Mark()
END: Final = _Mark()

Piece = str | Thinking | dict[str, Any] | _Mark
Script = Sequence[Piece]


class OpenAiStub:
    """The server; use as an async context manager.

    Args:
        models: what each answers.
        key: bearer token that is wanted; empty for none.
        status: answered to every prompt, unless 200.
        error: the text that goes with it.
        delay_s: before each piece.
    """

    def __init__(
        self,
        models: Mapping[str, Script],
        *,
        key: str = "",
        status: int = 200,
        error: str = "",
        delay_s: float = 0.0,
    ) -> None:
        self.models = dict(models)
        self.requests: list[dict[str, Any]] = []
        self.active = 0
        self.status = status
        self.error = error
        self._key = key
        self._delay_s = delay_s
        self._changed = asyncio.Condition()
        self._runner: web.AppRunner | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """Of the API."""
        return f"http://127.0.0.1:{self._port}/v1"

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 2**20)
        app.add_routes(
            [
                web.get("/v1/models", self._models),
                web.post("/v1/chat/completions", self._chat),
                web.post("/v1/completions", self._complete),
                web.post("/v1/embeddings", self._embed),
            ]
        )
        self._runner = web.AppRunner(
            app, handler_cancellation=True, access_log=None, shutdown_timeout=0
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_error: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def wait_for(self, condition: Callable[[OpenAiStub], bool]) -> None:
        """Return once the condition holds."""
        async with self._changed:
            await self._changed.wait_for(lambda: condition(self))

    async def _models(self, request: web.Request) -> web.Response:
        if refused := self._refused(request, {}):
            return refused
        data = [{"id": name, "object": "model"} for name in self.models]
        return web.json_response({"object": "list", "data": data})

    async def _embed(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.requests.append(body)
        vectors = [
            {"index": index, "embedding": [float(len(text)), 1.0]}
            for index, text in enumerate(body["input"])
        ]
        # Out of order, which the API allows.
        return web.json_response({"data": vectors[::-1], "usage": {"prompt_tokens": 3}})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, lambda text: {"delta": {"content": text}})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, lambda text: {"text": text})

    async def _answer(
        self, request: web.Request, choice: Callable[[str], dict[str, Any]]
    ) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        if refused := self._refused(request, body):
            return refused
        await self._count(1)
        try:
            return await self._send(request, body, choice)
        finally:
            await self._count(-1)

    async def _send(
        self,
        request: web.Request,
        body: dict[str, Any],
        choice: Callable[[str], dict[str, Any]],
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        reason = "stop"
        count = 0
        limit = body.get("max_tokens") or 10**9
        for piece in self._script(body):
            await asyncio.sleep(self._delay_s)
            if count == limit:
                reason = "length"
                break
            if isinstance(piece, _Mark):
                if piece is STALL:
                    await asyncio.get_running_loop().create_future()
                if piece is CUT and request.transport is not None:
                    request.transport.abort()
                return response
            count += 1
            data = piece
            if isinstance(piece, str):
                data = {"choices": [{"index": 0, **choice(piece)}]}
            elif isinstance(piece, Thinking):
                delta = {"reasoning_content": piece.text}
                data = {"choices": [{"index": 0, "delta": delta}]}
            elif "tool_calls" in json.dumps(piece):
                reason = "tool_calls"
            await response.write(_line(data))
        end = {"index": 0, "delta": {}, "finish_reason": reason}
        await response.write(_line({"choices": [end]}))
        usage = {"prompt_tokens": 7, "completion_tokens": count}
        await response.write(_line({"choices": [], "usage": usage}))
        await response.write(b"data: [DONE]\n\n")
        return response

    def _script(self, body: dict[str, Any]) -> Script:
        """What is left to say: a last message of the assistant is gone on with."""
        script = self.models[body["model"]]
        last = (body.get("messages") or [{}])[-1]
        said = last.get("content", "") if last.get("role") == "assistant" else ""
        rest: list[Piece] = []
        for piece in script:
            if said and isinstance(piece, str) and said.startswith(piece):
                said = said.removeprefix(piece)
            elif said and isinstance(piece, str):
                rest.append(piece.removeprefix(said))
                said = ""
            elif not said:
                rest.append(piece)
        return rest

    def _refused(
        self, request: web.Request, body: dict[str, Any]
    ) -> web.Response | None:
        status, text = self.status, self.error
        if self._key and request.headers.get("Authorization") != f"Bearer {self._key}":
            status, text = 401, "Invalid API key"
        elif body and body.get("model") not in self.models:
            status, text = 404, f"The model `{body.get('model')}` does not exist."
        elif not body or status == 200:
            return None
        error = {"message": text, "type": "error", "code": status}
        return web.json_response({"error": error}, status=status)

    async def _count(self, step: int) -> None:
        async with self._changed:
            self.active += step
            self._changed.notify_all()


def _line(data: object) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"
