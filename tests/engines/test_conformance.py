"""What every engine does, whatever computes its answers."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import replace

import pytest

from peerchat.api import (
    ApiError,
    EmbedRequest,
    ErrorCode,
    Fragment,
    Message,
    PromptRequest,
    ToolCall,
    ToolCalls,
)
from peerchat.services.engines.base import (
    CHAT,
    COMPLETION,
    EMBED,
    IMAGES,
    JSON,
    PREFIX,
    TOOLS,
)
from peerchat.services.engines.vectors import unpacked

from .harness import PICK_TOOL, PNG, SCHEMA, TOOL, Harness, end_of, text_of

SLOT_FREE_S = 1.0
"""A stop frees the slot within so long (issue 4)."""


async def default_model(subject: Harness) -> str:
    return (await subject.engine.models())[0].name


async def can(subject: Harness, word: str, model: str | None = None) -> bool:
    model = model or await default_model(subject)
    return word in await subject.engine.capabilities(model)


async def refusal(subject: Harness, request: PromptRequest) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await subject.collect(request)
    return caught.value


async def test_it_is_up_and_lists_its_models(subject: Harness) -> None:
    health = await subject.engine.health()
    assert health.is_up, health.detail
    assert "\n" not in health.detail
    models = await subject.engine.models()
    assert models
    assert {one.engine for one in models} == {subject.engine.name}
    for one in models:
        assert CHAT in await subject.engine.capabilities(one.name)


async def test_it_tells_of_a_model(subject: Harness) -> None:
    name = await default_model(subject)
    details = await subject.engine.show(name)
    assert details.name == name
    assert CHAT in details.capabilities
    assert details.capabilities <= await subject.engine.capabilities(name)
    loaded = await subject.engine.loaded()
    assert loaded is None or all(isinstance(name, str) for name in loaded)
    with pytest.raises(ApiError) as caught:
        await subject.engine.show("no-such-model")
    assert caught.value.code is ErrorCode.MODEL_MISSING


async def test_an_answer_streams_and_ends_with_usage(subject: Harness) -> None:
    events = await subject.collect(subject.request())
    fragments = [event for event in events if isinstance(event, Fragment)]
    assert len(fragments) > 5
    assert all(event.text for event in fragments)
    end = end_of(events)
    assert end.request_id == "r1"
    usage = end.usage
    assert usage.model == await default_model(subject)
    assert usage.peer == ""
    assert usage.finish_reason in ("stop", "length")
    assert usage.prompt_tokens
    assert usage.answer_tokens
    assert usage.tokens_per_s
    assert usage.first_fragment_s is not None
    assert 0 <= usage.first_fragment_s <= usage.duration_s


async def test_the_same_request_gets_the_same_answer(subject: Harness) -> None:
    first = text_of(await subject.collect(subject.request()))
    assert first == text_of(await subject.collect(subject.request()))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
async def test_a_begun_answer_is_gone_on_with(subject: Harness, share: float) -> None:
    """Whole = prefix + continuation, wherever it broke off."""
    assert await can(subject, PREFIX)
    whole = text_of(await subject.collect(subject.request()))
    cut = int(len(whole) * share)
    request = subject.request(prefix=whole[:cut])
    if "num_predict" in subject.options:
        # A token is a character there.
        options = {**subject.options, "num_predict": len(whole) - cut}
        request = replace(request, options=options)
    rest = text_of(await subject.collect(request))
    assert whole[:cut] + rest == whole


async def test_a_stop_frees_the_slot(subject: Harness) -> None:
    request = subject.request(model=subject.long_model, options={"num_predict": 8000})
    answer = subject.engine.stream(request)
    seen = 0
    async for event in answer:
        seen += isinstance(event, Fragment)
        if seen == 3:
            break
    async with asyncio.timeout(SLOT_FREE_S):
        await answer.aclose()
        await subject.is_idle()
        await first_fragment(subject)


async def test_a_cancelled_reader_frees_the_slot(subject: Harness) -> None:
    request = subject.request(model=subject.long_model, options={"num_predict": 8000})
    has_begun = asyncio.Event()

    async def read() -> None:
        async for event in subject.engine.stream(request):
            if isinstance(event, Fragment):
                has_begun.set()

    reader = asyncio.ensure_future(read())
    await has_begun.wait()
    async with asyncio.timeout(SLOT_FREE_S):
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        await subject.is_idle()
        await first_fragment(subject)


async def first_fragment(subject: Harness) -> None:
    """The slot is free when another prompt, of one token, gets its answer."""
    options = {"num_predict": 1}
    answer = subject.engine.stream(subject.request("hello", options=options))
    async for event in answer:
        if isinstance(event, Fragment):
            break
    await answer.aclose()


async def test_several_answers_at_once_stay_apart(subject: Harness) -> None:
    alone = text_of(await subject.collect(subject.request()))
    answers = await asyncio.gather(
        *(subject.collect(subject.request()) for _ in range(3))
    )
    assert [text_of(events) for events in answers] == [alone] * 3


async def test_a_model_that_is_not_there_is_missing(subject: Harness) -> None:
    error = await refusal(subject, subject.request(model="no-such-model"))
    assert error.code is ErrorCode.MODEL_MISSING
    assert "no-such-model" in error.message
    assert "\n" not in error.message


@pytest.mark.parametrize(
    "options",
    [{"temperature": 9}, {"stop": [""]}, {"top_p": "x"}, {"min_p": 2}],
)
async def test_options_beyond_bounds_are_refused(
    subject: Harness, options: dict[str, object]
) -> None:
    if subject.engine.name == "guide":
        pytest.skip("it has no options to heed")
    error = await refusal(subject, subject.request(options=options))
    assert error.code is ErrorCode.INVALID_REQUEST


async def test_num_predict_is_heeded(subject: Harness) -> None:
    if subject.engine.name == "guide":
        pytest.skip("it has no options to heed")
    events = await subject.collect(subject.request(options={"num_predict": 4}))
    usage = end_of(events).usage
    assert usage.finish_reason == "length"
    assert usage.answer_tokens == 4


async def test_an_unknown_role_is_refused(subject: Harness) -> None:
    if subject.engine.name == "guide":
        pytest.skip("it reads no history")
    history = (Message("wizard", "abracadabra"),)
    error = await refusal(subject, subject.request(history=history))
    assert error.code is ErrorCode.INVALID_REQUEST
    assert "wizard" in error.message


async def test_history_is_taken(subject: Harness) -> None:
    history = (
        Message("system", "Be brief."),
        Message("user", "hello"),
        Message("assistant", "hi"),
    )
    assert text_of(await subject.collect(subject.request(history=history)))


async def test_a_schema_is_kept_or_refused(subject: Harness) -> None:
    request = subject.request(response_format=SCHEMA, options={"num_predict": 200})
    if not await can(subject, JSON):
        error = await refusal(subject, request)
        assert error.code is ErrorCode.INVALID_REQUEST
        assert "schema" in error.message
        return
    text = text_of(await subject.collect(request))
    if subject.keeps_schema:
        got = json.loads(text)
        assert set(got) == {"is_sunny", "wind"}
        assert isinstance(got["is_sunny"], bool)


async def test_functions_are_called_or_refused(subject: Harness) -> None:
    request = subject.request(model=subject.tools_model, tools=(TOOL,))
    if not await can(subject, TOOLS, subject.tools_model):
        error = await refusal(subject, request)
        assert error.code is ErrorCode.INVALID_REQUEST
        return
    events = await subject.collect(request)
    if not subject.has_calls:
        # A model that talks nonsense calls nothing, but it has read of the function.
        plain = await subject.collect(subject.request())
        read = end_of(events).usage.prompt_tokens or 0
        assert read > (end_of(plain).usage.prompt_tokens or 0) + 50
        return
    calls = [call for one in events if isinstance(one, ToolCalls) for call in one.calls]
    assert [call.name for call in calls] == ["weather", "weather"]
    assert [json.loads(call.arguments)["city"] for call in calls] == ["Graz", "Wien"]
    assert len({call.call_id for call in calls}) == 2
    assert end_of(events).usage.finish_reason == "tool_calls"


@pytest.mark.parametrize("choice", ["required", "pick"])
async def test_a_call_that_is_insisted_on_is_made(
    subject: Harness, choice: str
) -> None:
    if not subject.keeps_schema:
        pytest.skip("a stub calls what it calls")
    options = {"tool_choice": choice, "num_predict": 200}
    request = subject.request(tools=(PICK_TOOL,), options=options)
    events = await subject.collect(request)
    calls = [call for one in events if isinstance(one, ToolCalls) for call in one.calls]
    assert [call.name for call in calls] == ["pick"]
    assert set(json.loads(calls[0].arguments)) == {"is_sunny", "wind"}
    assert end_of(events).usage.finish_reason == "tool_calls"
    assert text_of(events) == ""


async def test_results_of_functions_are_taken(subject: Harness) -> None:
    if not await can(subject, TOOLS, subject.tools_model):
        pytest.skip("it calls no functions")
    call = ToolCall("c0", "weather", '{"city": "Graz"}')
    request = subject.request(
        "",
        history=(
            Message("user", "How is the weather in Graz?"),
            Message("assistant", "", tool_calls=(call,)),
            Message("tool", "sunny", tool_call_id="c0", tool_name="weather"),
        ),
    )
    assert text_of(await subject.collect(request))


async def test_an_image_is_seen_or_refused(subject: Harness) -> None:
    request = subject.request(model=subject.tools_model, images=(PNG,))
    if await can(subject, IMAGES, subject.tools_model):
        assert await subject.collect(request)
        return
    error = await refusal(subject, request)
    assert error.code is ErrorCode.INVALID_REQUEST


async def test_what_is_no_image_is_refused(subject: Harness) -> None:
    request = subject.request(model=subject.tools_model, images=(b"MZ no image",))
    error = await refusal(subject, request)
    assert error.code is ErrorCode.INVALID_REQUEST


async def test_a_raw_prompt_is_gone_on_with_or_refused(subject: Harness) -> None:
    request = subject.request("Once upon a time", is_raw=True)
    if not await can(subject, COMPLETION):
        error = await refusal(subject, request)
        assert error.code is ErrorCode.INVALID_REQUEST
        return
    events = await subject.collect(request)
    assert text_of(events)
    assert end_of(events).usage.answer_tokens


async def test_texts_get_vectors_or_a_refusal(subject: Harness) -> None:
    texts = ("one", "another text", "one")
    request = EmbedRequest(texts, "r1", subject.embed_model)
    embedders = await subject.engine.embedders()
    if subject.embed_model is None:
        with pytest.raises(ApiError) as caught:
            await subject.engine.embed(request)
        assert caught.value.code in (
            ErrorCode.INVALID_REQUEST,
            ErrorCode.ENGINE_FAILED,
        )
        return
    assert embedders
    assert await can(subject, EMBED, subject.embed_model)
    got = await subject.engine.embed(request)
    vectors = [unpacked(vector) for vector in got.vectors]
    assert len(vectors) == 3
    assert vectors[0] == vectors[2] != vectors[1]
    assert all(math.isfinite(number) for vector in vectors for number in vector)


async def test_a_model_for_vectors_does_not_chat_and_says_who_does(
    subject: Harness,
) -> None:
    model = subject.embed_model
    if model is None or await subject.engine.capabilities(model) != {EMBED}:
        pytest.skip("it has none that it knows of")
    error = await refusal(subject, subject.request(model=model))
    assert error.code is ErrorCode.INVALID_REQUEST
    assert "embeddings only" in error.message
    assert await default_model(subject) in error.message


async def test_it_can_be_closed_while_it_answers(subject: Harness) -> None:
    request = subject.request(model=subject.long_model, options={"num_predict": 8000})
    answer = subject.engine.stream(request)
    async for event in answer:
        if isinstance(event, Fragment):
            break
    async with asyncio.timeout(5):
        await answer.aclose()
        await subject.engine.close()
