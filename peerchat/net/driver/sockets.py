"""Real UDP sockets, in the two ways that event loops offer.

Where the loop watches file descriptors, a raw socket is drained many datagrams at a
wake-up, and on Linux the kernel cuts and joins runs of equal datagrams (UDP_SEGMENT
and UDP_GRO, udp(7)), which is worth a factor of ten. Elsewhere, as on Windows'
proactor loop, asyncio's own datagram transport does the work.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
import sys
from collections import deque
from collections.abc import Sequence

from peerchat.net.env import Datagram, DatagramReceiver, DatagramSocket
from peerchat.net.identity import Address

RECEIVE_BUFFER_BYTES = 1024 * 1024
"""What libudx asks the kernel for."""

DRAIN_MAX = 256
"""Datagrams per wake-up, give or take one joined run: a millisecond or two of work,
so that a busy socket leaves time for the loop's other work."""

DATAGRAM_BYTES_MAX = 65536
"""Larger than any UDP payload; a joined run is at most this long too."""

SEND_QUEUE_MAX = 1024
"""Datagrams kept while the kernel's buffer is full; beyond, they are lost, as the
network loses them. About the 1 MiB of one socket buffer."""

_IS_LINUX = sys.platform == "linux"
_SOL_UDP = 17
_UDP_SEGMENT = 103
_UDP_GRO = 104
_SEGMENTS_MAX = 64
"""Linux' own UDP_MAX_SEGMENTS, until 6.9 doubled it."""
_RUN_BYTES_MAX = 65_507
"""One call may carry what fits one UDP datagram of the largest size."""
_IP_MTU_DISCOVER = 10
_IP_PMTUDISC_PROBE = 3
_CONTROL_BYTES = 64
_WOULD_BLOCK = (errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS)


class SystemDatagrams:
    """Opens UDP sockets on this machine.

    Args:
        is_portable: use asyncio's datagram transport even where the loop can do better.
    """

    def __init__(self, *, is_portable: bool = False) -> None:
        self._is_portable = is_portable

    async def bind(
        self, host: str, port: int, receiver: DatagramReceiver
    ) -> DatagramSocket:
        udp = _open(host, port)
        loop = asyncio.get_running_loop()
        try:
            if not self._is_portable:
                with contextlib.suppress(NotImplementedError):
                    return RawSocket(loop, udp, receiver)
            transport, protocol = await loop.create_datagram_endpoint(
                lambda: _TransportProtocol(receiver), sock=udp
            )
        except BaseException:
            udp.close()
            raise
        return TransportSocket(transport, protocol, Address(*udp.getsockname()))


def _open(host: str, port: int) -> socket.socket:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        udp.setblocking(False)
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        if _IS_LINUX:
            # Never fragment, whatever the kernel believes of the path: UDX searches
            # for the mtu itself.
            udp.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE)
        udp.bind((host, port))
    except BaseException:
        udp.close()
        raise
    return udp


