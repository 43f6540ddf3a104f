"""The parts of UDX one by one, and two machines back to back without a network."""

from __future__ import annotations

import pytest

from peerchat.net.errors import LocalProtocolError, RemoteProtocolError
from peerchat.net.serial import unwrap, wrap
from peerchat.net.udx import packet as wire
from peerchat.net.udx.congestion import CWND_INITIAL, CWND_MIN, Cubic
from peerchat.net.udx.mtu import MTU_MAX, MTU_PROBES_MAX, MtuSearch
from peerchat.net.udx.receive import (
    HELD_PACKETS_MAX,
    PIECES_MAX,
    RWND_MAX,
    ReceiveHalf,
)
from peerchat.net.udx.rtt import RttEstimator
from peerchat.net.udx.stream import ACK_DELAY_S, MESSAGES_MAX, UdxStream


def pair(**options: int) -> tuple[UdxStream, UdxStream]:
    a, b = UdxStream(10, **options), UdxStream(20, **options)
    a.connect(20)
    b.connect(10)
    return a, b


def deliver(source: UdxStream, target: UdxStream, now: float) -> list[bytes]:
    datagrams = source.datagrams_to_send(now)
    for datagram in datagrams:
        target.receive_packet_untrusted(datagram, now)
    return datagrams


def settle(a: UdxStream, b: UdxStream, now: float) -> None:
    """Let both talk until neither has anything to say, late acknowledgements too."""
    for at in (now, now + ACK_DELAY_S):
        while deliver(a, b, at) or deliver(b, a, at):
            pass


def kinds(datagrams: list[bytes]) -> list[int]:
    return [datagram[2] for datagram in datagrams]


# -- the parts


def test_header_golden_bytes():
    header = wire.pack_header(wire.TYPE_DATA, 7, 0x01020304, 4194304, 5, 6)
    assert header.hex() == "ff01010704030201000040000500000006000000"
    packet = header + bytes(7)
    assert wire.unpack_header_untrusted(packet) == (
        wire.MAGIC_AND_VERSION,
        wire.TYPE_DATA,
        7,
        0x01020304,
        4194304,
        5,
        6,
    )


def test_sack_ranges_end_where_the_payload_begins():
    ranges = [(3, 5), (2**32 - 1, 1)]
    header = wire.pack_header(wire.TYPE_SACK, 0, 1, 2, 3, 4)
    packet = header + wire.pack_sack(ranges)
    assert wire.unpack_sack_untrusted(packet, 0) == ranges
    assert wire.unpack_sack_untrusted(packet + b"payload", 16) == ranges
    with pytest.raises(RemoteProtocolError):
        wire.unpack_sack_untrusted(packet + b"x", 0)


def test_sack_holds_fifty_ranges_at_most():
    body = wire.pack_sack((2 * n, 2 * n + 1) for n in range(80))
    assert len(body) == 50 * 8


@pytest.mark.parametrize(
    ("serial", "reference", "expected"),
    [
        (5, 3, 5),
        (0, 2**32 - 1, 2**32),
        (2**32 - 1, 2**32, 2**32 - 1),
        (7, 2**33, 2**33 + 7),
    ],
)
def test_serials_wrap(serial: int, reference: int, expected: int):
    assert unwrap(serial, reference) == expected
    assert wrap(expected) == serial


def test_rto_follows_rfc_6298():
    rtt = RttEstimator()
    assert rtt.rto_s == 1.0
    rtt.add_sample(2.0, 0.0)
    assert (rtt.srtt_s, rtt.rttvar_s, rtt.rto_s) == (2.0, 1.0, 6.0)
    rtt.add_sample(1.0, 1.0)
    assert rtt.srtt_s == pytest.approx(1.875)
    assert rtt.rttvar_s == pytest.approx(1.0)
    for _ in range(100):
        rtt.add_sample(0.01, 2.0)
    assert rtt.rto_s == 1.0
    rtt.add_sample(60.0, 3.0)
    assert rtt.rto_s == 30.0


