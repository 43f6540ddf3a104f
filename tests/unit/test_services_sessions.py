"""Passwords, sessions and accounts by gateways, over real connections."""

import asyncio
import json

import pytest

from peerchat.account_replies import managed_of
from peerchat.api import ApiError, ErrorCode, Role
from peerchat.client import Client
from peerchat.gateways import Gateways
from peerchat.net.errors import ConnectionLost, PeerUnreachable
from peerchat.services.accounts import Accounts
from peerchat.services.auth import AuthRole
from peerchat.services.auth_client import AuthClient
from peerchat.services.emails import LOCAL_EMAIL
from peerchat.services.gateway import GatewayRole
from peerchat.services.known_accounts import KnownAccounts, StoreChanges
from peerchat.services.limits import Limiter
from peerchat.services.tokens import TokenIssuer, TokenVerifier
from peerchat.testing.passwords import fast_hasher
from tests.scripted_swarm import ScriptedSwarm
from tests.scripted_swarm import gateway as scripted

from .services_world import EMAIL, PASSWORD, SECRET, World, call

ADMIN = "admin@example.org"
NEW = "another horse battery"


class Accountants(World):
    """Auth and gateway peers that share accounts, as those of a private swarm do."""

    async def auth(self, peer=None, *, registration="open", makes_admin=True):
        peer = peer or self.peer()
        hasher = fast_hasher()
        self._resources.callback(hasher.close)
        self.accounts = Accounts(
            await self.store(),
            hasher,
            registration=registration,
            makes_admin=makes_admin,
        )
        role = AuthRole(
            peer.swarm,
            self.accounts,
            TokenIssuer(SECRET),
            verifier=TokenVerifier([SECRET]),
            local=TokenVerifier([SECRET]),
            is_gateway=lambda key: key in self.gateways,
        )
        await self.run(role)
        self.auth_role = role
        return peer

    async def gateway(self, peer=None, *, is_private=True, refresh_s=3600, polls=True):
        peer = peer or self.peer()
        self.gateways.add(peer.swarm.public_key.hex())
        source = (
            AuthClient(peer.swarm, is_private=True)
            if polls
            else StoreChanges(await self.store())
        )
        known = KnownAccounts(source, refresh_s)
        limiter = Limiter(await self.store("limits.db"), 10)
        role = GatewayRole(
            peer.swarm,
            TokenVerifier([SECRET]),
            limiter,
            known=known,
            is_private=is_private,
        )
        await self.run(role)
        self.known.append(known)
        return peer

    def __init__(self, folder):
        super().__init__(folder)
        self.gateways = set()
        self.known = []


@pytest.fixture
async def world(tmp_path):
    async with Accountants(tmp_path) as one:
        yield one


async def client_of(world, email=EMAIL, password=PASSWORD):
    client = Client(swarm=world.peer().swarm)
    await client.start()
    await client.register(email, password)
    await client.login(email, password)
    return client


async def refused(work, status, part):
    with pytest.raises(ApiError, match=part) as caught:
        await work
    assert caught.value.status == status


async def test_a_new_password_ends_other_sessions_at_every_gateway(world):
    await world.auth()
    await world.gateway()
    await world.gateway()
    mine = await client_of(world)
    other = Client(swarm=world.peer().swarm)
    await other.start()
    await other.login(EMAIL, PASSWORD)
    await mine.change_password(PASSWORD, NEW)
    for known in world.known:
        await known.refresh()
    await mine.verify()
    await refused(other.verify(), 401, "session has ended")
    await refused(mine.change_password(PASSWORD, "a third horse"), 401, "Invalid")
    await refused(other.login(EMAIL, PASSWORD), 401, "Invalid credentials")
    await other.login(EMAIL, NEW)
    await other.verify()


async def test_logout_everywhere(world):
    await world.auth()
    gateways = [await world.gateway(), await world.gateway()]
    mine = await client_of(world)
    token = mine.token
    asker = world.peer()
    for gateway in gateways:
        said = await call(asker, gateway, "verifySession", {}, token)
        assert said["valid"] is True
    await mine.logout_everywhere()
    assert mine.account is None
    # At once where it was asked; elsewhere with the next round.
    for known in world.known:
        await known.refresh()
    for gateway in gateways:
        said = await call(asker, gateway, "verifySession", {}, token)
        assert (said["status"], said["valid"]) == (401, False)
        said = await call(asker, gateway, "processPrompt", {"prompt": "x"}, token)
        assert said["message"] == "Unauthorized: Invalid or expired token"
        said = await call(asker, gateway, "logoutEverywhere", {}, token)
        assert said["status"] == 401


async def test_a_round_comes_by_itself(world):
    await world.auth()
    gateway = await world.gateway(refresh_s=0.05)
    mine = await client_of(world)
    await world.accounts.logout_everywhere(EMAIL)
    async with asyncio.timeout(10):
        while True:
            said = await call(world.peer(), gateway, "verifySession", {}, mine.token)
            if said["status"] == 401:
                break
            await asyncio.sleep(0.02)


