"""Any bytes on `peerchat/stream`: parsed or refused, never an exception or a leak."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
from peerchat.net.errors import DecodeError
from peerchat.sanitize import display_text
from peerchat.services import prompt_bodies as bodies
from peerchat.services import prompt_events as event_format
from peerchat.services import prompt_requests as request_format
from peerchat.services import prompt_wire as wire_format
from peerchat.services.prompt_stream import (
    Caller,
    PromptStreamClient,
    PromptStreamServer,
)
from tests.prompt_stream_pair import FakeSession, Wire

BODIES = [
    bodies.RequestBody,
    bodies.FragmentBody,
    bodies.ProgressBody,
    bodies.EndBody,
    bodies.ErrorBody,
    bodies.CreditBody,
    bodies.ToolCallsBody,
    bodies.EmbeddingsBody,
]
texts = st.text(st.characters(exclude_categories=()), max_size=50)
count = st.integers(0, 2**53)
figure = st.none() | st.floats()
limits = st.none() | st.builds(RateLimit, count, count, count, st.floats())
usages = st.builds(
    Usage,
    model=texts,
    peer=st.binary(min_size=32, max_size=32).map(bytes.hex),
    finish_reason=st.sampled_from(["stop", "length", "cancelled"]),
    duration_s=st.floats(0, 1e6),
    first_fragment_s=st.none() | st.floats(0, 1e6),
    prompt_tokens=st.none() | count,
    answer_tokens=st.none() | count,
    tokens_per_s=st.none() | st.floats(0, 1e6),
)

# Valid heads make it likely that what follows is looked at.
packed = st.one_of(
    st.binary(max_size=200),
    st.builds(
        lambda number, rest: wire_format.encode(number) + rest,
        st.integers(0, 4),
        st.binary(max_size=60),
    ),
    st.builds(
        lambda number, text, is_thinking: wire_format.encode(
            number, bodies.FragmentBody(wire_format.well_formed(text), is_thinking)
        ),
        st.integers(0, 4),
        texts,
        st.booleans(),
    ),
    st.builds(
        lambda number, granted: wire_format.encode(number, bodies.CreditBody(granted)),
        st.integers(0, 4),
        count,
    ),
    st.builds(
        lambda number, prompt: wire_format.encode(
            number, bodies.RequestBody(wire_format.well_formed(prompt), "r")
        ),
        st.integers(0, 9),
        texts,
    ),
)
messages = st.lists(st.tuples(st.integers(0, 10), packed), max_size=20)


async def handler(request: PromptRequest, caller: Caller) -> AsyncIterator[AnswerEvent]:
    yield Progress("serving")
    yield Fragment(request.prompt)
    await asyncio.sleep(0)
    yield Finished(Usage("m", "", "stop", 0.0))


@given(st.binary(max_size=300), st.sampled_from(BODIES))
def test_bodies_parse_or_are_refused(data: bytes, kind: type) -> None:
    try:
        body = wire_format.decode_body_untrusted(data, kind)
    except DecodeError:
        return
    again = wire_format.encode(1, body)[1:]
    assert repr(wire_format.decode_body_untrusted(again, kind)) == repr(body)


@given(st.binary(max_size=20))
def test_heads_parse_or_are_refused(data: bytes) -> None:
    for parse in (
        wire_format.decode_number_untrusted,
        wire_format.decode_handshake_untrusted,
    ):
        with contextlib.suppress(DecodeError):
            parse(data)


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(DecodeError):
        wire_format.decode_body_untrusted(b"\x91" * 100_000, bodies.RequestBody)


@given(
    prompt=texts,
    history=st.lists(st.tuples(st.sampled_from(["user", "assistant"]), texts)),
    options=st.dictionaries(
        st.text(max_size=20),
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**63 - 1)
        | st.floats(allow_nan=False)
        | st.lists(st.text(max_size=5), max_size=3),
        max_size=8,
    ),
)
def test_requests_arrive_as_sent(
    prompt: str, history: list[tuple[str, str]], options: dict[str, object]
) -> None:
    request = PromptRequest(
        prompt,
        "r1",
        "m",
        tuple(Message(role, text) for role, text in history),
        options,
    )
    body = request_format.request_body(request, "t", "u")
    data = wire_format.encode(1, body)[1:]
    got = request_format.request_of(
        wire_format.decode_body_untrusted(data, bodies.RequestBody)
    )
    assert got.prompt == wire_format.well_formed(prompt)
    assert got.options == options
    assert [turn.role for turn in got.history] == [role for role, _ in history]


@given(usages, limits)
def test_ends_arrive_as_sent(usage: Usage, limit: RateLimit | None) -> None:
    data = wire_format.encode(1, event_format.end_body(Finished(usage, "r", limit)))[1:]
    got = event_format.end_of(wire_format.decode_body_untrusted(data, bodies.EndBody))
    assert got.usage.peer == usage.peer
    assert got.usage.duration_s == usage.duration_s
    assert got.usage.tokens_per_s == usage.tokens_per_s
    assert (got.rate_limit is None) == (limit is None)
    if got.rate_limit is not None:
        assert got.rate_limit.window_minutes >= 0  # never NaN


@given(
    st.integers(0, 2**53),
    texts,
    st.sampled_from([*ErrorCode, "news"]),
    st.none() | count,
)
def test_errors_arrive_usable(
    status: int, message: str, code: str, retry_after_s: int | None
) -> None:
    body = bodies.ErrorBody(
        code, status, wire_format.well_formed(message), retry_after_s
    )
    data = wire_format.encode(1, body)[1:]
    error = event_format.error_of(
        wire_format.decode_body_untrusted(data, bodies.ErrorBody)
    )
    assert 400 <= error.status <= 599
    assert error.message
    assert "\n" not in error.message
    assert error.code == (code if code != "news" else ErrorCode.INTERNAL)


async def throw_at_server(sent: list[tuple[int, bytes]]) -> None:
    wire = Wire()
    server = PromptStreamServer(handler)
    server.attach(wire.server)  # type: ignore[arg-type]
    calls = {"on_open": None, "on_message": None, "on_close": None}
    channel = wire.client.create_channel("peerchat/stream", b"\2" * 32, **calls)
    channel.open(wire_format.encode_handshake())
    for kind, payload in sent:
        if not channel.is_closed:
            channel.send(kind, payload)
        await asyncio.sleep(0)
    wire.cut()
    await server.close()
    assert server.active == 0


async def throw_at_client(sent: list[tuple[int, bytes]]) -> None:
    wire = Wire()
    opened: list[object] = []

    def notify(key: bytes | None) -> None:
        calls = {"on_open": None, "on_message": None, "on_close": None}
        opened.append(wire.server.create_channel("peerchat/stream", key, **calls))
        opened[0].open(wire_format.encode_handshake())  # type: ignore[attr-defined]

    wire.server.notify = notify
    session = FakeSession(wire.client)
    client = PromptStreamClient(session)  # type: ignore[arg-type]
    assert await client.is_supported()
    answers = [client.ask(PromptRequest("x", f"r{n}")) for n in range(3)]
    for kind, payload in sent:
        if not opened[0].is_closed:  # type: ignore[attr-defined]
            opened[0].send(kind, payload)  # type: ignore[attr-defined]
        await asyncio.sleep(0)
    wire.cut()
    for answer in answers:
        ends = 0
        has_failed = False
        try:
            async for event in answer:
                ends += isinstance(event, Finished)
                if isinstance(event, Fragment):
                    assert event.text == display_text(event.text)
        except ApiError:
            has_failed = True
        assert ends + has_failed == 1
    assert session.holds == 0
    assert client.active == 0


@given(messages)
@settings(max_examples=150, deadline=None)
def test_nothing_a_caller_sends_breaks_the_server(
    sent: list[tuple[int, bytes]],
) -> None:
    asyncio.run(throw_at_server(sent))


@given(messages)
@settings(max_examples=150, deadline=None)
def test_nothing_a_server_sends_breaks_the_client(
    sent: list[tuple[int, bytes]],
) -> None:
    asyncio.run(throw_at_client(sent))


@given(st.lists(texts, max_size=30))
@settings(max_examples=80, deadline=None)
def test_fragments_arrive_whole_and_in_order(pieces: list[str]) -> None:
    async def source(
        request: PromptRequest, caller: Caller
    ) -> AsyncIterator[AnswerEvent]:
        for piece in pieces:
            yield Fragment(piece)
        yield Finished(Usage("m", "", "stop", 0.0))

    async def run() -> str:
        wire = Wire()
        PromptStreamServer(source).attach(wire.server)  # type: ignore[arg-type]
        client = PromptStreamClient(FakeSession(wire.client))  # type: ignore[arg-type]
        assert await client.is_supported()
        answer = client.ask(PromptRequest("x", "r"))
        return "".join([e.text async for e in answer if isinstance(e, Fragment)])

    expected = display_text("".join(wire_format.well_formed(p) for p in pieces))
    assert asyncio.run(run()) == expected
