"""What the messages of ``peerchat/stream`` hold, field by field (PROTOCOL.md 12).

Every body is a MessagePack array: fields are only ever added at the end, with a
default, so that peers of different versions read each other.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

TURNS_MAX = 1000
"""Messages of a history."""

IMAGES_MAX = 8
"""Images of a request, history included."""

TOOLS_BYTES_MAX = 64 * 1024
"""JSON of the functions, and again of the schema: far above any real one."""

TOOL_CALLS_MAX = 64
INPUTS_MAX = 512
"""Texts to embed at once; clients cut longer lists into lots."""

VECTOR_BYTES_MAX = 32 * 1024
"""8192 dimensions; no embedding model has more."""

HOPS_MAX = 16
"""With a receipt they fit in one message."""

RECEIPT_BYTES_MAX = 4 * 1024


class Body(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A MessagePack array, read by position."""


ShortText = Annotated[str, msgspec.Meta(max_length=256)]
TokenText = Annotated[str, msgspec.Meta(max_length=8192)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
JsonBytes = Annotated[bytes, msgspec.Meta(max_length=TOOLS_BYTES_MAX)]
Images = Annotated[list[bytes], msgspec.Meta(max_length=IMAGES_MAX)]
OptionValue = None | bool | int | float | str | list[str]


class ToolCallBody(Body, frozen=True):
    """A function call; ``arguments`` is JSON text."""

    call_id: ShortText
    name: ShortText
    arguments: str = ""


ToolCallBodies = Annotated[list[ToolCallBody], msgspec.Meta(max_length=TOOL_CALLS_MAX)]


class TurnBody(Body, frozen=True):
    """One message of the history."""

    role: ShortText
    content: str
    images: Images = []
    tool_calls: ToolCallBodies = []
    tool_call_id: ShortText = ""
    tool_name: ShortText = ""


class RequestBody(Body, frozen=True):
    """A prompt; ``user`` tells users of one gateway apart and names nobody."""

    prompt: str
    request_id: ShortText
    token: TokenText = ""
    user: ShortText = ""
    model: ShortText | None = None
    history: Annotated[list[TurnBody], msgspec.Meta(max_length=TURNS_MAX)] = []
    options: Annotated[dict[ShortText, OptionValue], msgspec.Meta(max_length=32)] = {}
    images: Images = []
    tools: JsonBytes = b""
    response_format: JsonBytes = b""
    prefix: str = ""
    prefix_thinking: str = ""
    deadline_s: float | None = None
    is_raw: bool = False
    suffix: str = ""
    inputs: Annotated[list[str], msgspec.Meta(max_length=INPUTS_MAX)] = []
    dimensions: Annotated[int, msgspec.Meta(ge=1, le=8192)] | None = None


class FragmentBody(Body, frozen=True):
    """The next piece of text; the size of its message is taken from the credit."""

    text: str
    is_thinking: bool = False


class ProgressBody(Body, frozen=True):
    """Where the request stands."""

    state: ShortText
    position: Count | None = None
    peer: ShortText = ""
    model: ShortText = ""
    estimate_s: float | None = None
    reason: ShortText = ""


class ToolCallsBody(Body, frozen=True):
    """Function calls of the answer; taken from the credit as fragments are."""

    calls: ToolCallBodies


class EmbeddingsBody(Body, frozen=True):
    """The next vectors, in the order of the inputs; taken from the credit."""

    model: ShortText
    vectors: Annotated[
        list[Annotated[bytes, msgspec.Meta(max_length=VECTOR_BYTES_MAX)]],
        msgspec.Meta(max_length=INPUTS_MAX),
    ]
    prompt_tokens: Count | None = None


class RateLimitBody(Body, frozen=True):
    """A user's allowance."""

    remaining: Count
    max_requests: Count
    reset_s: Count
    window_minutes: float


class HopBody(Body, frozen=True):
    """One step on the request's way."""

    role: ShortText
    peer: ShortText
    what: ShortText
    at_s: float
    detail: ShortText = ""


class EndBody(Body, frozen=True):
    """The answer is complete."""

    request_id: ShortText
    model: ShortText
    peer: ShortText
    finish_reason: ShortText
    duration_s: float
    first_fragment_s: float | None = None
    prompt_tokens: Count | None = None
    answer_tokens: Count | None = None
    tokens_per_s: float | None = None
    rate_limit: RateLimitBody | None = None
    continued: Count = 0
    is_partial: bool = False
    queue_s: float | None = None
    load_s: float | None = None
    path: ShortText = ""
    receipt: Annotated[bytes, msgspec.Meta(max_length=RECEIPT_BYTES_MAX)] = b""
    hops: Annotated[list[HopBody], msgspec.Meta(max_length=HOPS_MAX)] = []


class ErrorBody(Body, frozen=True):
    """The request failed; nothing follows."""

    code: ShortText
    status: Count
    message: Annotated[str, msgspec.Meta(max_length=4096)]
    retry_after_s: Count | None = None
    rate_limit: RateLimitBody | None = None
    request_id: ShortText = ""
    is_partial: bool = False


class CreditBody(Body, frozen=True):
    """The receiver consumed so many bytes; the sender may send as many more."""

    granted_bytes: Count
