"""Nodes among each other on a simulated network, in virtual time."""

import asyncio
import functools

import pytest

from peerchat.net.dht.bootstrap import KEPT_INCOMPLETE_S
from peerchat.net.dht.health import Health
from peerchat.net.dht.messages import (
    Command,
    RequestMessage,
    ResponseMessage,
    decode_untrusted,
    encode_request,
    encode_response,
    node_id,
)
from peerchat.net.dht.node import DhtNode
from peerchat.net.errors import DhtUnreachable, RequestTimeout
from peerchat.net.identity import Address, Target
from peerchat.testing.loop import run_virtual
from peerchat.testing.network import Link, SimNetwork

TARGET = Target(bytes(range(32)))
BOOTSTRAP = Address("10.0.0.1", 49737)


def virtual(test):
    """Run a coroutine test on a loop of its own in virtual time."""

    @functools.wraps(test)
    def run(**arguments):
        return run_virtual(lambda: test(**arguments))

    return run


async def first_node(network, **options):
    node = DhtNode(
        network.host(BOOTSTRAP.host),
        host=BOOTSTRAP.host,
        port=BOOTSTRAP.port,
        ephemeral=False,
        firewalled=False,
        **options,
    )
    await node.start()
    return node


async def join(network, ip, *, env=None, **options):
    options = {"ephemeral": False, "bootstrap": [BOOTSTRAP], **options}
    node = DhtNode(env or network.host(ip), **options)
    await node.start()
    return node


async def raw_socket(network, ip, port=0):
    """A socket that speaks for itself; gives the socket and its inbox."""
    inbox = asyncio.Queue()

    def receive(_, batch):
        for data, sender in batch:
            inbox.put_nowait((data, sender))

    return await network.host(ip).datagrams.bind("", port, receive), inbox


@virtual
async def test_nodes_find_their_address_and_become_persistent():
    network = SimNetwork(1)
    first = await first_node(network)
    assert first.id == node_id(BOOTSTRAP)
    node = await join(network, "10.0.0.2")
    assert not node.is_firewalled
    assert node.public_address == Address("10.0.0.2", node.address.port)
    assert node.id == node_id(node.public_address)
    assert first.table.get(node.id) is not None
    assert node.table.get(first.id) is not None


@virtual
async def test_an_ephemeral_node_shows_no_id_and_is_in_no_table():
    network = SimNetwork(1)
    first = await first_node(network)
    node = await join(network, "10.0.0.2", ephemeral=True)
    await asyncio.sleep(3 * 3600)
    assert node.id is None
    assert len(first.table) == 0
    assert len(node.table) == 1


@virtual
async def test_an_adaptive_node_becomes_persistent_after_stable_time():
    network = SimNetwork(1)
    first = await first_node(network)
    changes = []
    node = DhtNode(
        network.host("10.0.0.2"),
        bootstrap=[BOOTSTRAP],
        on_network_update=lambda: changes.append(node.is_ephemeral),
    )
    await node.start()
    assert node.is_ephemeral
    await asyncio.sleep(15 * 60)
    assert node.is_ephemeral
    await asyncio.sleep(10 * 60)
    assert not node.is_ephemeral
    assert changes[-1] is False
    await asyncio.sleep(60)
    assert first.table.get(node.id) is not None


class FirewalledSocket:
    """Remembers who was written to."""

    def __init__(self):
        self.written_to = set()

    def send(self, data, to):
        self.written_to.add(to)
        self.socket.send(data, to)

    def __getattr__(self, name):
        return getattr(self.socket, name)


class FirewalledDatagrams:
    """Lets in only who was written to, as a router's firewall does."""

    def __init__(self, env):
        self._datagrams = env.datagrams

    async def bind(self, host, port, receiver):
        outer = FirewalledSocket()

        def receive(_, batch):
            receiver(outer, [one for one in batch if one[1] in outer.written_to])

        outer.socket = await self._datagrams.bind(host, port, receive)
        return outer


@virtual
async def test_a_firewalled_node_notices_and_stays_ephemeral():
    network = SimNetwork(1)
    first = await first_node(network)
    env = network.host("10.0.0.2")
    node = await join(network, "10.0.0.2", env=env, datagrams=FirewalledDatagrams(env))
    assert node.is_firewalled
    assert node.is_ephemeral
    assert node.socket is node.client_socket
    assert node.public_address is None
    assert node.nat_host == "10.0.0.2"
    reply = await node.ping(BOOTSTRAP)
    assert reply.to.port == node.client_socket.address.port
    assert len(first.table) == 0


