"""What was granted is taken back while it is in use, and cannot be had again."""

import asyncio
import time
from dataclasses import replace

import msgspec
import pytest

from peerchat.api import ApiError, Role
from peerchat.net.crypto.primitives import hash_target
from peerchat.net.errors import NetError
from peerchat.net.hyperdht.mutable import sign_mutable
from peerchat.net.rpc.server import RpcServer
from peerchat.services.enrolment_client import renew
from peerchat.services.enrolment_messages import (
    ENROL_TOPIC,
    RENEW_METHOD,
    CertifiedReply,
)
from peerchat.services.node_runtime import NodeRuntime
from peerchat.services.service import Service
from peerchat.trust.certificate import encode_chain
from peerchat.trust.keys import topic_of
from tests.unit.trust_world import Member, prompt, read

from .town import DAY_S, REFRESH_S, SERVING, counted, until

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture
def serve_for_ever(town):
    """A certified gateway whose answers have no end; nobody finds it by itself."""

    async def serve(host) -> Service:
        host.with_chain(town.certificate(host.own, SERVING))
        host.served, host.stopped = [], asyncio.Event()
        service = await Member.serve(host, Role.GATEWAY, is_endless=True)
        await service.withdraw()
        return service

    return serve


async def test_a_revoked_peer_with_an_open_stream(town, intruder, serve_for_ever):
    await town.homes.join("mallory")
    service = await serve_for_ever(intruder)
    following = asyncio.create_task(intruder.trust.run())
    key = service.public_key
    async with (
        NodeRuntime(town.homes.settings("mallory")) as bad,
        town.unharmed(),
    ):
        good = town.laptop.swarm.ask(key, prompt("a"))
        cut = bad.swarm.ask(key, prompt("a"))
        for stream in (good, cut):
            await anext(stream)
        peer = bad.trust.identity.peer_key_pair.public_key
        await town.homes.swarms("box").revoke("club", peer.hex())
        began_s = time.monotonic()
        with pytest.raises(ApiError):
            async with asyncio.timeout(10):
                await read(cut)
        # A refresh, and what a look at the DHT takes on a busy machine.
        assert time.monotonic() - began_s < REFRESH_S + 5.0
        for _ in range(5):
            await anext(good)
        await good.aclose()
        await until(lambda: town.box.trust.is_revoked_key(peer))
        gateway = town.key(Role.GATEWAY)
        with pytest.raises(NetError):
            await bad.swarm.request(gateway, "ping", {}, 5)
    following.cancel()
    assert intruder.trust.refusals["revoked"] >= 1
    assert counted(town.box, "revoked") >= 1
    await service.close()


async def test_an_older_record_is_shown(town, caplog):
    """A node of the DHT gives back a version from before a revocation."""
    root = town.root.public_key
    store = town.first._storage.store
    target = hash_target(root)
    member = await town.intruder()
    gone = member.own.peer_key_pair.public_key
    await member.close()
    await town.box.trust.refresh()
    older = store.mutable(target)
    await town.homes.swarms("box").revoke("club", gone.hex())
    await until(lambda: town.box.trust.is_revoked_key(gone))
    newest = store.mutable(target)
    assert newest.seq > older.seq
    before = counted(town.box, "rollback")
    async with town.unharmed():
        store._mutables.set(target, older, town.first._storage.store._clock.now())
        await town.box.trust.refresh()
        assert town.box.trust.is_revoked_key(gone)
        forged = sign_mutable(town.root, older.value, newest.seq)
        assert not replace(forged, seq=newest.seq + 9).is_signed_by(root)
    assert counted(town.box, "rollback") == before + 1
    assert "older" in caplog.text
    # Who has the newest version puts it back.
    await until(lambda: store.mutable(target).seq == newest.seq)


async def test_a_former_certificate_is_given_back(town, intruder):
    """Who knows the secret poses as an admin, and replays what the victim once had."""
    victim = await town.intruder()
    victim.with_chain(town.certificate(victim.own, SERVING))
    former = encode_chain(town.certificate(victim.own, starts_s=-DAY_S))
    kept = town.box.trust.membership
    reply = CertifiedReply(former, kept.secret, kept.generation, kept.record_key)
    asked = []

    async def renewed(body, _session):
        asked.append(body)
        return msgspec.json.encode(reply)

    posing = RpcServer(intruder.dht)
    posing.respond(RENEW_METHOD, renewed)
    pair = intruder.own.key_pair("enrol")
    await posing.listen(pair)
    await intruder.dht.announce(topic_of(kept.secret, ENROL_TOPIC), pair)
    before = victim.homes.load("club").chain
    with pytest.raises(ApiError):
        await renew(victim.dht, victim.homes, "club", victim.identity)
    assert asked
    assert victim.homes.load("club").chain == before
    await intruder.dht.unannounce(topic_of(kept.secret, ENROL_TOPIC), pair)
    await posing.close()
    await victim.close()


async def test_who_was_removed_elsewhere_is_not_told_the_next_secret(town):
    """The owner's other machine knows of it by the record alone."""
    owner = town.homes.swarms("box")
    await town.homes.join("removed")
    peer = town.homes.swarms("removed")._identity().in_swarm(town.root.public_key)
    key = peer.peer_key_pair.public_key
    async with owner._owner("club") as one:
        assert key in (await one.rotated())[0].sealed_secrets
        body = replace(one.record, revoked_keys=one.record.revoked_keys | {key})
        root = town.root
        one._book.keep(one._book.sign(root, body))
        assert key not in (await one.rotated())[0].sealed_secrets
