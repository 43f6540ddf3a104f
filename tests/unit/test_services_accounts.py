"""Accounts: roles, registration, what admins do, and what a guesser learns."""

import asyncio
import statistics
import time

import bcrypt
import pytest

from peerchat.api import ApiError, ErrorCode
from peerchat.services.account_admin import PAGE, AccountAdmin, AdminRequest
from peerchat.services.account_table import FORGET_MS
from peerchat.services.accounts import REGISTRATIONS_FREE, Accounts, Source
from peerchat.services.lockout import DELAY_MAX_S, Lockout
from peerchat.services.messages import Credentials
from peerchat.services.passwords import PasswordHasher, cost_of
from peerchat.services.store import open_store
from peerchat.testing.passwords import fast_hasher

PASSWORD = "correct horse"
PEER = Source("p")


def who(name, password=PASSWORD):
    return Credentials(f"{name}@example.org", password)


@pytest.fixture
async def store(tmp_path):
    store = await open_store(tmp_path / "peerchat.db")
    yield store
    await store.close()


@pytest.fixture
def hasher():
    hasher = fast_hasher()
    yield hasher
    hasher.close()


@pytest.fixture
def accounts(store, hasher):
    return Accounts(store, hasher)


@pytest.fixture
async def swarm(store, hasher):
    """Accounts of a private swarm with its admin, and what the admin can do."""
    accounts = Accounts(store, hasher, makes_admin=True)
    await accounts.register(who("admin"))
    return accounts, AccountAdmin(accounts)


async def refused(work, status, part=""):
    with pytest.raises(ApiError, match=part or None) as caught:
        await work
    assert caught.value.status == status
    return caught.value


async def sql(store, text):
    await store.run(lambda c: c.exec_driver_sql(text))


# Who may register


async def test_the_first_account_of_a_private_swarm_is_its_admin(store, hasher):
    accounts = Accounts(store, hasher, registration="invite", makes_admin=True)
    first = await accounts.register(who("ann"))
    assert (first.role, first.status) == ("admin", "active")
    await refused(accounts.register(who("bob")), 403, "with a code")


async def test_nobody_becomes_admin_elsewhere(accounts):
    assert (await accounts.register(who("ann"))).role == "user"


async def test_many_first_accounts_at_once_make_one_admin(store, hasher):
    accounts = Accounts(store, hasher, makes_admin=True)
    made = await asyncio.gather(*(accounts.register(who(f"u{n}")) for n in range(5)))
    assert sorted(one.role for one in made) == ["admin", *["user"] * 4]


async def test_approval(store, hasher):
    accounts = Accounts(store, hasher, registration="approval")
    admin = AccountAdmin(accounts)
    assert (await accounts.register(who("ann"))).status == "pending"
    await refused(accounts.login(who("ann"), PEER), 403, "approval")
    await refused(accounts.login(who("ann", "wrong one"), PEER), 401, "Invalid")
    (approved,) = (await admin.do(AdminRequest("approve", "ANN@example.org "))).accounts
    assert approved.status == "active"
    assert (await accounts.login(who("ann"), PEER)).email == "ann@example.org"


async def test_a_code_works_once(store, hasher):
    accounts = Accounts(store, hasher, registration="invite")
    made = (await AccountAdmin(accounts).do(AdminRequest("invite"))).code
    await refused(accounts.register(who("ann")), 403, "with a code")
    await refused(accounts.register(who("ann"), code="abc"), 403, "unknown")
    typed = f" {made.code.upper().replace('-', ' ')} "
    assert (await accounts.register(who("ann"), code=typed)).status == "active"
    await refused(accounts.register(who("bob"), code=made.code), 403, "used already")
    assert made.code not in repr(made)


async def test_a_code_is_not_used_up_by_what_fails(store, hasher):
    accounts = Accounts(store, hasher, registration="invite")
    admin = AccountAdmin(accounts)
    first = (await admin.do(AdminRequest("invite"))).code
    second = (await admin.do(AdminRequest("invite"))).code
    await accounts.register(who("ann"), code=first.code)
    await refused(accounts.register(who("ann"), code=second.code), 409)
    await refused(accounts.register(who("bob", "short"), code=second.code), 400)
    await accounts.register(who("bob"), code=second.code)


async def test_a_code_expires_and_is_kept_as_a_hash(store, hasher):
    accounts = Accounts(store, hasher, registration="invite")
    code = (await AccountAdmin(accounts).do(AdminRequest("invite", expires_s=60))).code
    assert abs(code.expires_ms / 1000 - time.time() - 60) < 10
    await sql(store, "UPDATE registration_codes SET expires_ms = expires_ms - 70000")
    await refused(accounts.register(who("ann"), code=code.code), 403, "expired")
    plain = code.code.replace("-", "").encode()
    assert plain not in store.path.read_bytes().replace(b"-", b"")


