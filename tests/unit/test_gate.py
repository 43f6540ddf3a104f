"""Who gets into a private swarm, on real connections in memory."""

import asyncio
import gc
import logging

import pytest

from peerchat.api import ApiError, ErrorCode, Role
from peerchat.net.crypto.primitives import KeyPair
from peerchat.net.errors import ConnectFailed, NetError, RpcClosed
from peerchat.net.rpc.client import RpcClient
from peerchat.net.rpc.server import RpcServer
from peerchat.services import gate as gate_module
from peerchat.services.gate import NotAdmitted
from peerchat.services.identity import Identity
from peerchat.services.swarm import Swarm
from peerchat.trust.certificate import encode_chain
from peerchat.trust.keys import capability_of, topic_of
from tests.unit.trust_world import SERVING, PrivateWorld, prompt, read

ROLES = [Role.AUTH, Role.GATEWAY, Role.PROCESSOR]


@pytest.fixture
async def world(tmp_path):
    async with PrivateWorld(tmp_path) as one:
        yield one


def call(asking, key, role, method="work"):
    return asking.swarm.request(key, method, {}, 5, role=role)


async def until(check):
    async with asyncio.timeout(10):
        while not check():  # noqa: ASYNC110, what changes has no event
            await asyncio.sleep(0.01)


async def test_a_member_finds_and_asks_a_gateway(world):
    serving, asking = world.member(SERVING), world.member()
    await serving.serve(Role.GATEWAY)
    assert await asking.swarm.find(Role.GATEWAY) == [serving.key(Role.GATEWAY)]
    assert await call(asking, serving.key(Role.GATEWAY), Role.GATEWAY) == {"done": True}
    answer = asking.swarm.ask(serving.key(Role.GATEWAY), prompt("a b"))
    assert await read(answer) == "a b "
    assert not serving.trust.refusals
    assert not asking.trust.refusals


async def test_certificates_by_an_admin_are_as_good(world):
    admin = world.member(("admin",))
    signer = admin.own.peer_key_pair
    serving = world.member(SERVING, issuer=admin.trust.chain, signer=signer)
    asking = world.member((), issuer=admin.trust.chain, signer=signer)
    await serving.serve(Role.GATEWAY)
    assert await call(asking, serving.key(Role.GATEWAY), Role.GATEWAY)
    assert asking.trust.refusals == {}


async def test_topics_tell_strangers_nothing(world):
    serving = world.member(SERVING)
    await serving.serve(Role.GATEWAY)
    assert list(world.network.topics) == [topic_of(world.secret, "gateway")]


@pytest.mark.parametrize("role", ROLES)
async def test_a_stranger_gets_no_answer(world, role):
    """It knows the key of a role, and nothing else."""
    serving = world.member(SERVING)
    await serving.serve(role)
    for capability in (None, bytes(32)):
        rpc = RpcClient(world.dht(), capability=capability)
        with pytest.raises(RpcClosed):
            await rpc.request(serving.key(role), "work", b"{}", timeout_s=5)
        await rpc.close()
    await until(lambda: sum(serving.trust.refusals.values()) == 2)
    assert serving.served == []


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("method", ["ping", "work", "no such method"])
async def test_the_secret_alone_lets_nobody_ask(world, role, method):
    serving = world.member(SERVING)
    await serving.serve(role)
    rpc = RpcClient(world.dht(), capability=capability_of(world.secret))
    with pytest.raises(RpcClosed):
        await rpc.request(serving.key(role), method, b"{}", timeout_s=5)
    assert serving.trust.refusals == {"no_certificate": 1}
    assert serving.served == []
    await rpc.close()


