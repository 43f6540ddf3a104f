"""Protomux: many channels over one stream of messages.

A pure machine: whole messages go in through `Protomux.receive_untrusted`, frames come
out through the ``write`` callable. A frame is ``channel | type | payload`` with the
**sender's** number for the channel; number 0 is the control channel (batch, open,
reject, close). Wire behaviour of npm protomux 3.12; docs/PROTOCOL.md section 9.

Differs from the reference in what it refuses: a batch whose lengths overrun it, nesting
deeper than any sender makes, and more channels or pending bytes than a peer may claim.
"""

# ruff: noqa: SLF001 -- a Channel and its Protomux are one machine with two faces.

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from peerchat.net.encoding import Reader, encode_uint
from peerchat.net.errors import DecodeError, LocalProtocolError, RemoteProtocolError

from .batch import Batch

CHANNELS_MAX = 4096
"""Channel numbers a peer may use; a peer runs some dozens of requests at once."""
PENDING_BYTES_PAUSE = 32768
"""protomux's MAX_BUFFERED: above it the stream is paused."""
PENDING_BYTES_MAX = 32 * 1024 * 1024
"""What may still come in after the pause: a receive window and one largest frame."""
PENDING_MESSAGE_BYTES = 512
"""What one pending message counts on top of its bytes, as in the reference."""
REJECTS_UNREAD_MAX = 4096
"""Channels refused to a peer that reads no refusals: as many as it may number."""
BATCH_DEPTH_MAX = 4
"""Batches inside batches are allowed by the format and made by nobody."""
FRAME_BYTES_MAX = 2**24 - 1 - 17
"""The longest message of the secretstream below."""
FRAME_HEADER_BYTES_MAX = 18
"""Two numbers of nine bytes."""

_BATCH, _OPEN, _REJECT, _CLOSE = range(4)

OnOpen = Callable[[bytes], None]
OnMessage = Callable[[int, bytes], None]
OnClose = Callable[[bool], None]
Key = tuple[str, bytes]


def _uint_untrusted(data: bytes, offset: int, end: int) -> tuple[int, int]:
    """A variable-length integer and the offset behind it."""
    if offset < end:
        first = data[offset]
        if first <= 0xFC:
            return first, offset + 1
        width = 1 << (first - 0xFC)
        stop = offset + 1 + width
        if stop <= end:
            return int.from_bytes(data[offset + 1 : stop], "little"), stop
    raise DecodeError("message ends inside a number")


@dataclass(slots=True)
class _Pairing:
    """The channels of one (protocol, id), on their way to each other."""

    key: Key
    opened: int = 0
    incoming: list[int] = field(default_factory=list)
    """Remote numbers that no local channel took yet."""
    outgoing: list[int] = field(default_factory=list)
    """Local numbers whose remote open did not come yet."""


@dataclass(slots=True)
class _Remote:
    """A channel that the peer opened, by its number."""

    handshake: bytes
    channel: Channel | None = None
    pending: list[tuple[int, bytes]] | None = None
    """Messages that came before the local side opened; None once it did."""


class Channel:
    """One (protocol, id) conversation; made by `Protomux.create_channel`.

    ``open`` makes it usable for sending at once; it `is_opened` when both sides did so.
    """

    __slots__ = (
        "_handshake",
        "_local_id",
        "_mux",
        "_on_close",
        "_on_message",
        "_on_open",
        "_pairing",
        "_prefix",
        "_remote_id",
        "id",
        "is_closed",
        "is_opened",
        "on_drain",
        "protocol",
    )

    def __init__(
        self,
        mux: Protomux,
        pairing: _Pairing,
        handshake: bytes,
        on_open: OnOpen | None,
        on_message: OnMessage | None,
        on_close: OnClose | None,
    ) -> None:
        self.protocol, self.id = pairing.key
        self.is_opened = False
        self.is_closed = False
        self.on_drain: Callable[[], None] | None = None
        """Called when the stream takes more after `send` said False."""
        self._mux = mux
        self._pairing = pairing
        self._handshake = handshake
        self._on_open = on_open
        self._on_message = on_message
        self._on_close = on_close
        self._local_id = 0
        self._remote_id = 0
        self._prefix = b""

    def open(self, handshake: bytes | None = None) -> None:
        """Tell the peer; ``on_open`` follows, during this call if it was first.

        On a connection that is gone, ``on_close`` follows instead.
        """
        if self._local_id or self.is_closed:
            raise LocalProtocolError("the channel was opened before")
        self._mux._open(self, self._handshake if handshake is None else handshake)

    def send(self, message_type: int, payload: bytes) -> bool:
        """Send one message; False asks to wait for ``on_drain``.

        A closed channel drops it and says False.

        Raises:
            LocalProtocolError: the channel is not open, or the message too long.
        """
        if self.is_closed:
            return False
        if not self._local_id:
            raise LocalProtocolError("open the channel before sending")
        return self._mux._send(self, message_type, payload)

    def close(self) -> None:
        """Close both ways; idempotent. ``on_close(False)`` is called."""
        if not self.is_closed:
            self._mux._close_local(self)


