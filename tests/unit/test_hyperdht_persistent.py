"""What a persistent node stores, for whom, and for how long."""

import pytest

from peerchat.net.crypto.primitives import KeyPair, blake2b_256, hash_target
from peerchat.net.hyperdht.constants import PEERS_MAX, Command
from peerchat.net.hyperdht.limits import SIGNED_BURST
from peerchat.net.hyperdht.messages import (
    Announce,
    PeerRecord,
    decode_lookup_reply_untrusted,
    decode_peer_untrusted,
)
from peerchat.net.hyperdht.persistent import BUMP_DRIFT_MAX_MS, Persistent
from peerchat.net.hyperdht.router import Router
from peerchat.net.hyperdht.signatures import signed_announce
from peerchat.net.identity import Address, NodeId, Target
from tests.unit.hyperdht_requests import (
    STRANGER,
    TOKEN,
    ManualClock,
    Outbox,
    incoming,
    manual_env,
)

NODE = NodeId(b"N" * 32)
TOPIC = Target(b"t" * 32)
KEYS = KeyPair.from_seed(b"1" * 32)
OTHER = KeyPair.from_seed(b"2" * 32)
RELAYS = tuple(Address(f"10.0.1.{index}", 1) for index in range(5))
SOURCE = Address("10.0.0.7", 77)


