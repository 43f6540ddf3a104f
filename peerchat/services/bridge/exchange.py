"""What the front and the handler of one request tell each other."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass(slots=True)
class Exchange:
    """One request and its response."""

    headers: dict[str, str] = field(default_factory=dict)
    """For the response; whoever sends its head before the front sees it adds them."""
    outcome: str = ""
    """What to count it as, where a failure is not raised."""
    model: str = ""
    """The model that was asked for, for a failure that names it."""


exchange: ContextVar[Exchange] = ContextVar("exchange")
"""Of the request that the running task serves."""