def test_cubic_doubles_then_cuts_then_climbs_back():
    cubic = Cubic()
    cubic.acknowledged(10, 0.1, 0.0)
    assert cubic.cwnd == 2 * CWND_INITIAL
    for _ in range(20):
        cubic.acknowledged(int(cubic.cwnd), 0.1, 0.0)
    before = cubic.cwnd
    cubic.lost(1.0)
    assert cubic.cwnd == pytest.approx(0.7 * before)
    now = 1.0
    while cubic.cwnd < before:
        now += 0.1
        cubic.acknowledged(int(cubic.cwnd), 0.1, now)
        assert now < 60
    cubic.timed_out(now)
    assert cubic.cwnd == CWND_MIN
    cubic.cwnd = 500.0
    cubic.idle()
    assert cubic.cwnd == CWND_INITIAL


def test_mtu_climbs_by_steps_and_stops_at_the_top():
    search = MtuSearch()
    steps = []
    while padding := search.padding(search.payload_bytes_max):
        steps.append(search.mtu + padding)
        search.acknowledged(search.mtu + padding - 28)
    assert steps[:2] == [1232, 1264]
    assert steps[-2:] == [1488, MTU_MAX]
    assert search.payload_bytes_max == MTU_MAX - 48


def test_mtu_stops_after_three_lost_probes():
    search = MtuSearch()
    for _ in range(MTU_PROBES_MAX):
        assert search.padding(search.payload_bytes_max) == 32
        assert search.padding(search.payload_bytes_max) == 0
        search.lost()
    assert search.padding(search.payload_bytes_max) == 0
    assert search.mtu == 1200


def test_receive_puts_packets_in_order_once():
    half = ReceiveHalf()
    for seq in (2, 0, 2, 4, 0):
        half.receive(seq, b"%d" % seq, False)
    assert half.take() == b"0"
    assert list(half.held_ranges) == [(2, 3), (4, 5)]
    half.receive(1, b"1", False)
    assert half.take() == b"12"
    assert half.next_seq == 3
    half.receive(5, b"", True)
    half.receive(3, b"3", False)
    assert half.take() == b"34"
    assert half.has_ended
    assert half.next_seq == 6


def test_receive_keeps_no_more_than_its_window():
    half = ReceiveHalf(window_bytes_max=4000)
    for seq in range(2, 10):
        half.receive(seq, bytes(1000), False)
    assert half.dropped == 4
    assert half.rwnd == 0
    # The packet that fills the gap is taken all the same, or nothing would move on.
    half.receive(0, bytes(1000), False)
    half.receive(1, bytes(1000), False)
    assert half.next_seq == 6
    half.receive(6, bytes(1000), False)
    assert half.next_seq == 6
    assert len(half.take()) == 6000
    assert half.rwnd == 4000


def test_receive_holds_a_bounded_number_of_tiny_packets():
    half = ReceiveHalf()
    for seq in range(1, HELD_PACKETS_MAX + 100):
        half.receive(seq, b"x", False)
    assert half.dropped == 99


def test_receive_joins_tiny_payloads_that_wait_for_a_reader():
    half = ReceiveHalf()
    words = [b"%05d" % seq for seq in range(20 * PIECES_MAX + 7)]
    for seq, word in enumerate(words):
        half.receive(seq, word, False)
    assert len(half._ready) < 2 * PIECES_MAX
    assert half.ready_bytes == 5 * len(words)
    assert half.take() == b"".join(words)
    half.receive(len(words), b"more", False)
    assert half.take() == b"more"


# -- two machines


def test_small_writes_share_a_packet_and_the_ack_rides_on_the_answer():
    a, b = pair()
    for word in (b"one ", b"two ", b"three"):
        a.write(word)
    assert kinds(deliver(a, b, 0.0)) == [wire.TYPE_DATA]
    assert b.take_data() == b"one two three"
    b.write(b"answer")
    assert kinds(deliver(b, a, 0.1)) == [wire.TYPE_DATA]
    assert a.buffered == 0
    assert a.rtt_s == pytest.approx(0.1)
    assert deliver(a, b, 0.1) == []
    late = a.next_timer()
    assert late == pytest.approx(0.1 + ACK_DELAY_S)
    a.handle_timer(late)
    assert kinds(deliver(a, b, late)) == [0]
    assert b.buffered == 0
    assert a.next_timer() is None


def test_a_second_packet_is_acknowledged_at_once_and_an_end_too():
    a, b = pair()
    for number in (1, 2):
        a.write(b"x")
        deliver(a, b, 0.0)
        assert kinds(deliver(b, a, 0.0)) == [0] * (number - 1)
    a.end()
    deliver(a, b, 0.0)
    assert kinds(deliver(b, a, 0.0)) == [0]