def certified_wrongly(world, kind):
    """A home that knows the secret, and shows such a certificate."""
    if kind == "none":
        return world.member(chain=b"")
    if kind == "expired":
        return world.member(SERVING, starts_s=-7200, ends_s=-3600)
    if kind == "not yet valid":
        return world.member(SERVING, starts_s=3600)
    if kind == "foreign":
        return world.member(SERVING, signer=KeyPair.from_seed(b"other" * 6 + b"xx"))
    if kind == "replayed":
        return world.member(chain=world.member(SERVING).trust.membership.chain)
    if kind == "garbage":
        return world.member(chain=b"\x93\x01\x02\x03")
    if kind == "member as issuer":
        other = world.member()
        signer = other.own.peer_key_pair
        return world.member(SERVING, issuer=other.trust.chain, signer=signer)
    assert kind == "another secret"
    world.secret = b"t" * 32
    member = world.member(SERVING)
    world.secret = b"s" * 32
    return member


REASONS = {
    "none": "no_certificate",
    "expired": "expired",
    "not yet valid": "not_yet_valid",
    "foreign": "foreign_root",
    "replayed": "wrong_key",
    "garbage": "bad_signature",
    "member as issuer": "wrong_role",
}


@pytest.mark.parametrize("kind", REASONS)
async def test_as_a_client_it_is_not_answered(world, kind, caplog):
    caplog.set_level(logging.INFO)
    serving = world.member(SERVING)
    asking = certified_wrongly(world, kind)
    await serving.serve(Role.GATEWAY)
    with pytest.raises(NetError):
        await call(asking, serving.key(Role.GATEWAY), Role.GATEWAY)
    with pytest.raises(ApiError):
        await read(asking.swarm.ask(serving.key(Role.GATEWAY), prompt()))
    assert set(serving.trust.refusals) == {REASONS[kind]}
    assert serving.served == []
    assert "refused" in caplog.text
    assert world.secret.hex() not in caplog.text


@pytest.mark.parametrize("kind", [*REASONS, "another secret"])
@pytest.mark.parametrize("role", ROLES)
async def test_as_a_role_it_is_told_nothing(world, role, kind):
    """An impostor that announces itself hears no password and no prompt."""
    impostor = certified_wrongly(world, kind)
    asking = world.member(SERVING)
    heard = []

    async def hear(body, _session):
        heard.append(body)
        return b"{}"

    rpc = RpcServer(
        impostor.dht,
        capability=impostor.trust.capability,
        on_connection=lambda one: gate_module.Gate(Everybody(impostor.trust), one),
    )
    rpc.respond("work", hear)
    await rpc.listen(impostor.own.role_key_pair(role))
    key = impostor.key(role)
    with pytest.raises(NetError):
        await call(asking, key, role)
    with pytest.raises(ApiError) as caught:
        await read(asking.swarm.ask(key, prompt(), "token", role=role))
    assert caught.value.code is ErrorCode.PEER_LOST
    assert heard == []
    expected = REASONS.get(kind, "wrong_secret")
    assert set(asking.trust.refusals) <= {expected}
    await rpc.close()


class Everybody:
    """A peer that says its hello and takes anybody in."""

    def __init__(self, trust):
        self._trust = trust

    def hello(self, connection):
        return self._trust.hello(connection)

    def admit(self, connection, hello):
        key = connection.remote_public_key
        return gate_module.Credentials(key, key, "", frozenset())

    def note_refusal(self, *_): ...
    def refresh_soon(self): ...
    def add_gate(self, _): ...
    def remove_gate(self, _): ...


async def test_a_member_without_the_role_cannot_serve_it(world):
    member = world.member()
    with pytest.raises(ApiError, match="--role gateway"):
        await member.serve(Role.GATEWAY)


async def test_a_processor_announced_as_auth_is_not_asked_as_auth(world):
    serving, asking = world.member(("processor",)), world.member(SERVING)
    await serving.serve(Role.PROCESSOR)
    key = serving.key(Role.PROCESSOR)
    await world.dht().announce(
        topic_of(world.secret, "auth"), serving.own.role_key_pair(Role.PROCESSOR)
    )
    assert await asking.swarm.find(Role.AUTH) == [key]
    with pytest.raises(NotAdmitted, match="auth"):
        await call(asking, key, Role.AUTH)
    assert serving.served == []
    assert asking.trust.refusals == {"wrong_role": 1}
    assert await call(asking, key, Role.PROCESSOR) == {"done": True}


