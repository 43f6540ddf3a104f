"""What the front and the handler of one request tell each other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field

from aiohttp import web

from peerchat.api import ApiError


@dataclass(slots=True)
class Exchange:
    """One request and its response."""

    headers: dict[str, str] = field(default_factory=dict)
    """For the response; whoever sends its head before the front sees it adds them."""
    outcome: str = ""
    """What to count it as, where a failure is not raised."""
    model: str = ""
    """The model that was asked for, for a failure that names it."""
    end_stream: Callable[[ApiError], Awaitable[web.StreamResponse]] | None = None
    """Tells a failure in the stream that was begun, and ends it."""


exchange: ContextVar[Exchange] = ContextVar("exchange")
"""Of the request that the running task serves."""
