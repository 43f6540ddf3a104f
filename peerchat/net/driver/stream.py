"""A UDX stream over sockets: the `ByteStream` that the encrypted connection runs on.

Holds one machine, one timer and the path to the peer. Everything is a call, nothing
a task: a read batch goes from the socket through here to the receiver, and what the
receiver writes meanwhile leaves in the same turn of the loop, with the
acknowledgement on board.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from peerchat.net.env import Clock, DatagramSocket, Timer
from peerchat.net.errors import ConnectionLost, RemoteProtocolError
from peerchat.net.identity import Address
from peerchat.net.streams import ByteStreamReceiver
from peerchat.net.udx.stream import DESTROYED, StreamStatistics, UdxStream

UNSENT_HIGH_BYTES = 256 * 1024
"""`write` asks to wait above this: libudx's high-water mark. What is in flight is
not counted, as the windows bound it."""

UNSENT_LOW_BYTES = 64 * 1024
"""Below it `writable` is called: enough to keep packets going out meanwhile."""


@dataclass(frozen=True, slots=True)
class Path:
    """Where packets go: out of which socket, to which address and stream id."""

    socket: DatagramSocket
    address: Address
    remote_id: int


class UdxStreamDriver:
    """One reliable stream; made by `UdxEndpoint.create_stream`."""

    __slots__ = (
        "_clock",
        "_error",
        "_firewall",
        "_has_told_closed",
        "_has_told_end",
        "_is_flush_scheduled",
        "_is_in_batch",
        "_is_paused",
        "_is_writer_waiting",
        "_machine",
        "_path",
        "_receiver",
        "_retire",
        "_timer",
        "_timer_at",
        "id",
        "packets_malformed",
    )

    def __init__(
        self,
        machine: UdxStream,
        clock: Clock,
        retire: Callable[[UdxStreamDriver], None],
        firewall: Callable[[DatagramSocket, Address], bool] | None,
    ) -> None:
        self.id = machine.local_id
        """The local stream id, which the peer puts on its packets."""
        self.packets_malformed = 0
        """Not UDX at all; dropped."""
        self._machine = machine
        self._clock = clock
        self._retire = retire
        self._firewall = firewall
        self._path: Path | None = None
        self._receiver: ByteStreamReceiver | None = None
        self._timer: Timer | None = None
        self._timer_at = 0.0
        self._error: Exception | None = None
        self._is_flush_scheduled = False
        self._is_in_batch = False
        self._is_paused = False
        self._is_writer_waiting = False
        self._has_told_end = False
        self._has_told_closed = False

    # -- paths

    @property
    def is_connected(self) -> bool:
        """`connect` was called."""
        return self._path is not None

    @property
    def path(self) -> Path | None:
        return self._path

    @property
    def remote_address(self) -> Address | None:
        return self._path.address if self._path else None

    def connect(self, socket: DatagramSocket, remote_id: int, address: Address) -> None:
        """Name the peer; what was written and what arrived before is dealt with now."""
        self._machine.connect(remote_id)
        self._path = Path(socket, address, remote_id)
        self._schedule_flush()

    def change_remote(
        self, socket: DatagramSocket, remote_id: int, address: Address
    ) -> None:
        """Send over another path from now on, such as a direct one after a relay."""
        self._machine.change_remote(remote_id)
        self._path = Path(socket, address, remote_id)
        self._schedule_flush()

    # -- ByteStream

    def set_receiver(self, receiver: ByteStreamReceiver) -> None:
        self._receiver = receiver
        self._clock.call_soon(self._deliver_and_flush)

    def write(self, data: bytes) -> bool:
        """Queue bytes; raises LocalProtocolError after `end`."""
        self._machine.write(data)
        self._schedule_flush()
        if self._machine.unsent_bytes > UNSENT_HIGH_BYTES:
            self._is_writer_waiting = True
        return not self._is_writer_waiting

    def send_message(self, data: bytes) -> None:
        self._machine.send_message(data)
        self._schedule_flush()

    def end(self) -> None:
        self._machine.end()
        self._schedule_flush()

    def destroy(self, error: Exception | None = None) -> None:
        if not self._machine.is_closed:
            self._error = error
            self._machine.destroy()
            self._schedule_flush()

    def pause_reading(self) -> None:
        self._is_paused = True

    def resume_reading(self) -> None:
        if self._is_paused:
            self._is_paused = False
            self._clock.call_soon(self._deliver_and_flush)

    @property
    def buffered(self) -> int:
        return self._machine.buffered

    @property
    def unsent_bytes(self) -> int:
        """The part of `buffered` that has not left yet."""
        return self._machine.unsent_bytes

    @property
    def message_bytes_max(self) -> int:
        """The longest message that `send_message` takes now."""
        return self._machine.message_bytes_max

    @property
    def rtt_s(self) -> float | None:
        return self._machine.rtt_s

    @property
    def is_closed(self) -> bool:
        return self._machine.is_closed

    def statistics(self) -> StreamStatistics:
        return self._machine.statistics()

    # -- from the endpoint

    def receive_packet(
        self, socket: DatagramSocket, packet: bytes, source: Address, now: float
    ) -> None:
        """Take one packet of a read batch; `batch_received` follows."""
        path = self._path
        is_peer = path and source == path.address and socket is path.socket
        if not is_peer and self._is_refused(socket, source):
            return
        try:
            self._machine.receive_packet_untrusted(packet, now)
        except RemoteProtocolError:
            # Anyone can send rubbish with a known id; it says nothing of the peer.
            self.packets_malformed += 1

    def _is_refused(self, socket: DatagramSocket, source: Address) -> bool:
        if self._firewall is None:
            return self._path is not None
        return self._firewall(socket, source)

    def batch_received(self, now: float) -> None:
        """Pass on what the batch brought, then send what it calls for."""
        self._is_in_batch = True
        try:
            self._deliver()
        finally:
            self._is_in_batch = False
        if self._machine.has_stream_data_to_send or self._machine.is_closed:
            self._flush(now)
        elif self._machine.has_anything_to_send:
            # Tasks that the batch woke may answer in the next turn; the
            # acknowledgement then travels with the answer.
            self._schedule_flush()
        else:
            self._after_flush()

    def flush(self) -> None:
        """Send now what may leave, rather than at the end of this turn."""
        self._flush(self._clock.now())

    # -- the work

    def _schedule_flush(self) -> None:
        if not self._is_flush_scheduled and not self._is_in_batch:
            self._is_flush_scheduled = True
            self._clock.call_soon(self._scheduled_flush)

    def _scheduled_flush(self) -> None:
        self._is_flush_scheduled = False
        self._flush(self._clock.now())

    def _deliver_and_flush(self) -> None:
        self._deliver()
        self._flush(self._clock.now())

    def _flush(self, now: float) -> None:
        path = self._path
        if path is not None:
            datagrams = self._machine.datagrams_to_send(now)
            if len(datagrams) == 1:
                path.socket.send(datagrams[0], path.address)
            elif datagrams:
                path.socket.send_batch(datagrams, path.address)
        self._after_flush()

    def _after_flush(self) -> None:
        machine = self._machine
        if machine.is_closed:
            self._tell_closed()
            return
        if self._is_writer_waiting and machine.unsent_bytes <= UNSENT_LOW_BYTES:
            self._is_writer_waiting = False
            if self._receiver is not None:
                self._receiver.writable()
        self._arm_timer()

    def _deliver(self) -> None:
        machine = self._machine
        receiver = self._receiver
        if receiver is None or self._has_told_closed or self._is_destroyed:
            return
        if machine.has_messages:
            for message in machine.take_messages():
                receiver.message_received(message)
        if machine.has_data and not self._is_paused:
            receiver.data_received(machine.take_data())
        has_ended = machine.has_remote_ended and not self._is_destroyed
        if has_ended and not self._has_told_end:
            self._has_told_end = True
            receiver.end_received()

    @property
    def _is_destroyed(self) -> bool:
        return self._machine.close_reason == DESTROYED

    def _tell_closed(self) -> None:
        if self._has_told_closed or self._receiver is None:
            return
        self._has_told_closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._retire(self)
        reason = self._machine.close_reason
        error = self._error
        if error is None and reason is not None:
            error = ConnectionLost(reason)
        # A closed stream lingers in the endpoint; its bytes must not.
        self._machine.forget_data()
        self._receiver.stream_closed(error)

    def _arm_timer(self) -> None:
        """Keep one timer that fires no later than the machine wants.

        A timer that fires too early costs less than moving it with every packet.
        """
        deadline = self._machine.next_timer()
        if deadline is None:
            return
        if self._timer is not None:
            if self._timer_at <= deadline:
                return
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self._clock.call_at(deadline, self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        now = self._clock.now()
        self._machine.handle_timer(now)
        self._flush(now)