async def test_a_client_key_under_a_topic_is_not_asked(world):
    plain, asking = world.member(), world.member(SERVING)
    rpc = RpcServer(
        plain.dht,
        capability=plain.trust.capability,
        on_connection=lambda one: gate_module.Gate(Everybody(plain.trust), one),
    )
    await rpc.listen(plain.own.key_pair("client"))
    with pytest.raises(NotAdmitted):
        await call(asking, plain.own.key_pair("client").public_key, Role.GATEWAY)
    assert asking.trust.refusals == {"wrong_role": 1}
    await rpc.close()


@pytest.mark.parametrize("role", [Role.AUTH, Role.PROCESSOR])
async def test_what_stands_behind_gateways_is_for_gateways(world, role):
    serving, plain, gateway = (
        world.member(SERVING),
        world.member(),
        world.member(("gateway",)),
    )
    await serving.serve(role)
    key = serving.key(role)
    assert await call(plain, key, role, "ping") == {
        "status": "healthy",
        "service": role.value,
    }
    refused = await call(plain, key, role)
    assert "Only gateways" in str(refused)
    with pytest.raises(ApiError):
        await read(plain.swarm.ask(key, prompt(), role=role))
    assert serving.served == []
    assert await call(gateway, key, role) == {"done": True}
    assert await read(gateway.swarm.ask(key, prompt("a"), role=role)) == "a "


async def test_a_peer_that_says_nothing_is_cut_off(world, monkeypatch):
    monkeypatch.setattr(gate_module, "DECISION_TIMEOUT_S", 0.05)
    serving = world.member(SERVING)
    await serving.serve(Role.GATEWAY)
    connection = await world.dht().connect(serving.key(Role.GATEWAY))
    async with asyncio.timeout(5):
        await connection.wait_closed()
    assert serving.trust.refusals == {"no_proof": 1}


async def test_requests_wait_for_the_gate(world):
    """What is sent before the hello is not handled, and dies with the connection."""
    serving = world.member(SERVING)
    await serving.serve(Role.GATEWAY)
    asking = world.member()
    held = []

    def late(connection):
        connection.mux.pair(
            gate_module.PROTOCOL, b"", lambda _id: held.append(create(connection))
        )

    def create(connection):
        return connection.mux.create_channel(gate_module.PROTOCOL)

    rpc = RpcClient(
        asking.dht,
        key_pair=asking.own.key_pair("client"),
        capability=asking.trust.capability,
        on_connection=late,
    )
    request = asyncio.create_task(
        rpc.request(serving.key(Role.GATEWAY), "work", b"{}", timeout_s=5)
    )
    await until(lambda: held)
    await asyncio.sleep(0.05)
    assert serving.served == []
    session = await rpc.session(serving.key(Role.GATEWAY))
    held[0].open(asking.trust.hello(session.connection))
    assert await request == b'{"done":true}'
    await rpc.close()


async def test_nothing_is_kept_of_connections_that_are_gone(world):
    serving, asking = world.member(SERVING), world.member()
    service = await serving.serve(Role.GATEWAY)
    assert await read(asking.swarm.ask(serving.key(Role.GATEWAY), prompt("a"))) == "a "
    sessions = asking.swarm._sessions
    assert (len(service._gates), len(sessions._gates), len(sessions._streams)) == (
        1,
        1,
        1,
    )
    assert len(serving.trust._gates) == 1
    asking.dht.cut_off()
    await until(lambda: not serving.trust._gates)
    await until(lambda: not asking.trust._gates)
    await until(lambda: not service.connections)

    def is_forgotten():
        gc.collect()
        return not (service._gates or sessions._gates or sessions._streams)

    await until(is_forgotten)


