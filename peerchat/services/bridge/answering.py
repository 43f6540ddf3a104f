"""Asks a gateway and answers in an API's shape, in pieces or whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from aiohttp import web

from peerchat.api import ApiError, Usage
from peerchat.gateways import Gateways
from peerchat.logs import request_id
from peerchat.services.metrics import RoleMetrics
from peerchat.settings import Settings

from .asking import Asked, begin, check_sizes
from .body import json_body
from .callers import Callers
from .errors import invalid
from .exchange import exchange
from .presence import watch_idle
from .streaming import Dialect, send_stream
from .whole import WholeAnswer, read_all

BODY_BYTES_MAX = 12 * 1024 * 1024
"""Eight mebibytes of images, which is what a request may hold, are eleven in base64;
the rest is for the messages."""

INPUTS_MAX = 512
"""Texts to embed at once; clients cut longer lists into lots."""


class Shape(Dialect, Protocol):
    """An API's way to write an answer, in pieces or whole."""

    def whole(self, answer: WholeAnswer) -> dict[str, object]:
        """The answer in one object."""


class Answering:
    """What the handlers of both APIs have in common."""

    def __init__(
        self,
        settings: Settings,
        gateways: Gateways,
        metrics: RoleMetrics,
        callers: Callers,
    ) -> None:
        self.gateways = gateways
        self._settings = settings
        self._metrics = metrics
        self._callers = callers

    async def read(self, request: web.Request) -> tuple[str, Mapping[str, object]]:
        """The caller's token and the body; nobody without a token is read."""
        token = await self._callers.token(request)
        body = await json_body(request, bytes_max=BODY_BYTES_MAX)
        model = body.get("model")
        exchange.get().model = model if isinstance(model, str) else ""
        return token, body

    async def answer(
        self,
        request: web.Request,
        token: str,
        asked: Asked,
        shape: Shape,
        *,
        is_stream: bool,
    ) -> web.StreamResponse:
        """Ask, and answer; closing the connection stops the answer."""
        check_sizes(asked, self._settings)
        watch_idle(request.transport)
        current = exchange.get()
        async with begin(self.gateways, asked, token, request_id.get()) as answer:
            if is_stream:
                response, end = await send_stream(
                    request, answer, shape, current.headers
                )
                if isinstance(end, ApiError):
                    current.outcome = end.code.value
                else:
                    self._count(end.usage)
                return response
            whole = await read_all(answer)
        self._count(whole.end.usage)
        return web.json_response(shape.whole(whole))

    async def vectors(
        self,
        request: web.Request,
        token: str,
        inputs: Sequence[str],
        model: str,
        dimensions: int | None = None,
    ) -> tuple[Sequence[bytes], int]:
        """A vector for each text, and how many tokens they had."""
        watch_idle(request.transport)
        found = await self.gateways.embed(
            inputs,
            token,
            model=model or None,
            dimensions=dimensions,
            request_id=request_id.get(),
        )
        self._metrics.tokens(found.prompt_tokens, kind="prompt")
        return found.vectors, found.prompt_tokens or 0

    def inputs(self, value: object, name: str) -> list[str]:
        """Texts to embed: one, or a list of them."""
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not all(isinstance(t, str) for t in texts):
            raise invalid(f"{name} must be a text or a list of texts, not of tokens.")
        if len(texts) > INPUTS_MAX:
            raise invalid(f"{name} may have at most {INPUTS_MAX} texts.")
        most = self._settings.prompt_bytes_max
        if any(len(one.encode("utf-8", "replace")) > most for one in texts):
            raise invalid(f"A text of {name} is longer than {most} bytes; shorten it.")
        return texts

    def _count(self, usage: Usage) -> None:
        self._metrics.tokens(usage.answer_tokens)
        self._metrics.tokens(usage.prompt_tokens, kind="prompt")
