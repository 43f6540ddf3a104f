from __future__ import annotations

import pytest

from peerchat.net.encoding import encode_uint
from peerchat.net.errors import LocalProtocolError, RemoteProtocolError
from peerchat.net.mux.batch import BATCH_BYTES_MAX
from peerchat.net.mux.protomux import (
    CHANNELS_MAX,
    FRAME_BYTES_MAX,
    PENDING_BYTES_PAUSE,
    REJECTS_UNREAD_MAX,
    Channel,
    Protomux,
)


class Side:
    """A Protomux, the frames it wrote and what its channels heard."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.heard: list[object] = []
        self.paused: list[bool] = []
        self.is_full = False
        self.mux = Protomux(self._write, self.paused.append)

    def _write(self, frame: bytes) -> bool:
        self.frames.append(frame)
        return not self.is_full

    def create(
        self, protocol: str = "p", name: bytes | None = None, unique: bool = True
    ) -> Channel | None:
        return self.mux.create_channel(
            protocol,
            name,
            unique=unique,
            on_open=lambda handshake: self.heard.append(("open", handshake)),
            on_message=lambda kind, payload: self.heard.append((kind, payload)),
            on_close=lambda is_remote: self.heard.append(("close", is_remote)),
        )

    def channel(self, protocol: str = "p", name: bytes | None = None) -> Channel:
        channel = self.create(protocol, name)
        assert channel is not None
        return channel

    def take(self) -> list[bytes]:
        frames = self.frames[:]
        self.frames.clear()
        return frames


def exchange(a: Side, b: Side) -> None:
    """Carry frames both ways until neither side has more."""
    while a.frames or b.frames:
        for frame in a.take():
            b.mux.receive_untrusted(frame)
        for frame in b.take():
            a.mux.receive_untrusted(frame)


def opened_pair() -> tuple[Side, Side, Channel, Channel]:
    a, b = Side(), Side()
    mine, theirs = a.channel(), b.channel()
    mine.open(b"from a")
    theirs.open(b"from b")
    exchange(a, b)
    assert mine.is_opened
    assert theirs.is_opened
    assert (a.heard, b.heard) == ([("open", b"from b")], [("open", b"from a")])
    a.heard.clear()
    b.heard.clear()
    return a, b, mine, theirs


def test_open_message_is_that_of_the_reference() -> None:
    a = Side()
    a.channel("proto", b"\x07\x08").open(b"\x01")
    assert a.frames == [b"\x00\x01\x01\x05proto\x02\x07\x08\x01"]


def test_messages_before_the_peers_open_arrive_after_it() -> None:
    a, b = Side(), Side()
    b.mux.pair("p", None, lambda name: b.channel("p", name).open())
    mine = a.channel("p", b"id")
    mine.open()
    mine.send(3, b"early")
    exchange(a, b)
    assert mine.is_opened
    assert b.heard == [("open", b""), (3, b"early")]


def test_pairing_with_an_id_beats_pairing_with_any() -> None:
    a, b = Side(), Side()
    asked: list[object] = []
    b.mux.pair("p", None, lambda name: asked.append(("any", name)))
    b.mux.pair("p", b"1", lambda name: asked.append(("one", name)))
    a.channel("p", b"1").open()
    a.channel("p", b"2").open()
    b.mux.unpair("p", b"1")
    exchange(a, b)
    assert asked == [("any", b"1"), ("any", b"2")]
    assert a.heard == [("close", True), ("close", True)]


def test_a_channel_nobody_wants_is_rejected_and_its_number_reused() -> None:
    a, b = Side(), Side()
    for _ in range(3):
        a.channel().open()
        frame = a.frames[-1]
        exchange(a, b)
        assert frame[2] == 1
    assert a.heard == [("close", True)] * 3


def test_a_channel_can_be_opened_later_and_gets_what_waited() -> None:
    a, b = Side(), Side()
    made: list[Channel] = []
    b.mux.pair("p", None, lambda name: made.append(b.channel("p", name)))
    mine = a.channel()
    mine.open()
    mine.send(0, bytes(PENDING_BYTES_PAUSE))
    mine.send(1, b"last")
    exchange(a, b)
    assert b.heard == []
    assert b.paused == [True]
    made[0].open()
    assert b.heard == [("open", b""), (0, bytes(PENDING_BYTES_PAUSE)), (1, b"last")]
    assert b.paused == [True, False]


def test_a_paired_channel_can_be_refused_later() -> None:
    a, b = Side(), Side()
    made: list[Channel] = []
    b.mux.pair("p", None, lambda name: made.append(b.channel("p", name)))
    mine = a.channel()
    mine.open()
    mine.send(0, bytes(PENDING_BYTES_PAUSE))
    exchange(a, b)
    made[0].close()
    exchange(a, b)
    assert mine.is_closed
    assert b.paused == [True, False]


def test_close_reaches_the_peer_once_and_frees_the_number() -> None:
    a, b, mine, theirs = opened_pair()
    mine.close()
    mine.close()
    theirs.send(0, b"crosses the close")
    exchange(a, b)
    assert a.heard == [("close", False)]
    assert b.heard == [("close", True)]
    assert mine.send(0, b"") is False
    again = a.channel()
    again.open()
    assert a.frames[-1][2] == 1


def test_closing_before_the_peers_open_keeps_the_number_until_it_came() -> None:
    a, b = Side(), Side()
    first = a.channel()
    first.open()
    first.close()
    second = a.channel("q")
    second.open()
    assert a.frames[-1][2] == 2
    b.mux.pair("p", None, lambda name: b.channel("p", name).open())
    b.mux.pair("q", None, lambda name: b.channel("q", name).open())
    exchange(a, b)
    assert second.is_opened
    third = a.channel("r")
    third.open()
    assert a.frames[-1][2] == 1


def test_unique_channels_exist_once() -> None:
    a, _, _, _ = opened_pair()
    assert a.create() is None
    assert a.create(unique=False) is not None


def test_corked_messages_form_the_batch_of_the_reference() -> None:
    a, b, mine, _ = opened_pair()
    other = a.channel("q")
    b.channel("q").open()
    a.mux.cork()
    a.mux.cork()
    mine.send(0, b"x")
    mine.send(1, b"yy")
    other.open()
    other.send(2, b"z")
    a.mux.uncork()
    assert a.frames == []
    a.mux.uncork()
    open_q = b"\x01\x02\x01q\x00"
    assert a.frames == [
        b"\x00\x00\x01\x02\x00x\x03\x01yy"
        b"\x00\x00" + bytes((len(open_q),)) + open_q + b"\x00\x02\x02\x02z"
    ]
    exchange(a, b)
    assert b.heard == [(0, b"x"), (1, b"yy"), ("open", b""), (2, b"z")]


def test_one_corked_message_needs_no_batch() -> None:
    a, _, mine, _ = opened_pair()
    a.mux.cork()
    mine.send(0, b"x")
    a.mux.uncork()
    assert a.frames == [b"\x01\x00x"]


def test_answers_to_a_batch_are_one_batch() -> None:
    a, b, mine, theirs = opened_pair()
    theirs._on_message = lambda kind, payload: theirs.send(kind, payload.upper())
    a.mux.cork()
    for letter in (b"a", b"b", b"c"):
        mine.send(0, letter)
    a.mux.uncork()
    b.mux.receive_untrusted(a.take()[0])
    assert b.frames == [b"\x00\x00\x01\x02\x00A\x02\x00B\x02\x00C"]


def test_batches_stay_below_their_limit() -> None:
    a, b, mine, _ = opened_pair()
    a.mux.cork()
    for _ in range(5):
        mine.send(0, bytes(BATCH_BYTES_MAX // 2))
    a.mux.uncork()
    assert len(a.frames) > 2
    assert all(len(frame) <= FRAME_BYTES_MAX for frame in a.frames)
    exchange(a, b)
    assert len(b.heard) == 5


def test_too_long_a_message_is_refused_before_it_is_corked() -> None:
    _, _, mine, _ = opened_pair()
    with pytest.raises(LocalProtocolError, match="too long"):
        mine.send(0, bytes(FRAME_BYTES_MAX))


def test_channels_hear_when_the_stream_takes_more() -> None:
    a, _, mine, _ = opened_pair()
    drained: list[int] = []
    mine.on_drain = lambda: drained.append(1)
    a.is_full = True
    assert mine.send(0, b"") is False
    a.is_full = False
    a.mux.stream_writable()
    assert drained == [1]


def test_shutdown_closes_every_channel() -> None:
    a, _, mine, _ = opened_pair()
    waiting = a.channel("q")
    waiting.open()
    a.mux.shut_down()
    a.mux.shut_down()
    assert a.heard == [("close", True)] * 2
    assert mine.is_closed
    assert a.create("r") is None


def test_opening_on_a_connection_that_is_gone_closes_the_channel() -> None:
    a = Side()
    channel = a.channel()
    a.mux.halt()
    channel.open()
    assert a.heard == [("close", True)]
    assert a.frames == []


def test_a_halted_mux_handles_nothing_more_of_the_frame_at_hand() -> None:
    a, b, mine, theirs = opened_pair()
    theirs._on_message = lambda kind, payload: (b.heard.append(kind), b.mux.halt())
    a.mux.cork()
    mine.send(1, b"")
    mine.send(2, b"")
    a.mux.uncork()
    exchange(a, b)
    assert b.heard == [1]


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(b"\x00", id="no type"),
        pytest.param(b"\x00\x01\x02\x01p\x00", id="number skipped"),
        pytest.param(b"\x00\x01\x01\x09p\x00", id="protocol overruns"),
        pytest.param(b"\x00\x02\x05", id="reject of nothing"),
        pytest.param(b"\x00\x00\x01\x05ab", id="batch overrun"),
        pytest.param(b"\x00\x00\x00\x06\x00\x00\x04\x00\x00\x02\x00" * 2, id="odd"),
        pytest.param(b"\xfe\x01", id="cut number"),
    ],
)
def test_what_breaks_the_rules(frame: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        Side().mux.receive_untrusted(frame)


def test_nested_batches_end_somewhere() -> None:
    frame = b"\x01\x00x"
    for _ in range(10):
        inner = frame[1:]
        frame = b"\x00\x00\x00" + bytes((len(inner),)) + inner
    with pytest.raises(RemoteProtocolError, match="nested"):
        Side().mux.receive_untrusted(frame)


def test_a_peer_cannot_open_without_end() -> None:
    a = Side()
    a.mux.pair("p", None, lambda name: a.channel("p", name).open())

    def peer_opens(number: int) -> None:
        name = number.to_bytes(4, "little")
        frame = b"\x00\x01" + encode_uint(number) + b"\x01p\x04" + name
        a.mux.receive_untrusted(frame)

    for number in range(1, CHANNELS_MAX + 1):
        peer_opens(number)
    with pytest.raises(RemoteProtocolError):
        peer_opens(CHANNELS_MAX + 1)
    assert len(a.heard) == CHANNELS_MAX


def test_opening_the_control_channel_is_rejected() -> None:
    a = Side()
    a.mux.receive_untrusted(b"\x00\x01\x00\x01p\x00")
    assert a.frames == [b"\x00\x02\x00"]


def test_a_peer_that_reads_no_refusals_is_given_up() -> None:
    a = Side()
    frame = b"\x00\x01\x01\x01p\x00"
    for _ in range(2 * REJECTS_UNREAD_MAX):
        a.mux.receive_untrusted(frame)
    a.is_full = True
    for _ in range(REJECTS_UNREAD_MAX):
        a.mux.receive_untrusted(frame)
    a.mux.stream_writable()
    for _ in range(REJECTS_UNREAD_MAX + 1):
        a.mux.receive_untrusted(frame)
    with pytest.raises(RemoteProtocolError, match="reads no answers"):
        a.mux.receive_untrusted(frame)
