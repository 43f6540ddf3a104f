"""What the owner of a swarm does: certify, grant, revoke, rotate, back up, restore."""

from __future__ import annotations

from pathlib import Path

import pytest

from peerchat.api import ApiError, ErrorCode
from peerchat.net.crypto.primitives import KeyPair
from peerchat.net.identity import PublicKey
from peerchat.services.certifier import own_certificate, own_chain
from peerchat.services.record_book import RecordBook
from peerchat.services.swarm_record import RecordSource
from peerchat.services.trust import Trust
from peerchat.swarm_files import swarm_dir
from peerchat.trust.certificate import check_chain
from peerchat.trust.errors import RefusalReason, TrustRefused
from peerchat.trust.record import RecordBody
from tests.unit.private_world import HomeOf, World

PASSPHRASE = "a long sentence that nobody guesses"
WORKER = PublicKey(KeyPair.from_seed(b"w" * 32).public_key)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def joined(owner: HomeOf, home: HomeOf, **invite) -> HomeOf:
    line, _ = await owner.swarms.invite("team", **invite)
    async with owner.enrolment():
        await home.swarms.join(line)
    return home


async def published(owner: HomeOf) -> RecordBody:
    """What any member reads in the DHT."""
    membership = owner.membership()
    source = RecordSource(owner.dht, membership.root, membership.record_key)
    head = await source.newest_head()
    assert head is not None
    return source.read_untrusted(await source.fetch(head))


def trust(world: World, home: HomeOf) -> Trust:
    return Trust(
        home.dht, home.homes, "team", home.identity, now_s=world.clock, refresh_s=1
    )


async def test_a_new_swarm_is_used_and_its_home_is_admin_and_owner(world: World):
    owner = await world.owner()
    view = owner.swarms.view("team")
    assert view.is_owner
    assert view.is_admin
    assert view.is_current
    assert view.roles == ("auth", "gateway", "processor")
    membership = owner.membership()
    check_chain(
        own_chain(membership),
        root=membership.root,
        now_s=world.clock(),
        revocations=RecordBook(owner.homes, "team").body(),
    )
    await trust(world, owner).refresh()
    body = await published(owner)
    assert (body.name, body.generation) == ("team", 0)


async def test_a_name_is_taken_once(world: World):
    owner = await world.owner()
    with pytest.raises(ApiError, match="already"):
        await owner.swarms.create("Team")
    with pytest.raises(ApiError, match="name is"):
        await owner.swarms.create("a/b")
    assert owner.homes.names() == ["team"]


async def test_the_root_key_is_locked_by_a_passphrase(world: World):
    owner = await world.owner(PASSPHRASE)
    member = await joined(owner, world.home("member"))
    key = own_certificate(member.membership()).peer.hex()
    assert owner.swarms.needs_passphrase("team")
    for passphrase, words in (("", "locked"), ("wrong", "does not open")):
        with pytest.raises(ApiError, match=words) as caught:
            await owner.swarms.revoke("team", key, passphrase)
        assert caught.value.code is ErrorCode.UNAUTHORIZED
    await owner.swarms.revoke("team", key, PASSPHRASE)
    kept = (swarm_dir(owner.settings.home, "team") / "root.key").read_bytes()
    assert PASSPHRASE.encode() not in kept


async def test_a_member_neither_invites_nor_revokes(world: World):
    owner = await world.owner()
    member = await joined(owner, world.home("member"), roles=["all"])
    with pytest.raises(ApiError, match="no admin"):
        await member.swarms.invite("team")
    for work in (
        member.swarms.revoke("team", "abcdef"),
        member.swarms.rotate("team"),
        member.swarms.backup("team"),
    ):
        with pytest.raises(ApiError, match="only the owner"):
            await work


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"roles": ["cook"]}, "no role"),
        ({"roles": ["admin"]}, "no role"),
        ({"uses": 0}, "uses"),
        ({"expires_s": 0}, "year"),
        ({"expires_s": 1e9}, "year"),
    ],
)
async def test_invites_that_make_no_sense_are_refused(world: World, wrong, words):
    owner = await world.owner()
    with pytest.raises(ApiError, match=words):
        await owner.swarms.invite("team", **wrong)


