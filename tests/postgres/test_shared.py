"""Two processes on one PostgreSQL: one limit, one truth about accounts."""

import asyncio

import pytest

from peerchat.api import ApiError, ErrorCode
from peerchat.services.account_admin import AccountAdmin, AdminRequest
from peerchat.services.accounts import Accounts, Source
from peerchat.services.known_accounts import KnownAccounts, StoreChanges
from peerchat.services.limits import PURGE_EVERY, Limiter
from peerchat.services.messages import Credentials
from peerchat.services.tokens import Claims
from peerchat.testing.passwords import fast_hasher

PEER = Source("p")
ANN = Credentials("ann@example.org", "correct horse")
BOB = Credentials("bob@example.org", "correct horse")


@pytest.fixture
def hasher():
    hasher = fast_hasher()
    yield hasher
    hasher.close()


async def test_the_limit_is_exact_with_two_gateways(opened):
    limiters = [Limiter(await opened(), 25) for _ in range(2)]
    for user in ("ann", "bob"):
        results = await asyncio.gather(
            *(limiters[n % 2].admit(user) for n in range(80)), return_exceptions=True
        )
        admitted = [one for one in results if not isinstance(one, BaseException)]
        refused = [one for one in results if isinstance(one, ApiError)]
        assert len(admitted) == 25
        assert {one.code for one in refused} == {ErrorCode.RATE_LIMITED}
        left = sorted(one.rate_limit.remaining for one in admitted)
        assert left == list(range(25))
    assert (await limiters[0].status("ann")).remaining == 0


async def test_many_purges_at_once_do_not_wait_for_each_other(opened):
    limiters = [Limiter(await opened(), 10**6, 0.0005) for _ in range(2)]
    await asyncio.gather(
        *(limiters[n % 2].admit(f"u{n % 7}") for n in range(2 * PURGE_EVERY + 20))
    )


async def test_the_clock_of_a_gateway_does_not_matter(opened, monkeypatch):
    limiter, other = Limiter(await opened(), 2), Limiter(await opened(), 2)
    monkeypatch.setattr(other._steady_ms, "_newest_ms", 2**50)
    await limiter.admit("ann")
    assert (await other.admit("ann")).rate_limit.reset_s <= 60
    with pytest.raises(ApiError):
        await limiter.admit("ann")


async def test_of_two_first_accounts_one_is_admin(opened, hasher):
    both = [Accounts(await opened(), hasher, makes_admin=True) for _ in range(2)]
    made = await asyncio.gather(
        *(
            both[n % 2].register(Credentials(f"u{n}@example.org", "correct horse"))
            for n in range(6)
        )
    )
    assert sorted(one.role for one in made) == ["admin"] + ["user"] * 5


async def test_two_at_once_make_one_account(opened, hasher):
    both = [Accounts(await opened(), hasher) for _ in range(2)]
    results = await asyncio.gather(
        *(both[n % 2].register(ANN) for n in range(6)), return_exceptions=True
    )
    refused = [one for one in results if isinstance(one, ApiError)]
    assert {one.code for one in refused} == {ErrorCode.CONFLICT}
    assert len(refused) == 5


async def test_one_code_lets_one_in(opened, hasher):
    both = [Accounts(await opened(), hasher, registration="invite") for _ in range(2)]
    made = await AccountAdmin(both[0]).do(AdminRequest("invite"))
    results = await asyncio.gather(
        *(
            both[n % 2].register(
                Credentials(f"u{n}@example.org", "correct horse"), code=made.code.code
            )
            for n in range(6)
        ),
        return_exceptions=True,
    )
    refused = [one for one in results if isinstance(one, ApiError)]
    assert len(refused) == 5
    assert {one.status for one in refused} == {403}


async def test_the_last_two_admins_do_not_disable_each_other(opened, hasher):
    both = [Accounts(await opened(), hasher, makes_admin=True) for _ in range(2)]
    await both[0].register(ANN)
    await both[0].register(BOB)
    await both[0].store.run(
        lambda c: c.exec_driver_sql("UPDATE accounts SET role = 'admin'")
    )
    results = await asyncio.gather(
        AccountAdmin(both[0]).do(AdminRequest("disable", BOB.email)),
        AccountAdmin(both[1]).do(AdminRequest("disable", ANN.email)),
        return_exceptions=True,
    )
    assert sum(isinstance(one, ApiError) for one in results) == 1


async def test_what_one_changes_the_other_knows(opened, hasher):
    first, second = [Accounts(await opened(), hasher) for _ in range(2)]
    await first.register(ANN)
    record = await second.login(ANN, PEER)
    known = KnownAccounts(StoreChanges(second.store), 60)
    await known.refresh()
    claims = Claims(ANN.email, "user", 0, 2**40, epoch=record.epoch)
    known.check(claims)
    changed = await first.change_password(record, ANN.password, "another one", PEER)
    await known.refresh()
    with pytest.raises(ApiError, match="ended"):
        known.check(claims)
    known.check(Claims(ANN.email, "user", 0, 2**40, epoch=changed.epoch))
    await AccountAdmin(first).do(AdminRequest("limit", ANN.email, limit=3))
    await known.refresh()
    assert known.max_requests(ANN.email) == 3


async def test_pages_of_changes_come_to_an_end(opened, hasher):
    store = await opened()
    rows = ", ".join(
        f"('u{n}@example.org', '', 'user', 0, 'active', 1, {n % 9 + 1}, {n // 100 + 1})"
        for n in range(1700)
    )
    columns = "email, password_hash, role, created_ms, status, epoch, max_requests"
    await store.run(
        lambda c: c.exec_driver_sql(
            f"INSERT INTO accounts ({columns}, changed_ms) VALUES {rows}"
        )
    )
    known = KnownAccounts(StoreChanges(store), 60)
    await known.refresh()
    assert len(known) == 1700
