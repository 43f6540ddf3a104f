"""Puts the paths behind the guard: every request is stamped, counted and logged, and
every failure becomes a body in the manner of its API.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from peerchat.api import ApiError, ErrorCode
from peerchat.gateways import Gateways
from peerchat.logs import request_context
from peerchat.sanitize import display_line
from peerchat.services.metrics import RequestMetric, RoleMetrics
from peerchat.settings import Settings

from .answering import Answering
from .callers import Account, Callers
from .documents import CONTENT_SECURITY_POLICY, docs_page, openapi
from .exchange import Exchange, exchange
from .failures import api_failure, http_failure
from .guard import Guard
from .handlers import Handlers
from .ollama_handlers import OllamaHandlers
from .openai_handlers import OpenAiHandlers
from .operation import Api, Operation
from .operations import OPERATIONS, api_of
from .running import Running
from .swarm_models import SwarmModels

logger = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

BODY_BYTES_MAX = 1024 * 1024
"""A larger body gets 413; the longest prompt takes a quarter of it, unescaped. Where a
body may hold images, `answering.BODY_BYTES_MAX` counts."""

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True, slots=True)
class Listener:
    """What one port serves, and to whom."""

    apis: frozenset[Api] = frozenset(Api)
    own: Account | None = None
    """For callers of this machine who have no token."""
    manners: Api | None = None
    """Of what nobody serves; None: by its path."""


MAIN = Listener()


def make_application(
    settings: Settings,
    gateways: Gateways,
    metrics: RoleMetrics,
    running: Running,
    listener: Listener = MAIN,
) -> web.Application:
    """Make the bridge's application; it starts nothing and owns nothing."""
    front = _Front(Guard(settings), metrics, running, listener)
    app = web.Application(
        client_max_size=BODY_BYTES_MAX, middlewares=[front.middleware]
    )
    models = SwarmModels(gateways)
    answering = Answering(settings, gateways, metrics, Callers(listener.own))
    handlers = {
        Api.BRIDGE: Handlers(settings, gateways, metrics, models),
        Api.OPENAI: OpenAiHandlers(answering, models),
        Api.OLLAMA: OllamaHandlers(answering, models),
    }
    documents: dict[str, Handler] = {"openapi": _openapi, "docs": _docs}
    for operation in OPERATIONS:
        if operation.api not in listener.apis:
            continue
        name = operation.handler or operation.name
        handler = documents.get(name) or getattr(handlers[operation.api], name)
        path = operation.path.replace("{model}", "{model:.+}")
        app.router.add_route(operation.method, path, handler)
        if operation.has_head:
            app.router.add_route("HEAD", path, handler)
    return app


async def _openapi(request: web.Request) -> web.StreamResponse:
    return web.json_response(openapi())


async def _docs(request: web.Request) -> web.StreamResponse:
    return web.Response(
        text=docs_page(),
        content_type="text/html",
        headers={"Content-Security-Policy": CONTENT_SECURITY_POLICY},
    )


_BY_ROUTE: dict[tuple[str, str], Operation] = {
    (each.method, each.path): each for each in OPERATIONS
}
_BY_PATH: dict[str, Operation] = {each.path: each for each in OPERATIONS}


def _operation(request: web.Request) -> Operation | None:
    """What is asked for; also for a method that its path does not take."""
    resource = request.match_info.route.resource
    path = resource.canonical if resource is not None else request.path
    method = "GET" if request.method == "HEAD" else request.method
    return _BY_ROUTE.get((method, path)) or _BY_PATH.get(path)


class _Front:
    """What happens around every request."""

    def __init__(
        self, guard: Guard, metrics: RoleMetrics, running: Running, listener: Listener
    ) -> None:
        self._guard = guard
        self._metrics = metrics
        self._running = running
        self._listener = listener

        @web.middleware
        async def middleware(
            request: web.Request, handler: Handler
        ) -> web.StreamResponse:
            return await self._around(request, handler)

        self.middleware = middleware

    async def _around(
        self, request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        operation = _operation(request)
        if operation is not None and operation.api not in self._listener.apis:
            operation = None
        name = operation.name if operation is not None else "unknown"
        identifier = uuid.uuid4().hex
        current = Exchange({**SECURITY_HEADERS, "X-Request-Id": identifier})
        exchange.set(current)
        started_s = time.monotonic()
        with request_context(identifier):
            with self._metrics.request(name) as metric:
                response = await self._answer(request, handler, operation, metric)
            if self._running.is_stopping and not response.prepared:
                response.force_close()
            if not response.prepared:
                for header, value in current.headers.items():
                    response.headers.setdefault(header, value)
            logger.info(
                "%s %s %d %.3f s from %s",
                request.method if operation else display_line(request.method, 20),
                display_line(request.path, 80),
                response.status,
                time.monotonic() - started_s,
                self._guard.client_address(request),
            )
        return response

    async def _answer(
        self,
        request: web.Request,
        handler: Handler,
        operation: Operation | None,
        metric: RequestMetric,
    ) -> web.StreamResponse:
        api = operation.api if operation else self._listener.manners
        api = api or api_of(request.path)
        is_node_path = operation is not None and operation.is_node_path
        try:
            if why := self._guard.refusal(request):
                raise ApiError(ErrorCode.FORBIDDEN, why, status=403)
            exchange.get().headers |= self._guard.cors_headers(request)
            is_preflight = request.method == "OPTIONS" and "Origin" in request.headers
            if is_preflight and operation is not None:
                return web.Response(status=204)
            async with self._running.one():
                response = await handler(request)
            metric.outcome = exchange.get().outcome
            return response
        except ApiError as error:
            metric.outcome = error.code.value
            if error.code is ErrorCode.RATE_LIMITED:
                self._metrics.limited()
            if end_stream := exchange.get().end_stream:
                return await end_stream(error)
            return api_failure(error, api, is_node_path=is_node_path)
        except web.HTTPException as error:
            metric.outcome = ErrorCode.INVALID_REQUEST.value
            return http_failure(error, api, is_node_path=is_node_path)
        except asyncio.CancelledError:
            raise
        except Exception:
            logger.exception("the request failed in a way that nobody foresaw")
            metric.outcome = ErrorCode.INTERNAL.value
            unforeseen = ApiError(
                ErrorCode.INTERNAL,
                "The bridge failed; its error log says why.",
                status=500,
            )
            return api_failure(unforeseen, api, is_node_path=is_node_path)