def test_one_ack_for_a_read_batch():
    a, b = pair()
    a.write(bytes(8000))
    assert len(deliver(a, b, 0.0)) == 7
    assert kinds(deliver(b, a, 0.0)) == [0]
    assert a.buffered == 0


def test_a_gap_is_told_by_sack_and_filled_at_once():
    a, b = pair()
    a.write(bytes(range(250)) * 24)
    sent = a.datagrams_to_send(0.0)
    for datagram in sent[:1] + sent[2:]:
        b.receive_packet_untrusted(datagram, 0.01)
    assert kinds(deliver(b, a, 0.02)) == [wire.TYPE_SACK]
    resent = deliver(a, b, 0.02)
    assert len(resent) == 1
    assert resent[0][12:16] == sent[1][12:16]
    assert b.take_data() == bytes(range(250)) * 24
    assert a.statistics().retransmits == 1


def test_a_lost_tail_is_probed_long_before_the_timeout():
    a, b = pair()
    a.write(b"x")
    settle(a, b, 0.0)
    a.write(b"lost")
    a.datagrams_to_send(1.0)
    probe_at = a.next_timer()
    assert probe_at is not None
    assert probe_at < 1.1
    a.handle_timer(probe_at)
    deliver(a, b, probe_at)
    assert b.take_data() == b"xlost"


def test_a_dead_peer_is_given_up_as_libudx_does():
    a, _ = pair()
    a.write(b"anyone?")
    sent_at = [0.0]
    assert a.datagrams_to_send(0.0)
    while not a.is_closed:
        now = a.next_timer()
        assert now is not None
        a.handle_timer(now)
        if a.datagrams_to_send(now):
            sent_at.append(now)
    assert sent_at == [0, 1, 3, 5, 7, 9, 11]
    assert now == 13.0
    assert a.close_reason == "timed out"
    assert a.next_timer() is None


def test_a_closed_window_is_probed_and_reopens():
    a, b = pair(window_bytes_max=3000)
    # Until it hears of the small window, the sender takes it for the usual one.
    a.write(b"x")
    settle(a, b, 0.0)
    a.write(bytes(9_999))
    settle(a, b, 0.0)
    now = 0.0
    probes = 0
    for _ in range(20):
        timer = a.next_timer()
        assert timer is not None
        now = max(now, timer)
        a.handle_timer(now)
        probes += wire.TYPE_HEARTBEAT in kinds(deliver(a, b, now))
        settle(a, b, now)
    assert probes >= 10
    assert not a.is_closed
    assert a.buffered > 0
    got = 0
    while got < 10_000:
        got += len(b.take_data())
        settle(b, a, now)
        timer = a.next_timer()
        if timer is not None:
            now = max(now, timer)
            a.handle_timer(now)
        settle(a, b, now)
    assert a.buffered == 0


def test_taking_data_reopens_the_window_without_a_probe():
    a, b = pair(window_bytes_max=100_000)
    a.write(bytes(300_000))
    settle(a, b, 0.0)
    assert a.unsent_bytes > 0
    before = a.unsent_bytes
    b.take_data()
    settle(b, a, 0.0)
    assert a.unsent_bytes < before


def test_heartbeat_is_answered():
    a, _ = pair()
    beat = wire.pack_header(wire.TYPE_HEARTBEAT, 0, 10, RWND_MAX, 0, 0)
    a.receive_packet_untrusted(beat, 0.0)
    assert kinds(a.datagrams_to_send(0.0)) == [0]
    assert a.datagrams_to_send(0.0) == []


@pytest.mark.parametrize(
    ("seq", "ack", "is_believed"),
    [
        (3, 2, True),
        (4, 2, True),
        (2, 2, False),
        (3, 1, False),
        (3, 9, False),
        (3 + HELD_PACKETS_MAX + 1, 2, False),
    ],
)
def test_destroy_must_be_plausible(seq: int, ack: int, is_believed: bool):
    a, b = pair()
    for _ in range(3):
        b.write(b"from b")
        settle(b, a, 0.0)
    for _ in range(2):
        a.write(b"from a")
        settle(a, b, 0.0)
    a.write(b"in flight")
    a.datagrams_to_send(0.0)
    forged = wire.pack_header(wire.TYPE_DESTROY, 0, 10, 0, seq, ack)
    a.receive_packet_untrusted(forged, 0.0)
    assert a.is_closed == is_believed
    assert a.close_reason == ("reset by peer" if is_believed else None)


