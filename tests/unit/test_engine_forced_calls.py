"""Calls that are insisted on, with engines that keep to a JSON schema."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator

import pytest

from peerchat.api import (
    AnswerEvent,
    ApiError,
    ErrorCode,
    Finished,
    Fragment,
    Progress,
    PromptRequest,
    ToolCall,
    ToolCalls,
    Usage,
)
from peerchat.services.engines import signs
from peerchat.services.engines.forced_calls import forced_calls

CITY = {"type": "object", "properties": {"city": {"$ref": "#/$defs/City"}}}
DEFINITIONS = {"City": {"enum": ["Graz"]}}
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": {**CITY, "$defs": DEFINITIONS}},
}
NOW = {"type": "function", "function": {"name": "now"}}
END = Finished(Usage("m", "", "stop", 1.0))
SAID = '{"name": "weather", "arguments": {"city": "Graz"}}'


class Scripted:
    """An engine's answer, and what it was asked."""

    def __init__(self, *events: AnswerEvent) -> None:
        self.events = events
        self.asked = PromptRequest("", "")
        self.is_closed = False

    async def stream(self, request: PromptRequest) -> AsyncGenerator[AnswerEvent, None]:
        self.asked = request
        try:
            for event in self.events:
                yield event
        finally:
            self.is_closed = True


def request(choice: object, *tools: dict[str, object]) -> PromptRequest:
    options = {"seed": 1, "tool_choice": choice}
    return PromptRequest("q", "r", tools=tools, options=options)


async def answered(engine: Scripted, asked: PromptRequest) -> list[AnswerEvent]:
    return [event async for event in forced_calls(engine.stream, asked)]


@pytest.mark.parametrize("choice", [None, "auto", "none"])
async def test_what_is_left_to_the_model_stays_as_it_is(choice: object) -> None:
    engine = Scripted(Fragment(SAID), END)
    asked = request(choice, WEATHER)
    assert await answered(engine, asked) == [Fragment(SAID), END]
    assert engine.asked is asked


async def test_one_function_is_named_and_its_definitions_are_found() -> None:
    thought = Fragment("hm", is_thinking=True)
    engine = Scripted(thought, Fragment(SAID[:9]), Fragment(SAID[9:]), END)
    first, calls, end = await answered(engine, request("weather", NOW, WEATHER))
    assert first == thought
    assert isinstance(calls, ToolCalls)
    (call,) = calls.calls
    assert (call.name, json.loads(call.arguments)) == ("weather", {"city": "Graz"})
    assert isinstance(end, Finished)
    assert end.usage.finish_reason == "tool_calls"
    assert engine.asked.tools == (WEATHER,)
    assert engine.asked.options == {"seed": 1}
    assert engine.asked.response_format == {
        "type": "object",
        "properties": {"name": {"const": "weather"}, "arguments": CITY},
        "required": ["name", "arguments"],
        "$defs": DEFINITIONS,
    }


async def test_definitions_of_an_older_form_are_found_too() -> None:
    older = {"function": {"name": "old", "parameters": {"definitions": DEFINITIONS}}}
    engine = Scripted(Fragment(SAID), END)
    await answered(engine, request("required", WEATHER, older))
    assert isinstance(engine.asked.response_format, dict)
    assert engine.asked.response_format["$defs"] == DEFINITIONS
    assert engine.asked.response_format["definitions"] == DEFINITIONS


async def test_any_of_several_may_be_required() -> None:
    engine = Scripted(Fragment('{"name": "now", "arguments": {}}'), END)
    await answered(engine, request("required", NOW, WEATHER))
    assert isinstance(engine.asked.response_format, dict)
    names = [
        shape["properties"]["name"]["const"]
        for shape in engine.asked.response_format["anyOf"]
    ]
    assert names == ["now", "weather"]


async def test_calls_that_the_engine_finds_itself_pass() -> None:
    calls = ToolCalls((ToolCall("c", "now", "{}"),))
    engine = Scripted(calls, END)
    assert await answered(engine, request("required", NOW)) == [calls, END]


@pytest.mark.parametrize("text", ['{"name": "wea', "[]", '{"name": 1}'])
async def test_what_is_no_call_is_told_as_it_is(text: str) -> None:
    engine = Scripted(Fragment(text), END)
    assert await answered(engine, request("required", NOW)) == [Fragment(text), END]


async def test_a_long_call_shows_signs_of_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signs, "EVERY_S", 0)
    engine = Scripted(Fragment(SAID[:9]), Fragment(SAID[9:]), END)
    *before, calls, _ = await answered(engine, request("required", WEATHER))
    assert before == [Progress("serving")] * 2
    assert isinstance(calls, ToolCalls)


async def test_a_function_that_is_not_there_is_refused() -> None:
    with pytest.raises(ApiError, match="does not have") as caught:
        await answered(Scripted(), request("later", NOW))
    assert caught.value.code is ErrorCode.INVALID_REQUEST


async def test_closing_closes_the_engines_answer() -> None:
    engine = Scripted(ToolCalls(()), END)
    events = forced_calls(engine.stream, request("required", NOW))
    await anext(events)
    await events.aclose()
    assert engine.is_closed