async def test_a_revoked_peer_is_out_with_all_its_keys(world: World):
    owner = await world.owner()
    member = await joined(owner, world.home("member"), roles=["gateway"], label="box")
    certificate = own_certificate(member.membership())
    other = await joined(owner, world.home("other"))
    # By any of its keys, shortened; here the one that a gateway's log shows.
    shown = certificate.keys["gateway"].hex()[:10]
    words = await owner.swarms.revoke("team", shown)
    assert "box" in words
    body = await published(owner)
    assert body.revoked_keys == {certificate.peer, *certificate.keys.values()}
    assert {
        one.name for one in await owner.swarms.members("team") if one.is_revoked
    } == {"box"}
    watching = trust(world, other)
    assert await watching.refresh()
    with pytest.raises(TrustRefused) as caught:
        check_chain(
            own_chain(member.membership()),
            root=owner.membership().root,
            now_s=world.clock(),
            revocations=watching.record,
        )
    assert caught.value.reason is RefusalReason.REVOKED
    assert all(watching.is_revoked_key(key) for key in certificate.keys.values())


async def test_a_revoked_peer_cannot_come_back(world: World):
    owner = await world.owner()
    member = await joined(owner, world.home("member"))
    key = own_certificate(member.membership()).peer.hex()
    await owner.swarms.revoke("team", key)
    async with owner.enrolment():
        with pytest.raises(ApiError, match=r"removed|not known"):
            await member.swarms.renew("team")
        line, _ = await owner.swarms.invite("team")
        with pytest.raises(ApiError, match="removed"):
            await member.swarms.join(line)
    # Only its old keys are out: after a deed of forgiveness it comes as a new peer.
    (member.settings.home.seed_path).unlink()
    async with owner.enrolment():
        member.swarms.leave("team")
        await member.swarms.join(line)


async def test_one_certificate_can_be_voided_by_its_serial(world: World):
    owner = await world.owner()
    member = await joined(owner, world.home("member"))
    serial = own_certificate(member.membership()).serial
    await owner.swarms.revoke("team", serial.hex()[:12])
    body = await published(owner)
    assert body.revoked_serials == {serial}
    assert not body.revoked_keys


async def test_what_is_meant_must_be_clear(world: World):
    owner = await world.owner()
    for meant, words in (("abc", "at least 4"), ("abcdef0123", "no key or serial")):
        with pytest.raises(ApiError, match=words):
            await owner.swarms.revoke("team", meant)
    own = own_certificate(owner.membership())
    for key in (own.peer, own.keys["client"], own.serial):
        with pytest.raises(ApiError, match="this home itself"):
            await owner.swarms.revoke("team", key.hex())


async def test_an_unknown_whole_key_can_be_revoked(world: World):
    owner = await world.owner()
    await owner.swarms.revoke("team", WORKER.hex())
    assert (await published(owner)).revoked_keys == {WORKER}


async def test_granted_roles_come_with_the_next_renewal(world: World):
    owner = await world.owner(PASSPHRASE)
    member = await joined(owner, world.home("member"))
    key = own_certificate(member.membership()).peer.hex()
    # More roles take no root key.
    granted = await owner.swarms.grant("team", key[:8], ["processor", "gateway"])
    assert granted.is_member
    async with owner.enrolment():
        view = await member.swarms.renew("team")
    assert view.roles == ("gateway", "processor")


async def test_taking_a_role_away_voids_the_older_certificates(world: World):
    owner = await world.owner()
    member = await joined(owner, world.home("member"), roles=["all"])
    before = own_certificate(member.membership())
    await owner.swarms.grant("team", before.peer.hex(), ["processor"])
    assert (await published(owner)).revoked_serials == {before.serial}
    async with owner.enrolment():
        view = await member.swarms.renew("team")
    assert view.roles == ("processor",)


