"""What the models of the Ollama stub do, and what the stub counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

BUSY_TEXT = "server busy, please try again.  maximum pending requests exceeded"
STANDARD_TEXT = ("Hello", " from", " the", " stub", "!")


@dataclass
class Behaviour:
    """What a model does with a prompt; counts are of answer fragments."""

    fragments: tuple[str, ...] = STANDARD_TEXT
    thinking: tuple[str, ...] = ()
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()
    """Names and arguments of functions that it calls before it says anything, if the
    prompt has functions."""
    final_content: str = ""
    done_reason: str = "stop"
    delay_s: float = 0.0
    """Before each fragment."""
    load_s: float = 0.0
    is_silent: bool = False
    """Never sends a byte, not even headers."""
    stall_after: int | None = None
    drop_after: int | None = None
    """The connection is cut, as by a killed server."""
    end_after: int | None = None
    """The stream ends well-formed but without ``done``."""
    error_after: int | None = None
    """An ``{"error"}`` line follows; the status was 200."""
    garbage_after: int | None = None
    error_text: str = (
        "model runner has unexpectedly stopped, this may be due to resource "
        "limitations or an internal error, check ollama server logs for details"
    )
    status: int = 200
    """Anything else is answered at once with ``error_text``."""
    capabilities: tuple[str, ...] = ("completion",)
    remote_host: str = ""
    remote_model: str = ""
    is_loaded: bool = False


STANDARD_MODELS: Mapping[str, Behaviour] = {
    "llama3.2:latest": Behaviour(),
    "think:latest": Behaviour(
        thinking=("Let me", " see."), capabilities=("completion", "thinking")
    ),
    "tools:latest": Behaviour(
        calls=(("weather", {"city": "Graz"}), ("time", {})),
        capabilities=("completion", "tools", "vision"),
    ),
    "slow:latest": Behaviour(fragments=("tick ",) * 1000, delay_s=0.01),
    "load:latest": Behaviour(load_s=0.05),
    "silent:latest": Behaviour(is_silent=True),
    "stall:latest": Behaviour(stall_after=2),
    "drop:latest": Behaviour(drop_after=2),
    "eof:latest": Behaviour(end_after=2),
    "error:latest": Behaviour(error_after=2),
    "garbage:latest": Behaviour(garbage_after=2),
    "length:latest": Behaviour(done_reason="length"),
    "tail:latest": Behaviour(final_content=" The end."),
    "busy:latest": Behaviour(status=503, error_text=BUSY_TEXT),
    "broken:latest": Behaviour(status=500),
    "nomic-embed-text:latest": Behaviour(capabilities=("embedding",)),
    "gpt-oss:120b-cloud": Behaviour(
        remote_host="https://ollama.com:443", remote_model="gpt-oss:120b"
    ),
    "hidden-remote:latest": Behaviour(
        remote_host="https://elsewhere.example", remote_model="big"
    ),
}


@dataclass
class State:
    """What the stub saw; waits are on `OllamaStub.wait_for`."""

    active: int = 0
    """Requests that hold a slot."""
    active_max: int = 0
    waiting: int = 0
    """Requests that wait for a slot, in silence."""
    completed: int = 0
    closed_by_client: int = 0
    reloads: int = 0
    requests: list[dict[str, Any]] = field(default_factory=list)
    """Bodies of chat and generate, as sent."""
