"""How OpenAI-compatible engines are asked: small answers, and lines of long ones.

Closing the iteration of `EngineHttp.lines` closes the request, which is how such
engines are stopped. Nothing here knows what the lines mean. The limits are Ollama's
too, whose requests are in `peerchat.services.engines.ollama_client`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

import httpx
import msgspec

from .base import engine_failed
from .places import is_loopback

FIRST_BYTE_TIMEOUT_S = 600.0
"""Ollama gives a load 5 minutes without progress; reading the prompt comes on top."""

STALL_TIMEOUT_S = 90.0
"""Between two tokens; slow machines need seconds, a wedged runner needs for ever."""

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 2.0
"""For the small read endpoints: they answer from memory."""

LINE_BYTES_MAX = 4 * 1024 * 1024
"""A line is one token or one function call; an error text of a server is on one too."""

REFUSAL_BYTES_MAX = 64 * 1024

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EngineTimeouts:
    """How long an engine may be silent."""

    first_byte_s: float = FIRST_BYTE_TIMEOUT_S
    """Before an answer begins."""
    stall_s: float = STALL_TIMEOUT_S
    """Within an answer."""


class HttpRefusal(Exception):
    """The engine answered with a status other than 200."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class Silence(Exception):
    """The engine sent nothing for longer than it may."""

    def __init__(self, limit_s: float) -> None:
        super().__init__(f"silent for {limit_s:.0f} s")
        self.limit_s = limit_s


class EngineHttp:
    """Requests to one server.

    Args:
        url: what paths are added to.
        key: sent as a bearer token; empty for none.
        timeouts: how long it may be silent.
    """

    def __init__(self, url: str, timeouts: EngineTimeouts, *, key: str = "") -> None:
        self.url = url
        self._timeouts = timeouts
        self._http = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT_S),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=16),
            # A proxy of the environment must not see prompts for this machine.
            trust_env=not is_loopback(url),
            follow_redirects=False,
        )

    async def get(self, path: str) -> bytes:
        """A small answer; raises `HttpRefusal`, `httpx.HTTPError`, `TimeoutError`."""
        async with asyncio.timeout(READ_TIMEOUT_S):
            response = await self._http.get(self.url + path)
        return _checked(response)

    async def post(self, path: str, body: Mapping[str, object]) -> bytes:
        """A whole answer that may take as long as one begins to come."""
        async with asyncio.timeout(self._timeouts.first_byte_s):
            response = await self._http.post(
                self.url + path,
                content=msgspec.json.encode(body),
                headers={"Content-Type": "application/json"},
            )
        return _checked(response)

    async def lines(
        self, path: str, body: Mapping[str, object]
    ) -> AsyncGenerator[bytes, None]:
        """The lines of an answer, as they come and without empty ones.

        Raises:
            HttpRefusal: it did not begin.
            Silence: nothing came for too long.
        """
        parts = without_silence(self._lines(path, body), self._timeouts)
        async with aclosing(parts) as lines:
            async for line in lines:
                yield line

    async def close(self) -> None:
        """Close the connections; running requests fail."""
        await self._http.aclose()

    async def _lines(
        self, path: str, body: Mapping[str, object]
    ) -> AsyncGenerator[bytes, None]:
        async with self._http.stream(
            "POST",
            self.url + path,
            content=msgspec.json.encode(body),
            headers={"Content-Type": "application/json"},
        ) as response:
            if response.status_code != 200:
                raise HttpRefusal(response.status_code, await _refusal(response))
            rest = b""
            async for data in response.aiter_bytes():
                *lines, rest = (rest + data).split(b"\n")
                if len(rest) > LINE_BYTES_MAX:
                    raise engine_failed("The engine sent a line that is too long.")
                for line in lines:
                    if line.strip():
                        yield line.strip()
            if rest.strip():
                yield rest.strip()


async def without_silence(
    parts: AsyncGenerator[T, None], timeouts: EngineTimeouts
) -> AsyncGenerator[T, None]:
    """The same parts, as long as they keep coming; closes what they come from.

    Raises:
        Silence: nothing came for too long.
    """
    limit_s = timeouts.first_byte_s
    async with aclosing(parts):
        while True:
            try:
                async with asyncio.timeout(limit_s):
                    part = await anext(parts, None)
            except TimeoutError:
                raise Silence(limit_s) from None
            if part is None:
                return
            limit_s = timeouts.stall_s
            yield part


def is_unreachable(error: Exception) -> bool:
    """Whether nobody listens there, or nobody that answers."""
    return isinstance(
        error,
        httpx.ConnectError | httpx.TimeoutException | ConnectionError | TimeoutError,
    )


def _checked(response: httpx.Response) -> bytes:
    if response.status_code != 200:
        raise HttpRefusal(response.status_code, response.text)
    return response.content


async def _refusal(response: httpx.Response) -> str:
    data = b""
    async for piece in response.aiter_bytes():
        data += piece
        if len(data) > REFUSAL_BYTES_MAX:
            break
    return data[:REFUSAL_BYTES_MAX].decode("utf-8", "replace")
