"""UDX: any bytes, any ranges, any pieces."""

from __future__ import annotations

import contextlib
from functools import reduce

from hypothesis import given, settings
from hypothesis import strategies as st

from peerchat.net.errors import RemoteProtocolError
from peerchat.net.rangeset import RangeSet
from peerchat.net.serial import SERIAL_MASK, unwrap, wrap
from peerchat.net.udx import packet as wire
from peerchat.net.udx.stream import UdxStream

ranges = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda pair: sorted(pair)),
    max_size=20,
)
headers = st.builds(
    wire.pack_header,
    st.integers(0, 255),
    st.integers(0, 255),
    st.just(10),
    st.integers(0, SERIAL_MASK),
    st.one_of(st.integers(0, 20), st.integers(0, SERIAL_MASK)),
    st.one_of(st.integers(0, 20), st.integers(0, SERIAL_MASK)),
)


@given(ranges, st.integers(0, 60), st.tuples(st.integers(0, 60), st.integers(0, 60)))
def test_rangeset_is_a_set(added: list[list[int]], bound: int, asked: tuple[int, int]):
    rangeset = RangeSet()
    for start, stop in added:
        rangeset.add(start, stop)
    model = reduce(set.union, (set(range(*pair)) for pair in added), set[int]())
    rangeset.remove_below(bound)
    model = {number for number in model if number >= bound}
    pairs = list(rangeset)
    assert len(rangeset) == len(pairs)
    assert [n for pair in pairs for n in range(*pair)] == sorted(model)
    # Disjoint, not touching, ascending.
    flat = [edge for pair in pairs for edge in pair]
    assert flat == sorted(set(flat))
    assert all((number in rangeset) == (number in model) for number in range(62))
    missing = {n for pair in rangeset.missing(*asked) for n in range(*pair)}
    assert missing == set(range(*asked)) - model


@given(st.integers(0, 2**40), st.integers(-(2**31) + 1, 2**31 - 1))
def test_unwrap_finds_what_wrap_cut(reference: int, distance: int):
    number = reference + distance
    assert unwrap(wrap(number), reference) == number


@given(st.one_of(st.binary(max_size=100), st.binary().map(lambda b: b"\xff\x01" + b)))
def test_any_bytes_parse_or_are_refused(data: bytes):
    with contextlib.suppress(RemoteProtocolError):
        header = wire.unpack_header_untrusted(data)
        assert wire.pack_header(*header[1:]) == data[: wire.HEADER_BYTES]
        wire.unpack_sack_untrusted(data, header[2])


@given(st.lists(st.tuples(headers, st.binary(max_size=300)), max_size=30))
def test_a_stranger_cannot_break_a_stream(packets: list[tuple[bytes, bytes]]):
    stream = UdxStream(10)
    stream.connect(20)
    stream.write(bytes(5000))
    for now, (header, body) in enumerate(packets):
        with contextlib.suppress(RemoteProtocolError):
            stream.receive_packet_untrusted(header + body, float(now))
        stream.take_messages()
        for datagram in stream.datagrams_to_send(float(now)):
            wire.unpack_header_untrusted(datagram)
        stream.handle_timer(float(now))
        statistics = stream.statistics()
        assert statistics.in_flight >= 0
        assert 0 <= stream.buffered <= 5000


@settings(max_examples=50)
@given(
    st.lists(st.binary(max_size=3000), max_size=30),
    st.integers(0, SERIAL_MASK),
    st.randoms(use_true_random=False),
)
def test_pieces_in_any_order_give_the_whole(pieces, seq, chance):
    a = UdxStream(10, initial_seq=seq)
    b = UdxStream(20, initial_ack=seq)
    a.connect(20)
    b.connect(10)
    for piece in pieces:
        a.write(piece)
    a.end()
    b.end()
    received = b""
    for now in range(200):
        for source, target in ((a, b), (b, a)):
            datagrams = source.datagrams_to_send(float(now))
            chance.shuffle(datagrams)
            for datagram in datagrams + datagrams[:1]:
                target.receive_packet_untrusted(datagram, float(now))
            source.handle_timer(float(now))
        received += b.take_data()
        if a.is_closed and b.is_closed:
            break
    assert received == b"".join(pieces)
    assert a.is_closed
    assert a.close_reason is None
    assert b.close_reason is None
