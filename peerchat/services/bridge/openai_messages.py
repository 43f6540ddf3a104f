"""OpenAI's messages as turns of a chat: text, images, calls and their results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from peerchat.api import Message, ToolCall

from .errors import invalid
from .fields import Body, image, mapping, objects, text

_ROLES = {
    "system": "system",
    # What newer models call their system messages.
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}

NO_LINKS = (
    "image_url must be a data: URL: nothing is fetched from elsewhere; send the "
    "image itself, as data:image/png;base64,…"
)


def messages_of(given: Sequence[Body]) -> list[Message]:
    """The turns, the oldest first; raises `ApiError` (400)."""
    if not given:
        raise invalid("messages must be a list with at least one message.")
    names: dict[str, str] = {}
    turns = []
    for number, message in enumerate(given):
        turn = _message(message, f"messages[{number}]", names)
        names |= {call.call_id: call.name for call in turn.tool_calls}
        turns.append(turn)
    return turns


def _message(message: Body, where: str, names: Mapping[str, str]) -> Message:
    role = _ROLES.get(text(message, "role"))
    if role is None:
        known = ", ".join(_ROLES)
        raise invalid(f"{where}.role must be one of: {known}.")
    content, images = _content(message.get("content"), where)
    call_id = text(message, "tool_call_id") if role == "tool" else ""
    calls = objects(message, "tool_calls") if role == "assistant" else ()
    return Message(
        role,
        content,
        images=images,
        tool_calls=tuple(_call(call, where) for call in calls),
        tool_call_id=call_id,
        tool_name=names.get(call_id, text(message, "name") if role == "tool" else ""),
    )


def _content(content: object, where: str) -> tuple[str, tuple[bytes, ...]]:
    if content is None:
        return "", ()
    if isinstance(content, str):
        return content, ()
    if not isinstance(content, list) or not all(isinstance(p, dict) for p in content):
        raise invalid(f"{where}.content must be a text or a list of parts.")
    texts, images = [], []
    for part in content:
        match part.get("type"):
            case "text" | "refusal" as kind:
                texts.append(text(part, kind))
            case "image_url":
                images.append(_image(part, where))
            case _:
                raise invalid(f"{where}.content: parts are of type text or image_url.")
    return "\n".join(texts), tuple(images)


def _image(part: Body, where: str) -> bytes:
    given = part.get("image_url")
    url = given if isinstance(given, str) else text(mapping(part, "image_url"), "url")
    head, comma, data = url.partition(",")
    if not head.lower().startswith("data:"):
        raise invalid(f"{where}.content: {NO_LINKS}")
    if not comma or not head.lower().endswith(";base64"):
        raise invalid(f"{where}.content: image_url must be a data: URL in base64.")
    return image(data, f"{where}.content: image_url")


def _call(call: Body, where: str) -> ToolCall:
    function = mapping(call, "function")
    name, arguments = text(function, "name"), text(function, "arguments")
    if not name:
        raise invalid(f"{where}.tool_calls: each needs function.name.")
    return ToolCall(text(call, "id"), name, arguments or "{}")
