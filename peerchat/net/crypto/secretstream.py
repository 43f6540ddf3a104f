"""libsodium's secretstream, framed as @hyperswarm/secret-stream puts it on a stream.

Each direction is a sequence of frames, a u24 length and a body. The first body is 56
bytes: the stream id of its sender and the secretstream header. Every later one is a
message under TAG_MESSAGE with 17 bytes of overhead; an empty message is a keep-alive.
Source: docs/PROTOCOL.md section 8; @hyperswarm/secret-stream 6.9 index.js.

Calls libsodium through the cffi module of PyNaCl with buffers that are used again and
again: half the cost of PyNaCl's own wrappers, which allocate one for every message.
"""

from __future__ import annotations

from nacl._sodium import ffi, lib  # type: ignore[import-not-found]

from peerchat.net.errors import LocalProtocolError, RemoteProtocolError

from .primitives import (
    NS_STREAM_INITIATOR,
    NS_STREAM_RESPONDER,
    NS_STREAM_SEND,
    SECRETBOX_MAC_BYTES,
    SECRETBOX_NONCE_BYTES,
    blake2b_256,
    is_equal,
    secretbox_open_untrusted,
    secretbox_seal,
)

KEY_BYTES = 32
HEADER_BYTES = 24
STREAM_ID_BYTES = 32
OVERHEAD_BYTES = 17
"""What a message grows by: its tag byte and the authenticator."""
LENGTH_BYTES = 3
FRAME_BODY_BYTES_MAX = 2**24 - 1
MESSAGE_BYTES_MAX = FRAME_BODY_BYTES_MAX - OVERHEAD_BYTES
"""The longest message a u24 length can carry."""
HELLO_BODY_BYTES = STREAM_ID_BYTES + HEADER_BYTES

SEND_COUNTER_BYTES = 8

_REUSED_BUFFER_BYTES = 64 * 1024
"""Messages up to this size go through a lasting buffer, larger ones get their own."""

_BUFFER_BYTES = 2048
"""The lasting buffer at first; it doubles when a message needs that, as most of the
connections of a node are quiet."""

_STATE_BYTES: int = lib.crypto_secretstream_xchacha20poly1305_statebytes()
_TAG_MESSAGE: int = lib.crypto_secretstream_xchacha20poly1305_tag_message()
_init_pull = lib.crypto_secretstream_xchacha20poly1305_init_pull
_push = lib.crypto_secretstream_xchacha20poly1305_push
_pull = lib.crypto_secretstream_xchacha20poly1305_pull
_rekey = lib.crypto_secretstream_xchacha20poly1305_rekey
_buffer = ffi.buffer
_NULL = ffi.NULL


def stream_id(handshake_hash: bytes, *, is_initiator: bool) -> bytes:
    """The id with which that side begins its direction."""
    label = NS_STREAM_INITIATOR if is_initiator else NS_STREAM_RESPONDER
    return blake2b_256(label, key=handshake_hash)


def _new_state(key: bytes, header: bytes) -> object:
    if len(key) != KEY_BYTES or len(header) != HEADER_BYTES:
        raise LocalProtocolError("secretstream key or header has a wrong length")
    state: object = ffi.new("unsigned char[]", _STATE_BYTES)
    # init_push is init_pull plus drawing the header, which here is an argument.
    _init_pull(state, header, key)
    return state


class _Scratch:
    """Room for the output of one call, used again by the next."""

    __slots__ = ("_out", "_room")

    def __init__(self) -> None:
        self._room = _BUFFER_BYTES
        self._out: object = ffi.new("unsigned char[]", _BUFFER_BYTES)

    def _grown(self, length: int) -> object:
        """A buffer for more than the lasting one has room for."""
        if length > _REUSED_BUFFER_BYTES:
            return ffi.new("unsigned char[]", length)
        while self._room < length:
            self._room *= 2
        self._out = ffi.new("unsigned char[]", self._room)
        return self._out


