"""Connecting and serving, with everything that can go wrong on the way."""

import asyncio
import gc
import weakref

import pytest

from peerchat.net import (
    ConnectFailed,
    ConnectionLost,
    DhtUnreachable,
    HyperDHT,
    LocalProtocolError,
    PeerNotFound,
    PeerRefused,
    PeerUnreachable,
    PublicKey,
    RequestTimeout,
    Server,
    hash_topic,
)
from peerchat.net.dht.messages import RequestMessage, encode_request
from peerchat.net.driver.endpoint import LINGER_S
from peerchat.net.hyperdht.connect import Connector, Route
from peerchat.net.hyperdht.constants import Command, Mode
from peerchat.net.hyperdht.handshake import NoiseWrap
from peerchat.net.hyperdht.messages import (
    Handshake,
    NoisePayload,
    UdxInfo,
    decode_handshake_untrusted,
)
from peerchat.net.hyperdht.server import HANDSHAKES_BURST
from peerchat.net.identity import Address
from peerchat.testing.network import Link
from tests.sim.hyperdht_world import BOOT_HOST, Accepting, keys, simulate, swap

SERVER = keys("server")
CLIENT = keys("client")
SIDES = {
    "default": {},
    "closed": {"is_closed": True},
    "open": {"firewalled": False},
}


async def served(world, firewall=None, **options):
    accepting = Accepting()
    dht = await world.add(**options)
    server = dht.create_server(accepting, firewall=firewall)
    await server.listen(SERVER)
    return dht, server, accepting


@pytest.mark.parametrize("client_side", SIDES)
@pytest.mark.parametrize("server_side", SIDES)
def test_connects_whatever_either_side_thinks_of_its_firewall(client_side, server_side):
    async def main(world):
        _, server, accepting = await served(world, **SIDES[server_side])
        dht = await world.add(**SIDES[client_side])
        for count in (1, 2):  # the second time by the remembered relays
            connection = await dht.connect(SERVER.public_key, key_pair=CLIENT)
            other = await accepting.next()
            assert connection.is_initiator
            assert not other.is_initiator
            assert connection.remote_public_key == SERVER.public_key
            assert other.remote_public_key == CLIENT.public_key
            assert connection.handshake_hash == other.handshake_hash
            await swap(connection, other)
            assert accepting.count == server.counters.accepted == count

    simulate(main)


@pytest.mark.parametrize("seed", range(5))
def test_connects_and_loses_no_byte_on_a_bad_network(seed):
    async def main(world):
        _, server, accepting = await served(world)
        for index in range(5):
            dht = await world.add(is_closed=bool(index % 2))
            connection = await dht.connect(SERVER.public_key)
            await swap(connection, await accepting.next(), 20_000)
        assert server.counters.accepted == 5

    simulate(main, seed, Link(loss=0.1, duplicate=0.1, delay_max_s=0.1))


def test_one_handshake_makes_one_connection_however_often_it_comes():
    async def main(world):
        _, server, accepting = await served(world)
        dht = await world.add()
        for _ in range(10):
            connection = await dht.connect(SERVER.public_key)
            await swap(connection, await accepting.next())
        assert accepting.count == 10
        assert server.counters.handshakes == 10
        assert server.counters.repeated > 0

    simulate(main, link=Link(duplicate=1.0))


def test_a_handshake_that_is_remembered_holds_no_connection():
    async def main(world):
        _, server, accepting = await served(world)
        dht = await world.add()
        mine = await dht.connect(SERVER.public_key)
        connection = weakref.ref(await accepting.next())
        mine.destroy()
        await asyncio.sleep(LINGER_S + 1)
        gc.collect()
        assert len(server._handshakes) == 1
        assert connection() is None

    simulate(main)


def test_a_program_connects_to_its_own_server():
    async def main(world):
        dht, _, accepting = await served(world)
        connection = await dht.connect(SERVER.public_key)
        await swap(connection, await accepting.next())

    simulate(main)


def test_a_lone_node_serves_and_finds_itself():
    async def main(world):
        dht = world.boot
        accepting = Accepting()
        server = dht.create_server(accepting)
        await server.listen(SERVER)
        connection = await dht.connect(SERVER.public_key)
        await swap(connection, await accepting.next())
        topic = bytes(32)
        assert await dht.announce(topic, SERVER) == 1
        assert [peer.public_key for peer in await dht.lookup(topic)] == [
            SERVER.public_key
        ]
        await dht.unannounce(topic, SERVER)
        assert await dht.lookup(topic) == []

    simulate(main, persistent=0)


