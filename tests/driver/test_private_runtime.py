"""Whole nodes of a private swarm on loopback sockets: made, joined, used, left."""

import asyncio
import dataclasses
import logging
import os

import pytest

from peerchat.api import ApiError, ErrorCode, Role
from peerchat.client import Client
from peerchat.services.models.pull_peers import (
    ask_offers,
    choose_offer,
    pull_from_peers,
)
from peerchat.services.models.store import ModelStore
from peerchat.services.node_runtime import NodeRuntime
from tests.driver.private_homes import EMAIL, SERVED
from tests.driver.test_host_runtime import PASSWORD, pretend_other_process
from tests.tiny_gguf import tiny_model


async def whole(client, text="What is peerchat?"):
    return (await client.ask_whole(text)).text


async def test_who_was_invited_asks_and_who_was_not_finds_nobody(homes):
    await homes.create()
    async with homes.serving("box") as box:
        assert box.mode == "private"
        await homes.join("laptop")
        async with NodeRuntime(homes.settings("laptop")) as node:
            assert node.health() == ()
            await node.client.register(EMAIL, PASSWORD)
            await node.client.login(EMAIL, PASSWORD)
            assert await whole(node.client)
            roles = {v.role for v in await node.client.peers() if v.is_reachable}
            assert roles == SERVED
            with pytest.raises(ApiError):
                await node.use_local_account()
        stranger = homes.settings("else", swarm="", is_open=True)
        async with NodeRuntime(stranger) as node:
            assert await node.client.peers() == []
        assert box.trust.refusals == {}


async def test_without_the_swarm_it_says_how_to_get_in(homes):
    with pytest.raises(ApiError, match="swarm join") as caught:
        await NodeRuntime(homes.settings("nobody")).start()
    assert caught.value.status == 404


async def test_a_member_may_serve_what_it_is_certified_for(homes):
    await homes.create()
    async with homes.serving("box", frozenset({Role.AUTH, Role.GATEWAY})):
        await homes.join("gpu", roles=["processor"])
        with pytest.raises(ApiError, match="--role auth"):
            await homes.serving("gpu", frozenset({Role.AUTH})).start()
        async with (
            homes.serving("gpu", frozenset({Role.PROCESSOR})) as gpu,
            NodeRuntime(homes.settings("box")) as node,
        ):
            await node.client.register(EMAIL, PASSWORD)
            await node.client.login(EMAIL, PASSWORD)
            answer = await node.client.ask_whole("What is peerchat?")
            assert answer.usage.peer == gpu.role_keys()[Role.PROCESSOR]


async def test_a_running_serve_is_used_by_its_home(homes):
    await homes.create()
    async with homes.serving("box") as box:
        pretend_other_process(box)
        for swarm in ("club", ""):
            given = homes.settings("box", swarm=swarm)
            given = dataclasses.replace(given, bootstrap=None)
            async with NodeRuntime(given, is_app=True) as node:
                assert node.attached_to is not None
                assert (node.mode, node.settings.swarm) == ("private", "club")
                assert node.health() == ()
                assert node.trust is not None
        with pytest.raises(ApiError, match="already"):
            await homes.serving("box").start()
        await homes.swarms("box").create("other", "")
        async with NodeRuntime(homes.settings("box", "other"), is_app=True) as node:
            assert node.attached_to is None
            assert len(node.health()) == 3
        pretend_other_process(box, os.getpid())