def test_an_ack_of_what_was_never_sent_is_ignored():
    a, b = pair()
    a.write(b"data")
    a.datagrams_to_send(0.0)
    a.receive_packet_untrusted(wire.pack_header(0, 0, 10, RWND_MAX, 0, 2), 0.0)
    body = wire.pack_sack([(0, 5), (4, 1), (7, 9)])
    sack = wire.pack_header(wire.TYPE_SACK, 0, 10, RWND_MAX, 0, 0) + body
    a.receive_packet_untrusted(sack, 0.0)
    assert a.buffered == 4
    assert a.statistics().packets_ignored == 1
    assert b.buffered == 0


def test_an_old_packet_does_not_move_the_window():
    a, b = pair()
    b.write(b"1")
    (old,) = b.datagrams_to_send(0.0)
    b.write(b"2")
    (new,) = b.datagrams_to_send(0.0)
    a.receive_packet_untrusted(new, 0.0)
    closed = old[:8] + bytes(4) + old[12:]
    a.receive_packet_untrusted(closed, 0.0)
    assert a.take_data() == b"12"
    a.write(bytes(5000))
    assert len(a.datagrams_to_send(0.0)) >= 4


def test_a_destroyed_stream_tells_a_peer_that_did_not_hear():
    a, b = pair()
    a.write(b"x")
    settle(a, b, 0.0)
    a.destroy()
    assert kinds(a.datagrams_to_send(0.0)) == [wire.TYPE_DESTROY]
    b.write(b"still there?")
    deliver(b, a, 1.0)
    deliver(a, b, 1.0)
    assert b.close_reason == "reset by peer"


def test_a_lost_last_ack_is_given_again():
    a, b = pair()
    a.end()
    settle(a, b, 0.0)
    b.end()
    deliver(b, a, 0.0)
    assert a.is_closed
    assert kinds(a.datagrams_to_send(0.0)) == [0]
    now = b.next_timer()
    assert now is not None
    b.handle_timer(now)
    deliver(b, a, now)
    deliver(a, b, now)
    assert b.is_closed
    assert b.close_reason is None


def test_messages_are_bounded_and_must_fit():
    a, b = pair()
    assert b.message_bytes_max == 1152
    with pytest.raises(ValueError, match="1153 bytes"):
        a.send_message(bytes(1153))
    for number in range(MESSAGES_MAX):
        a.send_message(b"%d" % number)
    deliver(a, b, 0.0)
    a.send_message(b"one too many")
    deliver(a, b, 0.0)
    assert b.take_messages() == [b"%d" % number for number in range(MESSAGES_MAX)]


def test_misuse_is_refused():
    a, _ = pair()
    with pytest.raises(LocalProtocolError):
        a.connect(1)
    with pytest.raises(LocalProtocolError):
        UdxStream(1).change_remote(2)
    a.end()
    with pytest.raises(LocalProtocolError):
        a.write(b"late")


def test_a_new_path_keeps_the_stream_and_starts_the_mtu_search_anew():
    a, b = pair()
    for _ in range(20):
        a.write(bytes(100_000))
        settle(a, b, 0.0)
        b.take_data()
    assert a.statistics().mtu == MTU_MAX
    a.change_remote(30)
    assert a.statistics().mtu == 1200
    a.write(b"more")
    (datagram,) = a.datagrams_to_send(0.0)
    assert int.from_bytes(datagram[4:8], "little") == 30


def test_a_tail_probe_does_not_end_the_mtu_search():
    a, b = pair()
    a.write(b"x")
    settle(a, b, 0.0)
    a.write(bytes(a.message_bytes_max))
    assert a.datagrams_to_send(1.0)[0][3] > 0
    probe_at = a.next_timer()
    assert probe_at is not None
    a.handle_timer(probe_at)
    settle(a, b, probe_at)
    assert a.buffered == 0
    a.write(bytes(a.message_bytes_max))
    settle(a, b, probe_at)
    assert a.statistics().mtu > 1200


def test_a_closed_stream_keeps_no_bytes():
    a, b = pair()
    a.write(bytes(9_000))
    sent = a.datagrams_to_send(0.0)
    for datagram in sent[:2] + sent[3:]:
        b.receive_packet_untrusted(datagram, 0.0)
    b.destroy()
    b.forget_data()
    assert b.take_data() == b""
    assert not b._receive._held
