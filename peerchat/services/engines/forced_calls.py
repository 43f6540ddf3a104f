"""Calls of functions that a caller insists on, with engines that cannot be told so.

Ollama has no word for it, and llama.cpp forgets it where it does not know the form of a
model's calls. Both hold an answer to a JSON schema: here to that of a call.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace

from peerchat.api import (
    AnswerEvent,
    Finished,
    Fragment,
    Progress,
    PromptRequest,
    ToolCall,
    ToolCalls,
)

from .base import invalid_request
from .signs import Signs

Stream = Callable[[PromptRequest], AsyncGenerator[AnswerEvent, None]]
Tool = Mapping[str, object]
REQUIRED = "required"
DEFINITIONS = ("$defs", "definitions")
"""Where schemas keep what they refer to: today, and before JSON Schema 2019-09."""
LEFT_TO_THE_MODEL = (None, "", "auto", "none")


async def forced_calls(
    stream: Stream, request: PromptRequest
) -> AsyncGenerator[AnswerEvent, None]:
    """Answer as ``stream`` does, with a call if the request insists on one."""
    choice = request.options.get("tool_choice")
    if choice in LEFT_TO_THE_MODEL or not request.tools:
        events = stream(request)
    else:
        events = _as_calls(stream(_held_to_calls(request, choice)))
    async with aclosing(events):
        async for event in events:
            yield event


def _held_to_calls(request: PromptRequest, choice: object) -> PromptRequest:
    tools = chosen_tools(request.tools, choice)
    rest = {k: v for k, v in request.options.items() if k != "tool_choice"}
    return replace(
        request, tools=tools, options=rest, response_format=_schema_of(tools)
    )


def chosen_tools(tools: Sequence[Tool], choice: object) -> tuple[Tool, ...]:
    """Those of which one is to be called; raises INVALID_REQUEST if there is none."""
    chosen = tuple(t for t in tools if choice in (REQUIRED, _function(t).get("name")))
    if not chosen:
        raise invalid_request("tool_choice names a function that tools does not have.")
    return chosen


def _schema_of(tools: Sequence[Tool]) -> dict[str, object]:
    shapes: list[dict[str, object]] = []
    shared: dict[str, Mapping[str, object]] = {}
    for tool in tools:
        function = _function(tool)
        parameters = function.get("parameters")
        arguments = dict(parameters) if isinstance(parameters, Mapping) else {}
        for key in DEFINITIONS:
            # References start at the root of the whole.
            found = arguments.pop(key, None)
            if isinstance(found, Mapping):
                shared[key] = {**shared.get(key, {}), **found}
        shapes.append(
            {
                "type": "object",
                "properties": {
                    "name": {"const": function.get("name")},
                    "arguments": arguments or {"type": "object"},
                },
                "required": ["name", "arguments"],
            }
        )
    schema: dict[str, object] = {"anyOf": shapes} if shapes[1:] else shapes[0]
    return schema | shared


async def _as_calls(
    events: AsyncGenerator[AnswerEvent, None],
) -> AsyncGenerator[AnswerEvent, None]:
    """The text of the answer as the call that it is; as text where it is none."""
    said: list[str] = []
    signs = Signs()
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Fragment) and not event.is_thinking:
                said.append(event.text)
                if signs.is_due():
                    yield Progress("serving")
                continue
            if isinstance(event, Finished) and (text := "".join(said)):
                call = _call_of(text)
                if call is None:
                    yield Fragment(text)
                else:
                    yield ToolCalls((call,))
                    usage = replace(event.usage, finish_reason="tool_calls")
                    event = replace(event, usage=usage)
            yield event


def _call_of(text: str) -> ToolCall | None:
    try:
        call = json.loads(text)
    except (ValueError, RecursionError):
        return None  # the longest answer ended in the middle of it
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        return None
    arguments = json.dumps(call.get("arguments", {}), ensure_ascii=False)
    return ToolCall(f"call_{uuid.uuid4().hex[:24]}", call["name"], arguments)


def _function(tool: Tool) -> Mapping[str, object]:
    function = tool.get("function")
    return function if isinstance(function, Mapping) else {}