async def test_a_revoked_member_is_cut_off(homes):
    await homes.create()
    async with homes.serving("box") as box:
        await homes.join("laptop")
        await homes.join("tablet")
        async with (
            NodeRuntime(homes.settings("laptop")) as bad,
            NodeRuntime(homes.settings("tablet")) as good,
        ):
            for client, email in ((bad.client, EMAIL), (good.client, "b@example.org")):
                await client.register(email, PASSWORD)
                await client.login(email, PASSWORD)
                assert await whole(client)
            peer = bad.trust.identity.peer_key_pair.public_key.hex()
            await homes.swarms("box").revoke("club", peer)
            async with asyncio.timeout(20):
                while not box.trust.refusals.get("revoked"):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            with pytest.raises(ApiError):
                await whole(bad.client)
            assert await whole(good.client)
            assert refused(box, "revoked") >= 1
            # Whoever is out stays out after the secret was changed, others follow.
            await homes.swarms("box").rotate("club")
            await box.trust.refresh()
            await good.trust.refresh()
            await bad.trust.refresh()
            assert good.trust.membership.secret == box.trust.membership.secret
            assert bad.trust.membership.secret != box.trust.membership.secret
            async with asyncio.timeout(20):
                await until_answered(good.client)
            with pytest.raises(ApiError, match="removed"):
                await whole(bad.client)
        # So does every later start, be it to ask or to serve.
        async with NodeRuntime(homes.settings("laptop")) as node:
            status = await node.client.status()
            assert "removed from the swarm club" in status.problem
            with pytest.raises(ApiError, match="removed"):
                await node.client.peers()
        with pytest.raises(ApiError, match="removed from the swarm club"):
            await homes.serving("laptop", frozenset({Role.BRIDGE})).start()


def refused(node, reason):
    """What Prometheus sees of it, over all roles."""
    labels = [{"role": role.value, "reason": reason} for role in node.metrics]
    name = "peerchat_refused_peers_total"
    found = [
        metrics.registry.get_sample_value(name, label)
        for metrics, label in zip(node.metrics.values(), labels, strict=True)
    ]
    return sum(filter(None, found))


async def until_answered(client):
    while True:
        try:
            return await whole(client)
        except ApiError as error:
            if error.code is not ErrorCode.NO_GATEWAY:
                raise
            await asyncio.sleep(0.2)


async def test_a_program_is_what_its_home_is(homes):
    await homes.create()
    async with homes.serving("box"):
        await homes.join("laptop")
        async with Client(homes.settings("laptop")) as client:
            await client.register(EMAIL, PASSWORD)
            await client.login(EMAIL, PASSWORD)
            assert await whole(client)


async def test_secrets_stay_out_of_the_logs(homes, caplog):
    caplog.set_level(logging.DEBUG)
    await homes.create()
    async with homes.serving("box") as box:
        line, _ = await homes.swarms("box").invite("club")
        await homes.swarms("laptop").join(line)
        async with NodeRuntime(homes.settings("laptop")) as node:
            await node.client.register(EMAIL, PASSWORD)
            await node.client.login(EMAIL, PASSWORD)
            token = node.client.token
            assert await whole(node.client)
        kept = box.trust.membership
    for secret in (kept.secret.hex(), kept.record_key.hex(), line, token, PASSWORD):
        assert secret not in caplog.text
    assert repr(kept.secret) not in caplog.text


@pytest.mark.parametrize("shares", [None, False])
async def test_members_of_a_private_swarm_get_model_files(homes, shares):
    await homes.create()
    model = tiny_model().read_bytes()
    folder = homes.settings("box").home.models_dir
    folder.mkdir(parents=True)
    (folder / "tiny.gguf").write_bytes(model)
    async with homes.serving("box", share_models=shares):
        await homes.join("laptop")
        async with NodeRuntime(homes.settings("laptop")) as node:
            async with asyncio.timeout(20):
                found = None
                while found is None and shares is None:
                    keys = await node.swarm.find(Role.PROCESSOR)
                    found = choose_offer(await ask_offers(node.swarm, keys), "tiny")
            if found is None:
                keys = await node.swarm.find(Role.PROCESSOR)
                (told,) = await ask_offers(node.swarm, keys)
                assert told.problem == "gives no files"
                return
            store = ModelStore(node.settings.home.models_dir)
            pulled = await pull_from_peers(store, node.swarm, *found)
            assert pulled.path.read_bytes() == model