def test_many_connect_at_once():
    async def main(world):
        _, server, accepting = await served(world)
        clients = [await world.add() for _ in range(10)]
        connections = await asyncio.gather(
            *(dht.connect(SERVER.public_key) for dht in clients for _ in range(5))
        )
        for connection in connections:
            connection.write(connection.handshake_hash)
        for _ in connections:
            other = await accepting.next()
            assert await other.read() == other.handshake_hash
        assert server.counters.accepted == 50
        assert len({c.handshake_hash for c in connections}) == 50

    simulate(main)


def test_nobody_has_the_key():
    async def main(world):
        dht = await world.add()
        with pytest.raises(PeerNotFound, match=keys("nobody").public_key.hex()):
            await dht.connect(keys("nobody").public_key)
        await asyncio.sleep(0.1)
        statistics = dht.statistics()
        assert (statistics.connects, statistics.connects_failed) == (1, 1)
        assert statistics.streams == 0

    simulate(main)


@pytest.mark.parametrize("key", [bytes(32), b"\xff" * 32, b"\x02" + bytes(31)])
def test_what_is_not_a_key_is_not_found(key):
    async def main(world):
        dht = await world.add()
        with pytest.raises(PeerNotFound):
            await dht.connect(PublicKey(key))

    simulate(main)


def test_a_server_that_withdrew_is_not_found():
    async def main(world):
        _, server, _ = await served(world)
        dht = await world.add()
        assert await dht.find_peer(SERVER.public_key) is not None
        await server.close()
        await server.close()
        assert await dht.find_peer(SERVER.public_key) is None
        with pytest.raises(PeerNotFound):
            await dht.connect(SERVER.public_key)

    simulate(main)


def test_a_server_that_vanished_is_unreachable_within_a_minute():
    async def main(world):
        dht, _, _ = await served(world)
        client = await world.add()
        world.kill(dht)
        start = client.env.clock.now()
        with pytest.raises(PeerUnreachable, match="does not answer"):
            await client.connect(SERVER.public_key)
        assert client.env.clock.now() - start < 60
        await asyncio.sleep(0.1)
        assert client.statistics().streams == 0

    simulate(main)


def test_a_server_that_vanishes_after_the_handshake_is_unreachable():
    async def main(world):
        dht, server, accepting = await served(world)
        client = await world.add()
        world.network.cut(dht.address.host, client.address.host)
        with pytest.raises(PeerUnreachable, match="no packet gets to"):
            await client.connect(SERVER.public_key)
        await asyncio.sleep(30)
        assert accepting.count == 0
        assert server.counters.abandoned == 1
        assert dht.statistics().streams == client.statistics().streams == 0

    simulate(main)


def test_dead_relays_are_gone_around():
    async def main(world):
        _, _, accepting = await served(world)
        client = await world.add()
        dead = [Address("10.9.9.9", port) for port in range(1, 4)]
        connection = await client.connect(SERVER.public_key, relay_addresses=dead)
        await swap(connection, await accepting.next())

    simulate(main)


