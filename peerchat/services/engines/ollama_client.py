"""The `ollama` package as this project asks it: its client, with bodies of our own.

Its request types drop what they do not know, the inner parts of a function's schema
among it, and its lists drop which models are a cloud's. So bodies go through the
client as they are, and lists come as bytes; HTTP, lines of JSON and errors are the
package's. Importing this costs half a second: `peerchat.services.engines.choose` looks
with `peerchat.services.engines.ollama_probe` first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, cast

import httpx
import ollama

from .engine_http import (
    CONNECT_TIMEOUT_S,
    READ_TIMEOUT_S,
    EngineTimeouts,
    without_silence,
)
from .places import is_loopback


class Call(ollama.Message.ToolCall):
    """A function call, with the id that the package's type has no place for."""

    id: str | None = None


class _Message(ollama.Message):
    tool_calls: Sequence[Call] | None = None


class ChatPart(ollama.ChatResponse):
    """A line of ``/api/chat``."""

    message: _Message


Part = ChatPart | ollama.GenerateResponse


class OllamaClient(ollama.AsyncClient):
    """Requests to one Ollama.

    Everything raises the package's errors: `ollama.ResponseError`, `ConnectionError`,
    and httpx's.

    Args:
        url: where it is.
        timeouts: how long it may be silent.
    """

    def __init__(self, url: str, timeouts: EngineTimeouts) -> None:
        super().__init__(
            url,
            timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT_S),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=16),
            # A proxy of the environment must not see prompts for this machine.
            trust_env=not is_loopback(url),
            follow_redirects=False,
        )
        self._timeouts = timeouts

    def parts(
        self, path: str, body: Mapping[str, object]
    ) -> AsyncGenerator[Part, None]:
        """The lines of an answer; closing this closes the HTTP request.

        Raises:
            Silence: nothing came for too long.
        """
        return without_silence(self._parts(path, body), self._timeouts)

    async def read(self, path: str) -> bytes:
        """A list as Ollama wrote it."""
        async with asyncio.timeout(READ_TIMEOUT_S):
            asked = self._request_raw("GET", path)  # type: ignore[no-untyped-call]
            response = await asked
        return cast(bytes, response.content)

    async def close(self) -> None:
        """Close the connections; running requests fail."""
        await super().close()  # type: ignore[no-untyped-call]

    async def details(self, model: str) -> ollama.ShowResponse:
        """What ``/api/show`` says."""
        async with asyncio.timeout(READ_TIMEOUT_S):
            return await self._request(
                ollama.ShowResponse, "POST", "/api/show", json={"model": model}
            )

    async def vectors(self, body: Mapping[str, object]) -> ollama.EmbedResponse:
        """What ``/api/embed`` makes of texts; may take as long as an answer."""
        async with asyncio.timeout(self._timeouts.first_byte_s):
            return await self._request(
                ollama.EmbedResponse, "POST", "/api/embed", json=body
            )

    async def _parts(
        self, path: str, body: Mapping[str, object]
    ) -> AsyncGenerator[Part, None]:
        kind: Any = ChatPart if path == "/api/chat" else ollama.GenerateResponse
        parts = await self._request(kind, "POST", path, json=body, stream=True)
        # The package says that it gives an iterator; closing needs the generator.
        generator = cast(AsyncGenerator[Part, None], parts)
        try:
            async for part in generator:
                yield part
        finally:
            await generator.aclose()
