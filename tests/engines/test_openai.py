"""What servers with OpenAI's API do wrong, and how it is told."""

from __future__ import annotations

from typing import Any

import pytest

from peerchat.api import (
    AnswerEvent,
    ApiError,
    ErrorCode,
    Fragment,
    Message,
    Progress,
    PromptRequest,
    ToolCalls,
)
from peerchat.services.engines import signs
from peerchat.services.engines.openai import OpenAiEngine, api_url, data_of
from peerchat.services.engines.openai_answer import refusal
from peerchat.testing.openai_stub import CUT, END, STALL, OpenAiStub, Thinking

REQUEST = PromptRequest("why?", "r1", "m")


async def collect(
    script: list[Any], request: PromptRequest = REQUEST, **stub: Any
) -> tuple[list[AnswerEvent], ApiError | None, dict[str, Any]]:
    async with OpenAiStub({"m": script}, **stub) as server:
        engine = OpenAiEngine(url=server.url, stall_timeout_s=0.2)
        events: list[AnswerEvent] = []
        error: ApiError | None = None
        try:
            async for event in engine.stream(request):
                events.append(event)  # noqa: PERF401, kept when it fails later
        except ApiError as failure:
            error = failure
        await engine.close()
        return events, error, server.requests[-1] if server.requests else {}


@pytest.mark.parametrize(
    ("script", "code", "words"),
    [
        (["a", CUT], ErrorCode.ENGINE_FAILED, "closed the connection"),
        (["a", END], ErrorCode.ENGINE_FAILED, "before it was complete"),
        (["a", STALL], ErrorCode.TIMEOUT, "silent"),
        (
            ["a", {"error": {"message": "out of\nmemory"}}],
            ErrorCode.ENGINE_FAILED,
            "out of memory",
        ),
        (["a", {"choices": "nonsense"}], ErrorCode.ENGINE_FAILED, "unexpected"),
        (["a", {"error": {"code": 503, "message": "full"}}], ErrorCode.BUSY, "full"),
    ],
)
async def test_an_answer_that_breaks_off(
    script: list[Any], code: ErrorCode, words: str
) -> None:
    events, error, _ = await collect(script)
    assert Fragment("a") in events
    assert error is not None
    assert error.code is code
    assert words in error.message
    assert "\n" not in error.message


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, ErrorCode.INVALID_REQUEST),
        (404, ErrorCode.MODEL_MISSING),
        (429, ErrorCode.BUSY),
        (500, ErrorCode.ENGINE_FAILED),
        (503, ErrorCode.BUSY),
    ],
)
async def test_a_refusal(status: int, code: ErrorCode) -> None:
    _, error, _ = await collect([], status=status, error="because")
    assert error is not None
    assert error.code is code
    assert "because" in error.message


async def test_a_wrong_key_says_where_it_goes() -> None:
    _, error, _ = await collect([], key="right")
    assert error is not None
    assert "PEERCHAT_ENGINE_KEY" in error.message


async def test_nobody_there_is_down() -> None:
    engine = OpenAiEngine(url="http://127.0.0.1:9/v1")
    health = await engine.health()
    assert not health.is_up
    assert "start it" in health.detail
    with pytest.raises(ApiError) as caught:
        await engine.models()
    assert caught.value.code is ErrorCode.ENGINE_DOWN
    await engine.close()


async def test_thinking_stays_apart() -> None:
    events, error, _ = await collect([Thinking("hm"), "yes"])
    assert error is None
    assert events[:2] == [Fragment("hm", is_thinking=True), Fragment("yes")]


async def test_a_call_without_an_id_gets_one() -> None:
    part = {"index": 0, "function": {"name": "f"}}
    call = {"choices": [{"delta": {"tool_calls": [part]}}]}
    events, _, _ = await collect([call])
    (calls,) = (event for event in events if isinstance(event, ToolCalls))
    assert calls.calls[0].call_id.startswith("call_")
    assert calls.calls[0].arguments == "{}"


async def test_a_long_call_shows_signs_of_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signs, "EVERY_S", 0)
    parts = [{"index": 0, "function": {"name": "f"}}]
    parts += [{"index": 0, "function": {"arguments": piece}} for piece in ("{", "}")]
    script = [{"choices": [{"delta": {"tool_calls": [part]}}]} for part in parts]
    *before, calls, _ = (await collect(script))[0]
    assert before == [Progress("serving", model="m")] * 3
    assert isinstance(calls, ToolCalls)


async def test_a_begun_answer_is_sent_as_vllm_and_llama_want_it() -> None:
    request = PromptRequest(
        "why?",
        "r1",
        "m",
        (Message("system", "brief"),),
        {"temperature": 0.5, "num_ctx": 9, "keep_alive": -1},
        prefix="Be",
    )
    events, _, body = await collect(["Because"], request)
    assert events[0] == Fragment("cause")
    assert body["messages"][-1] == {"role": "assistant", "content": "Be"}
    assert body["continue_final_message"] is True
    assert body["add_generation_prompt"] is False
    assert body["temperature"] == 0.5
    assert not {"num_ctx", "keep_alive", "return_progress"} & set(body)


def test_where_the_api_begins() -> None:
    assert api_url("127.0.0.1:8080") == "http://127.0.0.1:8080/v1"
    assert api_url("https://x/api/v1/") == "https://x/api/v1"


def test_lines_of_events() -> None:
    assert data_of(b'data: {"a": 1}') == b'{"a": 1}'
    assert data_of(b"data:[DONE]") == b"[DONE]"
    assert data_of(b": ping") == b""
    assert data_of(b"event: x") == b""
    assert data_of(b'error: {"code": 500}') == b'{"error":{"code": 500}}'


@pytest.mark.parametrize("said", ["", "<html>", "[1]", '{"detail": "no"}', None, 5])
def test_errors_of_any_form_are_one_line(said: object) -> None:
    assert refusal(500, said, "m", "The engine").message