def test_relays_that_die_after_the_first_connection_are_gone_around():
    async def main(world):
        _, server, accepting = await served(world)
        client = await world.add()
        await swap(await client.connect(SERVER.public_key), await accepting.next())
        relays = {address.host for address in server.relay_addresses}
        dead = [
            dht
            for dht in world.nodes
            if dht.address.host in relays
            and not dht.statistics().servers
            and dht is not world.boot
        ]
        assert dead
        for dht in dead:
            world.kill(dht)
        # The announcer notices at its next round of pings and finds other relays.
        await asyncio.sleep(40)
        fresh = {address.host for address in server.relay_addresses}
        assert fresh.isdisjoint(dht.address.host for dht in dead)
        await swap(await client.connect(SERVER.public_key), await accepting.next())

    simulate(main, persistent=10)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_firewall_keeps_clients_out(is_async):
    asked = []

    def decide(key, payload):
        asked.append((key, payload))
        return key == CLIENT.public_key

    async def decide_later(key, payload):
        await asyncio.sleep(0.5)
        return decide(key, payload)

    async def main(world):
        _, server, accepting = await served(world, decide_later if is_async else decide)
        dht = await world.add()
        with pytest.raises(PeerRefused, match="refused"):
            await dht.connect(SERVER.public_key, key_pair=CLIENT)
        await swap(await dht.connect(SERVER.public_key), await accepting.next())
        assert accepting.count == 1
        assert server.counters.refused == 1
        # Asked once for each handshake, though it comes by several ways.
        assert [key for key, _ in asked] == [
            CLIENT.public_key,
            dht.default_key_pair.public_key,
        ]
        assert all(isinstance(payload, NoisePayload) for _, payload in asked)

    simulate(main)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_firewall_that_fails_keeps_clients_out(is_async, caplog):
    def explode(key, payload):
        raise RuntimeError("boom")

    async def explode_later(key, payload):
        explode(key, payload)

    async def main(world):
        await served(world, explode_later if is_async else explode)
        dht = await world.add()
        with pytest.raises(PeerRefused):
            await dht.connect(SERVER.public_key)
        assert "firewall of a server failed" in caplog.text

    simulate(main)


def test_a_handler_that_fails_costs_its_connection_only(caplog):
    async def main(world):
        def explode(connection):
            raise RuntimeError("boom")

        dht = await world.add()
        await dht.create_server(explode).listen(SERVER)
        client = await world.add()
        connection = await client.connect(SERVER.public_key)
        with pytest.raises(ConnectionLost):
            await connection.read()
        assert "handler of a connection failed" in caplog.text
        (await client.connect(SERVER.public_key)).destroy()

    simulate(main)


async def shake_by_hand(dht, way, payload, key_pair=CLIENT):
    """Send a first message of our own making; returns the server's payload."""
    noise = NoiseWrap(key_pair, dht.env.random, SERVER.public_key)
    message = Handshake(Mode.FROM_CLIENT, noise.send(payload))
    response = await dht.node.request(
        way,
        Command.PEER_HANDSHAKE,
        target=hash_topic(SERVER.public_key),
        value=message.encode(),
    )
    reply = decode_handshake_untrusted(response.value)
    return noise.receive_untrusted(reply.noise)


@pytest.mark.parametrize(
    "udx", [None, UdxInfo(2**32), UdxInfo(2**53)], ids=["none", "2^32", "2^53"]
)
def test_a_handshake_without_a_usable_stream_is_declined(udx):
    async def main(world):
        server_dht, _, accepting = await served(world)
        dht = await world.add()
        payload = NoisePayload(udx=udx, secret_stream=1)
        answer = await shake_by_hand(dht, server_dht.address, payload)
        assert answer.error == 1
        assert answer.udx.id == 0
        assert server_dht.statistics().streams == 0
        assert accepting.count == 0

    simulate(main)


def test_a_client_that_never_comes_leaves_nothing_behind():
    async def main(world):
        server_dht, server, accepting = await served(world, is_closed=True)
        dht = await world.add()
        way = (await dht.find_peer(SERVER.public_key)).relay_addresses[0]
        answer = await shake_by_hand(dht, way, NoisePayload(udx=UdxInfo(5)))
        assert answer.error == 0
        assert server_dht.statistics().streams == 1
        await asyncio.sleep(15)
        assert server_dht.statistics().streams == 0
        assert server.counters.abandoned == 1
        assert accepting.count == 0

    simulate(main)


def test_one_host_cannot_make_a_server_compute_without_end():
    async def main(world):
        server_dht, server, _ = await served(world)
        dht = await world.add()

        async def shake():
            try:
                await shake_by_hand(dht, server_dht.address, NoisePayload())
            except Exception:
                return False
            return True

        outcomes = await asyncio.gather(*(shake() for _ in range(400)))
        assert server.counters.handshakes < HANDSHAKES_BURST * 2.5
        assert server.counters.limited > 0
        assert sum(outcomes) == server.counters.handshakes
        # Somebody else is served all the same.
        (await (await world.add()).connect(SERVER.public_key)).destroy()

    simulate(main)


