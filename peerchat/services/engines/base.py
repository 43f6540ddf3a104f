"""What an engine is: the thing in a processor that turns a prompt into an answer.

An engine knows nothing of peers, slots or queues; `peerchat.services.processor` admits
requests and asks the engine. Engines live in this package, one file each, and are
picked by `peerchat.services.engines.choose`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from peerchat.api import AnswerEvent, ApiError, ErrorCode, ModelInfo, PromptRequest

ERROR_TEXT_MAX = 300
"""Characters of an engine's own error text that are passed on: one line's worth."""


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
        """The models served here, the default one first; ``ENGINE_DOWN`` if unknown."""

    def stream(self, request: PromptRequest) -> AsyncGenerator[AnswerEvent, None]:
        """Answer: fragments, then one ``Finished`` (its ``Usage.peer`` is empty).

        ``aclose()``, or cancelling the task that waits for the next event, stops the
        engine's work at once. Nothing is asked of the engine before the first step.
        """

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
