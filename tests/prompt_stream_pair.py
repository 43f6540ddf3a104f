"""Two ends of one connection without a network, for tests of `peerchat/stream`.

Frames are delivered by the loop, in order, as Protomux delivers them. `Wire.frames`
has every message that was sent, and `Wire.cut()` is what a lost connection looks like.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

CLIENT_KEY = bytes([1]) * 32
SERVER_KEY = bytes([2]) * 32


class FakeChannel:
    def __init__(self, end: FakeEnd, **calls: Callable[..., None] | None) -> None:
        self.end = end
        self.calls = calls
        self.is_opened = False
        self.is_closed = False
        self.is_open_sent = False

    def open(self, handshake: bytes = b"") -> None:
        self.is_open_sent = True
        self.end.post("open", handshake)

    def send(self, kind: int, payload: bytes) -> bool:
        assert not self.is_closed
        self.end.wire.frames.append((self.end.name, kind, payload))
        self.end.post("message", kind, payload)
        return True

    def close(self) -> None:
        if not self.is_closed:
            self.end.post("close")
            self.closed(False)

    def closed(self, is_remote: bool) -> None:
        if not self.is_closed:
            self.is_closed = True
            self.end.channel = None
            self.call("on_close", is_remote)

    def call(self, name: str, *args: object) -> None:
        callback = self.calls[name]
        if callback is not None:
            callback(*args)


class FakeEnd:
    """Connection and Protomux in one; knows one channel."""

    def __init__(self, wire: Wire, name: str, own: bytes, remote: bytes) -> None:
        self.wire = wire
        self.name = name
        self.public_key = own
        self.remote_public_key = remote
        self.channel: FakeChannel | None = None
        self.notify: Callable[[bytes | None], None] | None = None
        self.other: FakeEnd
        self.hurried: list[int] = []
        """Messages that had been sent by both ends whenever this one was flushed."""

    def flush(self) -> None:
        self.hurried.append(len(self.wire.frames))

    @property
    def mux(self) -> FakeEnd:
        return self

    def create_channel(self, protocol: str, key: bytes | None = None, **calls):
        assert protocol == "peerchat/stream"
        assert key == SERVER_KEY
        if self.channel is not None or self.wire.is_cut:
            return None
        self.channel = FakeChannel(self, **calls)
        return self.channel

    def pair(self, protocol: str, key: bytes | None, notify) -> None:
        assert (protocol, key) == ("peerchat/stream", SERVER_KEY)
        self.notify = notify

    def post(self, kind: str, *args: object) -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(self.other.deliver, kind, *args)

    def deliver(self, kind: str, *args: object) -> None:
        if self.wire.is_cut:
            return
        if kind == "open" and self.channel is None:
            if self.notify is None:
                self.post("close")
                return
            self.notify(SERVER_KEY)
        channel = self.channel
        if channel is None:
            return
        if kind == "open":
            channel.is_opened = True
            channel.call("on_open", *args)
        elif kind == "message":
            channel.call("on_message", *args)
        else:
            channel.closed(True)


class FakeSession:
    """An RpcSession as far as the stream needs one."""

    def __init__(self, connection: FakeEnd) -> None:
        self.connection = connection
        self.holds = 0

    def hold(self) -> None:
        self.holds += 1

    def release(self) -> None:
        assert self.holds > 0
        self.holds -= 1


class Wire:
    def __init__(self) -> None:
        self.frames: list[tuple[str, int, bytes]] = []
        self.is_cut = False
        self.client = FakeEnd(self, "client", CLIENT_KEY, SERVER_KEY)
        self.server = FakeEnd(self, "server", SERVER_KEY, CLIENT_KEY)
        self.client.other, self.server.other = self.server, self.client

    def cut(self) -> None:
        """The connection is lost: both channels close, nothing more arrives."""
        self.is_cut = True
        for end in (self.client, self.server):
            if end.channel is not None:
                end.channel.closed(True)

    def sent(self, name: str, kind: int) -> int:
        """How many messages of a type one end sent."""
        return sum(1 for end, type_, _ in self.frames if (end, type_) == (name, kind))