class Push(_Scratch):
    """The sending half of one direction.

    Args:
        key: 32 bytes that only this direction uses.
        header: 24 random bytes that the peer must be told.
    """

    __slots__ = ("_state", "header")

    def __init__(self, key: bytes, header: bytes) -> None:
        super().__init__()
        self.header = header
        self._state = _new_state(key, header)

    def next(self, plaintext: bytes) -> bytes:
        """The body for one message, 17 bytes longer."""
        return self._seal(plaintext, len(plaintext))

    def frame(self, plaintext: bytes) -> bytes:
        """As `next`, with the u24 length in front.

        Raises:
            LocalProtocolError: the message is longer than `MESSAGE_BYTES_MAX`.
        """
        length = len(plaintext)
        if length > MESSAGE_BYTES_MAX:
            raise LocalProtocolError(
                f"message of {length} bytes; at most {MESSAGE_BYTES_MAX} can be sent"
            )
        body = self._seal(plaintext, length)
        return (length + OVERHEAD_BYTES).to_bytes(LENGTH_BYTES, "little") + body

    def rekey(self) -> None:
        """Move to the next key; the peer must do the same at the same message."""
        _rekey(self._state)

    def _seal(self, plaintext: bytes, length: int) -> bytes:
        total = length + OVERHEAD_BYTES
        out = self._out if total <= self._room else self._grown(total)
        _push(self._state, out, _NULL, plaintext, length, _NULL, 0, _TAG_MESSAGE)
        sealed: bytes = _buffer(out, total)[:]
        return sealed


class Pull(_Scratch):
    """The receiving half of one direction."""

    __slots__ = ("_state", "_tag")

    def __init__(self, key: bytes, header: bytes) -> None:
        super().__init__()
        self._state = _new_state(key, header)
        self._tag = ffi.new("unsigned char *")

    def next_untrusted(self, body: bytes) -> bytes:
        """The message in a frame's body; raises `RemoteProtocolError`.

        Tags are not looked at, as in the reference; a rekey tag takes effect.
        """
        total = len(body)
        length = total - OVERHEAD_BYTES
        if length < 0:
            raise RemoteProtocolError("encrypted message is too short")
        out = self._out if length <= self._room else self._grown(length)
        state, tag = self._state, self._tag
        if _pull(state, out, _NULL, tag, body, total, _NULL, 0) != 0:
            raise RemoteProtocolError("encrypted message does not authenticate")
        plaintext: bytes = _buffer(out, length)[:]
        return plaintext

    def rekey(self) -> None:
        """Move to the next key; see `Push.rekey`."""
        _rekey(self._state)


class Deframer:
    """Cuts a byte stream into frame bodies, wherever its pieces begin and end.

    A peer can make it hold one frame, at most `FRAME_BODY_BYTES_MAX`, and only as
    many bytes as were really sent.
    """

    __slots__ = ("_bytes_missing", "_pending")

    def __init__(self) -> None:
        self._pending = bytearray()
        self._bytes_missing = 0
        """Until ``_pending`` holds a length, or the frame that it begins."""

    @property
    def pending_bytes(self) -> int:
        """What came of a frame that is not whole yet."""
        return len(self._pending)

    def feed(self, data: bytes) -> list[bytes]:
        """Every body that is whole now, in order."""
        if self._pending:
            self._pending += data
            self._bytes_missing -= len(data)
            if self._bytes_missing > 0:
                return []
            data = bytes(self._pending)
            self._pending.clear()
        bodies: list[bytes] = []
        offset, end = 0, len(data)
        while (start := offset + LENGTH_BYTES) <= end:
            stop = start + int.from_bytes(data[offset:start], "little")
            if stop > end:
                break
            bodies.append(data[start:stop])
            offset = stop
        if offset < end:
            wanted = stop if start <= end else start
            self._bytes_missing = wanted - end
            self._pending += data[offset:]
        return bodies


