"""The guide: says what it is, finds the right page, admits what it does not know."""

from __future__ import annotations

import pytest

from peerchat.api import ApiError, ErrorCode, Finished, Fragment, PromptRequest
from peerchat.services.engines.guide import INTRODUCTION, GuideEngine
from peerchat.services.engines.help_index import HelpIndex, Section, load_help


async def collect(prompt: str, **fields: object) -> tuple[str, list[object]]:
    request = PromptRequest(prompt=prompt, request_id="r1", **fields)  # type: ignore[arg-type]
    events = [event async for event in GuideEngine(pace_s=0).stream(request)]
    text = "".join(event.text for event in events if isinstance(event, Fragment))
    return text, list(events)


@pytest.mark.parametrize(
    ("question", "title"),
    [
        ("How do I use Ollama?", "Using Ollama"),
        ("How do two machines meet?", "Connecting two machines"),
        ("Which keys does the app have?", "The app and its keys"),
        ("what is peerchat", "What peerchat is"),
        ("wrong password", "Wrong password or unknown account"),
        ("rate limit exceeded", "The rate limit"),
        ("port already in use", "A port is taken"),
        ("no gateway", "No gateway found"),
        ("no processor found", "No processor found"),
        ("Is it safe to use the open swarm?", "The open swarm and its dangers"),
        ("dht unreachable", "The DHT cannot be reached"),
        ("curl example", "Asking over HTTP with curl"),
        ("where are my logs", "Logs"),
        ("metrics", "Metrics"),
        ("how do I install it", "Installing peerchat"),
        ("how do I change the model", "Choosing a model"),
        ("how do I cancel", "Stopping an answer"),
        ("environment variables", "Environment variables"),
    ],
)
async def test_finds_the_page_for(question: str, title: str) -> None:
    text, _ = await collect(question)
    assert text.startswith(INTRODUCTION)
    assert f"**{title}**" in text


@pytest.mark.parametrize(
    "question",
    ["What is the capital of France?", "Why is the sky blue?", "Tell me a joke"],
)
async def test_admits_what_it_cannot_answer(question: str) -> None:
    text, _ = await collect(question)
    assert text.startswith(INTRODUCTION)
    assert "nothing about that" in text
    assert "language model is needed" in text
    assert "Troubleshooting" in text


@pytest.mark.parametrize("prompt", ["hello", "Hi there!", "thanks", "???"])
async def test_greets(prompt: str) -> None:
    text, _ = await collect(prompt)
    assert text.startswith(INTRODUCTION)
    assert "Ask me how to use peerchat" in text


async def test_streams_by_words_the_same_every_time() -> None:
    text, events = await collect("How do I use Ollama?")
    again, _ = await collect("How do I use Ollama?")
    assert text == again
    fragments = [event for event in events if isinstance(event, Fragment)]
    assert len(fragments) > 20
    assert all(len(fragment.text.split()) == 1 for fragment in fragments)


async def test_ends_with_its_usage() -> None:
    _, events = await collect("metrics")
    end = events[-1]
    assert isinstance(end, Finished)
    assert end.request_id == "r1"
    assert end.usage.model == "guide"
    assert end.usage.finish_reason == "stop"
    assert end.usage.answer_tokens == len(events) - 1


async def test_does_not_pretend_to_be_another_model() -> None:
    with pytest.raises(ApiError) as caught:
        await collect("hello", model="llama3.2")
    assert caught.value.code is ErrorCode.MODEL_MISSING


async def test_stops_when_closed() -> None:
    stream = GuideEngine(pace_s=0).stream(PromptRequest("metrics", "r1"))
    assert isinstance(await anext(stream), Fragment)
    await stream.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_health_and_models() -> None:
    engine = GuideEngine()
    assert (await engine.health()).is_up
    assert [model.name for model in await engine.models()] == ["guide"]
    await engine.close()


def test_every_section_is_complete_and_found_by_its_own_title() -> None:
    sections = load_help()
    index = HelpIndex(sections)
    assert len(sections) > 30
    for section in sections:
        assert section.page
        assert len(section.body) > 80
        assert "Keywords:" not in section.body
        assert section in index.search(section.title)[:2], section.title


def test_an_empty_index_finds_nothing() -> None:
    assert HelpIndex([]).search("anything") == []
    one = HelpIndex([Section("Page", "Title", "body text")])
    assert one.search("title")[0].title == "Title"
