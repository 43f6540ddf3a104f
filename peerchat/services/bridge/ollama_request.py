"""Ollama's requests as what gateways are asked (docs/api.md of Ollama)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from peerchat.api import ApiError, ErrorCode, Message, ToolCall
from peerchat.sanitize import display_line

from .asking import ROLES, Asked, of_messages
from .errors import invalid
from .fields import Body, image, mapping, model_name, number, objects, stops, text

_WHOLE = ("num_predict", "top_k", "seed")
_FLOAT = (
    *("temperature", "top_p", "min_p", "repeat_penalty"),
    *("presence_penalty", "frequency_penalty"),
)
"""Others are ignored: they would have a processor load its model anew for everybody."""


def chat_of(body: Body) -> Asked:
    """``POST /api/chat``; raises `ApiError` (400) for what is wrong.

    Without messages there is no prompt: the caller wants the model loaded.
    """
    model = required_model(body)
    turns = _messages(objects(body, "messages"))
    asked = Asked(
        model=model,
        options=options_of(body),
        tools=_tools(objects(body, "tools")),
        response_format=_format(body.get("format")),
    )
    return of_messages(turns, asked) if turns else asked


def generate_of(body: Body) -> Asked:
    """``POST /api/generate``; without a prompt the caller wants the model loaded."""
    model = model_name(body)
    if not model:
        raise ApiError(ErrorCode.MODEL_MISSING, "model '' not found", status=404)
    system, template = text(body, "system"), text(body, "template")
    is_raw = body.get("raw") is True
    if is_raw and (system or template or body.get("context")):
        raise invalid("raw mode does not support template, system, or context")
    if template:
        raise invalid("template is not served here: processors have their models' own.")
    if body.get("context"):
        raise invalid("context is not served: send what was said to /api/chat.")
    suffix = text(body, "suffix")
    return Asked(
        text(body, "prompt"),
        model,
        history=(Message("system", system),) if system else (),
        images=_images(body, "images"),
        options=options_of(body),
        response_format=_format(body.get("format")),
        is_raw=is_raw or bool(suffix),
        suffix=suffix,
    )


def required_model(body: Body) -> str:
    """The model's name, in its newer or its older field."""
    model = model_name(body) or text(body, "name").strip()
    if not model:
        raise invalid("model is required")
    return model


def options_of(body: Body) -> dict[str, object]:
    """The allowed options, and whether to think."""
    given = mapping(body, "options")
    found: dict[str, object] = {}
    for name in (*_WHOLE, *_FLOAT):
        value = given.get(name)
        if value is not None:
            found[name] = _number(name, value)
    if given.get("stop") is not None and (ends := stops("stop", given["stop"])):
        found["stop"] = ends
    think = body.get("think")
    if think not in (None, ""):
        found["think"] = _think(think)
    return found


def _think(value: object) -> bool | str:
    """In Ollama's words when it is none of them."""
    if isinstance(value, bool):
        return value
    if value == "max":
        return "high"
    if not isinstance(value, str) or value not in ("high", "medium", "low"):
        raise invalid(
            f"invalid think value: {display_line(str(value), 40)!r} (must be "
            '"high", "medium", "low", true, or false)'
        )
    return value


def _number(name: str, value: object) -> int | float:
    is_whole = name in _WHOLE
    if is_whole and isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        kind = "integer" if is_whole else "float32"
        raise invalid(f'option "{name}" must be of type {kind}')
    return number(name, value, is_whole=is_whole)


def _messages(given: Sequence[Body]) -> list[Message]:
    waiting: list[ToolCall] = []
    turns = []
    for count, message in enumerate(given):
        turn = _message(message, f"messages[{count}]", count, waiting)
        waiting.extend(turn.tool_calls)
        turns.append(turn)
    return turns


def _message(message: Body, where: str, count: int, waiting: list[ToolCall]) -> Message:
    role = text(message, "role")
    if role not in ROLES:
        raise invalid(f"{where}.role must be one of: {', '.join(sorted(ROLES))}.")
    calls = objects(message, "tool_calls") if role == "assistant" else ()
    name = text(message, "tool_name") or text(message, "name")
    answered = _answered(waiting, name) if role == "tool" else None
    return Message(
        role,
        text(message, "content"),
        images=_images(message, f"{where}.images"),
        tool_calls=tuple(
            _call(call, f"call_{count}_{place}") for place, call in enumerate(calls)
        ),
        tool_call_id=text(message, "tool_call_id")
        or (answered.call_id if answered else ""),
        tool_name=name or (answered.name if answered else ""),
    )


def _answered(waiting: list[ToolCall], name: str) -> ToolCall | None:
    """The call that a result is of: Ollama's have no identifiers, but an order."""
    for place, call in enumerate(waiting):
        if not name or call.name == name:
            return waiting.pop(place)
    return None


def _call(call: Body, call_id: str) -> ToolCall:
    function = mapping(call, "function")
    name = text(function, "name")
    if not name:
        raise invalid("tool_calls: each needs function.name.")
    arguments = msgspec.json.encode(mapping(function, "arguments")).decode()
    return ToolCall(text(call, "id") or call_id, name, arguments)


def _images(body: Body, where: str) -> tuple[bytes, ...]:
    given = body.get("images")
    if given is None:
        return ()
    if not isinstance(given, list):
        raise invalid(f"{where} must be a list of files in base64.")
    return tuple(image(one, where) for one in given)


def _tools(tools: Sequence[Body]) -> tuple[Mapping[str, object], ...]:
    for tool in tools:
        if not text(mapping(tool, "function"), "name"):
            raise invalid('Each of tools must be {"type": "function", "function": …}.')
    return tuple({"type": "function", **tool} for tool in tools)


def _format(wanted: object) -> Mapping[str, object] | str | None:
    if wanted is None or wanted == "":
        return None
    if wanted == "json":
        return "json"
    if not isinstance(wanted, dict) or not wanted:
        raise invalid('format must be "json" or a JSON schema.')
    return wanted
