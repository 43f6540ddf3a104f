"""Peers that serve or ask without being certified for it."""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from peerchat.api import ApiError, Role
from peerchat.net.crypto.primitives import KeyPair
from peerchat.net.errors import NetError, RpcClosed
from peerchat.net.rpc.client import RpcClient
from peerchat.services import gate as gate_module
from peerchat.trust.certificate import encode_chain
from tests.unit.trust_world import prompt, read

from .town import PASSWORD, SERVING, USER, counted, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROLES = [Role.AUTH, Role.GATEWAY, Role.PROCESSOR]

REASONS = {
    "none": "no_certificate",
    "expired": "expired",
    "not yet valid": "not_yet_valid",
    "foreign": "foreign_root",
    "forged": "bad_signature",
    "replayed": "wrong_key",
    "by a member": "wrong_role",
    "plain member": "wrong_role",
}


def chain_of(town, own, kind, roles=SERVING):
    """A certificate that is wrong in one way."""
    match kind:
        case "none":
            return b""
        case "expired":
            return town.certificate(own, roles, starts_s=-7200, ends_s=-1800)
        case "not yet valid":
            return town.certificate(own, roles, starts_s=1800)
        case "foreign":
            return town.certificate(own, roles, signer=KeyPair.from_seed(b"f" * 32))
        case "forged":
            data = bytearray(encode_chain(town.certificate(own, roles)))
            data[-1] ^= 1
            return bytes(data)
        case "replayed":
            # What the box itself shows to everybody it connects to.
            return town.box.trust.membership.chain
        case "by a member":
            member = town.certificate(own).certificate
            signer = own.peer_key_pair
            return town.certificate(own, roles, signer=signer, issuer=member)
        case "plain member":
            return town.certificate(own)
    raise AssertionError(kind)


@pytest.mark.parametrize("kind", [k for k in REASONS if k != "plain member"])
async def test_as_a_client_it_is_not_answered(town, intruder, kind, caplog):
    reason = REASONS[kind]
    intruder.with_chain(chain_of(town, intruder.own, kind))
    before = counted(town.box, reason)
    async with town.unharmed():
        for role in ROLES:
            key = town.key(role)
            with pytest.raises(NetError):
                await intruder.swarm.request(key, "ping", {}, 5, role=role)
        with pytest.raises(ApiError):
            await read(intruder.swarm.ask(town.key(Role.GATEWAY), prompt()))
    assert counted(town.box, reason) - before >= 4
    assert "refused" in caplog.text


@asynccontextmanager
async def everywhere(one, **how):
    """The intruder announced as every role at once."""
    async with AsyncExitStack() as stack:
        yield [
            (role, await stack.enter_async_context(one.serving(role, **how)))
            for role in ROLES
        ]


async def found(node, role, key):
    """Wait until a look-up that began after the announcement gives it."""
    async with asyncio.timeout(10):
        while key not in await node.swarm.find(role):
            node.swarm._found.clear()


async def tell_all(town, announced):
    """A gateway and a client meet it, and are asked for secrets meanwhile."""
    secret = {"email": USER, "password": PASSWORD}
    town.forget_peers()
    for role, key in announced:
        await found(town.far, role, key)
        with pytest.raises(NetError):
            await town.far.swarm.request(key, "login", secret, 5, role=role)
        with pytest.raises(ApiError):
            await read(town.far.swarm.ask(key, prompt(), "token", role=role))
    await town.laptop.client.login(USER, PASSWORD)


@pytest.mark.parametrize("kind", REASONS)
async def test_as_a_role_it_hears_nothing(town, intruder, kind, caplog):
    reason = REASONS[kind]
    intruder.with_chain(chain_of(town, intruder.own, kind))
    before = counted(town.far, reason)
    async with everywhere(intruder) as announced, town.unharmed():
        await tell_all(town, announced)
    assert intruder.heard == []
    assert counted(town.far, reason) - before >= 3
    assert "refused" in caplog.text


async def test_a_stranger_under_the_swarm_s_topics(town):
    """It saw the topics in the DHT, and does not know what they are made of."""
    stranger = await town.intruder(secret=bytes(32))
    before = counted(town.far, "wrong_secret")
    async with everywhere(stranger) as announced, town.unharmed():
        await tell_all(town, announced)
    assert stranger.heard == []
    assert counted(town.far, "wrong_secret") - before >= 3
    await stranger.close()


async def test_silent_strangers_hold_nobody_up(town, monkeypatch):
    """A dozen that let anybody connect and never say a word, and one newcomer."""
    monkeypatch.setattr(gate_module, "DECISION_TIMEOUT_S", 6.0)
    strangers = [await town.intruder(secret=bytes(32)) for _ in range(12)]
    async with AsyncExitStack() as stack:
        for one in strangers:
            await stack.enter_async_context(everywhere(one, is_silent=True))
        for node in (town.box, town.far, town.laptop):
            node.swarm._sessions._proven.clear()
        town.forget_peers()
        newcomer = await town.intruder()
        newcomer.with_chain(town.certificate(newcomer.own))
        async with asyncio.timeout(8):
            first = (await newcomer.swarm.find(Role.GATEWAY))[0]
            assert first.hex() in (
                town.box.role_keys()[Role.GATEWAY],
                town.far.role_keys()[Role.GATEWAY],
            )
            await town.ask()
            await town.laptop.client.login(USER, PASSWORD)
        before = counted(town.far, "no_proof")
        key = strangers[0].own.role_key_pair(Role.AUTH).public_key
        with pytest.raises(NetError):
            await town.far.swarm.request(key, "login", {}, 10, role=Role.AUTH)
        assert counted(town.far, "no_proof") > before
    for one in (*strangers, newcomer):
        assert one.heard == []
        await one.close()


@pytest.mark.parametrize("role", ROLES)
async def test_a_stranger_asks(town, role):
    """It knows the key of a role from the DHT, and nothing else."""
    dht = await town.node()
    key = town.key(role)
    before = counted(town.box, "no_proof") + counted(town.box, "no_certificate")
    async with town.unharmed():
        for capability in (None, bytes(32)):
            rpc = RpcClient(dht, capability=capability)
            with pytest.raises(RpcClosed):
                await rpc.request(key, "ping", b"{}", timeout_s=5)
            await rpc.close()
    await until(
        lambda: (
            counted(town.box, "no_proof") + counted(town.box, "no_certificate")
            >= before + 2
        )
    )
    await dht.close()


async def test_what_stands_behind_gateways_is_for_gateways(town, intruder):
    """A member that asks auth itself could choose for whom it is counted."""
    intruder.with_chain(town.certificate(intruder.own))
    for role, method in ((Role.AUTH, "login"), (Role.AUTH, "accountChanges")):
        key = town.key(role)
        answer = await intruder.swarm.request(key, method, {}, 5, role=role)
        assert "Only gateways" in str(answer)
    processor = town.key(Role.PROCESSOR)
    with pytest.raises(ApiError):
        await read(intruder.swarm.ask(processor, prompt(), role=Role.PROCESSOR))
    await town.ask()
