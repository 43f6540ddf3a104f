"""Any bytes: parse, or `RemoteProtocolError`; whole equals byte at a time."""

from __future__ import annotations

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st

from peerchat.net.crypto.noise import HandshakeState, Pattern
from peerchat.net.crypto.primitives import KeyPair
from peerchat.net.crypto.secretstream import Deframer, Pull, Push, SecretStream
from peerchat.net.encoding import encode_uint
from peerchat.net.errors import RemoteProtocolError
from peerchat.net.mux import rpc
from peerchat.net.mux.protomux import Channel, Protomux

A, B, E = (KeyPair.from_seed(bytes([number]) * 32) for number in (1, 2, 3))


def secret_stream(is_initiator: bool) -> SecretStream:
    keys = (b"a" * 32, b"b" * 32)
    return SecretStream(
        tx_key=keys[not is_initiator],
        rx_key=keys[is_initiator],
        handshake_hash=bytes(64),
        is_initiator=is_initiator,
        header=bytes(24),
        send_counter=bytes(8),
    )


@settings(max_examples=40)
@given(
    pattern=st.sampled_from(Pattern),
    message=st.binary(max_size=200)
    | st.binary(max_size=120).map(lambda tail: E.public_key + tail),
)
def test_noise_messages(pattern: Pattern, message: bytes) -> None:
    state = HandshakeState(pattern, is_initiator=False, static=B, ephemeral=E)
    with contextlib.suppress(RemoteProtocolError):
        state.read_message_untrusted(message)


@given(
    bodies=st.lists(st.binary(max_size=400), max_size=8),
    tail=st.binary(max_size=2),
    data=st.data(),
)
def test_framing_does_not_see_where_pieces_end(
    bodies: list[bytes], tail: bytes, data: st.DataObject
) -> None:
    stream = b"".join(len(body).to_bytes(3, "little") + body for body in bodies) + tail
    deframer, got, offset = Deframer(), [], 0
    while offset < len(stream):
        step = data.draw(st.integers(1, 500))
        got += deframer.feed(stream[offset : offset + step])
        offset += step
    assert got == bodies


@given(data=st.binary(max_size=300), is_set_up=st.booleans())
def test_secretstream_frames(data: bytes, is_set_up: bool) -> None:
    stream = secret_stream(False)
    if is_set_up:
        stream.receive_untrusted(secret_stream(True).hello)
        data = len(data).to_bytes(3, "little") + data
    with contextlib.suppress(RemoteProtocolError):
        stream.receive_untrusted(data)
    with contextlib.suppress(RemoteProtocolError):
        stream.unbox_untrusted(data)


@given(messages=st.lists(st.binary(max_size=200)))
def test_secretstream_gives_back_what_was_pushed(messages: list[bytes]) -> None:
    push, pull = Push(bytes(32), bytes(24)), Pull(bytes(32), bytes(24))
    assert [pull.next_untrusted(push.next(one)) for one in messages] == messages


def busy_mux() -> tuple[Protomux, list[bytes]]:
    """One open channel, one opening, one that is paired and not opened yet."""
    frames: list[bytes] = []
    mux = Protomux(lambda frame: not frames.append(frame))
    waiting: list[Channel | None] = []
    mux.pair("late", None, lambda name: waiting.append(mux.create_channel("late")))
    opened = mux.create_channel("a")
    opening = mux.create_channel("b", b"id")
    assert opened is not None
    assert opening is not None
    opened.open()
    opening.open()
    mux.receive_untrusted(b"\x00\x01\x01\x01a\x00")
    mux.receive_untrusted(b"\x00\x01\x02\x04late\x00")
    return mux, frames


small = st.integers(0, 6).map(lambda number: bytes((number,)))
grammar = st.one_of(
    st.binary(max_size=60),
    st.lists(small, max_size=30).map(b"".join),
    st.tuples(st.integers(0, 3), st.lists(small, max_size=20)).map(
        lambda pair: b"\x00" + bytes((pair[0],)) + b"".join(pair[1])
    ),
)


@given(frames=st.lists(grammar, max_size=12))
def test_protomux_frames(frames: list[bytes]) -> None:
    mux, _ = busy_mux()
    with contextlib.suppress(RemoteProtocolError):
        for frame in frames:
            mux.receive_untrusted(frame)
    mux.shut_down()


@given(
    messages=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 300), st.binary(max_size=300)),
        max_size=20,
    )
)
def test_a_batch_carries_what_single_frames_carry(
    messages: list[tuple[int, int, bytes]],
) -> None:
    def run(is_corked: bool) -> list[tuple[int, int, bytes]]:
        wire: list[bytes] = []
        sender = Protomux(lambda frame: not wire.append(frame))
        heard: list[tuple[int, int, bytes]] = []
        receiver = Protomux(lambda frame: True)
        channels = []
        for number in range(3):
            theirs = receiver.create_channel(
                str(number),
                on_message=lambda kind, payload, number=number: heard.append(
                    (number, kind, payload)
                ),
            )
            mine = sender.create_channel(str(number))
            assert theirs is not None
            assert mine is not None
            theirs.open()
            mine.open()
            channels.append(mine)
        if is_corked:
            sender.cork()
        for number, kind, payload in messages:
            channels[number].send(kind, payload)
        if is_corked:
            sender.uncork()
        for frame in wire:
            receiver.receive_untrusted(frame)
        return heard

    assert run(False) == messages == run(True)


@given(payload=st.binary(max_size=80))
def test_rpc_messages(payload: bytes) -> None:
    for parse in (
        rpc.decode_request_untrusted,
        rpc.decode_response_untrusted,
        rpc.decode_value_untrusted,
    ):
        with contextlib.suppress(RemoteProtocolError):
            parse(payload)
    with contextlib.suppress(RemoteProtocolError):
        rpc.verify_handshake_untrusted(payload, bytes(32))


@given(
    request_id=st.integers(0, 2**53),
    method=st.text(max_size=300),
    value=st.none() | st.binary(min_size=1, max_size=70_000),
)
def test_rpc_requests_come_back(
    request_id: int, method: str, value: bytes | None
) -> None:
    payload = rpc.encode_request(request_id, method, value)
    got_id, got_method, raw = rpc.decode_request_untrusted(payload)
    assert (got_id, got_method) == (request_id, method)
    assert rpc.decode_value_untrusted(raw) == value
    response = rpc.encode_response(request_id, value)
    assert rpc.decode_response_untrusted(response) == (request_id, raw)


@given(
    message=st.text(),
    code=st.text(),
    cause=st.none() | st.text(),
    cause_code=st.text(),
    context=st.text(),
)
def test_rpc_failures_come_back(
    message: str, code: str, cause: str | None, cause_code: str, context: str
) -> None:
    if cause is None:
        cause_code = context = ""
    failure = rpc.Failure(message, code, cause, cause_code, context)
    payload = rpc.encode_failure(7, failure)
    assert rpc.decode_response_untrusted(payload) == (7, failure)
    assert payload[1:2] == encode_uint(7)
