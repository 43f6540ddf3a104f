"""The unary method ``embed``: texts in, vectors as JSON out (docs/PROTOCOL.md 11)."""

from __future__ import annotations

import array
import sys
from collections.abc import AsyncIterator
from typing import Annotated

import msgspec

from peerchat.api import (
    AnswerEvent,
    ApiError,
    Embeddings,
    ErrorCode,
    Finished,
    PromptRequest,
)

from .messages import RateLimitInfo
from .prompt_bodies import INPUTS_MAX

Name = Annotated[str, msgspec.Meta(max_length=256)]


class EmbedData(msgspec.Struct, frozen=True):
    """What is asked."""

    inputs: Annotated[list[str], msgspec.Meta(min_length=1, max_length=INPUTS_MAX)]
    model: Name | None = None
    dimensions: Annotated[int, msgspec.Meta(ge=1, le=8192)] | None = None


class EmbedReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A vector for each text, in their order."""

    model: str
    embeddings: list[list[float]]
    prompt_tokens: int | None = msgspec.field(default=None, name="promptTokens")
    request_id: str = msgspec.field(name="requestId")
    rate_limit_info: RateLimitInfo | None = msgspec.field(
        default=None, name="rateLimitInfo"
    )


def embed_request(data: EmbedData, request_id: str) -> PromptRequest:
    """The request as the services use it."""
    return PromptRequest(
        "",
        request_id,
        data.model or None,
        inputs=tuple(data.inputs),
        dimensions=data.dimensions,
    )


async def embed_reply(
    request: PromptRequest, events: AsyncIterator[AnswerEvent]
) -> EmbedReply:
    """All vectors of an answer; raises `ApiError` when some are missing."""
    vectors: list[list[float]] = []
    async for event in events:
        match event:
            case Embeddings():
                vectors += [floats_of(vector) for vector in event.vectors]
            case Finished() if len(vectors) == len(request.inputs):
                limit = event.rate_limit
                return EmbedReply(
                    model=event.usage.model,
                    embeddings=vectors,
                    prompt_tokens=event.usage.prompt_tokens,
                    request_id=request.request_id,
                    rate_limit_info=RateLimitInfo.of(limit) if limit else None,
                )
    raise ApiError(ErrorCode.ENGINE_FAILED, "Some vectors are missing.", status=502)


def floats_of(vector: bytes) -> list[float]:
    """The numbers of a vector of little-endian float32."""
    numbers = array.array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()
