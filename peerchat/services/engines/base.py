"""What an engine is: the thing in a processor that turns a prompt into an answer.

An engine knows nothing of peers, slots or queues; `peerchat.services.processor` admits
requests and asks the engine. Engines live in this package and are picked by
`peerchat.services.engines.choose`. ``tests/engines`` holds what all of them must do.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from peerchat.api import (
    AnswerEvent,
    ApiError,
    Embeddings,
    EmbedRequest,
    ErrorCode,
    LoadedModel,
    ModelDetails,
    ModelInfo,
    PromptRequest,
)
from peerchat.model_names import served_name

ERROR_TEXT_MAX = 300
"""Characters of an engine's own error text that are passed on: one line's worth."""

CHAT: Final = "chat"
COMPLETION: Final = "completion"
"""Prompts without a chat template (``is_raw``)."""
TOOLS: Final = "tools"
IMAGES: Final = "images"
JSON: Final = "json"
"""Answers that fit a JSON schema."""
THINKING: Final = "thinking"
EMBED: Final = "embed"
INSERT: Final = "insert"
"""Fills the gap before a suffix."""
PREFIX: Final = "prefix"
"""Goes on with a begun answer."""

CAPABILITIES: Final = frozenset(
    {CHAT, COMPLETION, EMBED, IMAGES, INSERT, JSON, PREFIX, THINKING, TOOLS}
)
"""All of them."""


@dataclass(frozen=True, slots=True)
class EngineHealth:
    """Whether an engine can answer now."""

    is_up: bool
    detail: str
    """One line for the operator; when down, what to do."""


class Engine(Protocol):
    """Turns prompts into answers; several may run at once.

    Failures are `ApiError` with an engine code: ``ENGINE_DOWN`` (cannot be reached),
    ``ENGINE_FAILED`` (broke while answering), ``MODEL_MISSING``, ``BUSY``, ``TIMEOUT``
    or ``INVALID_REQUEST``.
    """

    @property
    def name(self) -> str:
        """A short word such as ``ollama``."""

    async def models(self) -> Sequence[ModelInfo]:
        """The models that chat, the default one first; ``ENGINE_DOWN`` if unknown."""

    def stream(self, request: PromptRequest) -> AsyncGenerator[AnswerEvent, None]:
        """Answer: fragments, then one ``Finished`` (its ``Usage.peer`` is empty).

        ``aclose()``, or cancelling the task that waits for the next event, stops the
        engine's work at once. Nothing is asked of the engine before the first step.
        What the engine cannot do with a request is ``INVALID_REQUEST``.
        """

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """Make a vector of each text; ``INVALID_REQUEST`` where it cannot."""

    async def capabilities(self, model: str) -> frozenset[str]:
        """What a model can do, in the words above; ``MODEL_MISSING`` if not served."""

    async def show(self, model: str) -> ModelDetails:
        """What is known of a model; ``MODEL_MISSING`` if it is not served."""

    async def loaded(self) -> Mapping[str, LoadedModel] | None:
        """The models in memory, by name; None when the engine does not tell."""

    async def embedders(self) -> Sequence[str]:
        """Names of the models that `embed` takes, the default one first."""

    async def health(self) -> EngineHealth:
        """Look now; never raises and ends within a few seconds."""

    async def close(self) -> None:
        """Free connections; running streams fail."""


def one_line(text: str) -> str:
    """An engine's own words, short and on one line, fit for an error message."""
    line = " ".join(text.split())
    return line if len(line) <= ERROR_TEXT_MAX else line[: ERROR_TEXT_MAX - 1] + "…"


def engine_down(message: str) -> ApiError:
    """The engine cannot be reached; another processor may do."""
    return ApiError(ErrorCode.ENGINE_DOWN, message, status=503, retry_after_s=10)


def engine_failed(message: str) -> ApiError:
    """The engine broke while it worked on this request."""
    return ApiError(ErrorCode.ENGINE_FAILED, message, status=502)


def engine_timeout(message: str) -> ApiError:
    """The engine was silent for longer than it may be."""
    return ApiError(ErrorCode.TIMEOUT, message, status=504)


def engine_busy(message: str, retry_after_s: int = 5) -> ApiError:
    """The engine takes no more requests just now."""
    return ApiError(
        ErrorCode.BUSY, message, status=503, retry_after_s=max(1, retry_after_s)
    )


def model_missing(message: str) -> ApiError:
    """The model asked for is not served here."""
    return ApiError(ErrorCode.MODEL_MISSING, message, status=404)


def invalid_request(message: str) -> ApiError:
    """The request itself is wrong; trying elsewhere does not help."""
    return ApiError(ErrorCode.INVALID_REQUEST, message, status=400)


def match_model(wanted: str, names: Sequence[str]) -> str | None:
    """The served name for a wanted one; ``""`` wants the first, no tag ``latest``."""
    if not wanted:
        return names[0] if names else None
    return served_name(wanted, names)
