"""Queries on a simulated network, in virtual time."""

import asyncio
from collections import Counter

import pytest

from peerchat.net.dht.messages import (
    ResponseMessage,
    decode_untrusted,
    encode_response,
    node_id,
)
from peerchat.net.dht.query import NODES_MAX, QUERY_TIME_MAX_S
from peerchat.net.dht.table import K, key_of
from peerchat.net.errors import DhtUnreachable, NetError, RequestTimeout
from peerchat.net.identity import Address, Target
from peerchat.testing.network import SimNetwork

from .test_dht_node import BOOTSTRAP, first_node, join, virtual

TARGET = Target(bytes(range(32)))
STORE = 3


class Store:
    """Handles one command: store with a token, get without."""

    def __init__(self):
        self.values = {}

    def __call__(self, request):
        if request.command != STORE:
            return False
        if request.has_valid_token:
            self.values[request.target] = request.value
        request.reply(self.values.get(request.target))
        return True


async def make_network(network, count):
    """A first node and others, each with a store; gives nodes by id, and stores."""
    stores = [Store() for _ in range(count)]
    nodes = [await first_node(network, on_request=stores[0])]
    for index, store in enumerate(stores[1:], 1):
        nodes.append(await join(network, f"10.0.1.{index}", on_request=store))
    return nodes, stores


def closest_ids(nodes, target, count=K):
    ids = [node.id for node in nodes if node.id is not None]
    return sorted(ids, key=lambda one: key_of(one) ^ key_of(target))[:count]


@virtual
async def test_a_query_finds_the_k_closest_in_order():
    nodes, _ = await make_network(SimNetwork(3), 40)
    *others, asking = nodes
    replies = await asking.find_node(TARGET).finished()
    assert [reply.id for reply in replies] == closest_ids(others, TARGET)


@virtual
async def test_commit_stores_at_the_k_closest_and_nowhere_else():
    network = SimNetwork(4)
    nodes, stores = await make_network(network, 30)
    asking = await join(network, "10.0.2.1", ephemeral=True)
    query = asking.query(STORE, TARGET, b"value", commit=True)
    await query.finished()
    assert query.committed == K
    holders = {n.id for n, s in zip(nodes, stores, strict=True) if s.values}
    assert holders == set(closest_ids(nodes, TARGET))
    found = [reply.value async for reply in asking.query(STORE, TARGET)]
    assert found.count(b"value") == K


@virtual
async def test_a_commit_function_gets_each_reply_and_some_may_fail():
    nodes, _ = await make_network(SimNetwork(4), 5)
    asked = []

    async def commit(reply):
        asked.append(reply)
        if len(asked) % 2:
            raise RequestTimeout("gone meanwhile")

    query = nodes[0].query(STORE, TARGET, commit=commit)
    await query.finished()
    assert len(asked) == 4
    assert all(reply.token is not None for reply in asked)
    assert query.committed == 2


@virtual
async def test_a_commit_that_fails_everywhere_is_an_error():
    nodes, _ = await make_network(SimNetwork(4), 3)

    async def commit(reply):
        raise NetError("full")

    with pytest.raises(NetError, match="full"):
        await nodes[0].query(STORE, TARGET, commit=commit).finished()


@virtual
async def test_with_nobody_else_a_query_is_empty_and_a_commit_an_error():
    node = await first_node(SimNetwork(1))
    assert await node.find_node(TARGET).finished() == []
    with pytest.raises(DhtUnreachable):
        await node.query(STORE, TARGET, commit=True).finished()


@virtual
async def test_nobody_answering_any_more_is_an_error():
    network = SimNetwork(1)
    await first_node(network)
    node = await join(network, "10.0.0.2")
    network.take_down(BOOTSTRAP.host)
    with pytest.raises(DhtUnreachable):
        await node.query(STORE, TARGET).finished()
    assert node.statistics().queries_active == 0


@virtual
async def test_a_table_of_dead_nodes_falls_back_to_the_bootstrap_node():
    network = SimNetwork(1)
    nodes, _ = await make_network(network, 45)
    asking = nodes.pop()
    for node in nodes[1:]:
        network.take_down(node.address.host)
    entry = asking.table.get(node_id(BOOTSTRAP))
    if entry is not None:
        asking.table.remove(entry)
    assert len(asking.table) >= K
    replies = await asking.find_node(TARGET).finished()
    assert [reply.id for reply in replies] == [node_id(BOOTSTRAP)]


