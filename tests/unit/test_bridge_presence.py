"""Callers of the bridge that vanished without a word, and those that only rest."""

from __future__ import annotations

import asyncio
import ctypes
import json
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import closing

import pytest

from peerchat.api import Fragment
from peerchat.services.bridge import presence
from peerchat.services.bridge.presence import is_silent
from tests.bridge_world import BEARER, Bridge, bridge, start
from tests.scripted_swarm import finished

from .waiting import until

__all__ = ["bridge", "start"]

CHAT = "/v1/chat/completions"
SO_ATTACH_FILTER = 26
SOON_S = 0.02

needs_linux = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells of acknowledgements"
)
Pair = tuple[socket.socket, socket.socket]


def vanish(sock: socket.socket) -> None:
    """Drop whatever comes, below TCP: nothing is acknowledged any more."""
    drop_all = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0))
    program = struct.pack("HxxxxxxP", 1, ctypes.addressof(drop_all))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A caller's end, and the bridge's."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        caller = socket.create_connection(server.getsockname())
        own, _ = server.accept()
    own.setblocking(False)
    with closing(caller), closing(own):
        yield caller, own


def fill(sock: socket.socket) -> None:
    try:
        while True:
            sock.send(bytes(65536))
    except BlockingIOError:
        pass


@needs_linux
async def test_who_vanished_acknowledges_nothing(pair: Pair) -> None:
    caller, own = pair
    own.send(b"x")
    caller.recv(1)
    vanish(caller)
    own.send(b"y")
    await until(lambda: is_silent(own, SOON_S))


@needs_linux
async def test_who_rests_is_not_taken_for_one_who_vanished(pair: Pair) -> None:
    _, own = pair
    fill(own)
    await until(lambda: not is_silent(own, 0))


@needs_linux
def test_where_nothing_is_under_way_nobody_is_silent(pair: Pair) -> None:
    _, own = pair
    assert not is_silent(own, -1)  # however long ago the last word was


def test_what_is_closed_is_not_silent(pair: Pair) -> None:
    _, own = pair
    own.close()
    assert not is_silent(own, 0)


async def asking(bridge: Bridge) -> socket.socket:
    """A caller's socket, after its request went out."""
    loop = asyncio.get_running_loop()
    caller = socket.socket()
    caller.setblocking(False)
    await loop.sock_connect(caller, ("127.0.0.1", int(bridge.url.rpartition(":")[2])))
    turns = [{"role": "user", "content": "Hi"}]
    body = json.dumps({"model": "m", "messages": turns, "stream": True})
    await loop.sock_sendall(
        caller,
        f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        f"Authorization: {BEARER['Authorization']}\r\n\r\n{body}".encode(),
    )
    return caller


@needs_linux
async def test_who_vanishes_in_mid_stream_is_given_up(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "LOOK_EVERY_S", SOON_S)
    monkeypatch.setattr(presence, "GONE_S", 5 * SOON_S)
    gate = asyncio.Event()
    bridge.gateway.steps = [Fragment("Hel"), gate, Fragment("lo"), asyncio.Event()]
    with closing(await asking(bridge)) as caller:
        loop = asyncio.get_running_loop()
        assert b"Hel" in await loop.sock_recv(caller, 65536)
        vanish(caller)
        gate.set()
        (answer,) = bridge.gateway.answers
        async with asyncio.timeout(10):
            await answer.is_closed.wait()


async def test_who_rests_gets_the_whole_answer_afterwards(bridge: Bridge) -> None:
    piece, count = "x" * 65536, 200  # more than the system's buffers hold
    bridge.gateway.steps = [Fragment(piece)] * count + [finished()]
    with closing(await asking(bridge)) as caller:
        await bridge.gateway.was_asked.wait()
        (answer,) = bridge.gateway.answers
        left = -1
        while left != len(answer.steps):  # the source stands still
            left = len(answer.steps)
            await asyncio.sleep(SOON_S)
        assert 0 < left < count
        loop = asyncio.get_running_loop()
        said = bytearray()
        async with asyncio.timeout(10):
            while b"[DONE]" not in said[-64:]:
                said += await loop.sock_recv(caller, 1 << 20)
    assert said.count(b"x") >= count * len(piece)