def test_rubbish_costs_a_server_one_look():
    async def main(world):
        server_dht, server, _ = await served(world)
        dht = await world.add()
        message = Handshake(Mode.FROM_CLIENT, bytes(200)).encode()
        with pytest.raises(RequestTimeout):
            await dht.node.request(
                server_dht.address,
                Command.PEER_HANDSHAKE,
                target=hash_topic(SERVER.public_key),
                value=message,
            )
        assert server.counters.malformed == 1
        assert server.counters.repeated == 3

    simulate(main)


def test_keys_and_servers_are_used_once():
    async def main(world):
        dht, server, _ = await served(world)
        with pytest.raises(LocalProtocolError, match="listens only once"):
            await server.listen(keys("other"))
        second = dht.create_server(Accepting())
        with pytest.raises(LocalProtocolError, match="has the key pair"):
            await second.listen(SERVER)
        with pytest.raises(LocalProtocolError, match="does not listen"):
            _ = dht.create_server(Accepting()).public_key

    simulate(main)


def test_closing_the_node_ends_its_connections_and_says_so():
    async def main(world):
        server_dht, _, accepting = await served(world)
        dht = await world.add()
        connection = await dht.connect(SERVER.public_key)
        other = await accepting.next()
        world.nodes.remove(server_dht)
        await server_dht.close()
        await server_dht.close()
        with pytest.raises(ConnectionLost):
            await connection.read()
        assert other.is_closed
        with pytest.raises(ConnectFailed, match="closed"):
            await server_dht.connect(SERVER.public_key)
        assert await dht.find_peer(SERVER.public_key) is None

    simulate(main)


def test_without_a_dht_nothing_starts_and_nothing_connects():
    async def main(world):
        dht = await world.add()
        world.network.take_down(BOOT_HOST)
        with pytest.raises(PeerNotFound, match="no DHT node answers"):
            await dht.connect(SERVER.public_key)
        with pytest.raises(DhtUnreachable):
            await dht.lookup(bytes(32))
        with pytest.raises(DhtUnreachable):
            await dht.announce(bytes(32), SERVER)
        with pytest.raises(DhtUnreachable):
            await dht.unannounce(bytes(32), SERVER)
        with pytest.raises(DhtUnreachable):
            await dht.find_peer(SERVER.public_key)
        with pytest.raises(DhtUnreachable):
            await dht.create_server(Accepting()).listen(SERVER)
        lost = HyperDHT(world.network.host("10.8.8.8"), bootstrap=[(BOOT_HOST, 49737)])
        with pytest.raises(DhtUnreachable):
            await lost.start()

    simulate(main, persistent=0)


def test_cancelling_a_connect_leaves_nothing_behind():
    async def main(world):
        dht, _, _ = await served(world)
        client = await world.add()
        world.network.cut(dht.address.host, client.address.host)
        for delay in (0.001, 0.02, 0.06, 1.0, 5.0):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(delay):
                    await client.connect(SERVER.public_key)
        await asyncio.sleep(10)
        assert client.statistics().streams == 0

    simulate(main)


def test_closing_while_listening_leaves_no_announcement():
    async def main(world):
        dht = await world.add()
        server = dht.create_server(Accepting())
        listening = asyncio.ensure_future(server.listen(SERVER))
        await asyncio.sleep(0.03)
        assert not listening.done()
        await server.close()
        await listening
        assert await dht.find_peer(SERVER.public_key) is None

    simulate(main)


def test_cancelling_listen_withdraws():
    async def main(world):
        dht = await world.add()
        for delay in (0.01, 0.03, 0.05, 0.07):
            server = dht.create_server(Accepting())
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(delay):
                    await server.listen(SERVER)
        assert dht.statistics().servers == 0
        await dht.create_server(Accepting()).listen(SERVER)

    simulate(main, link=Link(0.02, 0.02))


def test_a_server_that_becomes_reachable_announces_itself_there():
    async def main(world):
        dht, server, _ = await served(world, is_closed=True)
        dht.node._on_network_update()
        await asyncio.sleep(5)
        assert dht.address not in server.relay_addresses
        before = {n.router.relay_of(hash_topic(SERVER.public_key)) for n in world.nodes}
        assert before == {None, dht.node.client_socket.address}
        dht.node.io.is_firewalled = False
        dht.node._on_network_update()
        await asyncio.sleep(5)
        assert server.relay_addresses[0] == dht.address
        after = {n.router.relay_of(hash_topic(SERVER.public_key)) for n in world.nodes}
        assert after == {None, dht.address}

    simulate(main, persistent=2)