class Protomux:
    """All channels of one connection.

    Args:
        write: takes one frame, and says whether the stream wants more now.
        set_paused: stops and resumes what comes in, while messages pile up for a
            channel that this side has not opened yet.
    """

    def __init__(
        self,
        write: Callable[[bytes], bool],
        set_paused: Callable[[bool], None] | None = None,
    ) -> None:
        self.is_drained = True
        self.is_halted = False
        self._is_shut_down = False
        self._write = write
        self._set_paused = set_paused
        self._is_paused = False
        self._pending_bytes = 0
        self._rejects_unread = 0
        self._local: list[Channel | None] = []
        self._free: list[int] = []
        self._remote: list[_Remote | None] = []
        self._pairings: dict[Key, _Pairing] = {}
        self._notify: dict[tuple[str, bytes | None], Callable[[bytes], None]] = {}
        self._cork_depth = 0
        self._batch = Batch()

    # What the owner of a channel calls.

    def create_channel(
        self,
        protocol: str,
        id: bytes | None = None,  # noqa: A002, the protocol's own word
        *,
        handshake: bytes = b"",
        unique: bool = True,
        on_open: OnOpen | None = None,
        on_message: OnMessage | None = None,
        on_close: OnClose | None = None,
    ) -> Channel | None:
        """A channel that waits for its `Channel.open`.

        Args:
            protocol: what is spoken on it; with ``id`` it names the channel.
            id: tells channels of one protocol apart.
            handshake: what the peer's ``on_open`` gets; `Channel.open` can replace it.
            unique: None is returned when a channel of this name is open already.
            on_open: called with the peer's handshake.
            on_message: called with type and payload, only after ``on_open``.
            on_close: called once; True when the peer or the connection closed it.
        """
        if self.is_halted:
            return None
        pairing = self._pairing((protocol, id or b""))
        if unique and pairing.opened > 0:
            return None
        channel = Channel(self, pairing, handshake, on_open, on_message, on_close)
        if pairing.incoming:
            remote_id = pairing.incoming.pop(0)
            remote = self._remote[remote_id - 1]
            if remote is not None:
                remote.channel = channel
                channel._remote_id = remote_id
        return channel

    def pair(
        self,
        protocol: str,
        id: bytes | None,  # noqa: A002
        notify: Callable[[bytes], None],
    ) -> None:
        """Call ``notify(id)`` when the peer opens such a channel first.

        It must call `create_channel` before it returns, or the peer is refused;
        `Channel.open` may follow later. ``id`` None stands for every id.
        """
        self._notify[protocol, id] = notify

    def unpair(self, protocol: str, id: bytes | None) -> None:  # noqa: A002
        """Undo `pair`."""
        self._notify.pop((protocol, id), None)

    def cork(self) -> None:
        """Gather what is sent into one batch until the matching `uncork`."""
        self._cork_depth += 1

    def uncork(self) -> None:
        """Send what was gathered, once every `cork` is undone."""
        self._cork_depth -= 1
        if self._cork_depth == 0 and self._batch:
            self._flush()

    # What the stream below calls.

    def receive_untrusted(self, frame: bytes) -> None:
        """Handle one message of the peer.

        Raises:
            RemoteProtocolError: the connection must be destroyed.
        """
        if frame and not self.is_halted:
            channel_id, offset = _uint_untrusted(frame, 0, len(frame))
            self._dispatch(channel_id, frame, offset, len(frame), 0)

    def stream_writable(self) -> None:
        """The stream takes more again: call every channel's ``on_drain``."""
        self.is_drained = True
        self._rejects_unread = 0
        for channel in list(self._local):
            if channel is not None and channel.on_drain is not None:
                channel.on_drain()

    def halt(self) -> None:
        """Handle nothing more, also of a frame at hand; `shut_down` must follow."""
        self.is_halted = True

    def shut_down(self) -> None:
        """The stream is gone: close every channel, as if the peer did; idempotent."""
        if self._is_shut_down:
            return
        self._is_shut_down = self.is_halted = True
        for remote in self._remote:
            # Created for the peer's open, and not opened on this side yet.
            if remote is not None and remote.channel is not None:
                self._close(remote.channel, is_remote=True)
        for channel in list(self._local):
            if channel is not None:
                self._close(channel, is_remote=True)
        self._batch = Batch()

    # Sending.

    def _open(self, channel: Channel, handshake: bytes) -> None:
        if self.is_halted:
            self._close(channel, is_remote=True)
            return
        if self._free:
            index = self._free.pop()
        else:
            index = len(self._local)
            self._local.append(None)
        self._local[index] = channel
        local_id = channel._local_id = index + 1
        channel._prefix = encode_uint(local_id)
        channel._pairing.opened += 1
        if not channel._remote_id:
            channel._pairing.outgoing.append(local_id)
        name = channel.protocol.encode()
        body = b"".join(
            (
                channel._prefix,
                encode_uint(len(name)),
                name,
                encode_uint(len(channel.id)),
                channel.id,
                handshake,
            )
        )
        self._send_control(_OPEN, body)
        if channel._remote_id:
            self._fully_open(channel)

    def _send(self, channel: Channel, message_type: int, payload: bytes) -> bool:
        if len(payload) > FRAME_BYTES_MAX - FRAME_HEADER_BYTES_MAX:
            raise LocalProtocolError(f"message of {len(payload)} bytes is too long")
        kind = encode_uint(message_type)
        if self._cork_depth:
            self._gather(channel._local_id, kind + payload)
        else:
            self.is_drained = self._write(channel._prefix + kind + payload)
        return self.is_drained

    def _send_control(self, kind: int, body: bytes) -> None:
        message = bytes((kind,)) + body
        if self._cork_depth:
            self._gather(0, message)
        else:
            self.is_drained = self._write(b"\0" + message)

    def _gather(self, local_id: int, message: bytes) -> None:
        if not self._batch.has_room(len(message)):
            self._flush()
        self._batch.add(local_id, message)

    def _flush(self) -> None:
        frame = self._batch.frame()
        self._batch = Batch()
        self.is_drained = self._write(frame)

    # Receiving.

    def _dispatch(
        self, channel_id: int, data: bytes, offset: int, end: int, depth: int
    ) -> None:
        message_type, offset = _uint_untrusted(data, offset, end)
        if channel_id == 0:
            self._control(message_type, data, offset, end, depth)
            return
        remotes = self._remote
        remote = remotes[channel_id - 1] if channel_id <= len(remotes) else None
        if remote is None:
            return  # closed on this side; the peer could not know yet
        if remote.pending is not None:
            self._hold(remote, message_type, data[offset:end])
            return
        channel = remote.channel
        if channel is not None and channel._on_message is not None:
            channel._on_message(message_type, data[offset:end])

    def _control(
        self, kind: int, data: bytes, offset: int, end: int, depth: int
    ) -> None:
        if kind == _BATCH:
            self._on_batch(data, offset, end, depth + 1)
        elif kind == _OPEN:
            self._on_open(Reader(data[offset:end]))
        elif kind == _REJECT:
            self._on_reject(_uint_untrusted(data, offset, end)[0])
        elif kind == _CLOSE:
            self._on_close(_uint_untrusted(data, offset, end)[0])

    def _on_batch(self, data: bytes, offset: int, end: int, depth: int) -> None:
        if depth > BATCH_DEPTH_MAX:
            raise RemoteProtocolError("batches are nested too deeply")
        channel_id, offset = _uint_untrusted(data, offset, end)
        self.cork()
        try:
            while offset < end:
                length, offset = _uint_untrusted(data, offset, end)
                if length == 0:
                    channel_id, offset = _uint_untrusted(data, offset, end)
                    continue
                stop = offset + length
                if stop > end:
                    raise DecodeError("a message overruns its batch")
                self._dispatch(channel_id, data, offset, stop, depth)
                if self.is_halted:
                    return
                offset = stop
        finally:
            self.uncork()

    def _on_open(self, reader: Reader) -> None:
        remote_id = reader.uint()
        key = (reader.string(), reader.buffer())
        if remote_id == 0:
            self._reject(0)
            return
        if remote_id - 1 == len(self._remote) and remote_id <= CHANNELS_MAX:
            self._remote.append(None)
        if remote_id > len(self._remote) or self._remote[remote_id - 1] is not None:
            raise RemoteProtocolError("open message with an unexpected channel number")
        pairing = self._pairing(key)
        if pairing.outgoing:
            self._pair_outgoing(pairing, remote_id, reader.raw())
        else:
            remote = _Remote(reader.raw(), pending=[])
            self._remote[remote_id - 1] = remote
            pairing.incoming.append(remote_id)
            self._ask_for_channel(pairing)

    def _pair_outgoing(
        self, pairing: _Pairing, remote_id: int, handshake: bytes
    ) -> None:
        local_id = pairing.outgoing.pop(0)
        channel = self._local[local_id - 1]
        if channel is None:
            # Closed here before the peer's open came: now the number is free again.
            self._free.append(local_id - 1)
            self._forget(pairing)
            return
        self._remote[remote_id - 1] = _Remote(handshake, channel)
        channel._remote_id = remote_id
        self._fully_open(channel)

    def _ask_for_channel(self, pairing: _Pairing) -> None:
        protocol, channel_id = pairing.key
        notify = self._notify.get(pairing.key) or self._notify.get((protocol, None))
        if notify is not None:
            notify(channel_id)
        while pairing.incoming:
            remote_id = pairing.incoming.pop(0)
            self._remote[remote_id - 1] = None
            self._reject(remote_id)
        self._forget(pairing)

    def _reject(self, remote_id: int) -> None:
        if not self.is_drained:
            self._rejects_unread += 1
            if self._rejects_unread > REJECTS_UNREAD_MAX:
                raise RemoteProtocolError("opens channels and reads no answers")
        self._send_control(_REJECT, encode_uint(remote_id))

    def _on_reject(self, local_id: int) -> None:
        for pairing in self._pairings.values():
            if local_id in pairing.outgoing:
                break
        else:
            raise RemoteProtocolError("reject of a channel that is not opening")
        pairing.outgoing.remove(local_id)
        channel = self._local[local_id - 1]
        self._free.append(local_id - 1)
        if channel is not None:
            self._close(channel, is_remote=True)
        self._forget(pairing)

    def _on_close(self, remote_id: int) -> None:
        if not 0 < remote_id <= len(self._remote):
            return
        remote = self._remote[remote_id - 1]
        if remote is not None and remote.channel is not None:
            self._close(remote.channel, is_remote=True)

    # Channels between their states.

    def _pairing(self, key: Key) -> _Pairing:
        pairing = self._pairings.get(key)
        if pairing is None:
            pairing = self._pairings[key] = _Pairing(key)
        return pairing

    def _forget(self, pairing: _Pairing) -> None:
        if not (pairing.opened or pairing.incoming or pairing.outgoing):
            self._pairings.pop(pairing.key, None)

    def _fully_open(self, channel: Channel) -> None:
        remote = self._remote[channel._remote_id - 1]
        assert remote is not None
        channel.is_opened = True
        if channel._on_open is not None:
            channel._on_open(remote.handshake)
        remote.handshake = b""
        pending, remote.pending = remote.pending, None
        for message_type, payload in pending or ():
            self._pending_bytes -= len(payload) + PENDING_MESSAGE_BYTES
            is_listening = not (channel.is_closed or self.is_halted)
            if is_listening and channel._on_message is not None:
                channel._on_message(message_type, payload)
        self._resume_maybe()

    def _hold(self, remote: _Remote, message_type: int, payload: bytes) -> None:
        assert remote.pending is not None
        remote.pending.append((message_type, payload))
        self._pending_bytes += len(payload) + PENDING_MESSAGE_BYTES
        if self._pending_bytes > PENDING_BYTES_MAX:
            raise RemoteProtocolError("too much sent on a channel that is not open")
        if self._pending_bytes > PENDING_BYTES_PAUSE and not self._is_paused:
            self._is_paused = True
            if self._set_paused is not None:
                self._set_paused(True)

    def _resume_maybe(self) -> None:
        if self._is_paused and self._pending_bytes <= PENDING_BYTES_PAUSE:
            self._is_paused = False
            if self._set_paused is not None:
                self._set_paused(False)

    def _close_local(self, channel: Channel) -> None:
        was_open, prefix = channel._local_id > 0, channel._prefix
        if not was_open and channel._remote_id:
            # Created for the peer's open and never opened here: that is a refusal.
            self._send_control(_REJECT, encode_uint(channel._remote_id))
        self._close(channel, is_remote=False)
        if was_open:
            self._send_control(_CLOSE, prefix)

    def _close(self, channel: Channel, *, is_remote: bool) -> None:
        if channel.is_closed:
            return
        channel.is_closed = True
        local_id, remote_id = channel._local_id, channel._remote_id
        if remote_id:
            self._drop_pending(remote_id)
        if local_id:
            channel._pairing.opened -= 1
            self._local[local_id - 1] = None
            if remote_id:
                # Before the peer's open or reject came, the number is not free.
                self._free.append(local_id - 1)
        channel._local_id = channel._remote_id = 0
        self._forget(channel._pairing)
        if channel._on_close is not None:
            channel._on_close(is_remote)

    def _drop_pending(self, remote_id: int) -> None:
        remote = self._remote[remote_id - 1]
        self._remote[remote_id - 1] = None
        if remote is not None and remote.pending:
            for _, payload in remote.pending:
                self._pending_bytes -= len(payload) + PENDING_MESSAGE_BYTES
            self._resume_maybe()
