"""Whose key signed a receipt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from peerchat.api import Role
from peerchat.net.crypto.primitives import KeyPair
from peerchat.net.identity import PublicKey
from peerchat.services.identity import load_identity
from peerchat.services.membership import SwarmHomes
from peerchat.services.receipt_claims import Verdict
from peerchat.services.signers import Signers
from peerchat.settings import Settings
from tests.unit.private_world import START_S, HomeOf, World
from tests.unit.test_swarm_owner import joined
from tests.unit.trust_world import NAME, SERVING, PrivateWorld, home_at

STRANGER = PublicKey(KeyPair.from_seed(b"?" * 32).public_key)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def signers(home: HomeOf) -> Signers:
    return Signers(replace(home.settings, swarm="team"), now_s=home.clock)


def processor_key(home: HomeOf) -> PublicKey:
    own = home.identity.in_swarm(home.membership().root)
    return own.role_key_pair(Role.PROCESSOR).public_key


async def test_an_admins_home_knows_whom_it_let_in(world: World) -> None:
    owner = await world.owner()
    gpu = await joined(owner, world.home("gpu"), roles=["processor"], label="gpu-1")
    asker = await joined(owner, world.home("ann"), label="ann")
    found = await signers(owner).known(processor_key(gpu), START_S)
    assert found is not None
    assert found.verdict is Verdict.HOLDS
    assert found.says.endswith("swarm team: gpu-1")
    assert await signers(gpu).known(processor_key(gpu), START_S) == found
    assert await signers(asker).known(processor_key(gpu), START_S) is None
    assert await signers(owner).known(STRANGER, START_S) is None
    claim = await signers(owner).known(processor_key(asker), START_S)
    assert claim is not None
    assert claim.verdict is Verdict.FAILS


async def test_a_certificate_counts_for_its_time(world: World) -> None:
    owner = await world.owner()
    gpu = await joined(owner, world.home("gpu"), roles=["processor"], label="gpu-1")
    for at_s in (0.0, START_S * 2):
        found = await signers(owner).known(processor_key(gpu), at_s)
        assert found is not None
        assert found.verdict is Verdict.FAILS


async def test_who_was_revoked_is_not_believed(world: World) -> None:
    owner = await world.owner()
    gpu = await joined(owner, world.home("gpu"), roles=["processor"], label="gpu-1")
    key = processor_key(gpu)
    await owner.swarms.revoke("team", key.hex())
    found = await signers(owner).known(key, START_S)
    assert found is not None
    assert found.verdict is Verdict.FAILS
    assert found.says == "its key is revoked in the swarm team"


async def test_a_granted_worker_is_known_to_all(world: World) -> None:
    owner = await world.owner()
    await owner.swarms.grant("team", STRANGER.hex(), ["processor"], label="node-1")
    found = await signers(owner).known(STRANGER, START_S)
    assert found is not None
    assert (found.verdict, found.says[-6:]) == (Verdict.HOLDS, "node-1")


async def test_a_processor_shows_its_certificate_to_whoever_asks(
    tmp_path: Path,
) -> None:
    async with PrivateWorld(tmp_path) as world:
        gpu, other, asker = (
            world.member(SERVING),
            world.member(("gateway",)),
            world.member(),
        )
        await gpu.serve(Role.PROCESSOR)
        await other.serve(Role.GATEWAY)
        own = Signers(Settings(home_at(tmp_path / "home"), swarm=NAME))
        met = await own.met(asker.swarm, gpu.key(Role.PROCESSOR))
        assert met.verdict is Verdict.HOLDS
        for key in (other.key(Role.GATEWAY), STRANGER):
            claim = await own.met(asker.swarm, key)
            assert claim.verdict is Verdict.FAILS


async def test_nobody_vouches_for_keys_elsewhere(tmp_path: Path) -> None:
    settings = Settings(home_at(tmp_path), is_open=True)
    assert await Signers(settings).known(STRANGER, START_S) is None
    assert Signers(settings).unmet("it is gone").verdict is Verdict.UNCHECKED
    solo = Signers(replace(settings, is_open=False))
    claim = await solo.known(STRANGER, START_S)
    assert claim is not None
    assert claim.verdict is Verdict.UNCHECKED
    assert not SwarmHomes(settings.home).names()
    own = load_identity(settings.home.seed_path).role_key_pair(Role.PROCESSOR)
    claim = await solo.known(own.public_key, START_S)
    assert claim is not None
    assert claim.verdict is Verdict.HOLDS