@virtual
async def test_nobody_answering_is_an_error_that_names_who_was_asked():
    network = SimNetwork(1)
    node = DhtNode(network.host("10.0.0.2"), bootstrap=["10.0.0.1:49737"])
    with pytest.raises(DhtUnreachable, match=r"10\.0\.0\.1:49737"):
        await node.start()
    assert node.is_closed
    with pytest.raises(DhtUnreachable):
        await node.ping(BOOTSTRAP)


@virtual
async def test_a_host_name_that_nobody_knows_is_the_same_error():
    async def resolve(host):
        raise OSError(f"unknown host {host}")

    network = SimNetwork(1)
    env = network.host("10.0.0.2")
    node = DhtNode(env, bootstrap=["no.example:49737"], resolve=resolve)
    with pytest.raises(DhtUnreachable, match=r"no\.example:49737"):
        await node.start()


@virtual
async def test_the_suggested_ip_is_tried_before_the_name_is_looked_up():
    names = []

    async def resolve(host):
        names.append(host)
        return BOOTSTRAP.host

    network = SimNetwork(1)
    await first_node(network)
    good, bad = "10.0.0.1@n.example:49737", "10.0.0.9@n.example:49737"
    await join(network, "10.0.0.2", bootstrap=[good], resolve=resolve)
    assert names == []
    await join(network, "10.0.0.3", bootstrap=[bad], resolve=resolve)
    assert names == ["n.example"]


@virtual
async def test_a_name_that_nobody_knows_is_not_looked_up_for_every_query():
    names = []

    async def resolve(host):
        names.append(host)
        raise OSError(f"unknown host {host}")

    network = SimNetwork(1)
    await first_node(network)
    bootstrap = ["10.0.0.1:49737", "gone.example:49737"]
    node = await join(network, "10.0.0.2", bootstrap=bootstrap, resolve=resolve)
    for _ in range(20):
        await node.find_node(node.table.id).finished()
    assert len(names) == 1
    await asyncio.sleep(KEPT_INCOMPLETE_S)
    await node.find_node(node.table.id).finished()
    assert len(names) == 2


@virtual
async def test_known_nodes_replace_bootstrap_nodes_at_a_restart():
    network = SimNetwork(1)
    first = await first_node(network)
    peer = await join(network, "10.0.0.3")
    node = await join(network, "10.0.0.2")
    known = node.nodes()
    assert set(known) == {BOOTSTRAP, peer.public_address}
    await node.close()
    await first.close()
    again = await join(network, "10.0.0.2", nodes=known)
    assert again.table.get(peer.id) is not None


@virtual
async def test_requests_above_reach_the_handler_with_token_and_target():
    network = SimNetwork(1)
    seen = []

    def on_request(request):
        seen.append(request)
        request.reply(b"stored" if request.has_valid_token else b"ask again")
        return True

    await first_node(network, on_request=on_request)
    node = await join(network, "10.0.0.2")
    first = await node.request(BOOTSTRAP, 3, target=TARGET, value=b"v")
    assert (first.value, first.id) == (b"ask again", node_id(BOOTSTRAP))
    assert first.closer_nodes == (node.public_address,)
    second = await node.request(BOOTSTRAP, 4, target=TARGET, token=first.token)
    assert second.value == b"stored"
    assert (seen[0].command, seen[0].target, seen[0].value) == (3, TARGET, b"v")
    assert seen[1].token == first.token
    assert seen[1].id == node.id
    assert seen[1].to == BOOTSTRAP


@virtual
async def test_tokens_of_others_and_old_ones_are_refused_with_a_fresh_one():
    network = SimNetwork(1)
    await first_node(network, on_request=lambda r: bool(r.reply(None)) or True)
    a = await join(network, "10.0.0.2")
    b = await join(network, "10.0.0.3")
    token = (await a.request(BOOTSTRAP, 3)).token
    stolen = await b.request(BOOTSTRAP, 3, token=token)
    assert stolen.error == 2
    assert stolen.token not in (None, token)
    assert (await b.request(BOOTSTRAP, 3, token=stolen.token)).error == 0
    await asyncio.sleep(15.1)
    assert (await a.request(BOOTSTRAP, 3, token=token)).error == 2