async def test_one_code_lets_one_of_many_in(store, hasher):
    accounts = Accounts(store, hasher, registration="invite")
    code = (await AccountAdmin(accounts).do(AdminRequest("invite"))).code
    results = await asyncio.gather(
        *(accounts.register(who(f"u{n}"), code=code.code) for n in range(5)),
        return_exceptions=True,
    )
    assert sum(isinstance(one, ApiError) for one in results) == 4


# What admins do


async def test_disable_and_enable(swarm):
    accounts, admin = swarm
    await accounts.register(who("ann"))
    before = await accounts.login(who("ann"), PEER)
    await admin.do(AdminRequest("disable", "ann@example.org"))
    await refused(accounts.session(before.email, before.epoch), 401, "ended")
    await refused(accounts.login(who("ann"), PEER), 403, "disabled")
    await refused(accounts.login(who("ann", "wrong one"), PEER), 401, "Invalid")
    await refused(admin.do(AdminRequest("approve", "ann@example.org")), 409, "enable")
    await admin.do(AdminRequest("enable", "ann@example.org"))
    after = await accounts.login(who("ann"), PEER)
    assert after.epoch == before.epoch + 1
    # Sessions from before stay ended.
    await refused(accounts.session(before.email, before.epoch), 401)
    await accounts.session(after.email, after.epoch)


async def test_a_deleted_account_is_gone_and_its_tokens_with_it(swarm):
    accounts, admin = swarm
    await accounts.register(who("ann"))
    before = await accounts.login(who("ann"), PEER)
    await admin.do(AdminRequest("delete", "ann@example.org"))
    await refused(accounts.login(who("ann"), PEER), 401, "Invalid credentials")
    await refused(accounts.session(before.email, before.epoch), 401)
    await refused(
        admin.do(AdminRequest("enable", "ann@example.org")), 400, "no account"
    )
    listed = (await admin.do(AdminRequest("list"))).accounts
    assert [one.email for one in listed] == ["admin@example.org"]
    again = await accounts.register(who("ann", "another horse"))
    assert again.epoch > before.epoch
    await refused(accounts.session(before.email, before.epoch), 401)


async def test_what_is_left_of_a_deleted_account_goes_with_its_last_token(swarm, store):
    accounts, admin = swarm
    for name in ("ann", "bob"):
        await accounts.register(who(name))
    await admin.do(AdminRequest("delete", "ann@example.org"))
    await sql(store, f"UPDATE accounts SET changed_ms = changed_ms - {FORGET_MS + 1}")
    await admin.do(AdminRequest("delete", "bob@example.org"))

    async def emails(connection):
        found = await connection.exec_driver_sql("SELECT email FROM accounts")
        return {email for (email,) in found}

    assert await store.run(emails) == {"admin@example.org", "bob@example.org"}


@pytest.mark.parametrize("action", ["disable", "delete"])
async def test_the_last_admin_stays(swarm, store, action):
    accounts, admin = swarm
    await refused(
        admin.do(AdminRequest(action, "admin@example.org")), 409, "only admin"
    )
    await accounts.register(who("ann"))
    await sql(store, "UPDATE accounts SET role = 'admin'")
    await admin.do(AdminRequest(action, "admin@example.org"))
    await refused(admin.do(AdminRequest(action, "ann@example.org")), 409, "only admin")


async def test_reset_gives_a_password_and_ends_sessions(swarm):
    accounts, admin = swarm
    await accounts.register(who("ann"))
    before = await accounts.login(who("ann"), PEER)
    for _ in range(5):
        await refused(accounts.login(who("ann", "wrong one"), PEER), 401)
    await refused(accounts.login(who("ann"), PEER), 429)
    made = await admin.do(AdminRequest("reset", "ann@example.org"))
    assert len(made.password) == 20
    assert made.password not in repr(made)
    # Whoever forgot the password has guessed at it: that is forgiven.
    await accounts.login(who("ann", made.password), PEER)
    await refused(accounts.session(before.email, before.epoch), 401)
    request = AdminRequest("reset", "ann@example.org", password="a third horse")
    assert "horse" not in repr(request)
    assert (await admin.do(request)).password == ""
    await accounts.login(who("ann", "a third horse"), PEER)
    short = AdminRequest("reset", "ann@example.org", password="short")
    await refused(admin.do(short), 400, "at least 8")


