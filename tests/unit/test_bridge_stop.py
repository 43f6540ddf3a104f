"""A bridge that is told to stop: what runs may end, and hears of it if it may not."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from peerchat.api import Fragment
from tests.bridge_world import BEARER, EVENTS, Bridge, Starter, bridge, start
from tests.scripted_swarm import ScriptedAnswer, finished

from .waiting import until

__all__ = ["bridge", "start"]

TURN = {"role": "user", "content": "Hi"}
CHAT = {"model": "m", "messages": [TURN]}
PROMPT = {"model": "m", "prompt": "Hi"}
ASKED = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": PROMPT,
    "/api/chat": CHAT,
    "/api/generate": PROMPT,
    "/inference": PROMPT,
}
LONG_S = 60.0
"""No test waits for it."""


async def running(bridge: Bridge) -> ScriptedAnswer:
    await bridge.gateway.was_asked.wait()
    answer = bridge.gateway.answers[0]
    await answer.is_waiting.wait()
    return answer


async def draining(bridge: Bridge) -> asyncio.Task[None]:
    """Once this returns, nothing new is taken."""
    task = asyncio.ensure_future(bridge.role.drain(LONG_S))
    await until(lambda: is_free(int(bridge.url.rpartition(":")[2])))
    return task


def is_free(port: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


async def streamed(bridge: Bridge, path: str) -> list[str]:
    body = {**ASKED[path], "stream": True}
    async with bridge.session.post(
        bridge.url + path, json=body, headers=EVENTS
    ) as response:
        assert response.status == 200
        return [line for line in (await response.text()).splitlines() if line]


@pytest.mark.parametrize("path", ASKED)
async def test_a_running_answer_may_end(bridge: Bridge, path: str) -> None:
    gate = asyncio.Event()
    bridge.gateway.steps = [Fragment("Hel"), gate, Fragment("lo"), finished()]
    asking = asyncio.ensure_future(streamed(bridge, path))
    await running(bridge)
    task = await draining(bridge)
    gate.set()
    lines = await asking
    assert "error" not in "".join(lines)
    assert sum("peerchat" in line for line in lines) == 1
    async with asyncio.timeout(5):
        await task


@pytest.mark.parametrize("path", ASKED)
async def test_a_stream_that_is_cut_off_says_so_in_its_api(
    bridge: Bridge, path: str
) -> None:
    bridge.gateway.steps = [Fragment("Hel"), asyncio.Event()]
    asking = asyncio.ensure_future(streamed(bridge, path))
    answer = await running(bridge)
    await bridge.role.drain(0)
    assert answer.is_closed.is_set()
    *_, last = await asking
    error = json.loads(last.removeprefix("data: "))["error"]
    if path.startswith("/api/"):
        assert "shutting down" in error
    else:
        assert error["code"] == "stopped"
        assert "shutting down" in error["message"]
    assert "[DONE]" not in last


@pytest.mark.parametrize("path", ASKED)
async def test_an_answer_in_one_piece_that_is_cut_off_is_503(
    bridge: Bridge, path: str
) -> None:
    bridge.gateway.steps = [Fragment("Hel"), asyncio.Event()]
    body = {**ASKED[path], "stream": False}
    asking = asyncio.ensure_future(bridge.post(path, body, **BEARER))
    answer = await running(bridge)
    await bridge.role.drain(0)
    status, said, response = await asking
    assert status == 503
    assert "shutting down" in json.dumps(said)
    assert int(response.headers["Retry-After"]) > 0
    assert response.headers["Connection"] == "close"
    assert answer.is_closed.is_set()


async def test_nothing_new_is_taken_and_the_port_is_free(
    start: Starter, bridge: Bridge
) -> None:
    gate = asyncio.Event()
    bridge.gateway.steps = [gate, finished()]
    reader, writer = await connected(bridge)  # one that is there already
    asking = asyncio.ensure_future(streamed(bridge, "/api/chat"))
    await running(bridge)
    task = await draining(bridge)
    writer.write(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n")
    said = await reader.read()  # to the end: the bridge closes the connection
    assert said.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: " in said
    after = await start(http_port=int(bridge.url.rpartition(":")[2]))
    assert after.url == bridge.url
    gate.set()
    await asking
    await task
    writer.close()


async def test_without_a_drain_they_are_told_as_well(bridge: Bridge) -> None:
    bridge.gateway.steps = [Fragment("Hel"), asyncio.Event()]
    asking = asyncio.ensure_future(streamed(bridge, "/api/chat"))
    await running(bridge)
    bridge.task.cancel()
    *_, last = await asking
    assert "shutting down" in json.loads(last)["error"]


async def connected(
    bridge: Bridge,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that was used and stays open."""
    port = int(bridge.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"HEAD /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer
