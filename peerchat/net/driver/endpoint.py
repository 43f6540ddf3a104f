"""Sorts datagrams: UDX packets to their streams, the rest to who bound the socket.

`UdxEndpoint` is a `Datagrams` over another one, so a DHT node binds its sockets
through it and need not know that streams share them (docs/PROTOCOL.md section 3).
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial

from peerchat.net.env import Datagram, DatagramReceiver, DatagramSocket, Env
from peerchat.net.errors import ConnectionLost, LocalProtocolError
from peerchat.net.identity import Address
from peerchat.net.udx.packet import HEADER_BYTES, MAGIC_AND_VERSION
from peerchat.net.udx.stream import StreamStatistics, UdxStream

from .stream import UdxStreamDriver

logger = logging.getLogger(__name__)

STREAMS_MAX = 16_384
"""Open streams of one endpoint; a gateway with a thousand peers uses a tenth."""

LINGERING_MAX = 1024
"""Closed streams that still answer the peer's last packets; the oldest go first."""

LINGER_S = 4.0
"""Long enough for a peer whose END or whose acknowledgement of ours was lost to send
twice more (1 s and 2 s apart)."""

Firewall = Callable[[DatagramSocket, Address], bool]
"""Asked about a packet from elsewhere than the connected peer; True refuses it."""

_PREFIX = struct.Struct("<HHI")


@dataclass(frozen=True, slots=True)
class UdxTotals:
    """What all streams of an endpoint did since its start, the closed ones too."""

    packets_received: int = 0
    packets_sent: int = 0
    packets_ignored: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
    retransmits: int = 0
    timeouts: int = 0

    def plus(self, stream: StreamStatistics) -> UdxTotals:
        """These and one more stream's."""
        return UdxTotals(
            **{
                field.name: getattr(self, field.name) + getattr(stream, field.name)
                for field in fields(UdxTotals)
            }
        )


class UdxEndpoint:
    """All streams of one node, whichever of its sockets their packets come in on."""

    def __init__(self, env: Env) -> None:
        self._env = env
        self._streams: dict[int, UdxStreamDriver] = {}
        self._lingering: dict[int, float] = {}
        self._is_closed = False
        self._closed_totals = UdxTotals()

    async def bind(
        self, host: str, port: int, receiver: DatagramReceiver
    ) -> DatagramSocket:
        """Bind a socket that UDX shares with ``receiver``; its owner closes it."""
        return await self._env.datagrams.bind(
            host, port, partial(self._receive, receiver)
        )

    @property
    def stream_count(self) -> int:
        """Streams that are registered, those that linger included."""
        return len(self._streams)

    def totals(self) -> UdxTotals:
        """Counters of all streams that are or were."""
        totals = self._closed_totals
        for stream in self._streams.values():
            totals = totals.plus(stream.statistics())
        return totals

    def create_stream(self, *, firewall: Firewall | None = None) -> UdxStreamDriver:
        """Reserve a random id at once: the peer's first packet may come very soon.

        Args:
            firewall: asked about packets before `UdxStreamDriver.connect` and from
                elsewhere than the connected peer. Without one, packets are taken from
                anywhere before `connect`, and from the peer alone afterwards.

        Raises:
            LocalProtocolError: too many streams, or the endpoint is closed.
        """
        if self._is_closed:
            raise LocalProtocolError("the UDX endpoint is closed")
        if len(self._streams) - len(self._lingering) >= STREAMS_MAX:
            raise LocalProtocolError(f"more than {STREAMS_MAX} UDX streams")
        local_id = self._free_id()
        stream = UdxStreamDriver(
            UdxStream(local_id), self._env.clock, self._retire, firewall
        )
        self._streams[local_id] = stream
        return stream

    def close(self) -> None:
        """Destroy every stream; call it before the sockets close."""
        self._is_closed = True
        for stream in list(self._streams.values()):
            stream.destroy()
            stream.flush()
            self._forget(stream.id)

    def _free_id(self) -> int:
        while True:
            local_id = int.from_bytes(self._env.random.token_bytes(4), "little")
            if local_id not in self._streams:
                return local_id

    def _retire(self, stream: UdxStreamDriver) -> None:
        """Forget a closed stream, after a while if it was ever connected."""
        if self._is_closed or not stream.is_connected:
            self._forget(stream.id)
            return
        now = self._env.clock.now()
        self._lingering[stream.id] = now + LINGER_S
        if len(self._lingering) > LINGERING_MAX:
            self._forget(next(iter(self._lingering)))
        if len(self._lingering) == 1:
            self._env.clock.call_at(now + LINGER_S, self._forget_due)

    def _forget_due(self) -> None:
        now = self._env.clock.now()
        while self._lingering:
            local_id, due = next(iter(self._lingering.items()))
            if due > now:
                self._env.clock.call_at(due, self._forget_due)
                return
            self._forget(local_id)

    def _forget(self, local_id: int) -> None:
        self._lingering.pop(local_id, None)
        stream = self._streams.pop(local_id, None)
        if stream is not None:
            self._closed_totals = self._closed_totals.plus(stream.statistics())

    def _receive(
        self,
        receiver: DatagramReceiver,
        socket: DatagramSocket,
        batch: Sequence[Datagram],
    ) -> None:
        now = self._env.clock.now()
        streams = self._streams
        unpack = _PREFIX.unpack_from
        touched: dict[int, UdxStreamDriver] = {}
        rest: list[Datagram] = []
        for datagram in batch:
            data, source = datagram
            if len(data) >= HEADER_BYTES:
                magic, _, local_id = unpack(data)
                if magic == MAGIC_AND_VERSION:
                    stream = streams.get(local_id)
                    if stream is not None:
                        stream.receive_packet(socket, data, source, now)
                        touched[local_id] = stream
                        continue
            rest.append(datagram)
        for stream in touched.values():
            try:
                stream.batch_received(now)
            except Exception:
                # One stream's bug must not keep the others' packets back.
                logger.exception("a UDX stream's receiver failed; destroying it")
                stream.destroy(ConnectionLost("internal error"))
        if rest:
            receiver(socket, rest)