class SecretStream:
    """Both directions and the unordered boxes of one connection; knows no stream.

    Send `hello` first. `receive_untrusted` gives the messages of the peer, keep-alives
    (empty ones) included; after a `RemoteProtocolError` the connection must end.

    Args:
        tx_key, rx_key, handshake_hash: from the Noise handshake.
        is_initiator: this side's part in it.
        header: 24 random bytes.
        send_counter: 8 random bytes, where the counter of unordered boxes starts.
    """

    def __init__(
        self,
        *,
        tx_key: bytes,
        rx_key: bytes,
        handshake_hash: bytes,
        is_initiator: bool,
        header: bytes,
        send_counter: bytes,
    ) -> None:
        self._push = Push(tx_key, header)
        self.frame = self._push.frame
        """One message as the bytes to write."""
        self._pull: Pull | None = None
        self._rx_key = rx_key
        self._deframer = Deframer()
        own_id = stream_id(handshake_hash, is_initiator=is_initiator)
        self._remote_id = stream_id(handshake_hash, is_initiator=not is_initiator)
        length = HELLO_BODY_BYTES.to_bytes(LENGTH_BYTES, "little")
        self.hello = length + own_id + header
        mine = NS_STREAM_INITIATOR if is_initiator else NS_STREAM_RESPONDER
        theirs = NS_STREAM_RESPONDER if is_initiator else NS_STREAM_INITIATOR
        self._box_key = blake2b_256(mine, NS_STREAM_SEND, key=handshake_hash)
        self._unbox_key = blake2b_256(theirs, NS_STREAM_SEND, key=handshake_hash)
        self._counter = int.from_bytes(send_counter, "little")

    @property
    def is_set_up(self) -> bool:
        """Whether the peer's first frame came and was right."""
        return self._pull is not None

    def receive_untrusted(self, data: bytes) -> list[bytes]:
        """The messages that these bytes complete, decrypted."""
        bodies = self._deframer.feed(data)
        pull = self._pull
        if pull is None:
            if not bodies:
                if self._deframer.pending_bytes > LENGTH_BYTES + HELLO_BODY_BYTES:
                    # Only whoever showed its keys may have us keep 16 MB.
                    raise RemoteProtocolError("first frame is too long")
                return bodies
            pull = self._set_up_untrusted(bodies.pop(0))
        unseal = pull.next_untrusted
        return [unseal(body) for body in bodies]

    def box(self, plaintext: bytes) -> bytes:
        """An unordered, unreliable datagram: counter and secretbox."""
        self._counter = (self._counter + 1) % 2**64
        counter = self._counter.to_bytes(SEND_COUNTER_BYTES, "little")
        nonce = counter.ljust(SECRETBOX_NONCE_BYTES, b"\0")
        return counter + secretbox_seal(self._box_key, nonce, plaintext)

    def unbox_untrusted(self, data: bytes) -> bytes:
        """What the peer boxed; raises `RemoteProtocolError`."""
        if len(data) < SEND_COUNTER_BYTES + SECRETBOX_MAC_BYTES:
            raise RemoteProtocolError("unordered message is too short")
        nonce = data[:SEND_COUNTER_BYTES].ljust(SECRETBOX_NONCE_BYTES, b"\0")
        box = data[SEND_COUNTER_BYTES:]
        return secretbox_open_untrusted(self._unbox_key, nonce, box)

    def _set_up_untrusted(self, hello: bytes) -> Pull:
        if len(hello) != HELLO_BODY_BYTES:
            raise RemoteProtocolError("first frame is not a stream id and a header")
        if not is_equal(hello[:STREAM_ID_BYTES], self._remote_id):
            raise RemoteProtocolError("first frame carries a wrong stream id")
        self._pull = Pull(self._rx_key, hello[STREAM_ID_BYTES:])
        return self._pull
