"""What a persistent node keeps of mutable and immutable records, and what not."""

import pytest

from peerchat.net.crypto.primitives import KeyPair, hash_target
from peerchat.net.hyperdht import record_store
from peerchat.net.hyperdht.constants import Command, PutError
from peerchat.net.hyperdht.mutable import (
    MutablePut,
    MutableRecord,
    decode_mutable_record_untrusted,
    sign_mutable,
)
from peerchat.net.hyperdht.record_store import KEPT_BYTES_MAX, RecordStore
from tests.unit.hyperdht_requests import TOKEN, ManualClock, Outbox, incoming

KEYS = KeyPair.from_seed(b"1" * 32)
OTHER = KeyPair.from_seed(b"2" * 32)
OWN = hash_target(KEYS.public_key)
HOUR_S = 3600.0
SILENCE = object()


class World:
    """One node's records, asked the way the network asks."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.outbox = Outbox()
        self.store = RecordStore(self.clock)

    def ask(self, command, target, value=None, token=None):
        """The answer, or `SILENCE`."""
        assert self.store.receive(
            incoming(self.outbox, command, target, value, token=token)
        )
        if not self.outbox.sent:
            return SILENCE
        answer = self.outbox.take().message
        assert answer.closer_nodes == self.outbox.closer
        assert answer.token == (None if answer.error else TOKEN)
        return answer

    def send_put(self, value, target=OWN, token=TOKEN):
        """Its error code, or `SILENCE`."""
        answer = self.ask(Command.MUTABLE_PUT, target, value, token)
        return answer if answer is SILENCE else answer.error

    def put(self, value=b"value", seq=0, key_pair=KEYS, **options):
        record = sign_mutable(key_pair, value, seq)
        put = MutablePut(key_pair.public_key, record)
        return self.send_put(put.encode(), **options)

    def get(self, seq=b"\0", target=OWN):
        value = self.ask(Command.MUTABLE_GET, target, seq).value
        return None if value is None else decode_mutable_record_untrusted(value)

    def put_immutable(self, value, target=None, token=TOKEN):
        target = hash_target(value) if target is None else target
        answer = self.ask(Command.IMMUTABLE_PUT, target, value, token)
        return answer if answer is SILENCE else answer.error

    def get_immutable(self, value):
        return self.ask(Command.IMMUTABLE_GET, hash_target(value)).value


@pytest.fixture
def world():
    return World()


def test_a_mutable_record_is_kept_and_given_back(world):
    assert world.get() is None
    assert world.put(b"first", 1) == 0
    assert world.get() == sign_mutable(KEYS, b"first", 1)
    assert world.put(b"second", 2) == 0
    assert world.get() == sign_mutable(KEYS, b"second", 2)
    assert world.put(b"another's", 0, OTHER, target=hash_target(OTHER.public_key)) == 0
    assert world.get() == sign_mutable(KEYS, b"second", 2)
    assert len(world.store) == 2
    assert (world.store.counters.puts, world.store.counters.refused) == (3, 0)


def test_a_seq_never_falls_and_never_changes_its_value(world):
    assert world.put(b"value", 5) == 0
    assert world.put(b"value", 4) == PutError.SEQ_TOO_LOW == 17
    assert world.put(b"other", 5) == PutError.SEQ_REUSED == 16
    assert world.put(b"value", 5) == 0
    assert world.get() == sign_mutable(KEYS, b"value", 5)
    assert world.store.counters.refused == 2


def test_only_versions_from_the_seq_asked_for_are_given(world):
    world.put(seq=300)
    assert world.get(b"\xfd\x2c\x01") is not None
    assert world.get(b"\xfd\x2d\x01") is None


def test_only_the_owner_puts(world):
    forged = MutableRecord(1, b"value", sign_mutable(KEYS, b"value", 0).signature)
    good = MutablePut(KEYS.public_key, sign_mutable(KEYS, b"value", 0)).encode()
    stolen = MutablePut(OTHER.public_key, sign_mutable(KEYS, b"value", 0)).encode()
    assert world.send_put(MutablePut(KEYS.public_key, forged).encode()) is SILENCE
    assert world.send_put(stolen) is SILENCE
    assert world.send_put(stolen, hash_target(OTHER.public_key)) is SILENCE
    assert world.send_put(good, hash_target(OTHER.public_key)) is SILENCE
    assert world.get() is None
    assert world.store.counters.refused == 4
    assert world.send_put(good) == 0


def test_puts_that_are_not_whole_are_not_answered(world):
    good = MutablePut(KEYS.public_key, sign_mutable(KEYS, b"value", 0)).encode()
    for value, target, token in [
        (good, OWN, None),
        (good, None, TOKEN),
        (None, OWN, TOKEN),
        (b"", OWN, TOKEN),
        (good[:-1], OWN, TOKEN),
    ]:
        assert world.send_put(value, target, token) is SILENCE
    assert world.get() is None
    assert world.send_put(good + b"ignored") == 0
    assert world.get() == sign_mutable(KEYS, b"value", 0)


def test_gets_that_are_not_whole_are_not_answered(world):
    for command, target, value in [
        (Command.MUTABLE_GET, None, b"\0"),
        (Command.MUTABLE_GET, OWN, None),
        (Command.MUTABLE_GET, OWN, b""),
        (Command.MUTABLE_GET, OWN, b"\xff" * 9),
        (Command.IMMUTABLE_GET, None, None),
    ]:
        assert world.ask(command, target, value) is SILENCE


@pytest.mark.parametrize("value", [b"", b"value", bytes(KEPT_BYTES_MAX)])
def test_an_immutable_record_is_kept_under_its_hash(world, value):
    assert world.get_immutable(value) is None
    assert world.put_immutable(value) == 0
    assert world.get_immutable(value) == value
    assert world.put_immutable(value) == 0
    assert len(world.store) == 1


def test_immutable_puts_need_the_hash_and_a_token(world):
    assert world.put_immutable(b"value", target=OWN) is SILENCE
    assert world.put_immutable(b"value", token=None) is SILENCE
    assert world.ask(Command.IMMUTABLE_PUT, OWN, None, TOKEN) is SILENCE
    assert world.ask(Command.IMMUTABLE_PUT, None, b"value", TOKEN) is SILENCE
    assert len(world.store) == 0
    assert world.store.counters.refused == 4


def test_what_does_not_fit_an_answer_is_not_kept(world, monkeypatch):
    assert world.put_immutable(bytes(KEPT_BYTES_MAX + 1)) is SILENCE
    overhead = len(sign_mutable(KEYS, bytes(1000), 0).encode()) - 1000
    monkeypatch.setattr("peerchat.net.hyperdht.mutable.RECORD_VALUE_BYTES_MAX", 2000)
    longest = KEPT_BYTES_MAX - overhead
    assert world.put(bytes(longest + 1)) is SILENCE
    assert world.put(bytes(longest)) == 0


def test_untouched_records_live_for_about_two_days(world):
    world.put()
    world.put_immutable(b"value")
    world.clock.now_s += 31 * HOUR_S
    assert len(world.store) == 2
    world.clock.now_s += 34 * HOUR_S
    assert world.get() is None
    assert world.get_immutable(b"value") is None


def test_a_record_that_is_read_or_put_again_lives_on(world):
    for value in (b"read", b"put", b"neither"):
        world.put_immutable(value)
    world.put()
    for _ in range(10):
        world.clock.now_s += 30 * HOUR_S
        assert world.get_immutable(b"read") == b"read"
        assert world.put_immutable(b"put") == 0
        assert world.put() == 0
    assert world.get_immutable(b"put") == b"put"
    assert world.get() is not None
    assert world.get_immutable(b"neither") is None


def test_stores_are_bounded(monkeypatch):
    monkeypatch.setattr(record_store, "RECORD_STORE_SIZE_MAX", 10)
    world = World()
    for index in range(100):
        assert world.put_immutable(index.to_bytes(2, "big")) == 0
        assert len(world.store) <= 20
    assert world.get_immutable((99).to_bytes(2, "big")) is not None
    assert world.get_immutable((0).to_bytes(2, "big")) is None


def test_one_host_puts_only_so_much(monkeypatch):
    monkeypatch.setattr(record_store, "PUTS_BURST", 3.0)
    world = World()
    for seq in range(2):
        assert world.put(seq=seq) == 0
    assert world.put_immutable(b"value") == 0
    assert world.put(seq=3) is SILENCE
    assert world.put_immutable(b"other") is SILENCE
    assert world.get().seq == 1
    world.clock.now_s += 1
    assert world.put(seq=3) == 0


def test_other_commands_are_left_to_others(world):
    for command in (Command.LOOKUP, 10):
        assert not world.store.receive(incoming(world.outbox, command, OWN))
    assert world.outbox.sent == []