class RawSocket:
    """A socket the loop watches; reads and sends go straight to the kernel."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        udp: socket.socket,
        receiver: DatagramReceiver,
    ) -> None:
        self._loop = loop
        self._udp = udp
        self._receiver = receiver
        self._address = Address(*udp.getsockname())
        self._last_source = Address("", 0)
        self._queue: deque[Datagram] = deque()
        self._is_closed = False
        self.datagrams_dropped = 0
        """Not sent because the kernel and the queue were full."""
        loop.add_reader(udp.fileno(), self._drain)
        self._can_segment = _IS_LINUX
        self._has_gro = _IS_LINUX and self._ask_for_gro()

    @property
    def address(self) -> Address:
        return self._address

    def send(self, data: bytes, to: Address) -> None:
        if self._is_closed:
            return
        if self._queue:
            self._enqueue(data, to)
            return
        try:
            self._udp.sendto(data, to)
        except OSError as error:
            if error.errno in _WOULD_BLOCK:
                self._enqueue(data, to)
            # Anything else is a datagram the network would not carry: too large for
            # the interface, no route. Its loss is noticed as every loss is.

    def send_batch(self, data: Sequence[bytes], to: Address) -> None:
        start = 0
        count = len(data)
        while self._can_segment and count - start > 1 and not self._queue:
            stop = _run_of_equal_lengths(data, start)
            if stop - start == 1:
                self.send(data[start], to)
            elif not self._send_segments(data[start:stop], to):
                break
            start = stop
        for one in data[start:]:
            self.send(one, to)

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._loop.remove_reader(self._udp.fileno())
            if self._queue:
                self._loop.remove_writer(self._udp.fileno())
                self._queue.clear()
            self._udp.close()

    def _ask_for_gro(self) -> bool:
        try:
            self._udp.setsockopt(_SOL_UDP, _UDP_GRO, 1)
        except OSError:
            return False
        return True

    def _send_segments(self, run: Sequence[bytes], to: Address) -> bool:
        """Let the kernel cut one large buffer; False: this system can not."""
        if self._is_closed:
            return True
        size = struct.pack("=H", len(run[0]))
        try:
            self._udp.sendmsg(run, [(_SOL_UDP, _UDP_SEGMENT, size)], 0, to)
        except OSError as error:
            if error.errno in _WOULD_BLOCK:
                for one in run:
                    self._enqueue(one, to)
                return True
            # EIO: an interface without checksum offload. EINVAL: larger than its mtu,
            # or a kernel before 4.18. One at a time tells which datagrams pass.
            self._can_segment = error.errno != errno.EIO
            return False
        return True

    def _enqueue(self, data: bytes, to: Address) -> None:
        if len(self._queue) >= SEND_QUEUE_MAX:
            self.datagrams_dropped += 1
            return
        if not self._queue:
            self._loop.add_writer(self._udp.fileno(), self._flush_queue)
        self._queue.append((data, to))

    def _flush_queue(self) -> None:
        while self._queue:
            try:
                self._udp.sendto(*self._queue[0])
            except OSError as error:
                if error.errno in _WOULD_BLOCK:
                    return
            self._queue.popleft()
        self._loop.remove_writer(self._udp.fileno())

    def _drain(self) -> None:
        batch: list[Datagram] = []
        read = self._read_joined if self._has_gro else self._read_one
        for _ in range(DRAIN_MAX):
            try:
                read(batch)
            except ConnectionResetError:
                # Windows reports a peer's closed port here; other reads still work.
                continue
            except OSError:
                # Nothing is left, or the interface went away: what came is handled.
                break
            if len(batch) >= DRAIN_MAX:
                break
        if batch and not self._is_closed:
            self._receiver(self, batch)

    def _read_one(self, batch: list[Datagram]) -> None:
        data, source = self._udp.recvfrom(DATAGRAM_BYTES_MAX)
        batch.append((data, self._intern(source)))

    def _read_joined(self, batch: list[Datagram]) -> None:
        data, control, _, source = self._udp.recvmsg(DATAGRAM_BYTES_MAX, _CONTROL_BYTES)
        address = self._intern(source)
        if not control:
            batch.append((data, address))
            return
        size = int.from_bytes(control[0][2], sys.byteorder)
        batch.extend(
            [
                (data[start : start + size], address)
                for start in range(0, len(data), size)
            ]
        )

    def _intern(self, source: tuple[str, int]) -> Address:
        """Most datagrams come from the same place as the one before."""
        if source != self._last_source:
            self._last_source = Address(*source)
        return self._last_source


def _run_of_equal_lengths(data: Sequence[bytes], start: int) -> int:
    """Where a run ends that the kernel can cut: only its last may be shorter."""
    size = len(data[start])
    stop = start + 1
    if size == 0:
        return stop
    last = min(len(data), start + min(_SEGMENTS_MAX, _RUN_BYTES_MAX // size))
    while stop < last and len(data[stop]) == size:
        stop += 1
    if stop < last and len(data[stop]) < size:
        stop += 1
    return stop


class _TransportProtocol(asyncio.DatagramProtocol):
    """Gathers what arrives in one turn of the loop into one batch."""

    def __init__(self, receiver: DatagramReceiver) -> None:
        self._receiver = receiver
        self._batch: list[Datagram] = []
        self.is_full = False
        self.socket: TransportSocket | None = None

    def pause_writing(self) -> None:
        """The transport's buffer is full; more is lost, as the network loses it."""
        self.is_full = True

    def resume_writing(self) -> None:
        self.is_full = False

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if not self._batch:
            asyncio.get_running_loop().call_soon(self._deliver)
        self._batch.append((data, Address(addr[0], addr[1])))

    def error_received(self, exc: Exception) -> None:
        """A datagram was not carried; its loss is noticed as every loss is."""

    def _deliver(self) -> None:
        batch, self._batch = self._batch, []
        if self.socket is not None and not self.socket.is_closed:
            self._receiver(self.socket, batch)


class TransportSocket:
    """A socket behind asyncio's datagram transport."""

    def __init__(
        self,
        transport: asyncio.DatagramTransport,
        protocol: _TransportProtocol,
        address: Address,
    ) -> None:
        self._transport = transport
        self._protocol = protocol
        self._address = address
        self.is_closed = False
        protocol.socket = self

    @property
    def address(self) -> Address:
        return self._address

    def send(self, data: bytes, to: Address) -> None:
        if not self.is_closed and not self._protocol.is_full:
            self._transport.sendto(data, to)

    def send_batch(self, data: Sequence[bytes], to: Address) -> None:
        for one in data:
            self.send(one, to)

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self._transport.close()