async def test_limits(swarm):
    accounts, admin = swarm
    await accounts.register(who("ann"))
    email = "ann@example.org"
    (limited,) = (await admin.do(AdminRequest("limit", email, limit=3))).accounts
    assert limited.max_requests == 3
    (free,) = (await admin.do(AdminRequest("limit", email))).accounts
    assert free.max_requests is None
    await refused(admin.do(AdminRequest("limit", email, limit=0)), 400)


@pytest.mark.parametrize(
    ("request_", "part"),
    [
        (AdminRequest("promote", "ann@example.org"), "one of: list, approve"),
        (AdminRequest("disable"), "needs an email"),
        (AdminRequest("disable", "nobody@example.org"), "no account nobody"),
        (AdminRequest("invite", expires_s=1), "seconds"),
    ],
)
async def test_what_cannot_be_done(swarm, request_, part):
    await refused(swarm[1].do(request_), 400, part)


async def test_lists_come_in_pages(swarm, store):
    values = ", ".join(f"('u{n:05}@x.org', '', 'user', 0)" for n in range(PAGE + 5))
    columns = "email, password_hash, role, created_ms"
    await sql(store, f"INSERT INTO accounts ({columns}) VALUES {values}")
    seen, after = [], ""
    while True:
        page = await swarm[1].do(AdminRequest("list", after=after))
        seen += [one.email for one in page.accounts]
        if not page.has_more:
            break
        after = seen[-1]
    assert len(seen) == len(set(seen)) == PAGE + 6
    assert seen == sorted(seen)


# Passwords


async def test_a_new_password_ends_older_sessions(accounts):
    await accounts.register(who("ann"))
    record = await accounts.login(who("ann"), PEER)
    other = "another horse"
    await refused(
        accounts.change_password(record, "wrong one", other, PEER), 401, "Invalid"
    )
    await refused(accounts.change_password(record, PASSWORD, "short", PEER), 400)
    await refused(accounts.change_password(record, PASSWORD, PASSWORD, PEER), 400)
    await accounts.session(record.email, record.epoch)
    changed = await accounts.change_password(record, PASSWORD, other, PEER)
    assert changed.epoch == record.epoch + 1
    await refused(accounts.session(record.email, record.epoch), 401)
    await refused(accounts.login(who("ann"), PEER), 401)
    assert (await accounts.login(who("ann", other), PEER)).epoch == changed.epoch


async def test_two_changes_at_once_do_not_both_win(accounts):
    await accounts.register(who("ann"))
    record = await accounts.login(who("ann"), PEER)
    results = await asyncio.gather(
        *(
            accounts.change_password(record, PASSWORD, f"new horse {n}", PEER)
            for n in range(3)
        ),
        return_exceptions=True,
    )
    assert sum(isinstance(one, ApiError) for one in results) == 2


async def test_a_raised_cost_reaches_accounts_as_they_log_in(store, hasher):
    await Accounts(store, hasher).register(who("ann"))
    dearer = fast_hasher()
    dearer._cost = dearer._level = 6
    accounts = Accounts(store, dearer)
    assert cost_of((await accounts.login(who("ann"), PEER)).password_hash) == 4
    record = await accounts.login(who("ann"), PEER)
    assert cost_of(record.password_hash) == 6
    assert record.epoch == 0
    dearer.close()


def test_no_cost_is_below_the_least():
    for asked, kept in ((4, 10), (10, 10), (12, 12), (99, 15)):
        hasher = PasswordHasher(asked)
        assert hasher._cost == kept
        hasher.close()


async def test_every_check_costs_as_much_as_the_dearest(store, hasher, monkeypatch):
    """Counted, not timed: what bcrypt was asked for while an answer was made."""
    accounts = Accounts(store, hasher)
    await accounts.register(who("cheap"))
    hasher._cost = 6
    await accounts.register(who("dear"))
    hasher._cost = 5
    await accounts.register(who("middle"))
    await accounts.prepare()
    await hasher.check("x", None)
    spent = []
    check, make = bcrypt.checkpw, bcrypt.hashpw
    monkeypatch.setattr(
        bcrypt, "checkpw", lambda p, h: spent.append(2 ** int(h[4:6])) or check(p, h)
    )
    monkeypatch.setattr(
        bcrypt, "hashpw", lambda p, s: spent.append(2 ** int(s[4:6])) or make(p, s)
    )
    for name in ("cheap", "middle", "dear", "nobody"):
        spent.clear()
        await refused(accounts.login(who(name, "wrong one"), PEER), 401)
        assert sum(spent) == 2**6, name


# What a guesser learns


