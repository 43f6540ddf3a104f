"""API keys: made, listed, used and revoked, and what they cannot do."""

from __future__ import annotations

import asyncio

import pytest

from peerchat.api import ApiError, ErrorCode, Role
from peerchat.gateways import Gateways
from peerchat.redaction import Redactor
from peerchat.services.account_admin import AccountAdmin, AdminRequest
from peerchat.services.accounts import Accounts, Source
from peerchat.services.api_keys import KEYS_MAX, ApiKeys
from peerchat.services.auth import AuthRole
from peerchat.services.emails import LOCAL_EMAIL
from peerchat.services.gateway import GatewayRole
from peerchat.services.known_accounts import KnownAccounts, StoreChanges
from peerchat.services.known_keys import KNOWN_MAX, KnownKeys
from peerchat.services.limits import Limiter
from peerchat.services.messages import Credentials
from peerchat.services.store import open_store
from peerchat.services.tokens import TokenIssuer, TokenVerifier
from peerchat.testing.passwords import fast_hasher
from tests.unit.services_world import EMAIL, PASSWORD, SECRET, World

BOB = "bob@example.org"


@pytest.fixture
async def store(tmp_path):
    store = await open_store(tmp_path / "peerchat.db")
    yield store
    await store.close()


@pytest.fixture
async def accounts(store):
    hasher = fast_hasher()
    accounts = Accounts(store, hasher)
    for email in (EMAIL, BOB):
        await accounts.register(Credentials(email, PASSWORD), Source("p"))
    yield accounts
    hasher.close()


async def is_good(keys: ApiKeys, key: str) -> bool:
    try:
        await keys.resolve(key)
    except ApiError as error:
        if (error.code, error.status) != (ErrorCode.UNAUTHORIZED, 401):
            raise
        return False
    return True


# The store


async def test_a_key_is_whose_it_is(store, accounts) -> None:
    keys = ApiKeys(store)
    made = await keys.create(EMAIL, "  my  laptop ")
    assert made.name == "my laptop"
    assert made.key.startswith(f"pk_{made.key_id}_")
    assert await keys.resolve(made.key) == EMAIL
    (listed,) = await keys.list(EMAIL)
    assert (listed.key_id, listed.name, listed.key) == (made.key_id, "my laptop", "")
    assert await keys.list(BOB) == []


async def test_its_secret_is_not_kept(store, accounts, tmp_path) -> None:
    made = await ApiKeys(store).create(EMAIL, "x")
    secret = made.key.rpartition(made.key_id + "_")[2]
    for path in tmp_path.glob("peerchat.db*"):
        assert secret.encode() not in path.read_bytes()
    assert secret not in repr(made)
    assert secret not in Redactor().redact(f"the key is {made.key}.")


async def test_what_is_no_key(store, accounts) -> None:
    keys = ApiKeys(store)
    made, other = await keys.create(EMAIL, "x"), await keys.create(EMAIL, "y")
    swapped = f"pk_{made.key_id}_{other.key.rpartition(other.key_id + '_')[2]}"
    for key in ("", "pk_", made.key[:-1], made.key + "x", made.key.upper(), swapped):
        assert not await is_good(keys, key)


async def test_a_revoked_key_is_none(store, accounts) -> None:
    keys = ApiKeys(store)
    made = await keys.create(EMAIL, "x")
    with pytest.raises(ApiError, match="no such key"):
        await keys.revoke(BOB, made.key_id)
    assert await is_good(keys, made.key)
    await keys.revoke(EMAIL, made.key_id)
    assert not await is_good(keys, made.key)
    with pytest.raises(ApiError, match="no such key"):
        await keys.revoke(EMAIL, made.key_id)


