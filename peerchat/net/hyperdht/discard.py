"""Gives up a UDX stream that no connection was ever made of."""

from __future__ import annotations

from peerchat.net.driver.stream import UdxStreamDriver


class _Deaf:
    """A stream leaves its endpoint once its receiver heard that it is closed."""

    def data_received(self, data: bytes) -> None: ...

    def end_received(self) -> None: ...

    def message_received(self, data: bytes) -> None: ...

    def writable(self) -> None: ...

    def stream_closed(self, error: Exception | None) -> None: ...


def discard_stream(stream: UdxStreamDriver) -> None:
    """Destroy the stream and free its id."""
    stream.set_receiver(_Deaf())
    stream.destroy()
