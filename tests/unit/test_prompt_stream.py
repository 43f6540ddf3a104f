"""`peerchat/stream` end to end over one connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from peerchat.api import (
    AnswerEvent,
    ApiError,
    ErrorCode,
    Finished,
    Fragment,
    Message,
    Progress,
    PromptRequest,
    RateLimit,
    Usage,
)
from peerchat.services.prompt_bodies import (
    CreditBody,
    EndBody,
    FragmentBody,
    RequestBody,
)
from peerchat.services.prompt_events import end_body
from peerchat.services.prompt_stream import (
    Caller,
    PromptStreamClient,
    PromptStreamServer,
    RemoteAnswer,
)
from peerchat.services.prompt_wire import (
    CREDIT_INITIAL_BYTES,
    MessageType,
    encode,
    encode_handshake,
)
from tests.prompt_stream_pair import CLIENT_KEY, FakeSession, Wire

KEY_HEX = "ab" * 32
USAGE = Usage(
    model="m",
    peer=KEY_HEX,
    finish_reason="length",
    duration_s=1.5,
    first_fragment_s=0.25,
    prompt_tokens=3,
    answer_tokens=4,
    tokens_per_s=2.5,
)
LIMIT = RateLimit(remaining=9, max_requests=10, reset_s=60, window_minutes=1.0)


class Script:
    """A handler whose steps a test controls."""

    def __init__(self, *events: AnswerEvent | Exception) -> None:
        self.events = list(events)
        self.requests: list[PromptRequest] = []
        self.callers: list[Caller] = []
        self.taken = 0
        self.is_closed = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.stands_at: int | None = None
        """Before this event it waits for ever."""

    async def __call__(
        self, request: PromptRequest, caller: Caller
    ) -> AsyncIterator[AnswerEvent]:
        self.requests.append(request)
        self.callers.append(caller)
        try:
            for event in self.events:
                await self.gate.wait()
                if self.taken == self.stands_at:
                    await asyncio.Event().wait()
                self.taken += 1
                if isinstance(event, Exception):
                    raise event
                yield event
        finally:
            self.is_closed.set()


class Setup:
    def __init__(self, handler: Script, **options: float) -> None:
        self.wire = Wire()
        self.server = PromptStreamServer(handler, **options)  # type: ignore[arg-type]
        self.server.attach(self.wire.server)  # type: ignore[arg-type]
        self.session = FakeSession(self.wire.client)
        self.client = PromptStreamClient(self.session)  # type: ignore[arg-type]

    async def ask(self, prompt: str = "hello", **fields: object) -> RemoteAnswer:
        assert await self.client.is_supported()
        request = PromptRequest(prompt, "r1", **fields)  # type: ignore[arg-type]
        return self.client.ask(request, "secret", user="u1")


async def settle() -> None:
    """Let everything that is ready run."""
    for _ in range(50):
        await asyncio.sleep(0)


async def read(answer: RemoteAnswer) -> list[AnswerEvent]:
    return [event async for event in answer]


async def test_request_and_first_word_leave_at_once() -> None:
    setup = Setup(Script(Fragment("a"), Fragment("b"), Finished(USAGE)))
    await read(await setup.ask())
    kinds = [(end, kind) for end, kind, _ in setup.wire.frames]
    request = kinds.index(("client", MessageType.REQUEST)) + 1
    first = kinds.index(("server", MessageType.FRAGMENT)) + 1
    assert setup.wire.client.hurried == [request]
    assert setup.wire.server.hurried == [first]


async def test_carries_a_whole_answer_in_order() -> None:
    events = [
        Progress("queued", position=2),
        Fragment("why ", is_thinking=True),
        *(Fragment(f"{index} ") for index in range(500)),
        Finished(USAGE, "r1", LIMIT),
    ]
    handler = Script(*events)
    setup = Setup(handler)
    answer = await setup.ask(
        "  a question  ",
        model="m",
        history=(Message("user", "before"), Message("assistant", "yes")),
        options={"temperature": 0.5, "stop": ["x"], "seed": 7},
    )
    assert await read(answer) == events
    assert handler.requests == [
        PromptRequest(
            "  a question  ",
            "r1",
            "m",
            (Message("user", "before"), Message("assistant", "yes")),
            {"temperature": 0.5, "stop": ["x"], "seed": 7},
        )
    ]
    assert handler.callers == [Caller(CLIENT_KEY.hex(), "secret", "u1")]
    assert "secret" not in repr(handler.callers[0])
    assert setup.session.holds == 0
    await settle()
    assert setup.server.active == 0
    with pytest.raises(StopAsyncIteration):
        await anext(answer)


async def test_requests_run_side_by_side() -> None:
    handler = Script(Fragment("x"), Finished(USAGE))
    setup = Setup(handler)
    answers = [await setup.ask() for _ in range(10)]
    assert setup.client.active == 10
    assert setup.session.holds == 10
    for answer in reversed(answers):
        assert [type(event) for event in await read(answer)] == [Fragment, Finished]
    assert setup.session.holds == 0


async def test_a_peer_that_rejects_the_channel_is_not_supported() -> None:
    wire = Wire()
    client = PromptStreamClient(FakeSession(wire.client))  # type: ignore[arg-type]
    assert await client.is_supported() is False
    assert await client.is_supported() is False
    with pytest.raises(ApiError) as caught:
        await read(client.ask(PromptRequest("hello", "r1")))
    assert caught.value.code is ErrorCode.PEER_LOST
    assert caught.value.request_id == "r1"


async def test_a_connection_lost_while_opening_is_not_supported() -> None:
    wire = Wire()
    client = PromptStreamClient(FakeSession(wire.client))  # type: ignore[arg-type]
    deciding = asyncio.ensure_future(client.is_supported())
    await asyncio.sleep(0)
    wire.cut()
    assert await deciding is False


async def test_an_error_arrives_whole_after_what_came_before() -> None:
    error = ApiError(
        ErrorCode.RATE_LIMITED,
        "Rate limit exceeded",
        status=429,
        retry_after_s=33,
        rate_limit=LIMIT,
    )
    setup = Setup(Script(Fragment("part"), error))
    answer = await setup.ask()
    assert await anext(answer) == Fragment("part")
    with pytest.raises(ApiError) as caught:
        await anext(answer)
    got = caught.value
    assert (got.code, got.status, got.message) == (error.code, 429, error.message)
    assert (got.retry_after_s, got.rate_limit) == (33, LIMIT)
    assert got.request_id == "r1"
    with pytest.raises(StopAsyncIteration):
        await anext(answer)


async def test_an_unexpected_exception_tells_the_peer_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    setup = Setup(Script(ValueError("secret path /root")))
    with pytest.raises(ApiError) as caught:
        await read(await setup.ask())
    assert caught.value.code is ErrorCode.INTERNAL
    assert "secret" not in caught.value.message
    assert "secret path" in caplog.text


async def test_an_answer_without_an_end_is_a_failure() -> None:
    setup = Setup(Script(Fragment("half")))
    answer = await setup.ask()
    assert await anext(answer) == Fragment("half")
    with pytest.raises(ApiError) as caught:
        await anext(answer)
    assert caught.value.code is ErrorCode.ENGINE_FAILED


async def test_closing_an_answer_closes_the_handler() -> None:
    handler = Script(*[Fragment("x")] * 10, Finished(USAGE))
    handler.stands_at = 5
    setup = Setup(handler)
    answer = await setup.ask()
    await anext(answer)
    await answer.aclose()
    await answer.aclose()
    await asyncio.wait_for(handler.is_closed.wait(), 5)
    await settle()
    assert setup.wire.sent("client", MessageType.CANCEL) == 1
    assert setup.server.active == 0
    assert setup.session.holds == 0
    with pytest.raises(StopAsyncIteration):
        await anext(answer)


async def test_cancelling_the_reader_closes_the_handler() -> None:
    handler = Script(Fragment("x"), Fragment("y"))
    handler.gate.clear()
    setup = Setup(handler)
    reader = asyncio.ensure_future(read(await setup.ask()))
    await settle()
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    await asyncio.wait_for(handler.is_closed.wait(), 5)


async def test_closing_wakes_a_reader_in_another_task() -> None:
    handler = Script(Fragment("x"))
    handler.gate.clear()
    setup = Setup(handler)
    answer = await setup.ask()
    reader = asyncio.ensure_future(read(answer))
    await settle()
    await answer.aclose()
    assert await asyncio.wait_for(reader, 5) == []


async def test_a_lost_connection_fails_the_answer_and_closes_the_handler() -> None:
    handler = Script(Fragment("part"), Fragment("never"))
    handler.stands_at = 1
    setup = Setup(handler)
    answer = await setup.ask()
    assert await anext(answer) == Fragment("part")
    setup.wire.cut()
    with pytest.raises(ApiError) as caught:
        await read(answer)
    assert caught.value.code is ErrorCode.PEER_LOST
    await asyncio.wait_for(handler.is_closed.wait(), 5)
    assert setup.session.holds == 0


async def test_without_credit_the_source_stands_still() -> None:
    pieces = 400
    handler = Script(*[Fragment("z" * 1000)] * pieces, Finished(USAGE))
    setup = Setup(handler)
    answer = await setup.ask()
    await settle()
    for _ in range(20):
        await settle()
    taken = handler.taken
    assert CREDIT_INITIAL_BYTES // 1100 <= taken <= CREDIT_INITIAL_BYTES // 1000 + 1
    unread = setup.wire.sent("server", MessageType.FRAGMENT)
    assert unread * 1000 <= CREDIT_INITIAL_BYTES
    await anext(answer)
    await settle()
    assert handler.taken == taken  # one consumed fragment is not worth a message
    events = await read(answer)
    assert len(events) == pieces
    assert setup.wire.sent("client", MessageType.CREDIT) >= 20


async def test_a_fragment_larger_than_the_credit_passes_in_pieces() -> None:
    text = "ü" * 200_000
    setup = Setup(Script(Fragment(text), Finished(USAGE)))
    events = await read(await setup.ask())
    assert "".join(e.text for e in events if isinstance(e, Fragment)) == text


async def test_a_caller_that_reads_nothing_loses_the_answer() -> None:
    handler = Script(*[Fragment("z" * 4000)] * 100, Finished(USAGE))
    setup = Setup(handler, credit_timeout_s=0.01)
    answer = await setup.ask()
    await asyncio.wait_for(handler.is_closed.wait(), 5)
    with pytest.raises(ApiError) as caught:
        await read(answer)
    assert caught.value.code is ErrorCode.TIMEOUT


async def test_unread_progress_is_replaced_by_newer_progress() -> None:
    handler = Script(
        *[Progress("queued", position=n) for n in range(1000, 0, -1)],
        Fragment("x"),
        Finished(USAGE),
    )
    setup = Setup(handler)
    answer = await setup.ask()
    await settle()
    await setup.server.drain(5)
    await settle()
    assert await read(answer) == [
        Progress("queued", position=1),
        Fragment("x"),
        Finished(USAGE),
    ]


async def test_text_is_made_inert_even_when_cut() -> None:
    setup = Setup(
        Script(
            Progress("evil\x1b[2J", model="m\x1b]0;x\x07"),
            Fragment("a\x1b"),
            Fragment("[31mb\x9b"),
            Fragment("\ud800c"),
            Finished(Usage("m\x1b[1m", "not a key", "odd", float("nan"))),
        )
    )
    events = await read(await setup.ask())
    text = "".join(e.text for e in events if isinstance(e, Fragment))
    assert "\x1b" not in text
    assert "\x9b" not in text
    assert text.startswith("ab")
    first, last = events[0], events[-1]
    assert isinstance(first, Progress)
    assert first.state == "serving"
    assert "\x1b" not in first.model
    assert isinstance(last, Finished)
    assert last.usage == Usage("m", "", "stop", 0.0)


@pytest.mark.parametrize(
    ("prompt", "fields", "words"),
    [
        ("", {}, "empty"),
        (" \n ", {}, "empty"),
        ("x" * 101, {}, "100 bytes"),
        ("ü" * 51, {}, "100 bytes"),
        ("x", {"history": (Message("user", "y" * 200_000),)}, "too large"),
        ("x", {"history": (Message("user", "y"),) * 1001}, "Invalid request format"),
        ("x", {"options": {"a": {"b": 1}}}, "Option"),
        ("x", {"options": {str(n): n for n in range(33)}}, "Invalid request format"),
        ("x", {"model": "m" * 300}, "Invalid request format"),
    ],
)
async def test_bad_requests_are_refused_and_the_channel_lives(
    prompt: str, fields: dict[str, object], words: str
) -> None:
    handler = Script(Finished(USAGE))
    setup = Setup(handler, prompt_bytes_max=100)
    with pytest.raises(ApiError) as caught:
        await read(await setup.ask(prompt, **fields))
    assert caught.value.code is ErrorCode.INVALID_REQUEST
    assert caught.value.status == 400
    assert words in caught.value.message
    assert handler.requests == []
    assert len(await read(await setup.ask("fine"))) == 1


async def test_too_many_requests_on_one_connection_are_refused() -> None:
    handler = Script(Finished(USAGE))
    handler.gate.clear()
    setup = Setup(handler, requests_max=2)
    running = [await setup.ask(), await setup.ask()]
    with pytest.raises(ApiError) as caught:
        await read(await setup.ask())
    assert caught.value.code is ErrorCode.BUSY
    handler.gate.set()
    for answer in running:
        assert len(await read(answer)) == 1


async def test_the_client_does_not_send_more_requests_than_a_peer_takes() -> None:
    handler = Script(Finished(USAGE))
    handler.gate.clear()
    setup = Setup(handler)
    running = [await setup.ask() for _ in range(64)]
    with pytest.raises(ApiError) as caught:
        await read(await setup.ask())
    assert caught.value.code is ErrorCode.BUSY
    assert setup.wire.sent("client", MessageType.REQUEST) == 64
    handler.gate.set()
    for answer in running:
        await read(answer)


async def test_drain_lets_answers_end_and_refuses_new_ones() -> None:
    handler = Script(Fragment("x"), Finished(USAGE))
    handler.gate.clear()
    setup = Setup(handler)
    running = await setup.ask()
    await settle()
    draining = asyncio.ensure_future(setup.server.drain(5))
    await settle()
    with pytest.raises(ApiError) as caught:
        await read(await setup.ask())
    assert caught.value.code is ErrorCode.STOPPED
    assert not draining.done()
    handler.gate.set()
    assert len(await read(running)) == 2
    await draining


async def test_close_tells_the_caller_that_the_peer_stops() -> None:
    handler = Script(Fragment("x"))
    handler.gate.clear()
    setup = Setup(handler)
    answer = await setup.ask()
    await settle()
    await setup.server.drain(0)
    await setup.server.close()
    assert handler.is_closed.is_set()
    with pytest.raises(ApiError) as caught:
        await read(answer)
    assert caught.value.code is ErrorCode.STOPPED


async def test_unknown_types_and_numbers_are_ignored() -> None:
    handler = Script(Fragment("x"), Finished(USAGE))
    handler.gate.clear()
    setup = Setup(handler)
    answer = await setup.ask()
    await settle()
    to_server, to_client = setup.wire.client.channel, setup.wire.server.channel
    assert to_server is not None
    assert to_client is not None
    to_server.send(99, b"\x01whatever")
    to_server.send(MessageType.CANCEL, encode(77))
    to_server.send(MessageType.CREDIT, encode(77, CreditBody(5)))
    to_client.send(99, b"\x01whatever")
    to_client.send(MessageType.FRAGMENT, encode(77, FragmentBody("stray")))
    await settle()
    handler.gate.set()
    assert await read(answer) == [Fragment("x"), Finished(USAGE, "")]


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (MessageType.REQUEST, b""),
        (MessageType.REQUEST, encode(1, RequestBody("again", "r"))),
        (MessageType.REQUEST, encode(0, RequestBody("zero", "r"))),
        (MessageType.CREDIT, encode(1) + b"\xc1"),
        (MessageType.CREDIT, encode(1) + b"\x91\xff"),
        (MessageType.CREDIT, encode(1) + b"\x00" * 40_000),
    ],
)
async def test_a_caller_that_breaks_the_protocol_is_cut_off(
    kind: int, payload: bytes
) -> None:
    handler = Script(Fragment("x"))
    handler.gate.clear()
    setup = Setup(handler)
    answer = await setup.ask()
    await settle()
    assert setup.wire.client.channel is not None
    setup.wire.client.channel.send(kind, payload)
    with pytest.raises(ApiError) as caught:
        await read(answer)
    assert caught.value.code is ErrorCode.PEER_LOST
    await asyncio.wait_for(handler.is_closed.wait(), 5)


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (MessageType.FRAGMENT, b"\xff"),
        (MessageType.FRAGMENT, encode(1) + b"\x91\x05"),
        (MessageType.FRAGMENT, encode(1, FragmentBody("x" * 40_000))),
        (MessageType.PROGRESS, encode(1) + b"\x90"),
        (MessageType.END, encode(1) + b"\x91\xa1x"),
        (MessageType.ERROR, encode(1) + b"\xc0"),
    ],
)
async def test_a_server_that_breaks_the_protocol_is_cut_off(
    kind: int, payload: bytes
) -> None:
    handler = Script(Fragment("x"))
    handler.gate.clear()
    setup = Setup(handler)
    answer = await setup.ask()
    await settle()
    assert setup.wire.server.channel is not None
    setup.wire.server.channel.send(kind, payload)
    with pytest.raises(ApiError) as caught:
        await read(answer)
    assert caught.value.code is ErrorCode.PEER_LOST
    await asyncio.wait_for(handler.is_closed.wait(), 5)


async def test_a_server_that_ignores_the_credit_is_cut_off() -> None:
    handler = Script(Fragment("x"))
    handler.gate.clear()
    setup = Setup(handler)
    answer = await setup.ask()
    await settle()
    channel = setup.wire.server.channel
    assert channel is not None
    for _ in range(CREDIT_INITIAL_BYTES // 1000 + 1):
        channel.send(MessageType.FRAGMENT, encode(1, FragmentBody("x" * 1000)))
    with pytest.raises(ApiError) as caught:
        await read(answer)
    assert caught.value.code is ErrorCode.PEER_LOST


async def test_fields_of_later_versions_are_ignored() -> None:
    class Longer(EndBody, array_like=True, frozen=True):
        later: str = "news"

    handler = Script(Fragment("x"))
    handler.gate.clear()
    setup = Setup(handler)
    answer = await setup.ask()
    await settle()
    assert setup.wire.server.channel is not None
    body = end_body(Finished(USAGE, "r1"))
    fields = {name: getattr(body, name) for name in body.__struct_fields__}
    longer = encode(1, Longer(**fields))
    setup.wire.server.channel.send(MessageType.END, longer)
    assert await read(answer) == [Finished(USAGE, "r1")]


@pytest.mark.parametrize("handshake", [b"", b"\x00"])
async def test_a_handshake_without_a_version_is_not_supported(handshake: bytes) -> None:
    wire = Wire()

    def notify(key: bytes | None) -> None:
        calls = {"on_open": None, "on_message": None, "on_close": None}
        wire.server.create_channel("peerchat/stream", key, **calls).open(handshake)

    wire.server.notify = notify
    client = PromptStreamClient(FakeSession(wire.client))  # type: ignore[arg-type]
    assert await client.is_supported() is False


async def test_a_later_version_is_spoken_to() -> None:
    setup = Setup(Script(Finished(USAGE)))
    answer = await setup.ask()
    assert encode_handshake() == b"\x03"
    assert len(await read(answer)) == 1