async def test_a_key_is_as_good_as_its_account(store, accounts) -> None:
    keys = ApiKeys(store)
    admin = AccountAdmin(accounts)
    made = await keys.create(EMAIL, "x")
    await admin.do(AdminRequest("disable", EMAIL))
    assert not await is_good(keys, made.key)
    await admin.do(AdminRequest("enable", EMAIL))
    assert await is_good(keys, made.key)
    await accounts.logout_everywhere(EMAIL)
    assert await is_good(keys, made.key)
    await admin.do(AdminRequest("delete", EMAIL))
    await accounts.register(Credentials(EMAIL, PASSWORD), Source("p"))
    assert not await is_good(keys, made.key)


async def test_the_local_user_has_keys_only_in_solo(store) -> None:
    made = await ApiKeys(store).create(LOCAL_EMAIL, "x")
    assert not await is_good(ApiKeys(store), made.key)
    assert await ApiKeys(store, has_local=True).resolve(made.key) == LOCAL_EMAIL


@pytest.mark.parametrize("name", ["", "  ", "x" * 65, "a\x1b[31mb"])
async def test_names(store, name: str) -> None:
    with pytest.raises(ApiError) as caught:
        await ApiKeys(store).create(EMAIL, name)
    assert caught.value.status == 400


async def test_there_are_only_so_many(store) -> None:
    keys = ApiKeys(store)
    for number in range(KEYS_MAX):
        await keys.create(EMAIL, f"key {number}")
    with pytest.raises(ApiError, match="revoke one"):
        await keys.create(EMAIL, "one more")


# At a gateway


class ScriptedAuth:
    """Tells whose keys are, or fails."""

    def __init__(self) -> None:
        self.owners = {"pk_a": EMAIL}
        self.asked = 0
        self.failure: ApiError | None = None

    async def with_token(self, method, request, email):
        assert method == "resolveKey"
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        if request.token not in self.owners:
            raise ApiError(ErrorCode.UNAUTHORIZED, "none", status=401)
        return {"success": True, "email": self.owners[request.token]}


async def test_an_owner_is_known_for_one_refresh() -> None:
    auth, now = ScriptedAuth(), [0.0]
    known = KnownKeys(auth, 60, now_s=lambda: now[0])
    for _ in range(3):
        assert (await known.claims("pk_a")).email == EMAIL
    assert auth.asked == 1
    del auth.owners["pk_a"]  # revoked elsewhere
    now[0] = 59.9
    assert (await known.claims("pk_a")).email == EMAIL
    now[0] = 60
    with pytest.raises(ApiError) as caught:
        await known.claims("pk_a")
    assert caught.value.status == 401


async def test_using_a_key_does_not_keep_it_alive() -> None:
    auth, now = ScriptedAuth(), [0.0]
    known = KnownKeys(auth, 60, now_s=lambda: now[0])
    for second in range(0, 120, 10):
        now[0] = second
        await known.claims("pk_a")
    assert auth.asked == 2


async def test_what_nobody_can_tell_is_asked_again() -> None:
    auth = ScriptedAuth()
    known = KnownKeys(auth, 60)
    auth.failure = ApiError(ErrorCode.NO_AUTH, "nobody", status=503)
    with pytest.raises(ApiError) as caught:
        await known.claims("pk_a")
    assert caught.value.code is ErrorCode.NO_AUTH
    auth.failure = ApiError(ErrorCode.INVALID_REQUEST, "not ours", status=501)
    with pytest.raises(ApiError) as caught:
        await known.claims("pk_a")
    assert caught.value.status == 401
    auth.failure = None
    assert (await known.claims("pk_a")).email == EMAIL


async def test_no_more_are_kept_than_the_limit() -> None:
    auth = ScriptedAuth()
    auth.owners = {f"pk_{number}": EMAIL for number in range(KNOWN_MAX + 1)}
    known = KnownKeys(auth, 60)
    for key in auth.owners:
        await known.claims(key)
    await known.claims(f"pk_{KNOWN_MAX}")
    assert auth.asked == KNOWN_MAX + 1
    await known.claims("pk_0")
    assert auth.asked == KNOWN_MAX + 2


# Through a swarm


@pytest.fixture
async def world(tmp_path):
    async with World(tmp_path) as world:
        yield world


async def serve(world: World, max_requests: int = 10) -> None:
    """Auth and gateway in one process, as `peerchat serve --role all` has them."""
    peer = world.peer()
    store = await world.store()
    hasher = fast_hasher()
    world._resources.callback(hasher.close)
    verifier = TokenVerifier([SECRET])
    await world.run(
        AuthRole(
            peer.swarm,
            Accounts(store, hasher),
            TokenIssuer(SECRET),
            verifier=verifier,
            is_gateway=lambda key: key == peer.swarm.public_key.hex(),
        )
    )
    await world.run(
        GatewayRole(
            peer.swarm,
            verifier,
            Limiter(store, max_requests, 1.0),
            known=KnownAccounts(StoreChanges(store), 60.0),
        )
    )
    await world.processor("a")


async def said(gateways: Gateways, token: str) -> int:
    async with gateways.ask("one two", token) as answer:
        return len([event async for event in answer])


async def test_a_key_asks_and_is_limited_as_its_user(world: World) -> None:
    await serve(world, max_requests=2)
    gateways = Gateways(world.peer().swarm)
    await gateways.register(EMAIL, PASSWORD)
    token = (await gateways.login(EMAIL, PASSWORD)).token
    (made,) = await gateways.manage_keys(token, "create", name="laptop")
    assert [key.name for key in await gateways.manage_keys(token, "list")] == ["laptop"]
    assert (await gateways.verify(made.key)).account.email == EMAIL
    assert await said(gateways, token)
    assert await said(gateways, made.key)
    with pytest.raises(ApiError) as caught:
        await said(gateways, made.key)
    assert caught.value.code is ErrorCode.RATE_LIMITED


async def test_a_key_is_worthless_once_it_is_revoked_here(world: World) -> None:
    await serve(world)
    gateways = Gateways(world.peer().swarm)
    await gateways.register(EMAIL, PASSWORD)
    token = (await gateways.login(EMAIL, PASSWORD)).token
    (made,) = await gateways.manage_keys(token, "create", name="laptop")
    assert await said(gateways, made.key)
    await gateways.manage_keys(token, "revoke", key_id=made.key_id)
    with pytest.raises(ApiError) as caught:
        await said(gateways, made.key)
    assert caught.value.code is ErrorCode.UNAUTHORIZED


async def test_a_key_manages_nothing(world: World) -> None:
    await serve(world)
    gateways = Gateways(world.peer().swarm)
    await gateways.register(EMAIL, PASSWORD)
    token = (await gateways.login(EMAIL, PASSWORD)).token
    (made,) = await gateways.manage_keys(token, "create", name="laptop")
    for deed in (
        gateways.manage_keys(made.key, "create", name="other"),
        gateways.manage_keys(made.key, "list"),
        gateways.change_password(made.key, PASSWORD, PASSWORD + "!"),
        gateways.logout_everywhere(made.key),
        gateways.manage_accounts(made.key, "list"),
    ):
        with pytest.raises(ApiError) as caught:
            await deed
        assert caught.value.status == 401


async def test_only_gateways_ask_whose_a_key_is(world: World) -> None:
    await serve(world)
    stranger = world.peer()
    (auth,) = await stranger.swarm.find(Role.AUTH)
    body = {"token": "pk_x"}
    reply = await stranger.swarm.request(auth, "resolveKey", body, 5.0, role=Role.AUTH)
    assert (reply["success"], reply["status"]) == (False, 403)


async def test_keys_of_many_callers_at_once(world: World) -> None:
    await serve(world, max_requests=100)
    gateways = Gateways(world.peer().swarm)
    await gateways.register(EMAIL, PASSWORD)
    token = (await gateways.login(EMAIL, PASSWORD)).token
    (made,) = await gateways.manage_keys(token, "create", name="laptop")
    asked = await asyncio.gather(*(said(gateways, made.key) for _ in range(8)))
    assert all(asked)