async def test_an_admin_made_by_the_owner_invites_by_itself(world: World):
    owner = await world.owner()
    admin = await joined(owner, world.home("admin"))
    key = own_certificate(admin.membership()).peer.hex()
    await owner.swarms.grant("team", key, ["admin", "gateway"])
    async with owner.enrolment():
        assert (await admin.swarms.renew("team")).is_admin
    third = await joined(admin, world.home("third"), roles=["auth"])
    chain = own_chain(third.membership())
    root = owner.membership().root
    empty = RecordBook(owner.homes, "team").body()
    check_chain(chain, root=root, now_s=world.clock(), revocations=empty)
    # With the admin goes whom it let in.
    await owner.swarms.revoke("team", key)
    with pytest.raises(TrustRefused) as caught:
        check_chain(
            chain, root=root, now_s=world.clock(), revocations=await published(owner)
        )
    assert caught.value.reason is RefusalReason.REVOKED


async def test_a_worker_is_granted_and_revoked_by_its_key(world: World):
    owner = await world.owner()
    await owner.swarms.grant(
        "team", WORKER.hex(), ["processor", "client"], label="node", expires_s=60
    )
    body = await published(owner)
    assert [one.role for one in body.grants_of(WORKER, world.clock())] == [
        "client",
        "processor",
    ]
    assert body.grants_of(WORKER, world.clock() + 61) == ()
    assert {one.name for one in owner.swarms.grants("team")} == {"node"}
    await owner.swarms.revoke("team", WORKER.hex()[:8])
    body = await published(owner)
    assert body.grants == ()
    assert body.is_revoked_key(WORKER)
    await owner.swarms.grant("team", WORKER.hex(), ["auth"])
    assert not (await published(owner)).is_revoked_key(WORKER)
    with pytest.raises(ApiError, match="64"):
        await owner.swarms.grant("team", "ab" * 16, ["auth"])
    with pytest.raises(ApiError, match="no role"):
        await owner.swarms.grant("team", WORKER.hex(), ["admin"])


async def test_a_rotated_secret_reaches_members_and_not_the_revoked(world: World):
    owner = await world.owner()
    member = await joined(owner, world.home("member"))
    removed = await joined(owner, world.home("removed"))
    old = owner.membership().secret
    await owner.swarms.revoke("team", own_certificate(removed.membership()).peer.hex())
    assert await owner.swarms.rotate("team") == 2
    new = owner.membership()
    assert new.generation == 1
    assert new.secret != old
    for home, secret in ((member, new.secret), (removed, old)):
        following = trust(world, home)
        await following.refresh()
        assert following.membership.secret == secret
    # Who has the old line, and the old secret in it, gets the new one.
    late = await joined(owner, world.home("late"))
    assert late.membership().secret == new.secret


async def test_a_line_from_before_a_rotation_still_works(world: World):
    owner = await world.owner()
    line, _ = await owner.swarms.invite("team")
    await owner.swarms.rotate("team")
    late = world.home("late")
    async with owner.enrolment():
        await late.swarms.join(line)
    assert late.membership().secret == owner.membership().secret
    assert late.membership().generation == 1


async def test_nothing_changes_while_nobody_stores_the_record(world: World):
    owner = await world.owner()
    member = await joined(owner, world.home("member"))
    key = own_certificate(member.membership()).peer.hex()
    before = owner.membership()
    world.network.is_down = True
    with pytest.raises(ApiError) as caught:
        await owner.swarms.rotate("team")
    assert caught.value.code is ErrorCode.DHT_UNREACHABLE
    with pytest.raises(ApiError):
        await owner.swarms.revoke("team", key)
    assert owner.membership() == before
    assert not any(one.is_revoked for one in await owner.swarms.members("team"))


