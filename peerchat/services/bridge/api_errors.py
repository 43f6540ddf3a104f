"""How a failure looks to clients of OpenAI's and of Ollama's API."""

from __future__ import annotations

from aiohttp import web

from peerchat.api import ApiError, ErrorCode

OLLAMA_BUSY = "server busy, please try again.  "
"""How Ollama's words begin (server/routes.go); what is busy here, and until when, we
know better than "maximum pending requests exceeded"."""

_OPENAI_CODES = {
    ErrorCode.UNAUTHORIZED: "invalid_api_key",
    ErrorCode.MODEL_MISSING: "model_not_found",
    ErrorCode.RATE_LIMITED: "rate_limit_exceeded",
}
_OPENAI_TYPES = {429: "requests"}


def openai_error_body(error: ApiError, code: str = "") -> dict[str, object]:
    """``{"error": {message, type, param, code}}``."""
    kind = "server_error" if error.status >= 500 else "invalid_request_error"
    found: dict[str, object] = {
        "message": error.message,
        "type": _OPENAI_TYPES.get(error.status, kind),
        "param": "model" if error.code is ErrorCode.MODEL_MISSING else None,
        "code": code or _OPENAI_CODES.get(error.code, error.code.value),
    }
    if error.is_partial:
        found["partial"] = True
    return {"error": found}


def ollama_error_body(error: ApiError, model: str = "") -> dict[str, object]:
    """``{"error": text}``, with Ollama's own words where it has some."""
    if error.code is ErrorCode.MODEL_MISSING and model:
        return {"error": f"model '{model}' not found"}
    if error.code is ErrorCode.BUSY:
        return {"error": f"{OLLAMA_BUSY}{error.message}"}
    return {"error": error.message}


def openai_error_response(error: ApiError, code: str = "") -> web.Response:
    """Answer with a failure."""
    return _response(error, openai_error_body(error, code))


def ollama_error_response(error: ApiError, model: str = "") -> web.Response:
    """Answer with a failure."""
    return _response(error, ollama_error_body(error, model))


def _response(error: ApiError, body: dict[str, object]) -> web.Response:
    status = error.status if 400 <= error.status < 600 else 500
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    return web.json_response(body, status=status, headers=headers)