async def test_an_auth_peer_believes_no_gateway(world):
    """A gateway that knows nothing of the end of a session, or lies."""
    auth = await world.auth()
    await world.gateway()
    mine = await client_of(world)
    await world.accounts.logout_everywhere(EMAIL)
    for method, data in (
        ("changePassword", {"old": PASSWORD, "new": NEW}),
        ("logoutEverywhere", {}),
        ("manageAccounts", {"action": "list"}),
    ):
        said = await world.peer().swarm.request(
            auth.key(Role.AUTH),
            method,
            {**data, "token": mine.token},
            10,
            role=Role.AUTH,
        )
        assert (said["status"], said["message"]) == (
            401,
            "The session has ended: log in again",
        )


async def test_accounts_are_managed_by_admins_alone(world):
    await world.auth()
    await world.gateway()
    admin, user = await client_of(world, ADMIN), await client_of(world)
    await refused(user.manage_accounts("list"), 403, "Only an admin")
    await refused(user.manage_accounts("disable", ADMIN), 403, "Only an admin")
    listed = await admin.manage_accounts("list")
    assert [(one.email, one.role, one.status) for one in listed.accounts] == [
        (ADMIN, "admin", "active"),
        (EMAIL, "user", "active"),
    ]
    limited = await admin.manage_accounts("limit", EMAIL, limit=3)
    assert limited.accounts[0].max_requests == 3
    assert (await user.verify()).rate_limit.max_requests == 3
    assert (await admin.verify()).rate_limit.max_requests == 10
    await admin.manage_accounts("limit", EMAIL)
    assert (await user.verify()).rate_limit.max_requests == 10
    await admin.manage_accounts("disable", EMAIL)
    await refused(user.verify(), 401, "session has ended")
    await admin.manage_accounts("enable", EMAIL)
    reset = await admin.manage_accounts("reset", EMAIL)
    await user.login(EMAIL, reset.password)
    await admin.manage_accounts("delete", EMAIL)
    await refused(user.verify(), 401, "session has ended")
    await refused(admin.manage_accounts("delete", ADMIN), 409, "only admin")
    await refused(admin.manage_accounts("approve", EMAIL), 400, "no account")
    await refused(admin.manage_accounts("dance"), 400, "one of: list")


async def test_an_own_limit_counts(world):
    await world.processor("one")
    await world.auth()
    gateway = await world.gateway()
    admin, user = await client_of(world, ADMIN), await client_of(world)
    await admin.manage_accounts("limit", EMAIL, limit=2)
    statuses = []
    for _ in range(3):
        said = await call(
            world.peer(), gateway, "processPrompt", {"prompt": "x"}, user.token
        )
        statuses.append(said.get("status", 200))
        assert said["rateLimitInfo"]["maxRequests"] == 2
    assert statuses == [200, 200, 429]


async def test_registration_by_code_and_by_approval(world):
    await world.auth(registration="invite")
    await world.gateway()
    admin = await client_of(world, ADMIN)
    code = (await admin.manage_accounts("invite", expires_s=600)).code
    other = Client(swarm=world.peer().swarm)
    await other.start()
    await refused(other.register(EMAIL, PASSWORD), 403, "--code")
    assert not (await other.register(EMAIL, PASSWORD, code)).is_pending
    await refused(other.register("bob@x.org", PASSWORD, code), 403, "used already")


async def test_a_pending_account_is_told_so(world):
    await world.auth(registration="approval")
    await world.gateway()
    admin = await client_of(world, ADMIN)
    other = Client(swarm=world.peer().swarm)
    await other.start()
    assert (await other.register(EMAIL, PASSWORD)).is_pending
    await refused(other.login(EMAIL, PASSWORD), 403, "approval")
    await refused(other.login(EMAIL, "wrong one"), 401, "Invalid")
    await admin.manage_accounts("approve", EMAIL)
    await other.login(EMAIL, PASSWORD)


async def test_a_gateway_without_an_auth_peer_accepts_no_token(world, monkeypatch):
    monkeypatch.setattr("peerchat.services.gateway.FIRST_LOOK_S", 0.1)
    gateway = await world.gateway(refresh_s=0.05)
    token = TokenIssuer(SECRET).issue(EMAIL)
    said = await call(world.peer(), gateway, "verifySession", {}, token)
    assert (said["status"], said["retryAfter"]) == (503, 5)
    said = await call(world.peer(), gateway, "processPrompt", {"prompt": "x"}, token)
    assert said["error"] is True
    await world.auth()
    gateway.swarm._found.clear()
    assert await world.known[0].wait_ready(10)
    said = await call(world.peer(), gateway, "verifySession", {}, token)
    assert said["status"] == 200


async def test_changes_are_for_gateways_alone(world):
    auth = await world.auth()
    said = await world.peer().swarm.request(
        auth.key(Role.AUTH), "accountChanges", {"since": 0}, 10, role=Role.AUTH
    )
    assert (said["status"], said["success"]) == (403, False)


