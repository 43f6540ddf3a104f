"""How a failure looks over HTTP: both shapes of the contract in one body."""

from __future__ import annotations

import dataclasses

from aiohttp import web

from peerchat.api import ApiError, ErrorCode, RateLimit

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


def error_body(
    status: int, code: str, message: str, *, is_node_path: bool = False
) -> dict[str, object]:
    """The body of an error.

    Args:
        status: of HTTP.
        code: for programs.
        message: for people.
        is_node_path: add the fields that the Node.js bridge had on this path.
    """
    kind = _TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    body: dict[str, object] = {
        "error": {"message": message, "type": kind, "code": code}
    }
    if is_node_path:
        body |= {"success": False, "status": status, "message": message}
    return body


def api_error_response(
    error: ApiError, *, is_node_path: bool, extra: dict[str, object] | None = None
) -> web.Response:
    """Answer with an `ApiError`; ``Retry-After`` where waiting is the remedy."""
    status = error.status if 400 <= error.status < 600 else 500
    body = error_body(
        status, error.code.value, error.message, is_node_path=is_node_path
    )
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
        body["retryAfter"] = error.retry_after_s
    if error.rate_limit is not None:
        body["rateLimitInfo"] = rate_limit_body(error.rate_limit)
    if error.request_id:
        body["requestId"] = error.request_id
    return web.json_response({**body, **(extra or {})}, status=status, headers=headers)


def rate_limit_body(limit: RateLimit | None) -> dict[str, object] | None:
    """The contract's ``rateLimitInfo``."""
    if limit is None:
        return None
    return {
        "remainingRequests": limit.remaining,
        "maxRequests": limit.max_requests,
        "nextResetInSeconds": limit.reset_s,
        "windowDurationMinutes": limit.window_minutes,
    }


def usage_body(usage: object) -> dict[str, object]:
    """A frozen record as JSON, without what is unknown."""
    assert dataclasses.is_dataclass(usage)
    assert not isinstance(usage, type)
    fields = dataclasses.asdict(usage)
    return {key: value for key, value in fields.items() if value is not None}


def invalid(message: str) -> ApiError:
    """The caller's request is wrong."""
    return ApiError(ErrorCode.INVALID_REQUEST, message, status=400)