@pytest.mark.parametrize("passphrase", ["", PASSPHRASE])
async def test_a_backup_brings_the_swarm_back(world: World, passphrase: str):
    owner = await world.owner(passphrase)
    member = await joined(owner, world.home("member"), roles=["processor"])
    removed = await joined(owner, world.home("removed"))
    gone = own_certificate(removed.membership())
    await owner.swarms.revoke("team", gone.peer.hex(), passphrase)
    data = await owner.swarms.backup("team", passphrase)
    old = owner.membership()

    new = world.home("new machine")
    if passphrase:
        with pytest.raises(ApiError, match="does not open"):
            await new.swarms.restore(data, "wrong")
        assert new.homes.names() == []
    view = await new.swarms.restore(data, passphrase)
    assert view.is_owner
    assert view.is_admin
    assert new.membership().secret == old.secret
    assert new.membership().root == old.root
    assert RecordBook(new.homes, "team").body().is_revoked_key(gone.peer)
    with pytest.raises(ApiError, match="owns that swarm"):
        await new.swarms.restore(data, passphrase)

    # The lost machine does not answer; its members find the new one.
    world.clock.at_s += 300 * 24 * 3600
    async with new.enrolment():
        await member.swarms.renew("team")
        with pytest.raises(ApiError):
            await removed.swarms.renew("team")
    chain = own_chain(member.membership())
    assert chain.issuer == own_certificate(new.membership())
    assert chain.certificate.roles == {"processor"}
    # And the thief of the old one is out.
    await new.swarms.revoke(
        "team", own_certificate(owner.membership()).peer.hex(), passphrase
    )
    body = await published(new)
    assert body.is_revoked_key(gone.peer)
    check_chain(chain, root=old.root, now_s=world.clock(), revocations=body)


async def test_a_backup_from_before_a_rotation_catches_up(world: World):
    owner = await world.owner()
    data = await owner.swarms.backup("team")
    await owner.swarms.grant("team", WORKER.hex(), ["auth"])
    await owner.swarms.rotate("team")
    new = world.home("new machine")
    await new.swarms.restore(data)
    assert new.membership().generation == 0
    await new.swarms.catch_up("team")
    assert new.membership().secret == owner.membership().secret
    assert new.swarms.grants("team") == owner.swarms.grants("team")


async def test_damaged_backups_are_refused(world: World):
    owner = await world.owner()
    data = await owner.swarms.backup("team")
    new = world.home("new machine")
    for damage in (b"", b"x" * 100, data[:-1], data[:-20] + b"x" * 20):
        with pytest.raises(ApiError):
            await new.swarms.restore(damage)
    assert new.homes.names() == []


async def test_two_homes_of_the_owner_do_not_overwrite_each_other(world: World):
    owner = await world.owner()
    first = await joined(owner, world.home("first"))
    second = await joined(owner, world.home("second"))
    new = world.home("new machine")
    await new.swarms.restore(await owner.swarms.backup("team"))
    for home, member in ((owner, first), (new, second), (owner, second)):
        key = own_certificate(member.membership()).peer
        await home.swarms.revoke("team", key.hex())
    gone = {own_certificate(one.membership()).peer for one in (first, second)}
    assert gone <= (await published(owner)).revoked_keys


async def test_invites_name_the_network(world: World, tmp_path: Path):
    from peerchat.trust.invite import parse_invite_untrusted

    owner = world.home("owner")
    await owner.swarms.create("team", bootstrap=("127.0.0.1:4000",))
    line, _ = await owner.swarms.invite("team")
    assert parse_invite_untrusted(line).bootstrap == ("127.0.0.1:4000",)
    preview = owner.swarms.read_invite(f'  "{line[:40]}\n {line[40:]}" ')
    assert (preview.swarm, preview.root) == ("team", owner.membership().root.hex())
    member = await joined(owner, world.home("member"))
    assert member.membership().bootstrap == ("127.0.0.1:4000",)
