"""Puts the paths behind the guard: every request is stamped, counted and logged, and
every failure becomes a JSON body.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable

from aiohttp import web

from peerchat.api import ApiError, ErrorCode
from peerchat.gateways import Gateways
from peerchat.logs import request_context
from peerchat.sanitize import display_line
from peerchat.services.metrics import RequestMetric, RoleMetrics
from peerchat.settings import Settings

from .documents import CONTENT_SECURITY_POLICY, docs_page, openapi
from .errors import api_error_response, error_body
from .exchange import Exchange, exchange
from .guard import Guard
from .handlers import Handlers
from .operations import OPERATIONS, Operation

logger = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

BODY_BYTES_MAX = 1024 * 1024
"""A larger body gets 413; the longest prompt takes a quarter of it, unescaped."""

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

_BY_PATH: dict[str, Operation] = {each.path: each for each in OPERATIONS}


def make_application(
    settings: Settings, gateways: Gateways, metrics: RoleMetrics
) -> web.Application:
    """Make the bridge's application; it starts nothing and owns nothing."""
    front = _Front(Guard(settings), metrics)
    app = web.Application(
        client_max_size=BODY_BYTES_MAX, middlewares=[front.middleware]
    )
    handlers = Handlers(settings, gateways, metrics)
    documents: dict[str, Handler] = {"openapi": _openapi, "docs": _docs}
    for operation in OPERATIONS:
        handler = documents.get(operation.name) or getattr(handlers, operation.name)
        app.router.add_route(operation.method, operation.path, handler)
    return app


async def _openapi(request: web.Request) -> web.StreamResponse:
    return web.json_response(openapi())


async def _docs(request: web.Request) -> web.StreamResponse:
    return web.Response(
        text=docs_page(),
        content_type="text/html",
        headers={"Content-Security-Policy": CONTENT_SECURITY_POLICY},
    )


class _Front:
    """What happens around every request."""

    def __init__(self, guard: Guard, metrics: RoleMetrics) -> None:
        self._guard = guard
        self._metrics = metrics

        @web.middleware
        async def middleware(
            request: web.Request, handler: Handler
        ) -> web.StreamResponse:
            return await self._around(request, handler)

        self.middleware = middleware

    async def _around(
        self, request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        operation = _BY_PATH.get(request.path)
        name = operation.name if operation is not None else "unknown"
        identifier = uuid.uuid4().hex
        current = Exchange({**SECURITY_HEADERS, "X-Request-Id": identifier})
        exchange.set(current)
        started_s = time.monotonic()
        with request_context(identifier):
            with self._metrics.request(name) as metric:
                response = await self._answer(request, handler, operation, metric)
            if not response.prepared:
                for header, value in current.headers.items():
                    response.headers.setdefault(header, value)
            logger.info(
                "%s %s %d %.3f s from %s",
                request.method if operation else display_line(request.method, 20),
                request.path if operation else display_line(request.path, 80),
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
        is_node_path = operation is not None and operation.is_node_path
        try:
            if why := self._guard.refusal(request):
                raise ApiError(ErrorCode.UNAUTHORIZED, why, status=403)
            exchange.get().headers |= self._guard.cors_headers(request)
            is_preflight = request.method == "OPTIONS" and "Origin" in request.headers
            if is_preflight and operation is not None:
                return web.Response(status=204)
            response = await handler(request)
            metric.outcome = exchange.get().outcome
            return response
        except ApiError as error:
            metric.outcome = error.code.value
            if error.code is ErrorCode.RATE_LIMITED:
                self._metrics.limited()
            return api_error_response(error, is_node_path=is_node_path)
        except web.HTTPException as error:
            metric.outcome = ErrorCode.INVALID_REQUEST.value
            return _http_error(error, is_node_path=is_node_path)
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
            return api_error_response(unforeseen, is_node_path=is_node_path)


_HTTP_WORDS = {
    404: ("not_found", "There is no such path; GET /docs lists those that exist."),
    405: ("method_not_allowed", "This path does not take that method; see Allow."),
    413: ("too_large", f"The body is over {BODY_BYTES_MAX} bytes; send less."),
}


def _http_error(error: web.HTTPException, *, is_node_path: bool) -> web.Response:
    """What aiohttp itself refused, as JSON."""
    code, words = _HTTP_WORDS.get(
        error.status, (ErrorCode.INVALID_REQUEST.value, "The request is malformed.")
    )
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
    body = error_body(error.status, code, words, is_node_path=is_node_path)
    return web.json_response(body, status=error.status, headers=headers)
