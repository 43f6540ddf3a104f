"""Invites: who is let in, once, and what everybody else is told."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path

import pytest

from peerchat.api import ApiError, ErrorCode
from peerchat.net.crypto.primitives import KeyPair
from peerchat.net.errors import NetError
from peerchat.net.rpc.client import RpcClient
from peerchat.services.attempts import Attempts
from peerchat.services.certifier import own_chain
from peerchat.services.enrolment import CONNECTIONS_MAX
from peerchat.services.enrolment_client import _enrol_request, needs_renewal, redeem
from peerchat.services.identity import Identity
from peerchat.trust.certificate import check_chain, check_key
from peerchat.trust.invite import parse_invite_untrusted
from tests.unit.private_world import World

DAY_S = 24 * 3600.0
YEAR_S = 365 * DAY_S


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_an_invite_lets_one_peer_in_with_its_keys_certified(world: World):
    owner = await world.owner()
    line, _ = await owner.swarms.invite("team", roles=["processor"], label="gpu")
    joiner = world.home("joiner")
    async with owner.enrolment():
        view = await joiner.swarms.join(line, name="ignored")
    assert (view.name, view.roles, view.is_admin) == ("team", ("processor",), False)
    assert view.is_current
    kept = joiner.membership()
    ours = owner.membership()
    assert (kept.secret, kept.root, kept.record_key) == (
        ours.secret,
        ours.root,
        ours.record_key,
    )
    chain = own_chain(kept)
    check_chain(
        chain, root=ours.root, now_s=world.clock(), revocations=await record(owner)
    )
    own = joiner.identity.in_swarm(ours.root)
    for purpose in ("client", "processor"):
        check_key(chain, own.purpose_key_pair(purpose).public_key, purpose)
    assert chain.certificate.name == "gpu"
    assert chain.issuer is not None
    members = await owner.swarms.members("team")
    assert {(one.name, one.roles) for one in members} == {
        ("gpu", ("processor",)),
        ("owner", ("admin", "auth", "gateway", "processor")),
    }


async def record(owner):
    from peerchat.services.record_book import RecordBook

    return RecordBook(owner.homes, "team").body()


async def test_used_expired_withdrawn_and_unknown_codes_are_told_apart(world: World):
    owner = await world.owner()
    used, _ = await owner.swarms.invite("team")
    withdrawn, entry = await owner.swarms.invite("team")
    short, _ = await owner.swarms.invite("team", expires_s=60)
    foreign, _ = await owner.swarms.invite("team")
    async with owner.enrolment() as enrolment:
        await world.home("first").swarms.join(used)
        await owner.swarms.uninvite("team", entry.invite_id[:8])
        late = world.home("late")
        for line, words in ((used, "used already"), (withdrawn, "withdrawn")):
            with pytest.raises(ApiError, match=words):
                await late.swarms.join(line)
        async with owner.store() as store:
            await store.run(forget_invites)
        enrolment._codes = frozenset()
        with pytest.raises(ApiError, match="not known"):
            await late.swarms.join(foreign)
        world.clock.at_s += 61
        with pytest.raises(ApiError, match="expired"):
            await late.swarms.join(short)
        assert enrolment.refused == {"used": 1, "withdrawn": 1, "unknown": 1}
    assert late.homes.names() == []
    assert late.homes.current() == ""


async def forget_invites(connection):
    from sqlalchemy import delete

    from peerchat.services.store import swarm_invites

    await connection.execute(delete(swarm_invites))


async def test_an_expired_code_is_refused_by_the_admin_too(world: World):
    owner = await world.owner()
    line, _ = await owner.swarms.invite("team", expires_s=60)
    invite = parse_invite_untrusted(line)
    world.clock.at_s += 61
    joiner = world.home("joiner")
    async with owner.enrolment() as enrolment:
        with pytest.raises(ApiError, match="expired"):
            # A clock that is slow, or a line that was changed.
            await redeem(joiner.dht, invite, joiner.identity, now_s=lambda: 0.0)
        assert enrolment.refused == {"expired": 1}


async def test_of_two_peers_at_one_instant_one_wins(world: World):
    owner = await world.owner()
    line, _ = await owner.swarms.invite("team")
    joiners = [world.home(f"joiner {number}") for number in range(4)]
    async with owner.enrolment():
        results = await asyncio.gather(
            *(joiner.swarms.join(line) for joiner in joiners), return_exceptions=True
        )
    failures = [one for one in results if isinstance(one, ApiError)]
    assert len(failures) == 3
    assert all("used already" in one.message for one in failures)
    assert len(await owner.swarms.members("team")) == 2
    assert [one.state for one in await owner.swarms.invites("team")] == ["used"]


async def test_an_invite_for_several_lets_so_many_in(world: World):
    owner = await world.owner()
    line, _ = await owner.swarms.invite("team", uses=2)
    async with owner.enrolment():
        await world.home("one").swarms.join(line)
        await world.home("two").swarms.join(line)
        with pytest.raises(ApiError, match="used already"):
            await world.home("three").swarms.join(line)


async def test_the_same_peer_gets_its_certificate_again(world: World):
    """Its answer was lost, or its home was emptied but for the identity."""
    owner = await world.owner()
    line, _ = await owner.swarms.invite("team")
    joiner = world.home("joiner")
    async with owner.enrolment():
        await joiner.swarms.join(line)
        first = joiner.membership()
        joiner.swarms.leave("team")
        await joiner.swarms.join(line)
    assert joiner.membership() == first
    assert [one.uses_left for one in await owner.swarms.invites("team")] == [0]


async def test_a_second_invite_to_the_same_swarm_keeps_its_name(world: World):
    owner = await world.owner()
    joiner = world.home("joiner")
    async with owner.enrolment():
        for roles in ([], ["gateway"]):
            line, _ = await owner.swarms.invite("team", roles=roles)
            view = await joiner.swarms.join(line)
    assert joiner.homes.names() == ["team"]
    assert view.roles == ("gateway",)


async def enrol(world, owner, line, change, pair=None):
    """What an altered client gets to hear."""
    invite = parse_invite_untrusted(line)
    own = Identity(b"s" * 32).in_swarm(invite.root)
    rpc = RpcClient(world.network.node(), key_pair=pair or own.key_pair("client"))
    try:
        session = await rpc.session(invite.enrol_key, hold=True)
        import msgspec

        body = json.loads(msgspec.json.encode(_enrol_request(invite, own, session, "")))
        answer = await session.request("enrol", change(body), timeout_s=10)
    finally:
        await rpc.close()
    return json.loads(answer)


def text(key: bytes) -> str:
    return base64.b64encode(key).decode()


def foreign_key(body):
    body["keys"]["gateway"] = text(KeyPair.from_seed(b"x" * 32).public_key)
    return json.dumps(body).encode()


def swapped_proofs(body):
    proofs = body["proofs"]
    proofs["auth"], proofs["gateway"] = proofs["gateway"], proofs["auth"]
    return json.dumps(body).encode()


def other_peer(body):
    body["peer"] = text(KeyPair.from_seed(b"x" * 32).public_key)
    return json.dumps(body).encode()


def no_peer_proof(body):
    del body["proofs"]["peer"]
    return json.dumps(body).encode()


def missing_key(body):
    del body["keys"]["token"]
    return json.dumps(body).encode()


def same_key_twice(body):
    body["keys"]["auth"] = body["keys"]["gateway"]
    return json.dumps(body).encode()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (foreign_key, "proof"),
        (swapped_proofs, "proof"),
        (other_peer, "proof"),
        (no_peer_proof, "proof"),
        (missing_key, "malformed"),
        (same_key_twice, "malformed"),
        (lambda _body: b"", "malformed"),
        (lambda _body: b"[" * 4000, "malformed"),
        (lambda _body: b'{"code": 1}', "malformed"),
    ],
)
async def test_foreign_keys_are_refused(world: World, change, why: str):
    owner = await world.owner()
    line, _ = await owner.swarms.invite("team")
    async with owner.enrolment() as enrolment:
        answer = await enrol(world, owner, line, change)
        assert answer["refused"] == why
        assert enrolment.refused == {why: 1}
    assert [one.state for one in await owner.swarms.invites("team")] == ["open"]


async def test_a_request_from_another_connection_key_is_refused(world: World):
    owner = await world.owner()
    line, _ = await owner.swarms.invite("team")
    async with owner.enrolment():
        answer = await enrol(
            world,
            owner,
            line,
            lambda body: json.dumps(body).encode(),
            KeyPair.from_seed(b"y" * 32),
        )
    assert answer["refused"] == "proof"


async def test_a_proof_of_another_connection_is_worth_nothing(world: World):
    owner = await world.owner()
    line, _ = await owner.swarms.invite("team")
    seen = []

    def record_and_spoil(body):
        seen.append(json.dumps(body).encode())
        return b"{}"

    async with owner.enrolment():
        await enrol(world, owner, line, record_and_spoil)
        answer = await enrol(world, owner, line, lambda _body: seen[0])
    assert answer["refused"] == "proof"


async def test_guessing_shuts_nobody_out(world: World):
    owner = await world.owner()
    line, _ = await owner.swarms.invite("team")

    def guess(body):
        body["code"] = text(b"g" * 16)
        return json.dumps(body).encode()

    async with owner.enrolment() as enrolment:
        answers = {
            (await enrol(world, owner, line, guess))["refused"] for _ in range(12)
        }
        assert answers == {"unknown"}
        await world.home("joiner").swarms.join(line)
        assert enrolment.refused == {"unknown": 12}


async def test_what_costs_signatures_is_limited_by_source(world: World, monkeypatch):
    owner = await world.owner()
    line, _ = await owner.swarms.invite("team")
    async with owner.enrolment() as enrolment:
        enrolment._attempts = Attempts(3, 10, 60.0)
        answers = [
            (await enrol(world, owner, line, swapped_proofs))["refused"]
            for _ in range(5)
        ]
    assert answers == ["proof"] * 3 + ["too_many"] * 2


async def test_a_connection_that_is_refused_often_is_cut(world: World):
    owner = await world.owner()
    line, _ = await owner.swarms.invite("team")
    invite = parse_invite_untrusted(line)
    rpc = RpcClient(world.network.node(), key_pair=KeyPair.from_seed(b"c" * 32))
    async with owner.enrolment():
        session = await rpc.session(invite.enrol_key, hold=True)
        for _ in range(5):
            await session.request("enrol", b"{}", timeout_s=10)
        with pytest.raises(NetError):
            await session.request("enrol", b"{}", timeout_s=10)
        await rpc.close()


def test_attempts_end_with_their_window():
    now_s = 0.0
    attempts = Attempts(2, 3, 60.0, now_s=lambda: now_s)
    assert [attempts.is_allowed("a") for _ in range(3)] == [True, True, False]
    assert [attempts.is_allowed("b") for _ in range(2)] == [True, False]
    now_s = 60.0
    assert attempts.is_allowed("a")
    assert len(attempts._attempts) == 1
    assert attempts._sources == {"a": 1}


async def test_idle_connections_do_not_fill_the_door(world: World):
    owner = await world.owner()
    line, _ = await owner.swarms.invite("team")
    invite = parse_invite_untrusted(line)
    async with owner.enrolment() as enrolment:
        clients = [
            RpcClient(world.network.node(), key_pair=KeyPair.from_seed(bytes([n] * 32)))
            for n in range(CONNECTIONS_MAX + 3)
        ]
        await asyncio.gather(
            *(one.session(invite.enrol_key, hold=True) for one in clients),
            return_exceptions=True,
        )
        assert len(enrolment._server.sessions) <= CONNECTIONS_MAX
        for one in clients:
            await one.close()


async def test_nobody_there_is_said_in_words(world: World):
    owner = await world.owner()
    line, _ = await owner.swarms.invite("team")
    with pytest.raises(ApiError, match="must be running") as caught:
        await world.home("joiner").swarms.join(line)
    assert caught.value.code is ErrorCode.PEER_LOST


async def test_an_admin_of_another_swarm_cannot_answer(world: World, monkeypatch):
    """Whoever holds the enrol key without the root's trust gives nothing of worth."""
    owner = await world.owner()
    line, _ = await owner.swarms.invite("team")
    impostor = world.home("impostor")
    await impostor.swarms.create("team")
    theirs = impostor.homes.load("team")
    import peerchat.services.enrolment as module

    async with owner.enrolment():
        original = module.Enrolment._certifier
        monkeypatch.setattr(
            module.Enrolment,
            "_certifier",
            lambda self, _own: type(original(self, owner.membership())).of_admin(
                theirs, impostor.identity, now_s=world.clock
            ),
        )
        joiner = world.home("joiner")
        with pytest.raises(ApiError, match="another swarm"):
            await joiner.swarms.join(line)
        assert joiner.homes.names() == []


