"""A private swarm that changes: revocation, rotation, rollback, records kept alive."""

import asyncio
import logging
import time
from dataclasses import replace

import pytest

from peerchat.api import ApiError, ErrorCode, Role
from peerchat.gateways import Gateways
from peerchat.net.errors import ConnectFailed, PeerRefused
from peerchat.net.hyperdht.mutable import sign_mutable
from peerchat.services import swarm_follower
from peerchat.services.knocking import knock
from peerchat.trust.keys import fingerprint_of, topic_of
from tests.unit.test_gate import call, until
from tests.unit.trust_world import SERVING, PrivateWorld, prompt, read


@pytest.fixture
async def world(tmp_path):
    async with PrivateWorld(tmp_path) as one:
        yield one


async def test_a_revoked_peer_is_cut_within_one_refresh_and_others_go_on(world):
    serving, good, bad = world.member(SERVING), world.member(), world.member()
    await serving.serve(Role.GATEWAY, is_endless=True)
    serving.run()
    key = serving.key(Role.GATEWAY)
    streams = [one.swarm.ask(key, prompt("a")) for one in (good, bad)]
    for stream in streams:
        await anext(stream)
    await world.revoke(bad)
    with pytest.raises(ApiError):
        await asyncio.wait_for(read(streams[1]), 10 * world.refresh_s)
    for _ in range(5):
        await anext(streams[0])
    await streams[0].aclose()
    assert await call(good, key, Role.GATEWAY) == {"done": True}
    with pytest.raises(PeerRefused):
        await call(bad, key, Role.GATEWAY)
    assert serving.trust.refusals["revoked"] == 2  # the cut, and the firewall
    assert set(serving.trust.refusals) == {"revoked"}


async def test_a_revoked_role_is_neither_found_nor_asked(world):
    bad, good, asking = world.member(SERVING), world.member(SERVING), world.member()
    for one in (bad, good):
        await one.serve(Role.GATEWAY, is_endless=True)
    stream = asking.swarm.ask(bad.key(Role.GATEWAY), prompt("a"))
    await anext(stream)
    await world.revoke(bad)
    await asking.trust.refresh()
    with pytest.raises(ApiError):
        await read(stream)
    await asyncio.wait_for(bad.stopped.wait(), 5)
    assert await asking.swarm.find(Role.GATEWAY) == [good.key(Role.GATEWAY)]
    with pytest.raises(ConnectFailed, match="removed"):
        await call(asking, bad.key(Role.GATEWAY), Role.GATEWAY)


async def test_revoking_an_admin_voids_what_it_certified(world):
    admin = world.member(("admin",))
    signer = admin.own.peer_key_pair
    asking = world.member((), issuer=admin.trust.chain, signer=signer)
    serving = world.member(SERVING)
    await serving.serve(Role.GATEWAY)
    key = serving.key(Role.GATEWAY)
    assert await call(asking, key, Role.GATEWAY)
    await world.revoke(admin)
    await serving.trust.refresh()
    with pytest.raises(ConnectFailed):
        await call(asking, key, Role.GATEWAY)
    assert set(serving.trust.refusals) == {"revoked"}


async def test_who_was_removed_is_told_so(world):
    serving, bad = world.member(SERVING), world.member()
    await serving.serve(Role.GATEWAY)
    await world.revoke(bad)
    await bad.trust.refresh()
    with pytest.raises(ApiError, match="removed from the swarm"):
        await bad.swarm.find(Role.GATEWAY)


async def test_the_first_call_of_who_was_removed_meanwhile_says_so(world):
    serving, bad = world.member(SERVING), world.member()
    await serving.serve(Role.GATEWAY)
    await world.revoke(bad)
    await serving.trust.refresh()
    with pytest.raises(ApiError, match="removed from the swarm home") as caught:
        await Gateways(bad.swarm).ping()
    assert caught.value.code is ErrorCode.FORBIDDEN


async def test_whoever_lists_peers_learns_that_it_was_removed(world):
    serving, bad = world.member(SERVING), world.member()
    await serving.serve(Role.GATEWAY)
    await world.revoke(bad)
    await serving.trust.refresh()
    with pytest.raises(ApiError, match="removed from the swarm home"):
        await Gateways(bad.swarm).peers()


async def test_an_expiring_certificate_ends_a_connection(world):
    serving, asking = world.member(SERVING), world.member((), ends_s=3600)
    await serving.serve(Role.GATEWAY)
    key = serving.key(Role.GATEWAY)
    assert await call(asking, key, Role.GATEWAY)
    serving.trust._now_s = lambda: time.time() + 7200
    await serving.trust.refresh()
    assert serving.trust.refusals == {"expired": 1}
    asking.trust._now_s = serving.trust._now_s
    with pytest.raises(ApiError, match="expired"):
        await asking.swarm.find(Role.GATEWAY)


# Rotation


