"""Images, tools, prefixes, vectors and receipts on `peerchat/stream`, and old peers."""

from __future__ import annotations

import array
from collections.abc import AsyncIterator

import msgspec
import pytest

from peerchat.api import (
    AnswerEvent,
    ApiError,
    Embeddings,
    ErrorCode,
    Finished,
    Fragment,
    Hop,
    Message,
    Progress,
    PromptRequest,
    ToolCall,
    ToolCalls,
    Usage,
)
from peerchat.services.prompt_bodies import (
    EndBody,
    ErrorBody,
    ProgressBody,
    RequestBody,
)
from peerchat.services.prompt_events import (
    end_body,
    end_of,
    error_body,
    inert_json,
    progress_body,
)
from peerchat.services.prompt_requests import check_request, request_body
from peerchat.services.prompt_stream import (
    Caller,
    PromptStreamClient,
    PromptStreamServer,
)
from peerchat.services.prompt_wire import VERSION, decode_body_untrusted, encode
from tests.prompt_stream_pair import FakeSession, Wire

CALL = ToolCall("call_1", "weather", '{"city": "Graz"}')
USAGE = Usage(
    model="m",
    peer="ab" * 32,
    finish_reason="tool_calls",
    duration_s=1.0,
    continued=2,
    is_partial=True,
    queue_s=0.5,
    load_s=0.25,
    path="relayed",
)
FULL = PromptRequest(
    "What is this?",
    "r1",
    "m",
    (
        Message("user", "look", images=(b"\x89PNG1",)),
        Message("assistant", "", tool_calls=(CALL,)),
        Message("tool", "rain", tool_call_id="call_1", tool_name="weather"),
    ),
    images=(b"\xff\xd8jpeg",),
    tools=({"type": "function", "function": {"name": "weather"}},),
    response_format={"type": "object"},
    prefix="It is ",
    prefix_thinking="hm",
    deadline_s=12.5,
    is_raw=True,
    suffix="end",
    dimensions=8,
)


class OldTurn(msgspec.Struct, array_like=True):
    role: str
    content: str


class OldRequest(msgspec.Struct, array_like=True):
    """What version 1 read and wrote."""

    prompt: str
    request_id: str
    token: str = ""
    user: str = ""
    model: str | None = None
    history: list[OldTurn] = []
    options: dict[str, object] = {}


class OldEnd(msgspec.Struct, array_like=True):
    request_id: str
    model: str
    peer: str
    finish_reason: str
    duration_s: float
    first_fragment_s: float | None = None
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    tokens_per_s: float | None = None
    rate_limit: object = None


async def exchange(
    request: PromptRequest, *events: AnswerEvent, prompt_bytes_max: int = 10_000
) -> tuple[list[PromptRequest], list[AnswerEvent]]:
    got: list[PromptRequest] = []

    async def handler(asked: PromptRequest, _by: Caller) -> AsyncIterator[AnswerEvent]:
        got.append(asked)
        for event in events:
            yield event

    wire = Wire()
    server = PromptStreamServer(handler, prompt_bytes_max=prompt_bytes_max)
    server.attach(wire.server)  # type: ignore[arg-type]
    client = PromptStreamClient(FakeSession(wire.client))  # type: ignore[arg-type]
    assert await client.is_supported()
    return got, [event async for event in client.ask(request)]


async def test_a_request_arrives_with_all_it_has() -> None:
    got, _ = await exchange(FULL, Finished(USAGE))
    assert got == [FULL]


async def test_the_end_arrives_with_all_it_has() -> None:
    hops = (Hop("gateway", "cd" * 32, "chosen", 0.5, "idle"),)
    end = Finished(USAGE, "r1", None, b"signed", hops)
    _, events = await exchange(FULL, end)
    assert events == [end]


async def test_progress_says_how_long_and_why() -> None:
    news = Progress("queued", 3, "", "m", 12.0, "nearest")
    _, events = await exchange(FULL, news, Finished(USAGE))
    assert events[0] == news


async def test_tool_calls_arrive_each_in_a_message() -> None:
    long = ToolCall("call_2", "write", '{"text": "' + "x" * 30_000 + '"}')
    calls = ToolCalls((CALL, long, long, long))
    _, events = await exchange(FULL, Fragment("a"), calls, Finished(USAGE))
    got = [
        call for event in events if isinstance(event, ToolCalls) for call in event.calls
    ]
    assert got == [CALL, long, long, long]


async def test_a_call_that_is_too_long_fails_the_answer() -> None:
    calls = ToolCalls((ToolCall("c", "f", "x" * 50_000),))
    with pytest.raises(ApiError) as caught:
        await exchange(FULL, calls)
    assert caught.value.code is ErrorCode.ENGINE_FAILED