@virtual
async def test_leaving_early_stops_the_query():
    network = SimNetwork(2)
    nodes, stores = await make_network(network, 30)
    asking = nodes[-1]
    async with asking.query(STORE, TARGET, b"v", commit=True) as query:
        async for _ in query:
            break
    assert asking.statistics().requests_active == 0
    assert asking.statistics().queries_active == 0
    await asyncio.sleep(10)
    assert not any(store.values for store in stores)
    with pytest.raises(StopAsyncIteration):
        await anext(query)


@virtual
async def test_a_cancelled_task_stops_its_query():
    network = SimNetwork(2)
    nodes, _ = await make_network(network, 10)
    for node in nodes[:-1]:
        network.take_down(node.address.host)
    asking = nodes[-1]
    task = asyncio.ensure_future(asking.find_node(TARGET).finished())
    await asyncio.sleep(0.5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert asking.statistics().requests_active == 0


@virtual
async def test_given_nodes_are_asked_and_no_others_when_so_said():
    nodes, _ = await make_network(SimNetwork(2), 30)
    asking = nodes[-1]
    given = [node.public_address for node in nodes[3:6]]
    query = asking.query(STORE, TARGET, nodes=given, only_given_nodes=True)
    replies = [reply async for reply in query]
    assert {reply.from_address for reply in replies} == set(given)
    wide = [r async for r in asking.query(STORE, TARGET, nodes=given)]
    assert [r.from_address for r in wide[:3]] != []
    assert len(wide) > 3


@virtual
async def test_slow_nodes_do_not_hold_a_full_result_up():
    network = SimNetwork(5)
    nodes, _ = await make_network(network, 60)
    asking = nodes[-1]
    dead = [node for node in nodes[1:-1] if node.id in closest_ids(nodes, TARGET, 5)]
    for node in dead:
        network.take_down(node.address.host)
    started = asyncio.get_running_loop().time()
    replies = await asking.find_node(TARGET).finished()
    alive = [node for node in nodes[:-1] if node not in dead]
    assert [reply.id for reply in replies] == closest_ids(alive, TARGET)
    # Well before the 6 s after which the dead are given up.
    assert asyncio.get_running_loop().time() - started < 3


@virtual
async def test_nodes_that_named_a_dead_one_are_told():
    network = SimNetwork(5)
    nodes, _ = await make_network(network, 4)
    asking = nodes[-1]
    gone = nodes[2]
    network.take_down(gone.address.host)
    await asyncio.sleep(5)
    await asking.find_node(gone.id).finished()
    assert asking.statistics().commands.down_hint > 0
    await asyncio.sleep(6)
    assert nodes[0].table.get(gone.table.id) is None
    assert nodes[1].table.get(gone.table.id) is None


class LyingNetwork(SimNetwork):
    """Every host of 11.0.0.0/8 answers, and names sixty others of it."""

    named = 0

    def transmit(self, data, source, destination):
        if not destination.host.startswith("11."):
            super().transmit(data, source, destination)
            return
        request = decode_untrusted(data)
        numbers = range(self.named, self.named + 60)
        self.named += 60
        closer = tuple(
            Address(f"11.{n >> 16}.{n >> 8 & 255}.{n & 255}", 1) for n in numbers
        )
        answer = ResponseMessage(request.tid, source, closer_nodes=closer)
        super().transmit(encode_response(answer), destination, source)


@virtual
async def test_nodes_that_make_others_up_do_not_keep_a_query_going():
    network = LyingNetwork(5)
    node = await first_node(network)
    query = node.query(STORE, TARGET, nodes=[Address("11.0.0.0", 1)])
    await query.finished()
    assert query.responses == NODES_MAX


@virtual
async def test_a_query_ends_in_time_whatever_it_is_told(monkeypatch):
    monkeypatch.setattr(LyingNetwork, "transmit", slow_lies(LyingNetwork.transmit))
    network = LyingNetwork(5)
    node = await first_node(network)
    query = node.query(STORE, TARGET, nodes=[Address("11.0.0.0", 1)])
    started = asyncio.get_running_loop().time()
    await query.finished()
    assert query.responses
    elapsed_s = asyncio.get_running_loop().time() - started
    assert elapsed_s == pytest.approx(QUERY_TIME_MAX_S, abs=1)


def slow_lies(transmit):
    """Each liar answers its fifth try."""
    tries = Counter()

    def transmit_late(self, data, source, destination):
        if destination.host.startswith("11."):
            tries[destination] += 1
            if tries[destination] < 5:
                return
        transmit(self, data, source, destination)

    return transmit_late
