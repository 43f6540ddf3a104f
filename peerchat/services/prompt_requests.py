"""A `PromptRequest` as a body of ``peerchat/stream``, and back (PROTOCOL.md 12)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from peerchat.api import (
    ApiError,
    ErrorCode,
    Message,
    PromptRequest,
    ToolCall,
)
from peerchat.sanitize import display_line

from .prompt_bodies import (
    IMAGES_MAX,
    TOOLS_BYTES_MAX,
    OptionValue,
    RequestBody,
    ToolCallBody,
    TurnBody,
)
from .prompt_wire import IMAGES_BYTES_MAX, figure, well_formed

TOOLS_MAX = 128
DEADLINE_S_MAX = 24 * 3600.0


def request_body(request: PromptRequest, token: str, user: str) -> RequestBody:
    """A request for the wire.

    Raises:
        ApiError: INVALID_REQUEST when something is not of a kind or size that the
            wire has.
    """
    _check_images(images_of(request))
    return RequestBody(
        prompt=well_formed(request.prompt),
        request_id=request.request_id[:256],
        token=token,
        user=user[:256],
        model=request.model,
        history=[_turn_body(turn) for turn in request.history],
        options=_wire_options(request.options),
        images=list(request.images),
        tools=_json("tools", list(request.tools) or None),
        response_format=_json("response format", request.response_format),
        prefix=well_formed(request.prefix),
        prefix_thinking=well_formed(request.prefix_thinking),
        deadline_s=request.deadline_s,
        is_raw=request.is_raw,
        suffix=well_formed(request.suffix),
        inputs=[well_formed(text) for text in request.inputs],
        dimensions=request.dimensions,
    )


def request_of(body: RequestBody) -> PromptRequest:
    """A request as the services use it.

    Raises:
        ApiError: INVALID_REQUEST when JSON in it is not what it should be.
    """
    deadline_s = figure(body.deadline_s)
    return PromptRequest(
        prompt=body.prompt,
        request_id=display_line(body.request_id, 128),
        model=body.model,
        history=tuple(_turn_of(turn) for turn in body.history),
        options=body.options,
        images=tuple(body.images),
        tools=_tools_of(body.tools),
        response_format=_format_of(body.response_format),
        prefix=body.prefix,
        prefix_thinking=body.prefix_thinking,
        deadline_s=None if deadline_s is None else min(deadline_s, DEADLINE_S_MAX),
        is_raw=body.is_raw,
        suffix=body.suffix,
        inputs=tuple(body.inputs),
        dimensions=body.dimensions,
    )


def images_of(request: PromptRequest) -> list[bytes]:
    """All images of a request, those of its history first."""
    return [*(one for turn in request.history for one in turn.images), *request.images]


def image_bytes_of(body: RequestBody) -> int:
    """What images take of a request.

    Raises:
        ApiError: there are too many, or they are too large together.
    """
    images = [one for turn in body.history for one in turn.images] + body.images
    _check_images(images)
    return sum(map(len, images))


def needs_version_2(request: PromptRequest) -> bool:
    """Whether a peer that overlooks the newer fields would answer something else."""
    return bool(
        request.images
        or request.tools
        or request.response_format
        or request.prefix
        or request.prefix_thinking
        or request.is_raw
        or request.suffix
        or request.inputs
        or any(turn.images or turn.tool_calls for turn in request.history)
    )


def check_request(request: PromptRequest, prompt_bytes_max: int) -> None:
    """Refuse what cannot be answered, whoever is asked; raises `ApiError` (400)."""
    if request.inputs:
        _check_inputs(request.inputs, prompt_bytes_max)
        return
    if not is_answerable(request.prompt, request.images, request.history):
        raise _invalid("The prompt is empty; write something.")
    if _size(request.prompt) + _size(request.suffix) > prompt_bytes_max:
        raise _invalid(
            f"The prompt has more than {prompt_bytes_max} bytes; shorten it."
        )
    if _size(request.prefix) + _size(request.prefix_thinking) > prompt_bytes_max:
        raise _invalid(
            f"The answer to go on with has more than {prompt_bytes_max} bytes."
        )


def is_answerable(
    prompt: str, images: Sequence[bytes], history: Sequence[Message]
) -> bool:
    """Whether there is a prompt, or a last turn that asks for an answer without one: a
    function's result, or an instruction."""
    if prompt.strip() or images:
        return True
    if not history:
        return False
    last = history[-1]
    return last.role == "tool" or (last.role == "system" and bool(last.content.strip()))


