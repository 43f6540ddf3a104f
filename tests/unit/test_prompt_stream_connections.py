"""`peerchat/stream` over real secretstream and Protomux in memory."""

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
    PromptRequest,
    Usage,
)
from peerchat.net.crypto.primitives import KeyPair
from peerchat.net.driver.connection import Connection
from peerchat.services.prompt_stream import (
    Caller,
    PromptStreamClient,
    PromptStreamServer,
)
from peerchat.testing.streams import memory_connection_pair

CLIENT = KeyPair.generate(b"\1" * 32)
SERVER = KeyPair.generate(b"\2" * 32)
USAGE = Usage("m", "", "stop", 1.0)


class HeldSession:
    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def hold(self) -> None:
        pass

    def release(self) -> None:
        pass


class Endless:
    """Gives fragments without end and says when it was closed."""

    def __init__(self) -> None:
        self.given = 0
        self.is_closed = asyncio.Event()

    async def __call__(
        self, request: PromptRequest, caller: Caller
    ) -> AsyncIterator[AnswerEvent]:
        try:
            while True:
                self.given += 1
                yield Fragment(f"{self.given} ")
                await asyncio.sleep(0)
        finally:
            self.is_closed.set()


async def echo(request: PromptRequest, caller: Caller) -> AsyncIterator[AnswerEvent]:
    assert caller.peer == CLIENT.public_key.hex()
    for word in request.prompt.split():
        yield Fragment(word + " ")
    yield Finished(USAGE, request.request_id)


async def test_answers_over_a_connection() -> None:
    a, b = memory_connection_pair(CLIENT, SERVER)
    PromptStreamServer(echo).attach(b)
    client = PromptStreamClient(HeldSession(a))
    assert await client.is_supported()
    words = " ".join(str(number) for number in range(30_000)) + " "
    answers = [client.ask(PromptRequest(words, f"r{n}")) for n in range(3)]
    for answer in answers:
        events = [event async for event in answer]
        assert "".join(e.text for e in events if isinstance(e, Fragment)) == words
        assert events[-1] == Finished(USAGE, answer.request_id)
    a.destroy()


async def test_a_peer_without_the_channel_rejects_it() -> None:
    a, b = memory_connection_pair(CLIENT, SERVER)
    assert b.mux is not None
    assert await PromptStreamClient(HeldSession(a)).is_supported() is False
    a.destroy()
    assert await PromptStreamClient(HeldSession(a)).is_supported() is False


async def test_stop_reaches_the_handler() -> None:
    handler = Endless()
    a, b = memory_connection_pair(CLIENT, SERVER)
    PromptStreamServer(handler).attach(b)
    client = PromptStreamClient(HeldSession(a))
    assert await client.is_supported()
    answer = client.ask(PromptRequest("go", "r1"))
    assert await anext(answer) == Fragment("1 ")
    await answer.aclose()
    await asyncio.wait_for(handler.is_closed.wait(), 5)
    a.destroy()


@pytest.mark.parametrize("who", ["client", "server"])
async def test_a_lost_connection_is_seen_on_both_ends(who: str) -> None:
    handler = Endless()
    a, b = memory_connection_pair(CLIENT, SERVER)
    server = PromptStreamServer(handler)
    server.attach(b)
    client = PromptStreamClient(HeldSession(a))
    assert await client.is_supported()
    answer = client.ask(PromptRequest("go", "r1"))
    await anext(answer)
    (a if who == "client" else b).destroy()
    with pytest.raises(ApiError) as caught:
        async for _ in answer:
            pass
    assert caught.value.code is ErrorCode.PEER_LOST
    await asyncio.wait_for(handler.is_closed.wait(), 5)


async def test_a_reader_that_stands_still_stops_the_source() -> None:
    handler = Endless()
    a, b = memory_connection_pair(CLIENT, SERVER)
    PromptStreamServer(handler).attach(b)
    client = PromptStreamClient(HeldSession(a))
    assert await client.is_supported()
    answer = client.ask(PromptRequest("go", "r1"))
    await anext(answer)
    given = -1
    while given != handler.given:
        given = handler.given
        for _ in range(200):
            await asyncio.sleep(0)
    assert 1000 < given < 64 * 1024
    for _ in range(3 * given):
        await anext(answer)
    assert handler.given > 3 * given
    await answer.aclose()
    a.destroy()
