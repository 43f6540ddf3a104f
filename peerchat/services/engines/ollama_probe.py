"""Whether an Ollama answers, asked without the `ollama` package, which costs half a
second to import: a machine without Ollama never pays for it."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from urllib.parse import urlsplit

from .ollama_models import client_url
from .places import is_loopback

ANSWER_TIMEOUT_S = 2.0
"""It answers from memory."""


def url_of(host: str) -> str:
    """Where it is, for the setting; empty takes ``OLLAMA_HOST``."""
    return client_url(host or os.environ.get("OLLAMA_HOST", ""))


def is_down_text(url: str) -> str:
    """One line for the operator."""
    return f"Ollama does not answer at {url}: start it (ollama serve)"


async def answers(url: str) -> bool:
    """Whether something speaks HTTP there; what it is, the engine finds out."""
    with suppress(OSError, ValueError, TimeoutError):
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            return await _is_listening(url) and await _speaks_http(url)
    return False


async def _is_listening(url: str) -> bool:
    """Whether a port of this machine is open; for another one, true: it may be behind
    a proxy. Without Ollama no HTTP client is loaded either."""
    if is_loopback(url):
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        _, writer = await asyncio.open_connection(parts.hostname, port)
        writer.close()
    return True


async def _speaks_http(url: str) -> bool:
    import httpx

    try:
        async with httpx.AsyncClient(trust_env=not is_loopback(url)) as http:
            await http.get(f"{url}/api/version")
    except (httpx.HTTPError, httpx.InvalidURL):
        return False
    return True
