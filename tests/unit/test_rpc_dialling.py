"""Attempts to connect, one beside the other."""

from __future__ import annotations

import asyncio

import pytest

from peerchat.net.crypto.primitives import KeyPair
from peerchat.net.driver.connection import Connection
from peerchat.net.errors import PeerUnreachable
from peerchat.net.rpc.dialling import AGAIN_S, dial
from peerchat.testing.loop import run_virtual
from peerchat.testing.streams import memory_connection_pair

A, B = KeyPair.from_seed(b"\1" * 32), KeyPair.from_seed(b"\2" * 32)


class Peer:
    """Attempts that begin before it is there fail after a time; later ones succeed."""

    def __init__(self, back_s: float, fails_after_s: float, takes_s: float = 0.1):
        self.back_s, self.fails_after_s, self.takes_s = back_s, fails_after_s, takes_s
        self.attempts = self.running = self.most = 0
        self.made: list[Connection] = []

    async def connect(self) -> Connection:
        began_s = asyncio.get_running_loop().time()
        self.attempts += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if began_s < self.back_s:
                await asyncio.sleep(self.fails_after_s)
                raise PeerUnreachable("nobody")
            await asyncio.sleep(self.takes_s)
            self.made.append(memory_connection_pair(A, B)[0])
            return self.made[-1]
        finally:
            self.running -= 1

    async def dialled(self) -> float:
        connection = await dial(self.connect, Connection.destroy)
        assert not connection.is_closed
        assert [one for one in self.made if not one.is_closed] == [connection]
        assert self.running == 0
        return asyncio.get_running_loop().time()


def test_who_is_there_is_dialled_once() -> None:
    peer = Peer(0.0, 30.0, takes_s=AGAIN_S - 0.1)
    assert run_virtual(peer.dialled) == pytest.approx(AGAIN_S - 0.1)
    assert peer.attempts == 1


def test_who_comes_back_is_reached_by_a_later_attempt() -> None:
    peer = Peer(back_s=7.0, fails_after_s=30.0)
    assert run_virtual(peer.dialled) == pytest.approx(3 * AGAIN_S + 0.1)
    assert (peer.attempts, peer.most) == (4, 2)


def test_who_is_dead_is_given_up_with_the_first_attempt() -> None:
    peer = Peer(back_s=1e9, fails_after_s=4.0)
    with pytest.raises(PeerUnreachable):
        run_virtual(peer.dialled)
    assert (peer.attempts, peer.running) == (2, 0)


def test_a_caller_that_gives_up_ends_every_attempt() -> None:
    peer = Peer(back_s=1e9, fails_after_s=30.0)

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(AGAIN_S + 1):
                await dial(peer.connect, Connection.destroy)

    run_virtual(give_up)
    assert (peer.attempts, peer.running) == (2, 0)