async def test_vectors_arrive_whole_whatever_their_number() -> None:
    vectors = tuple(array.array("f", [n, 0.5] * 512).tobytes() for n in range(200))
    request = PromptRequest("", "r", inputs=("text",) * 200)
    _, events = await exchange(request, Embeddings("e", vectors, 7), Finished(USAGE))
    parts = [event for event in events if isinstance(event, Embeddings)]
    assert tuple(vector for part in parts for vector in part.vectors) == vectors
    assert [part.prompt_tokens for part in parts][-1] == 7
    assert len(parts) > 1


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (PromptRequest("x", "r", images=(b"i",) * 9), "8 images"),
        (PromptRequest("x", "r", images=(b"i" * 2**22,) * 3), "bytes together"),
        (PromptRequest("x", "r", tools=({"a": "x" * 70_000},)), "bytes of JSON"),
        (PromptRequest("x", "r", response_format={"a": object()}), "JSON"),
        (PromptRequest("x", "r", prefix="p" * 10_001), "go on with"),
        (PromptRequest("", "r", inputs=("",)), "embed is empty"),
        (PromptRequest("", "r", inputs=("x" * 10_001,)), "shorten"),
        (PromptRequest("", "r"), "empty"),
        (PromptRequest("", "r", history=(Message("user", "x"),)), "empty"),
        (PromptRequest("", "r", history=(Message("system", " "),)), "empty"),
    ],
)
async def test_what_is_too_much_is_refused(request_: PromptRequest, words: str) -> None:
    with pytest.raises(ApiError, match=words) as caught:
        await exchange(request_, Finished(USAGE))
    assert caught.value.status == 400


async def test_an_instruction_alone_may_be_answered() -> None:
    asked = PromptRequest("", "r", history=(Message("system", "Greet the user."),))
    got, _ = await exchange(asked, Finished(USAGE))
    assert got == [asked]


async def test_images_do_not_make_room_for_text() -> None:
    request = PromptRequest(
        "x", "r", history=(Message("user", "y" * 300_000),), images=(b"i" * 2**20,)
    )
    with pytest.raises(ApiError, match="too large"):
        await exchange(request, Finished(USAGE))
    got, _ = await exchange(
        PromptRequest("x", "r", images=(b"i" * 2**22,)), Finished(USAGE)
    )
    assert len(got[0].images[0]) == 2**22


def test_a_prompt_may_be_empty_after_a_tool_or_with_an_image() -> None:
    check_request(PromptRequest("", "r", history=(Message("tool", "rain"),)), 10)
    check_request(PromptRequest("", "r", images=(b"i",)), 10)


def test_a_peer_of_version_1_reads_what_is_written_now() -> None:
    plain = PromptRequest("hi", "r", "m", (Message("user", "x"),), {"top_k": 1})
    data = encode(1, request_body(plain, "t", "u"))[1:]
    old = msgspec.msgpack.decode(data, type=OldRequest)
    assert old == OldRequest(
        "hi", "r", "t", "u", "m", [OldTurn("user", "x")], {"top_k": 1}
    )
    data = encode(1, end_body(Finished(USAGE, "r", None, b"signed")))[1:]
    assert msgspec.msgpack.decode(data, type=OldEnd).duration_s == 1.0


def test_what_a_peer_of_version_1_writes_is_read() -> None:
    old = OldRequest("hi", "r", history=[OldTurn("user", "x")])
    body = decode_body_untrusted(msgspec.msgpack.encode(old), RequestBody)
    assert (body.prompt, body.images, body.deadline_s) == ("hi", [], None)
    end = OldEnd("r", "m", "", "stop", 1.0)
    read = end_of(decode_body_untrusted(msgspec.msgpack.encode(end), EndBody))
    assert (read.receipt, read.hops, read.usage.continued) == (b"", (), 0)
    error = msgspec.msgpack.encode(["busy", 503, "full"])
    assert not decode_body_untrusted(error, ErrorBody).is_partial
    progress = msgspec.msgpack.encode(["queued", 1])
    assert decode_body_untrusted(progress, ProgressBody).estimate_s is None


@pytest.mark.parametrize(
    ("request_", "is_sent"), [(PromptRequest("x", "r"), True), (FULL, False)]
)
async def test_a_peer_of_version_1_is_not_asked_for_what_it_would_overlook(
    request_: PromptRequest, is_sent: bool
) -> None:
    wire = Wire()

    def notify(key: bytes | None) -> None:
        calls = {"on_open": None, "on_message": None, "on_close": None}
        wire.server.create_channel("peerchat/stream", key, **calls).open(b"\x01")

    wire.server.notify = notify
    client = PromptStreamClient(FakeSession(wire.client))  # type: ignore[arg-type]
    assert await client.is_supported()
    answer = client.ask(request_)
    assert bool(client.active) is is_sent
    if not is_sent:
        with pytest.raises(ApiError) as caught:
            await anext(answer)
        assert caught.value.code is ErrorCode.MODEL_MISSING


def test_a_partial_answer_is_told() -> None:
    error = ApiError(ErrorCode.PEER_LOST, "lost", status=502, is_partial=True)
    assert error_body(error).is_partial
    assert progress_body(Progress("queued", estimate_s=1.0)).estimate_s == 1.0


def test_arguments_are_made_inert_without_changing_what_they_mean() -> None:
    live = '{"a": "x\u202ey"}'
    assert inert_json('{"a": "ü"}') == '{"a": "ü"}'
    assert msgspec.json.decode(inert_json(live)) == {"a": "x\u202ey"}
    assert "\u202e" not in inert_json(live)
    assert "\x1b" not in inert_json("\x1b[31mno json")


def test_the_version_tells_peers_apart() -> None:
    assert VERSION == 3
