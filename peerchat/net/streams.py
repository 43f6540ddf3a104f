"""What a reliable byte stream looks like to the layers above it.

`peerchat.net.driver.stream.UdxStreamDriver` is one over UDP;
`peerchat.testing.streams.memory_stream_pair` is one inside a process. Calls back
rather than awaiting: a datagram travels from the socket to an RPC handler without a
task switch.
"""

from __future__ import annotations

from typing import Protocol

from .identity import Address


class ByteStreamReceiver(Protocol):
    """Who hears of what a stream delivers. No call may raise."""

    def data_received(self, data: bytes) -> None:
        """The next bytes, in order, of any length above 0."""

    def end_received(self) -> None:
        """The peer will send no more; this side may go on writing."""

    def message_received(self, data: bytes) -> None:
        """An unordered, unreliable datagram that came beside the stream."""

    def writable(self) -> None:
        """Buffered bytes fell below the low-water mark after `write` said False."""

    def stream_closed(self, error: Exception | None) -> None:
        """The last call. ``None``: both sides ended; else a `ConnectionLost`."""


class ByteStream(Protocol):
    """A reliable, ordered, flow-controlled, bidirectional stream."""

    def set_receiver(self, receiver: ByteStreamReceiver) -> None:
        """Name the receiver; what came before is delivered now."""

    def write(self, data: bytes) -> bool:
        """Queue bytes, which is never refused; False asks to wait for `writable`."""

    def flush(self) -> None:
        """Send now what was written, rather than together with what this turn of the
        loop still writes."""

    def send_message(self, data: bytes) -> None:
        """Send an unreliable datagram; larger than the MTU raises ValueError."""

    def end(self) -> None:
        """Half-close after everything queued is delivered."""

    def destroy(self, error: Exception | None = None) -> None:
        """Close both ways now and tell the peer; unsent bytes are dropped."""

    def pause_reading(self) -> None:
        """Let the receive window close once what has arrived fills it."""

    def resume_reading(self) -> None: ...

    @property
    def buffered(self) -> int:
        """Bytes written and not yet acknowledged by the peer."""

    @property
    def rtt_s(self) -> float | None:
        """Smoothed round-trip time, once measured."""

    @property
    def remote_address(self) -> Address | None: ...
