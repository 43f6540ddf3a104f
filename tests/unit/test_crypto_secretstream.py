from __future__ import annotations

import pytest
from nacl._sodium import ffi  # type: ignore[import-not-found]

from peerchat.net.crypto.secretstream import (
    MESSAGE_BYTES_MAX,
    Deframer,
    Pull,
    Push,
    SecretStream,
)
from peerchat.net.errors import LocalProtocolError, RemoteProtocolError

KEY = bytes(range(32))
HEADER = bytes(range(24))
HASH = bytes(64)


def make_pair() -> tuple[SecretStream, SecretStream]:
    def side(is_initiator: bool) -> SecretStream:
        keys = (b"a" * 32, b"b" * 32)
        return SecretStream(
            tx_key=keys[not is_initiator],
            rx_key=keys[is_initiator],
            handshake_hash=HASH,
            is_initiator=is_initiator,
            header=HEADER,
            send_counter=b"\xff" * 8,
        )

    return side(True), side(False)


def test_messages_of_all_sizes_come_back() -> None:
    push, pull = Push(KEY, HEADER), Pull(KEY, HEADER)
    for length in (0, 1, 1000, 64 * 1024 - 17, 64 * 1024, 64 * 1024 + 1, 300_000):
        message = bytes(i & 255 for i in range(length))
        assert pull.next_untrusted(push.next(message)) == message


def test_quiet_connections_take_little_memory() -> None:
    def room(half: object) -> int:
        return len(ffi.buffer(half._out))  # type: ignore[attr-defined]

    push, pull = Push(KEY, HEADER), Pull(KEY, HEADER)
    assert room(push) + room(pull) < 5000
    for length in (2031, 2032, 3000, 65_519, 65_520, 65_536, 65_537, 200_000, 5):
        message = bytes(range(251)) * (length // 251 + 1)
        assert pull.next_untrusted(push.next(message[:length])) == message[:length]
        assert room(push) <= 65_536
        assert room(pull) <= 65_536


def test_both_sides_can_rekey() -> None:
    push, pull = Push(KEY, HEADER), Pull(KEY, HEADER)
    push.rekey()
    with pytest.raises(RemoteProtocolError):
        Pull(KEY, HEADER).next_untrusted(Push(KEY, b"\1" * 24).next(b"x"))
    pull.rekey()
    assert pull.next_untrusted(push.next(b"after")) == b"after"


def test_changed_body_is_refused() -> None:
    body = bytearray(Push(KEY, HEADER).next(b"hello"))
    body[-1] ^= 1
    with pytest.raises(RemoteProtocolError, match="authenticate"):
        Pull(KEY, HEADER).next_untrusted(bytes(body))


def test_short_body_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="short"):
        Pull(KEY, HEADER).next_untrusted(bytes(16))


def test_message_over_the_frame_limit_is_refused() -> None:
    push = Push(KEY, HEADER)
    assert len(push.frame(bytes(MESSAGE_BYTES_MAX))) == 3 + 2**24 - 1
    with pytest.raises(LocalProtocolError, match="at most"):
        push.frame(bytes(MESSAGE_BYTES_MAX + 1))


def test_deframer_gives_the_same_frames_byte_by_byte() -> None:
    bodies = [b"", b"a", b"bc" * 300, b"", b"tail"]
    data = b"".join(len(body).to_bytes(3, "little") + body for body in bodies)
    whole, single = Deframer(), Deframer()
    assert whole.feed(data) == bodies
    assert [body for i in data for body in single.feed(bytes((i,)))] == bodies


def test_streams_talk_after_each_heard_the_other() -> None:
    a, b = make_pair()
    assert b.receive_untrusted(a.hello + a.frame(b"one") + a.frame(b"")) == [
        b"one",
        b"",
    ]
    assert b.is_set_up
    assert not a.is_set_up
    assert a.receive_untrusted(b.hello) == []
    assert a.receive_untrusted(b.frame(b"two")) == [b"two"]


def test_first_frame_must_carry_the_peers_id() -> None:
    a, _ = make_pair()
    with pytest.raises(RemoteProtocolError, match="id"):
        a.receive_untrusted(a.hello)
    with pytest.raises(RemoteProtocolError, match="first frame"):
        a.receive_untrusted(b"\x01\x00\x00x")


def test_boxes_open_in_any_order_and_their_counter_wraps() -> None:
    a, b = make_pair()
    first, second = a.box(b"first"), a.box(b"second")
    assert first[:8] == bytes(8)
    assert b.unbox_untrusted(second) == b"second"
    assert b.unbox_untrusted(first) == b"first"
    for bad in (b"", first[:23], first[:-1] + b"\0"):
        with pytest.raises(RemoteProtocolError):
            b.unbox_untrusted(bad)
