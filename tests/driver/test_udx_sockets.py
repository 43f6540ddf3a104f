"""Real UDP sockets: runs the kernel cuts, full buffers, and closing."""

from __future__ import annotations

import asyncio
import errno

import pytest

from peerchat.net.driver.sockets import (
    SEND_QUEUE_MAX,
    RawSocket,
    SystemDatagrams,
    TransportSocket,
)
from peerchat.net.env import Datagram, DatagramSocket
from peerchat.net.identity import Address

LOOPBACK = "127.0.0.1"


class Inbox:
    """Collects datagrams, and says when there are enough."""

    def __init__(self) -> None:
        self.datagrams: list[Datagram] = []
        self._grown = asyncio.Event()

    def __call__(self, socket: DatagramSocket, batch) -> None:
        self.datagrams += batch
        self._grown.set()

    async def wait(self, count: int) -> list[bytes]:
        async with asyncio.timeout(10):
            while len(self.datagrams) < count:
                self._grown.clear()
                await self._grown.wait()
        return [data for data, _ in self.datagrams]


@pytest.mark.parametrize("is_portable", [False, True])
async def test_a_batch_of_mixed_lengths_arrives_whole_and_in_order(is_portable: bool):
    datagrams = SystemDatagrams(is_portable=is_portable)
    inbox = Inbox()
    target = await datagrams.bind(LOOPBACK, 0, inbox)
    source = await datagrams.bind(LOOPBACK, 0, lambda *_: None)
    assert isinstance(source, TransportSocket if is_portable else RawSocket)
    assert source.address.port > 0
    lengths = [1000] * 100 + [1200, 1200, 7, 1472, 1, 1, 900, 1000]
    want = [bytes([index % 256]) * length for index, length in enumerate(lengths)]
    source.send_batch(want, target.address)
    assert await inbox.wait(len(want)) == want
    assert {address for _, address in inbox.datagrams} == {source.address}
    for socket in (source, target):
        socket.close()
        socket.close()
    source.send(b"after close is nothing", target.address)


async def test_a_port_that_is_taken_is_an_oserror():
    datagrams = SystemDatagrams()
    first = await datagrams.bind(LOOPBACK, 0, lambda *_: None)
    with pytest.raises(OSError, match="in use") as caught:
        await datagrams.bind(LOOPBACK, first.address.port, lambda *_: None)
    assert caught.value.errno == errno.EADDRINUSE
    first.close()


async def test_what_no_network_carries_is_dropped():
    socket = await SystemDatagrams().bind(LOOPBACK, 0, lambda *_: None)
    socket.send(bytes(70_000), socket.address)
    socket.send_batch([bytes(70_000)] * 3, socket.address)
    socket.close()


class FullOnce:
    """Stands for a kernel whose buffer is full until it is told to have room."""

    def __init__(self, real) -> None:
        self._real = real
        self.is_full = True

    def sendto(self, data: bytes, to: Address) -> int:
        if self.is_full:
            raise BlockingIOError(errno.EAGAIN, "full")
        return self._real.sendto(data, to)

    def sendmsg(self, *args) -> int:
        raise BlockingIOError(errno.EAGAIN, "full")

    def __getattr__(self, name: str):
        return getattr(self._real, name)


async def test_a_full_kernel_buffer_queues_in_order_and_then_drops():
    inbox = Inbox()
    datagrams = SystemDatagrams()
    target = await datagrams.bind(LOOPBACK, 0, inbox)
    source = await datagrams.bind(LOOPBACK, 0, lambda *_: None)
    assert isinstance(source, RawSocket)
    kernel = FullOnce(source._udp)
    source._udp = kernel  # type: ignore[assignment]
    want = [index.to_bytes(2, "big") for index in range(SEND_QUEUE_MAX + 5)]
    source.send(want[0], target.address)
    source.send_batch(want[1:], target.address)
    assert source.datagrams_dropped == 5
    kernel.is_full = False
    assert await inbox.wait(SEND_QUEUE_MAX) == want[:SEND_QUEUE_MAX]
    source.close()
    target.close()


async def test_without_segmentation_datagrams_go_one_by_one():
    inbox = Inbox()
    datagrams = SystemDatagrams()
    target = await datagrams.bind(LOOPBACK, 0, inbox)
    source = await datagrams.bind(LOOPBACK, 0, lambda *_: None)
    assert isinstance(source, RawSocket)
    kernel = FullOnce(source._udp)
    kernel.is_full = False

    def refuse(*_: object) -> int:
        raise OSError(errno.EIO, "no checksum offload")

    kernel.sendmsg = refuse  # type: ignore[method-assign]
    source._udp = kernel  # type: ignore[assignment]
    want = [bytes(100)] * 20
    source.send_batch(want, target.address)
    assert await inbox.wait(20) == want
    source.close()
    target.close()


async def test_a_failing_read_keeps_what_was_read_before():
    inbox = Inbox()
    datagrams = SystemDatagrams()
    target = await datagrams.bind(LOOPBACK, 0, inbox)
    source = await datagrams.bind(LOOPBACK, 0, lambda *_: None)
    assert isinstance(target, RawSocket)
    real = target._udp
    reads = 0

    class Failing(FullOnce):
        def recvmsg(self, *args):
            nonlocal reads
            reads += 1
            if reads % 2 == 0:
                raise OSError(errno.ENETDOWN, "network is down")
            return real.recvmsg(*args)

        recvfrom = recvmsg

    target._udp = Failing(real)  # type: ignore[assignment]
    target._has_gro = True
    want = [b"one", b"three", b"fifteen"]
    for word in want:
        source.send(word, target.address)
    assert await inbox.wait(3) == want
    source.close()
    target.close()