def test_an_open_client_does_not_wait_for_ever_for_the_server_to_come(monkeypatch):
    monkeypatch.setattr(Server, "_reach_out", lambda *_: None)

    async def main(world):
        _, _, accepting = await served(world, is_closed=True)
        client = await world.add(firewalled=False)
        connection = await client.connect(SERVER.public_key)
        await swap(connection, await accepting.next())

    simulate(main)


LOCAL = Address("127.0.0.1", 1)
PUBLIC = Address("8.8.8.8", 2)
NEAR = Address("10.1.0.77", 3)
FAR = Address("192.168.7.7", 4)
HERE = Address("10.1.0.2", 5)


@pytest.mark.parametrize(
    ("named", "seen", "expected"),
    [
        ((NEAR, PUBLIC), FAR, PUBLIC),
        ((NEAR, FAR), PUBLIC, PUBLIC),
        ((), FAR, FAR),
        ((FAR, NEAR), LOCAL, NEAR),
        ((LOCAL, FAR), LOCAL, FAR),
        ((), LOCAL, LOCAL),
        ((Address("8.8.8.8", 0), Address("224.0.0.1", 9)), FAR, FAR),
    ],
)
def test_which_address_of_an_open_server_is_used(named, seen, expected):
    async def main(world):
        dht = await world.add()
        connector = Connector(dht, SERVER.public_key, CLIENT, ())
        payload = NoisePayload(firewall=1, addresses4=named, udx=UdxInfo(1))
        route = Route(payload, UdxInfo(1), PUBLIC, dht.node.socket, seen, HERE, True)
        assert (await connector._choose_path(route)).address == expected

    simulate(main)


@pytest.mark.parametrize(
    ("seen", "named", "expected"),
    [
        (PUBLIC, (), PUBLIC),
        (LOCAL, (LOCAL, NEAR), NEAR),
        (LOCAL, (), None),
    ],
)
def test_where_a_server_looks_for_an_open_client(seen, named, expected):
    async def main(world):
        server_dht, _, _ = await served(world)
        relay = await world.network.host("10.1.0.99").datagrams.bind(
            "", 0, lambda *_: None
        )
        noise = NoiseWrap(CLIENT, server_dht.env.random, SERVER.public_key)
        payload = NoisePayload(firewall=1, addresses4=named, udx=UdxInfo(1))
        message = RequestMessage(
            tid=1,
            to=server_dht.address,
            command=Command.PEER_HANDSHAKE,
            target=hash_topic(SERVER.public_key),
            value=Handshake(Mode.FROM_RELAY, noise.send(payload), seen).encode(),
        )
        relay.send(encode_request(message), server_dht.address)
        await asyncio.sleep(1)
        (stream,) = server_dht.endpoint._streams.values()
        assert stream.remote_address == expected

    simulate(main)


def test_a_forged_answer_of_a_relay_does_not_spoil_the_right_one():
    """One relay answers rubbish before the others pass on what the server says."""

    async def main(world):
        _, _, accepting = await served(world)
        liar = await world.add_persistent()

        def lie(request):
            reply = Handshake(Mode.REPLY, bytes(200), Address("10.9.9.9", 9))
            request.reply(reply.encode())

        liar.router.receive_handshake = lie
        client = await world.add()
        connection = await client.connect(
            SERVER.public_key, relay_addresses=[liar.address]
        )
        await swap(connection, await accepting.next())

    simulate(main)


def test_a_relay_that_invents_records_is_gone_around():
    async def main(world):
        _, _, accepting = await served(world)
        for dht in world.nodes[1:4]:
            dht.router.receive_handshake = lambda request: None
        client = await world.add()
        connection = await client.connect(SERVER.public_key)
        await swap(connection, await accepting.next())

    simulate(main, persistent=8)


def test_a_firewall_that_never_answers_keeps_clients_out(caplog):
    asked = []

    async def hang(key, payload):
        asked.append(key)
        await asyncio.Event().wait()

    async def main(world):
        serving, _, _ = await served(world, hang)
        dht = await world.add()
        with pytest.raises(ConnectFailed):
            await dht.connect(SERVER.public_key)
        await asyncio.sleep(30)
        assert asked
        assert serving.endpoint.stream_count == 0

    simulate(main)