async def test_members_follow_a_new_secret_and_who_was_revoked_stays_out(world):
    serving, good, bad = world.member(SERVING), world.member(), world.member()
    await serving.serve(Role.GATEWAY)
    for one in (serving, good, bad):
        await one.trust.refresh()
    key = serving.key(Role.GATEWAY)
    old, old_secret = topic_of(world.secret, "gateway"), world.secret
    assert await call(good, key, Role.GATEWAY)
    await world.revoke(bad)
    await world.rotate(serving, good)
    serving.run()
    await until(lambda: key in world.network.keys(topic_of(world.secret, "gateway")))
    await until(lambda: not world.network.keys(old))
    # Nobody is found by the old secret, so the new one is looked for at once.
    good.trust._refreshed_s = float("-inf")
    good.swarm._found.clear()
    assert await good.swarm.find(Role.GATEWAY) == [key]
    assert await call(good, key, Role.GATEWAY) == {"done": True}
    assert good.homes.load("home").secret == world.secret
    await bad.trust.refresh()
    assert bad.trust.membership.secret == old_secret
    with pytest.raises(ApiError, match="removed"):
        await bad.swarm.find(Role.GATEWAY)
    with pytest.raises(PeerRefused):
        await call(bad, key, Role.GATEWAY)


async def test_a_secret_that_comes_during_a_look_up_is_looked_up_with(world):
    serving, late = world.member(SERVING), world.member()
    await serving.serve(Role.GATEWAY)
    await world.rotate(serving, late)
    await serving.trust.refresh()
    key = serving.key(Role.GATEWAY)
    await until(lambda: key in world.network.keys(topic_of(world.secret, "gateway")))
    lookup = late.dht.lookup

    async def slow(topic):
        found = await lookup(topic)
        await late.trust.refresh()
        return found

    await until(lambda: not world.network.keys(topic_of(b"s" * 32, "gateway")))
    late.dht.lookup = slow
    assert await late.swarm.find(Role.GATEWAY) == [key]


async def test_who_is_ahead_waits_for_gateways_that_follow(world):
    serving, good = world.member(SERVING), world.member()
    await serving.serve(Role.GATEWAY)
    key = serving.key(Role.GATEWAY)
    assert await call(good, key, Role.GATEWAY)
    await world.rotate(serving, good)
    await good.trust.refresh()
    finding = asyncio.ensure_future(good.swarm.find(Role.GATEWAY))
    await asyncio.sleep(0.1)
    assert not finding.done()
    await serving.trust.refresh()
    assert await asyncio.wait_for(finding, 5) == [key]


async def test_the_first_call_after_a_rotation_is_answered(world):
    serving, good = world.member(SERVING), world.member()
    await serving.swarm.serve(Role.GATEWAY, {"ping": healthy})
    await world.rotate(serving, good)
    await serving.trust.refresh()  # who asks has the old secret
    assert (await Gateways(good.swarm).ping()).is_healthy


async def test_who_serves_is_told_of_a_rotation(world, monkeypatch):
    monkeypatch.setattr("peerchat.services.trust.REFRESH_GAP_S", 0.05)
    world.refresh_s = 1000.0
    owner, serving = world.member(), world.member(SERVING)
    await serving.serve(Role.GATEWAY)
    serving.run()
    old = world.secret
    await world.rotate(owner, serving)
    await owner.trust.refresh()
    await knock(owner.dht, owner.trust, old)
    key = serving.key(Role.GATEWAY)
    await until(lambda: key in world.network.keys(topic_of(world.secret, "gateway")))


async def healthy(_body, _peer):
    return {"status": "healthy", "service": "gateway"}


async def test_streams_outlive_a_rotation(world):
    serving, good = world.member(SERVING), world.member()
    await serving.serve(Role.GATEWAY, is_endless=True)
    stream = good.swarm.ask(serving.key(Role.GATEWAY), prompt("a"))
    await anext(stream)
    await world.rotate(serving, good)
    assert await serving.trust.refresh()
    assert await good.trust.refresh()
    for _ in range(5):
        await anext(stream)
    await stream.aclose()


async def test_the_old_secret_does_not_open_a_connection(world):
    serving, behind = world.member(SERVING), world.member()
    await serving.serve(Role.GATEWAY)
    await world.rotate(serving)
    await serving.trust.refresh()
    with pytest.raises(ConnectFailed):
        await call(behind, serving.key(Role.GATEWAY), Role.GATEWAY)
    assert serving.trust.refusals == {"wrong_secret": 1}
    # Whoever is refused looks whether it is behind; this one was left out.
    assert await behind.trust.refresh()
    assert behind.trust.membership.generation == 0


async def test_a_refused_peer_makes_a_member_look_soon_but_not_often(world):
    world.refresh_s = 1000.0
    serving, stranger = world.member(SERVING), world.member(chain=b"")
    await serving.serve(Role.GATEWAY)
    looks = []
    real = serving.trust._follower.refresh

    async def counted():
        looks.append(time.monotonic())
        return await real()

    serving.trust._follower.refresh = counted
    serving.run()
    for _ in range(5):
        with pytest.raises(ConnectFailed):
            await call(stranger, serving.key(Role.GATEWAY), Role.GATEWAY)
        await asyncio.sleep(0.05)
    assert len(looks) == 1


