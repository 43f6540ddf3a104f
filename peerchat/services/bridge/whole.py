"""An answer read to its end, for those who want it in one piece."""

from __future__ import annotations

from dataclasses import dataclass

from peerchat.api import (
    ApiError,
    ErrorCode,
    Finished,
    Fragment,
    ToolCall,
    ToolCalls,
)
from peerchat.failover_answer import FailoverAnswer


@dataclass(frozen=True, slots=True)
class WholeAnswer:
    """Everything that was said."""

    text: str
    thinking: str
    calls: tuple[ToolCall, ...]
    end: Finished


async def read_all(answer: FailoverAnswer) -> WholeAnswer:
    """Read to the end; raises `ApiError` when there is none."""
    text: list[str] = []
    thinking: list[str] = []
    calls: list[ToolCall] = []
    async for event in answer:
        match event:
            case Fragment():
                (thinking if event.is_thinking else text).append(event.text)
            case ToolCalls():
                calls += event.calls
            case Finished():
                return WholeAnswer(
                    "".join(text), "".join(thinking), tuple(calls), event
                )
    raise stopped(answer.request_id)


def stopped(request_id: str) -> ApiError:
    """The answer was closed before its end."""
    return ApiError(
        ErrorCode.STOPPED,
        "The answer was stopped before its end.",
        status=503,
        request_id=request_id,
    )