async def states(accounts, admin):
    """An account of each kind that a stranger must not tell apart."""
    for name in ("active", "disabled", "deleted", "waiting"):
        await accounts.register(who(name))
    await admin.do(AdminRequest("disable", "disabled@example.org"))
    await admin.do(AdminRequest("delete", "deleted@example.org"))
    await sql(
        accounts.store,
        "UPDATE accounts SET status = 'pending' WHERE email LIKE 'waiting%'",
    )
    return ("active", "disabled", "deleted", "waiting", "unknown")


async def test_enumeration_by_answer(store, hasher):
    accounts = Accounts(store, hasher)
    names = await states(accounts, AccountAdmin(accounts))
    answers = {}
    for name in names:
        said = []
        for _ in range(9):
            with pytest.raises(ApiError) as caught:
                await accounts.login(who(name, "wrong one"), Source("p", name))
            error = caught.value
            said.append((error.code, error.status, error.message, error.retry_after_s))
        answers[name] = said
    # Also how long it is locked out, and from which try on, is the same.
    assert len({tuple(said) for said in answers.values()}) == 1


async def test_enumeration_by_time(store):
    hasher = PasswordHasher(10)
    free = {"by_account": Lockout(10**6), "by_peer": Lockout(10**6)}
    accounts = Accounts(store, hasher, **free)
    names = await states(accounts, AccountAdmin(accounts))
    await accounts.prepare()
    times = {name: [] for name in names}
    for _ in range(15):
        for name in names:  # in turns: a busy moment of the machine hits all alike
            began_s = time.perf_counter()
            await refused(accounts.login(who(name, "wrong one"), PEER), 401)
            times[name].append(time.perf_counter() - began_s)
    medians = [statistics.median(tries) for tries in times.values()]
    # Without the hash of nobody's, the ratio would be about 30.
    assert max(medians) / min(medians) < 1.6
    hasher.close()


async def test_200_wrong_passwords(store, hasher):
    now = [0.0]
    lockout = Lockout(now_s=lambda: now[0])
    accounts = Accounts(store, hasher, by_account=lockout)
    await accounts.register(who("ann"))
    await accounts.register(who("bob"))
    judged, waits = 0, []
    for n in range(200):
        with pytest.raises(ApiError) as caught:
            await accounts.login(who("ann", f"guess {n:05}"), PEER)
        if caught.value.status == 401:
            judged += 1
        else:
            waits.append(caught.value.retry_after_s)
    # In the time that 200 tries take, five are looked at.
    assert judged == 5
    assert caught.value.code is ErrorCode.RATE_LIMITED
    # Others are unharmed, also those who come by the same gateway.
    await accounts.login(who("bob"), PEER)
    # The right password has to wait as well, else the wait could be got around.
    await refused(accounts.login(who("ann"), PEER), 429)
    now[0] += waits[-1]
    await accounts.login(who("ann"), PEER)


async def test_the_lock_grows_with_every_failure(store, hasher):
    now = [0.0]
    accounts = Accounts(store, hasher, by_account=Lockout(now_s=lambda: now[0]))
    await accounts.register(who("ann"))
    waits = []
    while len(waits) < 14:
        try:
            await accounts.login(who("ann", "wrong one"), PEER)
        except ApiError as error:
            if error.status == 429:
                waits.append(error.retry_after_s)
                now[0] += error.retry_after_s
    assert waits == [min(2**n, DELAY_MAX_S) for n in range(14)]


async def test_one_client_is_stopped_and_not_its_gateway(store, hasher):
    accounts = Accounts(store, hasher)
    await accounts.register(who("ann"))
    guesser, other = Source("gateway", "guesser"), Source("gateway", "other")
    seen = [
        (await refused_status(accounts, who(f"u{n}", "password1"), guesser))
        for n in range(30)
    ]
    assert seen == [401] * 20 + [429] * 10
    await accounts.login(who("ann"), other)


async def refused_status(accounts, credentials, source):
    with pytest.raises(ApiError) as caught:
        await accounts.login(credentials, source)
    return caught.value.status


async def test_registrations_of_one_source_are_slowed_down(accounts):
    results = []
    for n in range(REGISTRATIONS_FREE + 10):
        # That an account exists is not told any number of times.
        try:
            await accounts.register(who(f"u{n % 2}"), Source("p", "c"))
        except ApiError as error:
            results.append(error)
    statuses = [error.status for error in results]
    assert statuses[: REGISTRATIONS_FREE - 2] == [409] * (REGISTRATIONS_FREE - 2)
    # One or two more where the machine is so slow that a lock runs out.
    assert statuses.count(429) >= 8
    await accounts.register(who("other"), Source("p", "d"))
