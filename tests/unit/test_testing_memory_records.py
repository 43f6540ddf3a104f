"""Mutable records of the in-memory network follow the rules of real nodes."""

import pytest

from peerchat.net import (
    DhtUnreachable,
    LocalProtocolError,
    PeerRefused,
    SeqReused,
    SeqTooLow,
    hash_topic,
)
from peerchat.net.hyperdht.mutable import sign_mutable
from peerchat.testing.memory_network import MemoryNetwork


async def test_a_record_put_by_one_node_is_got_by_another():
    network = MemoryNetwork()
    owner, reader = network.node(), network.node()
    keys = owner.default_key_pair
    assert await reader.mutable_get(keys.public_key) is None
    result = await owner.mutable_put(keys, b"first", 1)
    assert (result.seq, result.stored, result.refused) == (1, 1, 0)
    record = await reader.mutable_get(keys.public_key)
    assert (record.seq, record.value) == (1, b"first")
    assert record.signature == result.signature
    assert record.is_signed_by(keys.public_key)
    assert await reader.mutable_get(keys.public_key, seq=2) is None
    await owner.mutable_put(keys, b"second", 2)
    record = await reader.mutable_get(keys.public_key, 2, latest=False)
    assert record.value == b"second"


async def test_refusals_are_those_of_real_nodes():
    dht = MemoryNetwork().node()
    keys = dht.default_key_pair
    await dht.mutable_put(keys, b"value", 5)
    await dht.mutable_put(keys, b"value", 5)
    with pytest.raises(SeqReused):
        await dht.mutable_put(keys, b"other", 5)
    with pytest.raises(SeqTooLow):
        await dht.mutable_put(keys, b"value", 4)
    with pytest.raises(LocalProtocolError):
        await dht.mutable_put(keys, bytes(1001), 6)
    assert (await dht.mutable_get(keys.public_key)).seq == 5


async def test_anybody_keeps_signed_versions_and_values_alive():
    network = MemoryNetwork()
    owner, member = network.node(), network.node()
    keys = owner.default_key_pair
    record = sign_mutable(keys, b"value", 2)
    await member.mutable_put_signed(keys.public_key, record)
    assert await owner.mutable_get(keys.public_key) == record
    with pytest.raises(LocalProtocolError):
        await member.mutable_put_signed(member.default_key_pair.public_key, record)
    target = await owner.immutable_put(b"more")
    assert await member.immutable_get(target) == b"more"
    assert await member.immutable_get(hash_topic(b"x")) is None


async def test_a_server_may_decline_a_key():
    network = MemoryNetwork()
    server, client, other = (network.node() for _ in range(3))
    declined = client.default_key_pair.public_key
    listening = server.create_server(
        lambda connection: None, firewall=lambda key, _payload: key == declined
    )
    await listening.listen(server.default_key_pair)
    with pytest.raises(PeerRefused):
        await client.connect(server.default_key_pair.public_key)
    connection = await other.connect(server.default_key_pair.public_key)
    connection.destroy()


async def test_a_node_that_is_cut_off_neither_puts_nor_gets():
    dht = MemoryNetwork().node()
    dht.cut_off()
    with pytest.raises(DhtUnreachable):
        await dht.mutable_put(dht.default_key_pair, b"value")
    with pytest.raises(DhtUnreachable):
        await dht.mutable_get(dht.default_key_pair.public_key)
