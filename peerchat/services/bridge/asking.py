"""A request of either API as what gateways are asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from peerchat.api import Message
from peerchat.failover_answer import FailoverAnswer
from peerchat.gateways import Gateways
from peerchat.services.prompt_requests import is_answerable
from peerchat.settings import Settings

from .errors import invalid

TURNS_MAX = 1000
HISTORY_SHARE = 4
"""Prompt and history together, in longest prompts: what every hop takes
(docs/PROTOCOL.md section 12)."""

ROLES = frozenset({"system", "user", "assistant", "tool"})


@dataclass(frozen=True, slots=True)
class Asked:
    """What a caller wants to have answered."""

    prompt: str = ""
    model: str = ""
    history: tuple[Message, ...] = ()
    images: tuple[bytes, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)
    tools: tuple[Mapping[str, object], ...] = ()
    response_format: Mapping[str, object] | str | None = None
    prefix: str = ""
    is_raw: bool = False
    suffix: str = ""


def of_messages(turns: Sequence[Message], asked: Asked) -> Asked:
    """A chat: its last message is the prompt, if it is the user's.

    One that ends with the assistant's words wants them to be gone on with.
    """
    if len(turns) > TURNS_MAX:
        raise invalid(f"There may be at most {TURNS_MAX} messages.")
    *before, last = turns
    prefix = ""
    if last.role == "assistant" and before and not last.tool_calls:
        prefix = last.content
        *before, last = before
    if last.role in ("tool", "system"):
        return replace(asked, history=(*before, last), prefix=prefix)
    if last.role != "user":
        raise invalid("The last message must come from user, tool or system.")
    return replace(
        asked,
        prompt=last.content,
        images=last.images,
        history=tuple(before),
        prefix=prefix,
    )


def check_sizes(asked: Asked, settings: Settings) -> None:
    """Refuse what no gateway takes; raises `ApiError` (400)."""
    most = settings.prompt_bytes_max
    prompt = _size(asked.prompt) + _size(asked.suffix)
    if prompt > most or _size(asked.prefix) > most:
        raise invalid(f"The prompt is longer than {most} bytes; shorten it.")
    history = sum(_size_of_turn(turn) for turn in asked.history)
    if prompt + history > most * HISTORY_SHARE:
        raise invalid(
            f"The messages are longer than {most * HISTORY_SHARE} bytes together; "
            "leave the oldest out."
        )
    if not is_answerable(asked.prompt, asked.images, asked.history):
        raise invalid("The last message is empty; write something.")


def begin(
    gateways: Gateways, asked: Asked, token: str, request_id: str
) -> FailoverAnswer:
    """Ask; failures are raised by the answer's iteration."""
    return gateways.ask(
        asked.prompt,
        token,
        model=asked.model or None,
        history=asked.history,
        options=asked.options,
        request_id=request_id,
        images=asked.images,
        tools=asked.tools,
        response_format=asked.response_format,
        prefix=asked.prefix,
        is_raw=asked.is_raw,
        suffix=asked.suffix,
    )


def _size_of_turn(turn: Message) -> int:
    calls = sum(_size(call.arguments) for call in turn.tool_calls)
    return _size(turn.content) + calls


def _size(text: str) -> int:
    return len(text.encode("utf-8", "replace"))
