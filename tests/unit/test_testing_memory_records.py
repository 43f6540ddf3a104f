"""Mutable records of the in-memory network follow the rules of real nodes."""

import pytest

from peerchat.net import DhtUnreachable, LocalProtocolError, SeqReused, SeqTooLow
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


async def test_a_node_that_is_cut_off_neither_puts_nor_gets():
    dht = MemoryNetwork().node()
    dht.cut_off()
    with pytest.raises(DhtUnreachable):
        await dht.mutable_put(dht.default_key_pair, b"value")
    with pytest.raises(DhtUnreachable):
        await dht.mutable_get(dht.default_key_pair.public_key)
