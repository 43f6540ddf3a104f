"""The routing table, the congestion window and the health monitor."""

import random

import pytest

from peerchat.net.dht.health import Health, HealthMonitor
from peerchat.net.dht.messages import node_id
from peerchat.net.dht.table import Entry, K, Table, key_of
from peerchat.net.dht.window import CongestionWindow
from peerchat.net.identity import Address, NodeId

OWN = NodeId(bytes(32))


def entry(number: int) -> Entry:
    address = Address(f"10.0.{number >> 8}.{number & 255}", 1000)
    return Entry(node_id(address), address)


def near(shared_bits: int, number: int) -> Entry:
    """An id that shares exactly so many bits with ours."""
    key = (1 << (255 - shared_bits)) | number
    return Entry(NodeId(key.to_bytes(32, "big")), Address("10.0.0.1", number + 1))


@pytest.mark.parametrize("seed", range(5))
def test_closest_is_what_sorting_by_distance_gives(seed):
    chance = random.Random(seed)
    table = Table(entry(9999).id)
    known = [one for one in map(entry, range(400)) if table.add(one)]
    for _ in range(50):
        target = chance.randbytes(32)
        if chance.random() < 0.3:
            target = table.id[:1] + target[1:]
        by_distance = sorted(known, key=lambda one: one.key ^ key_of(target))
        assert table.closest(target) == by_distance[:K]


def test_a_row_takes_twenty_and_others_are_not_touched_by_it():
    table = Table(OWN)
    assert all(table.add(near(0, number)) for number in range(K))
    assert not table.add(near(0, K))
    assert table.add(near(1, 0))
    assert len(table) == K + 1
    assert len(table.row_of(near(0, 77))) == K


def test_our_own_id_is_never_in_the_table():
    table = Table(OWN)
    assert not table.add(Entry(OWN, Address("10.0.0.1", 1)))
    assert len(table) == 0


def test_the_closest_possible_ids_have_a_row():
    table = Table(OWN)
    last = Entry(NodeId(bytes(31) + b"\x01"), Address("10.0.0.1", 1))
    assert table.add(last)
    assert table.closest(OWN) == [last]
    assert table.closest(bytes(31) + b"\x01") == [last]


def test_removing_makes_room_and_only_the_very_entry_goes():
    table = Table(OWN)
    entries = [near(3, number) for number in range(K)]
    for one in entries:
        table.add(one)
    stranger = Entry(entries[0].id, Address("10.9.9.9", 9))
    assert not table.remove(stranger)
    assert table.remove(entries[0])
    assert not table.remove(entries[0])
    assert table.add(near(3, 100))


def test_age_follows_who_was_heard_from_last():
    table = Table(OWN)
    a, b, c = (near(bits, 0) for bits in range(3))
    for one in (a, b, c):
        table.add(one)
    table.touch(a)
    assert table.oldest(2) == [b, c]
    assert table.latest(2) == [a, c]


def test_the_window_stops_at_80_in_a_slot_and_160_in_all():
    window = CongestionWindow()
    for _ in range(80):
        assert not window.is_full
        window.sent()
    assert window.is_full
    window.received()
    assert not window.is_full
    window.sent()
    window.drain()
    for _ in range(80):
        assert not window.is_full
        window.sent()
    window.drain()
    assert window.is_full
    window.drain()
    window.drain()
    assert not window.is_full
    assert window.in_flight == 80


def feed(monitor: HealthMonitor, *ticks: tuple[int, int]) -> list[Health]:
    responses = timeouts = 0
    states = []
    for answered, lost in ticks:
        responses += answered
        timeouts += lost
        states.append(monitor.update(responses, timeouts))
    return states


def test_silence_for_two_ticks_is_offline_and_one_answer_ends_it():
    warm = [(10, 0)] * 4
    states = feed(HealthMonitor(), *warm, (0, 10), (0, 10), (10, 0))
    assert states[-3:] == [Health.ONLINE, Health.OFFLINE, Health.ONLINE]


def test_four_bad_ticks_are_degraded_and_four_good_ones_end_it():
    warm = [(10, 0)] * 4
    states = feed(HealthMonitor(), *warm, *[(4, 6)] * 4, *[(9, 1)] * 4)
    assert states[4:8] == [Health.ONLINE] * 3 + [Health.DEGRADED]
    assert states[8:] == [Health.DEGRADED] * 3 + [Health.ONLINE]


def test_a_handful_of_requests_says_nothing():
    assert set(feed(HealthMonitor(), *[(0, 3)] * 20)) == {Health.ONLINE}