class World:
    """One node's stores, asked the way the network asks."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.router = Router(self.clock)
        self.outbox = Outbox()
        self.stores = Persistent(manual_env(self.clock), self.router)

    def announce(
        self,
        key_pair=KEYS,
        target=TOPIC,
        *,
        token=TOKEN,
        signed_token=TOKEN,
        node=NODE,
        source=SOURCE,
        **fields,
    ) -> bool:
        """Whether the announcement was acknowledged."""
        fields.setdefault("peer", PeerRecord(key_pair.public_key))
        item = signed_announce(target, signed_token, node, key_pair, Announce(**fields))
        request = incoming(
            self.outbox,
            Command.ANNOUNCE,
            target,
            item.encode(),
            token=token,
            source=source,
        )
        self.stores.receive_announce(request, NODE)
        return self._is_acknowledged()

    def unannounce(self, key_pair=KEYS, target=TOPIC, *, is_removal=True) -> bool:
        item = Announce(PeerRecord(key_pair.public_key))
        item = signed_announce(
            target, TOKEN, NODE, key_pair, item, is_removal=is_removal
        )
        request = incoming(
            self.outbox, Command.UNANNOUNCE, target, item.encode(), token=TOKEN
        )
        self.stores.receive_unannounce(request, NODE)
        return self._is_acknowledged()

    def send_announce(self, value, token=TOKEN) -> bool:
        request = incoming(self.outbox, Command.ANNOUNCE, TOPIC, value, token=token)
        self.stores.receive_announce(request, NODE)
        return self._is_acknowledged()

    def _is_acknowledged(self) -> bool:
        if not self.outbox.sent:
            return False
        reply = self.outbox.take().message
        assert (reply.value, reply.error, reply.token) == (None, 0, None)
        return True

    def lookup(self, target=TOPIC):
        request = incoming(self.outbox, Command.LOOKUP, target)
        self.stores.receive_lookup(request)
        reply = self.outbox.take().message
        assert reply.token == TOKEN
        assert reply.closer_nodes == self.outbox.closer
        if reply.value is None:
            return None
        return decode_lookup_reply_untrusted(reply.value)

    def find(self, target):
        self.stores.receive_find_peer(incoming(self.outbox, Command.FIND_PEER, target))
        value = self.outbox.take().message.value
        return None if value is None else decode_peer_untrusted(value)


@pytest.fixture
def world():
    return World()


def test_what_was_announced_is_found_until_it_is_withdrawn(world):
    assert world.lookup() is None
    assert world.announce(peer=PeerRecord(KEYS.public_key, RELAYS[:2]))
    assert world.announce(OTHER)
    found = world.lookup()
    assert set(found.peers) == {
        PeerRecord(KEYS.public_key, RELAYS[:2]),
        PeerRecord(OTHER.public_key),
    }
    assert world.unannounce()
    assert world.lookup().peers == (PeerRecord(OTHER.public_key),)


def test_three_relay_addresses_are_kept(world):
    assert world.announce(peer=PeerRecord(KEYS.public_key, RELAYS))
    assert world.lookup().peers == (PeerRecord(KEYS.public_key, RELAYS[:3]),)


def test_announcing_again_replaces(world):
    world.announce(peer=PeerRecord(KEYS.public_key, RELAYS[:2]))
    world.announce(peer=PeerRecord(KEYS.public_key, RELAYS[2:3]))
    assert world.lookup().peers == (PeerRecord(KEYS.public_key, RELAYS[2:3]),)


def test_records_expire(world):
    world.announce()
    world.clock.now_s += 13 * 60
    assert world.lookup() is not None
    world.clock.now_s += 14 * 60
    assert world.lookup() is None


def test_a_reply_holds_twenty(world):
    for index in range(30):
        assert world.announce(KeyPair.from_seed(index.to_bytes(32, "big")))
    first, second = world.lookup().peers, world.lookup().peers
    assert len(set(first)) == len(set(second)) == PEERS_MAX
    assert set(first) != set(second)


def test_unsigned_and_wrongly_signed_announcements_are_ignored(world):
    assert not world.announce(signed_token=b"x" * 32)
    assert not world.announce(node=NodeId(b"x" * 32))
    assert not world.announce(token=None)
    assert not world.announce(peer=PeerRecord(OTHER.public_key))
    bare = Announce(PeerRecord(KEYS.public_key))
    for value in (None, b"", b"\xff\xff", bare.encode(), Announce().encode()):
        assert not world.send_announce(value)
    assert world.lookup() is None
    assert world.stores.counters.refused == 9


def test_only_the_owner_withdraws(world):
    world.announce()
    assert not world.unannounce(is_removal=False)
    item = signed_announce(
        TOPIC,
        TOKEN,
        NODE,
        OTHER,
        Announce(PeerRecord(KEYS.public_key)),
        is_removal=True,
    )
    request = incoming(
        world.outbox, Command.UNANNOUNCE, TOPIC, item.encode(), token=TOKEN
    )
    world.stores.receive_unannounce(request, NODE)
    assert world.outbox.sent == []
    assert world.lookup() is not None


def test_who_announces_its_own_key_makes_us_its_relay(world):
    target = hash_target(KEYS.public_key)
    assert world.find(target) is None
    assert world.announce(target=target)
    assert world.find(target) == PeerRecord(KEYS.public_key)
    assert world.router.relay_of(target) == SOURCE
    assert world.lookup(target).peers == (PeerRecord(KEYS.public_key),)
    assert len(world.router) == 1
    assert world.stores.record_count == 0

    moved = Address("10.0.0.8", 88)
    assert world.announce(target=target, source=moved)
    assert world.router.relay_of(target) == moved
    assert world.unannounce(target=target)
    assert world.find(target) is None


def test_nobody_else_becomes_the_relay_of_a_key(world):
    target = hash_target(KEYS.public_key)
    assert world.announce(OTHER, target)
    assert world.find(target) is None
    assert world.router.relay_of(target) is None


@pytest.mark.parametrize("is_own_key", [False, True])
def test_a_secret_renews_a_record_without_a_signature(world, is_own_key):
    target = hash_target(KEYS.public_key) if is_own_key else TOPIC
    third = b"3" * 32
    second = blake2b_256(third)
    assert world.announce(target=target, refresh=blake2b_256(second))
    for secret in (second, third):
        world.clock.now_s += 13 * 60
        assert world.send_announce(Announce(refresh=secret).encode())
    world.clock.now_s += 13 * 60
    assert world.lookup(target).peers == (PeerRecord(KEYS.public_key),)
    assert not world.send_announce(Announce(refresh=second).encode())
    assert not world.send_announce(Announce(refresh=b"?" * 32).encode())


def test_bumps_only_grow_and_not_beyond_now(world):
    now = world.clock.unix_ms()
    for bump, expected in [
        (5, 5),
        (3, 5),
        (now, now),
        (now + BUMP_DRIFT_MAX_MS + 1, now),
        (now + BUMP_DRIFT_MAX_MS, now + BUMP_DRIFT_MAX_MS),
    ]:
        assert world.announce(bump=bump)
        assert world.lookup().bump == expected


def test_requests_without_a_target_are_dropped(world):
    for command in ("lookup", "find_peer"):
        receive = getattr(world.stores, f"receive_{command}")
        receive(incoming(world.outbox, Command.LOOKUP, None))
    assert world.outbox.sent == []


def test_one_host_cannot_make_a_node_verify_without_end(world):
    for _ in range(int(SIGNED_BURST)):
        world.announce(signed_token=b"x" * 32, source=STRANGER)
    assert not world.announce(source=STRANGER)
    assert not world.unannounce()
    assert world.announce(source=SOURCE)
    world.clock.now_s += 1
    assert world.unannounce()