async def test_certificates_are_renewed_from_the_middle_of_their_life(world: World):
    owner = await world.owner()
    line, _ = await owner.swarms.invite("team", roles=["auth"])
    joiner = world.home("joiner")
    async with owner.enrolment():
        await joiner.swarms.join(line)
        first = joiner.membership()
        assert not needs_renewal(first, world.clock())
        await joiner.swarms.renew("team")
        assert joiner.membership() == first
        world.clock.at_s += YEAR_S / 2 + DAY_S
        assert needs_renewal(first, world.clock())
        view = await joiner.swarms.renew("team")
    assert view.not_after_s == int(world.clock() + YEAR_S)
    assert view.roles == ("auth",)
    assert not needs_renewal(owner.membership(), world.clock())


async def test_only_the_peer_itself_can_renew(world: World):
    owner = await world.owner()
    line, _ = await owner.swarms.invite("team")
    joiner, thief = world.home("joiner"), world.home("thief")
    async with owner.enrolment() as enrolment:
        await joiner.swarms.join(line)
        own = joiner.identity.in_swarm(owner.membership().root)
        rpc = RpcClient(thief.dht, key_pair=KeyPair.from_seed(b"t" * 32))
        body = json.dumps({"peer": text(own.peer_key_pair.public_key)}).encode()
        answer = await rpc.request(enrolment.public_key, "renew", body, timeout_s=10)
        await rpc.close()
    assert json.loads(answer)["refused"] == "proof"


async def test_secrets_stay_out_of_logs_and_representations(world: World, caplog):
    caplog.set_level("DEBUG")
    owner = await world.owner()
    line, _ = await owner.swarms.invite("team")
    invite = parse_invite_untrusted(line)
    async with owner.enrolment():
        await world.home("joiner").swarms.join(line)
        with pytest.raises(ApiError):
            await world.home("other").swarms.join(line)
    told = caplog.text + repr(invite) + repr(owner.membership())
    for secret in (invite.secret, invite.code, owner.membership().record_key):
        assert secret.hex() not in told
        assert text(secret) not in told
        assert repr(secret) not in told
    assert line not in told