# Node.js workers: no channel of ours, a capability, a grant in the record


async def test_a_granted_worker_may_ask(world):
    serving = world.member(SERVING)
    await serving.serve(Role.GATEWAY)
    worker = KeyPair.from_seed(b"w" * 32)
    rpc = RpcClient(
        world.dht(), key_pair=worker, capability=capability_of(world.secret)
    )
    with pytest.raises(RpcClosed):
        await rpc.request(serving.key(Role.GATEWAY), "work", b"{}", timeout_s=5)
    await world.grant(worker.public_key, "client")
    await serving.trust.refresh()
    answer = await rpc.request(serving.key(Role.GATEWAY), "work", b"{}", timeout_s=5)
    assert answer == b'{"done":true}'
    await rpc.close()


async def test_a_grant_without_the_secret_is_worth_nothing(world):
    serving = world.member(SERVING)
    await serving.serve(Role.GATEWAY)
    worker = KeyPair.from_seed(b"w" * 32)
    await world.grant(worker.public_key, "client")
    await serving.trust.refresh()
    rpc = RpcClient(world.dht(), key_pair=worker, capability=bytes(32))
    with pytest.raises(RpcClosed):
        await rpc.request(serving.key(Role.GATEWAY), "work", b"{}", timeout_s=5)
    assert serving.served == []
    await rpc.close()


async def test_a_granted_worker_serves_its_role_and_no_other(world):
    worker = KeyPair.from_seed(b"w" * 32)
    rpc = RpcServer(world.dht(), capability=capability_of(world.secret))

    async def work(_body, _session):
        return b'{"by":"node"}'

    rpc.respond("work", work)
    await rpc.listen(worker)
    gateway = world.member(SERVING)
    with pytest.raises(ConnectFailed):
        await call(gateway, worker.public_key, Role.PROCESSOR)
    assert gateway.trust.refusals == {"no_certificate": 1}
    await world.grant(worker.public_key, "processor")
    await gateway.trust.refresh()
    assert await call(gateway, worker.public_key, Role.PROCESSOR) == {"by": "node"}
    with pytest.raises(NotAdmitted):
        await call(gateway, worker.public_key, Role.AUTH)
    await rpc.close()


async def test_a_grant_ends(world):
    worker = KeyPair.from_seed(b"w" * 32)
    serving = world.member(SERVING)
    await serving.serve(Role.GATEWAY)
    await world.grant(worker.public_key, "client", ends_s=-1)
    await serving.trust.refresh()
    rpc = RpcClient(
        world.dht(), key_pair=worker, capability=capability_of(world.secret)
    )
    with pytest.raises(RpcClosed):
        await rpc.request(serving.key(Role.GATEWAY), "work", b"{}", timeout_s=5)
    await rpc.close()


# Open swarms pay nothing


async def test_an_open_swarm_has_no_gate(world, monkeypatch):
    def never(*_args, **_more):
        raise AssertionError("a gate in an open swarm")

    monkeypatch.setattr("peerchat.services.service.Gates", never)
    monkeypatch.setattr("peerchat.services.peer_sessions.Gates", never)
    serving = Swarm(world.dht(), Identity(b"a" * 32))
    asking = Swarm(world.dht(), Identity(b"b" * 32))

    async def work(_body, _peer):
        return {"done": True}

    service = await serving.serve(Role.AUTH, {"work": work})
    assert await asking.request(service.public_key, "work", {}, 5) == {"done": True}
    await asking.close()
    await serving.close()


def test_certificates_are_short(world):
    admin = world.member(("admin",))
    signer = admin.own.peer_key_pair
    member = world.member(SERVING, issuer=admin.trust.chain, signer=signer)
    assert len(encode_chain(member.trust.chain)) < 1700