@virtual
async def test_commands_that_nobody_knows_are_answered_so():
    network = SimNetwork(1)
    await first_node(network)
    node = await join(network, "10.0.0.2")
    assert (await node.request(BOOTSTRAP, 99)).error == 1
    assert (await node.request(BOOTSTRAP, 99, internal=True)).error == 1


@virtual
async def test_a_request_is_tried_four_times_and_then_given_up():
    network = SimNetwork(1)
    node = await first_node(network)
    socket, inbox = await raw_socket(network, "10.0.0.9")
    started = asyncio.get_running_loop().time()
    with pytest.raises(RequestTimeout):
        await node.ping(socket.address)
    assert inbox.qsize() == 4
    assert asyncio.get_running_loop().time() - started == pytest.approx(4, abs=0.01)
    assert node.statistics().requests_active == 0


@virtual
async def test_an_answer_counts_only_from_whom_was_asked():
    network = SimNetwork(1)
    node = await first_node(network)
    asked, inbox = await raw_socket(network, "10.0.0.8")
    liar, _ = await raw_socket(network, "10.0.0.9")
    pending = asyncio.ensure_future(node.request(asked.address, 3))
    data, sender = await inbox.get()
    tid = decode_untrusted(data).tid
    liar.send(encode_response(ResponseMessage(tid, sender, value=b"lie")), sender)
    await asyncio.sleep(0.5)
    assert not pending.done()
    assert node.statistics().unmatched == 1
    asked.send(encode_response(ResponseMessage(tid, sender, value=b"truth")), sender)
    assert (await pending).value == b"truth"


@virtual
async def test_a_relayed_request_is_answered_by_another_node_when_asked_for():
    network = SimNetwork(1)

    def relay(request):
        request.relay(b"on", Address("10.0.0.3", 7))
        return True

    def answer(request):
        assert (request.value, request.token) == (b"on", None)
        assert request.from_address == BOOTSTRAP
        request.reply(b"done", to=node.public_address, token=False, closer_nodes=False)
        return True

    await first_node(network, on_request=relay)
    await join(network, "10.0.0.3", port=7, on_request=answer)
    node = await join(network, "10.0.0.2")
    response = await node.request(BOOTSTRAP, 0, target=TARGET, any_sender=True)
    assert response.value == b"done"
    assert response.from_address == Address("10.0.0.3", 7)
    with pytest.raises(RequestTimeout):
        await node.request(BOOTSTRAP, 0, target=TARGET)


@virtual
async def test_an_id_that_its_address_does_not_give_is_not_believed():
    network = SimNetwork(1)
    node = await first_node(network)
    socket, inbox = await raw_socket(network, "10.0.0.9")
    for claimed in (bytes(32), node_id(socket.address)):
        message = RequestMessage(1, BOOTSTRAP, Command.PING, True, id=claimed)
        socket.send(encode_request(message), BOOTSTRAP)
        await inbox.get()
        assert len(node.table) == (claimed != bytes(32))


@virtual
async def test_a_delayed_ping_is_answered_late_and_not_after_closing():
    network = SimNetwork(1)
    first = await first_node(network)
    node = await join(network, "10.0.0.2")
    response = await node.delayed_ping(BOOTSTRAP, 3.0)
    assert response.rtt_s == pytest.approx(3.0, abs=0.1)
    with pytest.raises(RequestTimeout):
        await node.delayed_ping(BOOTSTRAP, 10.001)
    pending = asyncio.ensure_future(node.delayed_ping(BOOTSTRAP, 5))
    await asyncio.sleep(1)
    await first.close()
    with pytest.raises(RequestTimeout):
        await pending


@virtual
async def test_a_down_hint_removes_a_node_that_is_gone_and_no_other():
    network = SimNetwork(1)
    first = await first_node(network)
    alive = await join(network, "10.0.0.2")
    gone = await join(network, "10.0.0.3")
    gone_id = gone.id
    network.take_down("10.0.0.3")
    await asyncio.sleep(6)
    alive.send_down_hint(BOOTSTRAP, gone.public_address)
    first.send_down_hint(BOOTSTRAP, alive.public_address)
    await asyncio.sleep(6)
    assert first.table.get(gone_id) is None
    assert first.table.get(alive.id) is not None


@virtual
async def test_a_dead_node_leaves_the_tables_by_itself():
    network = SimNetwork(1)
    first = await first_node(network)
    peers = [await join(network, f"10.0.1.{n}") for n in range(1, 6)]
    gone = peers.pop()
    network.take_down("10.0.1.5")
    await asyncio.sleep(15 * 60)
    for node in (first, *peers):
        assert node.table.get(gone.table.id) is None
        assert len(node.table) == 4


