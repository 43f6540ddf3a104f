"""Reads a request's body, and says what is wrong with it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

import msgspec
from aiohttp import web
from aiohttp.http import HttpProcessingError

from peerchat.api import ApiError, ErrorCode

from .errors import invalid

BODY_TIMEOUT_S = 30.0
"""For a whole body: a mebibyte passes the slowest line in that time."""


async def json_body(
    request: web.Request, *, bytes_max: int | None = None
) -> Mapping[str, object]:
    """Read the body as a JSON object; raises `ApiError` for everything else.

    Args:
        request: whose.
        bytes_max: longest body; None: the application's limit.
    """
    try:
        data = await _read(request, bytes_max or request.client_max_size)
        body: object = msgspec.json.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise invalid("The body must be valid JSON in UTF-8.") from None
    if not isinstance(body, dict):
        raise invalid("The body must be a JSON object.")
    return body


async def _read(request: web.Request, most: int) -> bytes:
    announced = request.content_length or 0
    if announced > most:
        raise _too_large(most)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for part in request.content.iter_any():
                body += part
                if len(body) > most:
                    raise _too_large(most)
            return bytes(body)
    except TimeoutError:
        raise ApiError(
            ErrorCode.TIMEOUT,
            f"The body did not arrive within {BODY_TIMEOUT_S:g} s; send it again.",
            status=408,
        ) from None
    except (HttpProcessingError, web.RequestPayloadError):
        raise invalid("The body is not encoded as its headers say.") from None


def _too_large(most: int) -> web.HTTPException:
    text = f"The body is over {most} bytes; send less."
    return web.HTTPRequestEntityTooLarge(most, most, text=text)


class NoCallersFaults(logging.Filter):
    """Keeps what callers send wrong out of the log of the server's own errors.

    They get their 400; the operator can do nothing about it, and anyone who reaches
    the port could fill the log.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """False for a request that is no HTTP."""
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, HttpProcessingError | web.RequestPayloadError)
