"""Whether an Ollama answers, asked without the `ollama` package, which costs half a
second to import: a machine without Ollama never pays for it."""

from __future__ import annotations

import asyncio
import os

import httpx

from .engine_http import READ_TIMEOUT_S, is_loopback
from .ollama_models import client_url


def url_of(host: str) -> str:
    """Where it is, for the setting; empty takes ``OLLAMA_HOST``."""
    return client_url(host or os.environ.get("OLLAMA_HOST", ""))


def is_down_text(url: str) -> str:
    """One line for the operator."""
    return f"Ollama does not answer at {url}: start it (ollama serve)"


async def answers(url: str) -> bool:
    """Whether something speaks HTTP there; what it is, the engine finds out."""
    try:
        async with (
            asyncio.timeout(READ_TIMEOUT_S),
            httpx.AsyncClient(trust_env=not is_loopback(url)) as http,
        ):
            await http.get(f"{url}/api/version")
    except (httpx.HTTPError, httpx.InvalidURL, OSError, TimeoutError):
        return False
    return True
