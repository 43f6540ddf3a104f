"""What each path does: checks the body, asks a gateway, shapes the answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from aiohttp import web

from peerchat.api import ApiError, ErrorCode, Finished
from peerchat.gateways import Gateways
from peerchat.logs import request_id
from peerchat.services.metrics import RoleMetrics
from peerchat.services.metrics_http import metrics_response
from peerchat.settings import Settings

from .body import json_body
from .callers import bearer
from .errors import api_error_response, error_body, invalid, rate_limit_body
from .event_stream import Events, now_text
from .exchange import exchange
from .kept import Kept
from .presence import watch_idle
from .provenance import provenance
from .streaming import send_stream
from .swarm_models import SwarmModels
from .whole import read_all

HEALTH_KEPT_S = 1.0
"""Anyone who reaches the port may ask; the swarm is asked no more often than this."""


class Handlers:
    """The paths of one bridge."""

    def __init__(
        self,
        settings: Settings,
        gateways: Gateways,
        metrics: RoleMetrics,
        models: SwarmModels,
    ) -> None:
        self._settings = settings
        self._gateways = gateways
        self._metrics = metrics
        self._health = Kept[str](HEALTH_KEPT_S)
        self._models = models

    async def register(self, request: web.Request) -> web.StreamResponse:
        email, password = await _credentials(request)
        account = await self._gateways.register(email, password)
        body = {
            "success": True,
            "status": 201,
            "message": "User registered successfully",
            "email": account.email,
        }
        return web.json_response(body, status=201)

    async def login(self, request: web.Request) -> web.StreamResponse:
        email, password = await _credentials(request)
        login = await self._gateways.login(email, password)
        body = {
            "success": True,
            "status": 200,
            "email": login.account.email,
            "key": login.token,
        }
        return web.json_response(body)

    async def inference(self, request: web.Request) -> web.StreamResponse:
        token = bearer(request)
        body = await json_body(request)
        prompt = self._prompt(body)
        model, options = body.get("model"), body.get("options")
        if model is not None and not isinstance(model, str):
            raise invalid("model must be a text.")
        if options is not None and not isinstance(options, Mapping):
            raise invalid("options must be an object.")
        watch_idle(request.transport)
        async with self._gateways.ask(
            prompt, token, model=model, options=options, request_id=request_id.get()
        ) as answer:
            if "text/event-stream" in request.headers.get("Accept", ""):
                current = exchange.get()
                events = Events(answer.request_id)
                response, end = await send_stream(
                    request, answer, events, current.headers
                )
                if isinstance(end, ApiError):
                    current.outcome = end.code.value
                else:
                    self._count(end)
                return response
            whole = await read_all(answer)
        self._count(whole.end)
        return web.json_response(
            {
                "prompt": prompt,
                "response": whole.text,
                "processed_at": now_text(),
                "requestId": whole.end.request_id or answer.request_id,
                "rateLimitInfo": rate_limit_body(whole.end.rate_limit),
                **provenance(whole.end),
            }
        )

    async def verify_session(self, request: web.Request) -> web.StreamResponse:
        try:
            verified = await self._gateways.verify(bearer(request))
        except ApiError as error:
            exchange.get().outcome = error.code.value
            return api_error_response(error, is_node_path=True, extra={"valid": False})
        return web.json_response(
            {
                "valid": True,
                "email": verified.account.email,
                "rateLimitInfo": rate_limit_body(verified.rate_limit),
            }
        )

    async def get_api_token(self, request: web.Request) -> web.StreamResponse:
        """Confirm the caller's own token; nobody gets one here who has none."""
        token = bearer(request)
        await self._gateways.verify(token)
        return web.json_response({"success": True, "token": token})

    async def health(self, request: web.Request) -> web.StreamResponse:
        problem = await self._health.get(self._problem)
        body = {
            "status": "unhealthy" if problem else "healthy",
            "timestamp": now_text(),
            "service": "bridge",
            "gateway": not problem,
            "message": problem or "A gateway answers.",
        }
        if problem:
            error = error_body(503, ErrorCode.NO_GATEWAY.value, problem)
            return web.json_response({**body, **error}, status=503)
        return web.json_response(body)

    async def models(self, request: web.Request) -> web.StreamResponse:
        found = await self._models.all()
        return web.json_response({"models": [dataclasses.asdict(m) for m in found]})

    async def metrics(self, request: web.Request) -> web.StreamResponse:
        return metrics_response(request, [self._metrics])

    async def _problem(self) -> str:
        try:
            await self._gateways.ping()
        except ApiError as error:
            return error.message
        return ""

    def _prompt(self, body: Mapping[str, object]) -> str:
        prompt = body.get("query", body.get("prompt"))
        if not isinstance(prompt, str) or not prompt.strip():
            raise invalid("query (or prompt) must be a text that is not empty.")
        most = self._settings.prompt_bytes_max
        if len(prompt.encode()) > most:
            raise invalid(f"The prompt is longer than {most} bytes; shorten it.")
        return prompt

    def _count(self, end: Finished) -> None:
        self._metrics.tokens(end.usage.answer_tokens)
        self._metrics.tokens(end.usage.prompt_tokens, kind="prompt")


async def _credentials(request: web.Request) -> tuple[str, str]:
    body = await json_body(request)
    email, password = body.get("email"), body.get("password")
    if not (isinstance(email, str) and isinstance(password, str)):
        raise invalid("email and password are required, both as texts.")
    if not email.strip() or not password:
        raise invalid("email and password must not be empty.")
    return email, password