async def test_clients_do_not_choose_for_whom_they_are_counted(world):
    """200 guesses by one client, each under the name of another one."""
    await world.auth()
    gateway = await world.gateway()
    guesser, other = world.peer(), world.peer()
    await call(other, gateway, "register", {"email": EMAIL, "password": PASSWORD})
    seen = []
    for n in range(200):
        data = {
            "email": f"u{n}@example.org",
            "password": "password1",
            "source": f"{n:064x}",
            "token": "x",
        }
        seen.append((await call(guesser, gateway, "login", data))["status"])
    assert seen[:10] == [401] * 10
    # One or two more where the machine is so slow that a lock runs out.
    assert seen.count(429) >= 180
    said = await call(other, gateway, "login", {"email": EMAIL, "password": PASSWORD})
    assert said["status"] == 200


# Where there is no private swarm


async def test_an_open_gateway_manages_the_accounts_of_its_own_process(world):
    peer = world.peer()
    await world.auth(peer, makes_admin=False)
    await world.gateway(peer, is_private=False, polls=False)
    mine = await client_of(world)
    await mine.change_password(PASSWORD, NEW)
    await mine.verify()
    await refused(mine.manage_accounts("list"), 403, "Only an admin")
    await mine.logout_everywhere()


async def test_an_open_gateway_shows_tokens_to_no_stranger(world):
    seen = []
    stranger = world.peer()

    async def note(body, _peer):
        seen.append(json.loads(body))
        return {"success": True, "status": 200, "key": "x", "email": EMAIL}

    names = ("login", "changePassword", "logoutEverywhere", "manageAccounts")
    await stranger.swarm.serve(
        Role.AUTH, {**dict.fromkeys((*names, "accountChanges"), note)}
    )
    gateway = await world.gateway(is_private=False, polls=False)
    token = TokenIssuer(SECRET).issue(EMAIL)
    asker = world.peer()
    for method, data in (
        ("changePassword", {"old": PASSWORD, "new": NEW}),
        ("logoutEverywhere", {}),
        ("manageAccounts", {"action": "list"}),
    ):
        said = await call(asker, gateway, method, data, token)
        assert said["status"] == 501
        assert "does not keep the accounts" in said["message"]
    assert seen == []
    await call(asker, gateway, "login", {"email": EMAIL, "password": PASSWORD})
    assert seen == [{"email": EMAIL, "password": PASSWORD}]


async def test_the_local_user_manages_accounts_and_has_no_password(world):
    peer = world.peer()
    await world.auth(peer, makes_admin=False)
    gateway = await world.gateway(peer, is_private=False, polls=False)
    await client_of(world)
    token = TokenIssuer(SECRET).issue(LOCAL_EMAIL)
    said = await call(
        world.peer(), gateway, "manageAccounts", {"action": "list"}, token
    )
    assert [one.email for one in managed_of(said).accounts] == [EMAIL]
    for method, data in (
        ("changePassword", {"old": PASSWORD, "new": NEW}),
        ("logoutEverywhere", {}),
    ):
        said = await call(world.peer(), gateway, method, data, token)
        assert (said["status"], said["success"]) == (400, False)


async def test_the_local_user_of_another_home_manages_nothing(world):
    """With a shared JWT_SECRET anybody's auth peer can name an account like that."""
    await world.auth()
    await world.gateway()
    world.auth_role._local = TokenVerifier([b"the own secret of the auth peer's home"])
    token = TokenIssuer(SECRET).issue(LOCAL_EMAIL)
    client = Gateways(world.peer().swarm)
    await refused(client.manage_accounts(token, "list"), 401, "signature")
    world.auth_role._local = None
    await refused(client.manage_accounts(token, "list"), 401, "session has ended")


async def test_requests_of_another_form(world):
    await world.auth()
    gateway = await world.gateway()
    mine = await client_of(world)
    for method, data in (
        ("changePassword", {}),
        ("changePassword", {"old": 5, "new": []}),
        ("changePassword", {"old": "x" * 5000, "new": NEW}),
        ("manageAccounts", {}),
        ("manageAccounts", {"action": "limit", "email": EMAIL, "limit": "many"}),
        ("manageAccounts", {"action": "x" * 100}),
    ):
        said = await call(world.peer(), gateway, method, data, mine.token)
        assert (said["status"], said["success"]) == (400, False)
    for method in ("changePassword", "logoutEverywhere", "manageAccounts"):
        said = await call(world.peer(), gateway, method, {}, "")
        assert said["status"] == 401


async def test_a_change_whose_answer_is_lost_is_not_repeated():
    lost = ConnectionLost("gone in the middle")
    unreachable = PeerUnreachable("no packet gets through")
    for method, work in (
        ("changePassword", lambda one: one.change_password("t", PASSWORD, NEW)),
        ("logoutEverywhere", lambda one: one.logout_everywhere("t")),
        ("manageAccounts", lambda one: one.manage_accounts("t", "reset", EMAIL)),
    ):
        swarm = ScriptedSwarm(
            first=scripted(**{method: unreachable}),
            second=scripted(**{method: lost}),
            third=scripted(**{method: {"success": True}}),
        )
        with pytest.raises(ApiError, match="log in to see") as caught:
            await work(Gateways(swarm))
        assert caught.value.code is ErrorCode.PEER_LOST
        calls = [len(peer.calls) for peer in swarm.peers.values()]
        assert calls == [1, 1, 0]
