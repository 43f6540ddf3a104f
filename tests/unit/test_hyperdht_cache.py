"""Stores that forget, and buckets that refill."""

from peerchat.net.hyperdht.cache import ExpiringCache, RecordCache
from peerchat.net.hyperdht.limits import SOURCES_MAX, RateLimiter
from peerchat.testing.network import SeededRandom

TOPIC = b"t" * 32


def fill(cache, count, now=0.0):
    for index in range(count):
        key = index.to_bytes(4, "big")
        cache.add(TOPIC, key, b"value " + key, now)


def test_an_entry_lives_between_two_and_four_thirds_of_the_age():
    cache = ExpiringCache[str, int](age_s=30)
    cache.set("early", 1, now=0)
    cache.set("late", 2, now=19)
    assert cache.get("early", 19.9) == 1
    assert cache.get("early", 39) == 1
    assert cache.get("late", 39.9) == 2
    assert cache.get("early", 40.1) is None
    assert cache.get("late", 40.1) is None


def test_a_long_silence_forgets_all_at_once():
    cache = ExpiringCache[str, int](age_s=30)
    cache.set("a", 1, now=0)
    assert cache.get("a", 1000) is None
    assert len(cache) == 0


def test_setting_again_renews():
    cache = ExpiringCache[str, int](age_s=30)
    cache.set("a", 1, now=0)
    cache.set("a", 2, now=21)
    assert len(cache) == 1
    assert cache.get("a", 59) == 2


def test_reading_does_not_renew():
    cache = ExpiringCache[str, int](age_s=30)
    cache.set("a", 1, now=0)
    assert [cache.get("a", now) for now in range(0, 60, 10)][-2:] == [None, None]


def test_reading_renews_where_that_is_asked_for():
    cache = ExpiringCache[str, int](age_s=30, is_renewed_by_reading=True)
    cache.set("read", 1, now=0)
    cache.set("unread", 2, now=0)
    assert [cache.get("read", now) for now in range(0, 100, 10)] == [1] * 10
    assert cache.get("unread", 100) is None


def test_reading_does_not_grow_a_cache_beyond_two_generations():
    cache = ExpiringCache[int, int](size_max=10, is_renewed_by_reading=True)
    for index in range(1000):
        cache.set(index, index, now=0)
        for read in range(index - 30, index + 1):
            cache.get(read, now=0)
        assert len(cache) <= 20
        assert cache.get(index, now=0) == index


def test_a_cache_never_holds_more_than_two_generations():
    cache = ExpiringCache[int, int](size_max=10)
    for index in range(1000):
        cache.set(index, index, now=0)
        assert len(cache) <= 20
    assert cache.get(999, 0) == 999
    assert cache.get(0, 0) is None


def test_deleting():
    cache = ExpiringCache[str, int]()
    cache.set("a", 1, now=0)
    cache.delete("a")
    cache.delete("never there")
    assert cache.get("a", 0) is None


def test_records_are_found_replaced_and_removed():
    cache = RecordCache(age_s=30)
    chance = SeededRandom(1)
    cache.add(TOPIC, b"a", b"1", now=0)
    cache.add(TOPIC, b"b", b"2", now=0)
    cache.add(TOPIC, b"a", b"3", now=21)
    assert sorted(cache.sample(TOPIC, 20, 21, chance)) == [b"2", b"3"]
    cache.remove(TOPIC, b"b")
    cache.remove(TOPIC, b"unknown")
    assert cache.sample(TOPIC, 20, 21, chance) == [b"3"]
    assert cache.sample(b"other topic", 20, 21, chance) == []
    assert len(cache) == 1


def test_records_expire():
    cache = RecordCache(age_s=30)
    chance = SeededRandom(1)
    cache.add(TOPIC, b"a", b"1", now=0)
    assert cache.sample(TOPIC, 20, 20, chance) == [b"1"]
    assert cache.sample(TOPIC, 20, 40, chance) == []
    assert len(cache) == 0


def test_a_sample_has_no_doubles_and_is_fair():
    cache = RecordCache(age_s=30)
    fill(cache, 30)
    cache.sample(TOPIC, 1, 20, SeededRandom(1))
    for index in range(30, 60):
        cache.add(TOPIC, index.to_bytes(4, "big"), b"young", now=20)
    seen: dict[bytes, int] = {}
    chance = SeededRandom(7)
    for _ in range(600):
        sample = cache.sample(TOPIC, 20, 20, chance)
        old = [value for value in sample if value != b"young"]
        assert len(sample) == 20
        assert len(set(old)) == len(old)
        for value in old:
            seen[value] = seen.get(value, 0) + 1
    # Each of 60 records is expected 200 times; the standard deviation is 11.5.
    assert len(seen) == 30
    assert all(140 < count < 260 for count in seen.values())


def test_removing_from_the_middle_keeps_the_others():
    cache = RecordCache()
    chance = SeededRandom(1)
    fill(cache, 10)
    for index in (0, 4, 9):
        cache.remove(TOPIC, index.to_bytes(4, "big"))
    left = sorted(cache.sample(TOPIC, 20, 0, chance))
    expected = [b"value " + i.to_bytes(4, "big") for i in (1, 2, 3, 5, 6, 7, 8)]
    assert left == expected
    cache.remove(TOPIC, (8).to_bytes(4, "big"))
    assert len(cache) == len(cache.sample(TOPIC, 20, 0, chance)) == 6


def test_a_record_store_never_holds_more_than_two_generations():
    cache = RecordCache(size_max=10)
    fill(cache, 1000)
    assert len(cache) <= 21


def test_a_burst_and_then_the_long_run():
    limiter = RateLimiter(per_s=2, burst=3)
    assert [limiter.allow("a", 0) for _ in range(5)] == [True] * 3 + [False] * 2
    assert limiter.allow("b", 0)
    assert [limiter.allow("a", 1) for _ in range(3)] == [True, True, False]
    assert [limiter.allow("a", 100) for _ in range(4)] == [True] * 3 + [False]


def test_many_sources_do_not_grow_the_limiter():
    limiter = RateLimiter(per_s=1, burst=1)
    for source in range(SOURCES_MAX + 500):
        limiter.allow(source, 0)
    assert len(limiter) == SOURCES_MAX
    assert not limiter.allow(SOURCES_MAX + 499, 0)