@virtual
async def test_silence_is_offline_and_answers_bring_it_back():
    network = SimNetwork(1)
    await first_node(network)
    node = await join(network, "10.0.0.2")
    await asyncio.sleep(60)
    assert node.health is Health.ONLINE

    async def ask_until(health):
        while node.health is not health:
            asks = [node.ping(BOOTSTRAP, retries=0) for _ in range(8)]
            await asyncio.gather(*asks, return_exceptions=True)

    network.take_down("10.0.0.2")
    async with asyncio.timeout(60):
        await ask_until(Health.OFFLINE)
    network.bring_up("10.0.0.2")
    async with asyncio.timeout(60):
        await ask_until(Health.ONLINE)


class SleepyClock:
    """The loop's clock, on which the wall clock can be put forward."""

    def __init__(self, clock):
        self._clock = clock
        self.slept_ms = 0

    def __getattr__(self, name):
        return getattr(self._clock, name)

    def unix_ms(self):
        return self._clock.unix_ms() + self.slept_ms


@virtual
async def test_waking_up_makes_an_adaptive_node_ephemeral_and_checks_everyone():
    network = SimNetwork(1)
    await first_node(network)
    other = await join(network, "10.0.0.3")
    env = network.host("10.0.0.2")
    clock = SleepyClock(env.clock)
    env = type(env)(clock, env.random, env.datagrams)
    node = await join(network, "10.0.0.2", env=env, ephemeral=None)
    await asyncio.sleep(25 * 60)
    assert not node.is_ephemeral
    network.take_down("10.0.0.3")
    clock.slept_ms = 3600_000
    await asyncio.sleep(5)
    assert node.is_ephemeral
    await asyncio.sleep(25)
    assert node.table.get(other.id) is None
    assert len(node.table) == 1


@virtual
async def test_a_first_node_on_all_addresses_learns_its_own_from_requests():
    network = SimNetwork(1)
    first = DhtNode(
        network.host("10.0.0.1"), port=49737, ephemeral=False, firewalled=False
    )
    await first.start()
    assert first.id is None
    node = await join(network, "10.0.0.2")
    assert first.public_address == BOOTSTRAP
    assert first.id == node_id(BOOTSTRAP)
    assert (await node.ping(BOOTSTRAP)).id == first.id


@virtual
async def test_an_asked_port_is_bound_or_refused_unless_any_will_do():
    network = SimNetwork(1)
    await first_node(network)
    env = network.host(BOOTSTRAP.host)
    with pytest.raises(OSError, match="taken"):
        await DhtNode(env, port=BOOTSTRAP.port).start()
    node = DhtNode(env, port=BOOTSTRAP.port, any_port=True)
    await node.start()
    assert node.address.port == BOOTSTRAP.port + 1


@virtual
async def test_closing_fails_what_is_under_way_and_leaves_nothing():
    network = SimNetwork(1)
    first = await first_node(network)
    node = await join(network, "10.0.0.2")
    address = node.address
    pending = [
        asyncio.ensure_future(node.ping(Address("10.0.0.99", 1))),
        asyncio.ensure_future(node.find_node(TARGET).finished()),
    ]
    await asyncio.sleep(0)
    await node.close()
    await node.close()
    await first.close()
    outcomes = await asyncio.gather(*pending, return_exceptions=True)
    assert all(isinstance(outcome, DhtUnreachable) for outcome in outcomes)
    socket, _ = await raw_socket(network, "10.0.0.2", address.port)
    sent = network.statistics.sent
    await asyncio.sleep(1)
    assert network.statistics.sent == sent
    assert asyncio.all_tasks() == {asyncio.current_task()}
    socket.close()


@virtual
async def test_a_flood_of_requests_waits_for_room_in_the_window():
    network = SimNetwork(1, Link(0.01, 0.01))
    await first_node(network)
    node = await join(network, "10.0.0.2")
    silent, inbox = await raw_socket(network, "10.0.0.9")
    asks = [
        asyncio.ensure_future(node.ping(silent.address, retries=0)) for _ in range(300)
    ]
    await asyncio.sleep(0.5)
    assert inbox.qsize() <= 160
    forced = node.request(silent.address, 5, retries=0, force=True)
    with pytest.raises(RequestTimeout):
        await forced
    await asyncio.gather(*asks, return_exceptions=True)
    assert inbox.qsize() == 301
