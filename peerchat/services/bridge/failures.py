"""A failure of any kind as the answer that clients of its API understand."""

from __future__ import annotations

from aiohttp import web

from peerchat.api import ApiError, ErrorCode

from .api_errors import (
    ollama_error_response,
    openai_error_response,
)
from .errors import api_error_response, error_body
from .exchange import exchange
from .operation import Api

_HTTP_WORDS = {
    404: ("not_found", "There is no such path; GET /docs lists those that exist."),
    405: ("method_not_allowed", "This path does not take that method; see Allow."),
}

_GIN_WORDS = {404: "404 page not found", 405: "405 method not allowed"}
"""What Ollama's clients know, as gin has it."""


def api_failure(error: ApiError, api: Api, *, is_node_path: bool) -> web.Response:
    """What was refused, or failed, on any hop."""
    if api is Api.OPENAI:
        return openai_error_response(error)
    if api is Api.OLLAMA:
        return ollama_error_response(error, exchange.get().model)
    return api_error_response(error, is_node_path=is_node_path)


def http_failure(
    error: web.HTTPException, api: Api, *, is_node_path: bool
) -> web.Response:
    """What the server itself refused."""
    code, words = _words(error)
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
    if api is Api.OLLAMA and error.status in _GIN_WORDS:
        text = _GIN_WORDS[error.status]
        return web.Response(text=text, status=error.status, headers=headers)
    if api is Api.BRIDGE:
        body = error_body(error.status, code, words, is_node_path=is_node_path)
        return web.json_response(body, status=error.status, headers=headers)
    failure = ApiError(ErrorCode.INVALID_REQUEST, words, status=error.status)
    if api is Api.OLLAMA:
        response = ollama_error_response(failure)
    else:
        response = openai_error_response(failure, code)
    response.headers.update(headers)
    return response


def _words(error: web.HTTPException) -> tuple[str, str]:
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return "too_large", error.text or "The body is too large; send less."
    return _HTTP_WORDS.get(
        error.status, (ErrorCode.INVALID_REQUEST.value, "The request is malformed.")
    )