def _check_inputs(inputs: Sequence[str], prompt_bytes_max: int) -> None:
    for text in inputs:
        if not text:
            raise _invalid("A text to embed is empty; leave it out.")
        if _size(text) > prompt_bytes_max:
            raise _invalid(
                f"A text to embed has more than {prompt_bytes_max} bytes; shorten it."
            )


def _check_images(images: Sequence[bytes]) -> None:
    if len(images) > IMAGES_MAX:
        raise _invalid(f"At most {IMAGES_MAX} images can be sent, history included.")
    if sum(map(len, images)) > IMAGES_BYTES_MAX:
        raise _invalid(
            f"The images have more than {IMAGES_BYTES_MAX} bytes together; "
            "send fewer or smaller ones."
        )


def _turn_body(turn: Message) -> TurnBody:
    return TurnBody(
        role=turn.role,
        content=well_formed(turn.content),
        images=list(turn.images),
        tool_calls=[tool_call_body(call) for call in turn.tool_calls],
        tool_call_id=well_formed(turn.tool_call_id)[:256],
        tool_name=well_formed(turn.tool_name)[:256],
    )


def _turn_of(turn: TurnBody) -> Message:
    return Message(
        role=turn.role,
        content=turn.content,
        images=tuple(turn.images),
        tool_calls=tuple(
            ToolCall(call.call_id, call.name, call.arguments)
            for call in turn.tool_calls
        ),
        tool_call_id=turn.tool_call_id,
        tool_name=turn.tool_name,
    )


def tool_call_body(call: ToolCall) -> ToolCallBody:
    """A function call for the wire."""
    return ToolCallBody(
        well_formed(call.call_id)[:256],
        well_formed(call.name)[:256],
        well_formed(call.arguments),
    )


def _wire_options(options: Mapping[str, object]) -> dict[str, OptionValue]:
    try:
        return msgspec.convert(dict(options), dict[str, OptionValue])
    except msgspec.ValidationError as error:
        raise _invalid(f"Option not understood: {error}") from None


def _json(name: str, value: object) -> bytes:
    """JSON for the wire; nothing for None."""
    if value is None:
        return b""
    try:
        data = msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise _invalid(f"The {name} cannot be written as JSON: {error}") from None
    if len(data) > TOOLS_BYTES_MAX:
        raise _invalid(f"The {name} has more than {TOOLS_BYTES_MAX} bytes of JSON.")
    return data


def _tools_of(data: bytes) -> tuple[Mapping[str, object], ...]:
    tools = _parsed("tools", data) or []
    if (
        not isinstance(tools, list)
        or len(tools) > TOOLS_MAX
        or not all(isinstance(tool, dict) for tool in tools)
    ):
        raise _invalid(f"The tools must be a list of at most {TOOLS_MAX} objects.")
    return tuple(tools)


def _format_of(data: bytes) -> Mapping[str, object] | str | None:
    value = _parsed("response format", data)
    if value is None or value == "json":
        return value
    if not isinstance(value, dict):
        raise _invalid("The response format must be 'json' or a JSON schema.")
    return value


def _parsed(name: str, data: bytes) -> object:
    if not data:
        return None
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise _invalid(f"The {name} is not JSON.") from None


def _size(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


def _invalid(message: str) -> ApiError:
    return ApiError(ErrorCode.INVALID_REQUEST, message, status=400)