# The record in the DHT


async def test_an_older_record_is_refused_counted_and_replaced(world, caplog):
    serving, bad = world.member(SERVING), world.member()
    old = await world.publish()
    await world.revoke(bad)
    assert await serving.trust.refresh()
    newest = world.network.records[world.root.public_key]
    rolled_back = sign_mutable(world.root, old.value, old.seq)
    world.network.records[world.root.public_key] = rolled_back
    assert not await serving.trust.refresh()
    assert serving.trust.is_revoked_key(bad.peer)
    assert serving.trust.refusals == {"rollback": 1}
    assert "older" in caplog.text
    assert world.network.records[world.root.public_key] == newest
    # Also after a restart, and with a damaged copy of the record.
    (serving.homes.home.swarms_dir / "home" / "record.bin").write_bytes(b"damaged")
    world.network.records[world.root.public_key] = rolled_back
    again = swarm_follower.SwarmFollower(
        world.dht(), serving.homes, "home", serving.identity
    )
    assert not await again.refresh()
    assert again.record.revoked_keys == frozenset()
    assert again.membership.record_seq == 2


async def test_a_record_outlives_its_owner(world):
    serving, bad = world.member(SERVING), world.member()
    await world.revoke(bad)
    await serving.trust.refresh()
    world.network.records.clear()
    world.network.values.clear()
    await serving.trust.refresh()
    late = world.member()
    await late.trust.refresh()
    assert late.trust.is_revoked_key(bad.peer)


async def test_a_large_record_is_read_in_chunks_and_put_again(world):
    serving = world.member(SERVING)
    keys = frozenset(bytes([n % 256, n // 256]) + bytes(30) for n in range(1500))
    await world.publish(revoked_keys=keys)
    assert len(world.network.values) > 50
    await serving.trust.refresh()
    assert serving.trust.record.revoked_keys == keys
    world.network.records.clear()
    world.network.values.clear()
    await serving.trust.refresh()
    late = world.member()
    await late.trust.refresh()
    assert late.trust.record.revoked_keys == keys


async def test_a_record_whose_chunks_are_missing_is_read_later(world, caplog):
    serving = world.member(SERVING)
    keys = frozenset(bytes([n % 256, n // 256]) + bytes(30) for n in range(100))
    await world.publish(revoked_keys=keys)
    values = dict(world.network.values)
    world.network.values.clear()
    assert not await serving.trust.refresh()
    assert "could not be read" in caplog.text
    world.network.values.update(values)
    assert await serving.trust.refresh()


async def test_a_record_of_another_root_or_key_is_ignored(world):
    serving = world.member(SERVING)
    world.record_key = b"z" * 32
    await world.publish(name="other")
    assert not await serving.trust.refresh()
    assert serving.trust.membership.record_seq == 0


async def test_the_record_is_kept_for_the_next_start(world):
    serving, bad = world.member(SERVING), world.member()
    await world.revoke(bad)
    await serving.trust.refresh()
    world.network.is_down = True
    again = swarm_follower.SwarmFollower(
        world.dht(), serving.homes, "home", serving.identity
    )
    assert again.record.is_revoked_key(bad.peer)
    assert not await again.refresh()


async def test_what_another_process_of_the_home_wrote_is_taken_up(world):
    one = world.member()
    chain = world.member().trust.membership.chain
    one.homes.update("home", lambda kept: replace(kept, chain=chain))
    heard = []
    one.trust.subscribe(lambda: heard.append(1))
    assert await one.trust.refresh()
    assert one.trust.membership.chain == chain
    assert one.serial != b""
    assert heard == [1]


async def test_a_sealed_secret_that_is_not_the_record_s_is_not_taken(world, caplog):
    member = world.member()
    await world.rotate(member)
    await world.publish(generation=2, fingerprint=fingerprint_of(b"x" * 32))
    await member.trust.refresh()
    assert member.trust.membership.generation == 0
    assert "cannot be read" in caplog.text


async def test_a_network_that_is_down_stops_nothing(world, caplog):
    serving, asking = world.member(SERVING), world.member()
    await serving.serve(Role.GATEWAY)
    key = serving.key(Role.GATEWAY)
    assert await call(asking, key, Role.GATEWAY)
    world.network.is_down = True
    serving.run()
    await asyncio.sleep(2 * world.refresh_s)
    assert await call(asking, key, Role.GATEWAY)


async def test_answers_carry_no_secret_into_the_logs(world, caplog):
    caplog.set_level(logging.DEBUG)
    serving, good, bad = world.member(SERVING), world.member(), world.member()
    await serving.serve(Role.GATEWAY)
    assert await read(good.swarm.ask(serving.key(Role.GATEWAY), prompt("q"))) == "q "
    secrets = [world.secret.hex(), world.record_key.hex()]
    await world.revoke(bad)
    await world.rotate(serving, good)
    for one in (serving, good, bad):
        await one.trust.refresh()
    for secret in (*secrets, world.secret.hex(), good.own.seed.hex()):
        assert secret not in caplog.text
