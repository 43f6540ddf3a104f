"""The store, accounts, tokens and keys of a home."""

import asyncio
import base64
import json
import sqlite3
import stat
import threading
import time

import jwt
import pytest

from peerchat.api import ApiError, ErrorCode
from peerchat.services.accounts import Accounts, Source
from peerchat.services.identity import load_identity
from peerchat.services.limits import Limiter
from peerchat.services.lockout import DELAY_MAX_S, ENTRIES_MAX, Lockout
from peerchat.services.messages import Credentials
from peerchat.services.store import open_store
from peerchat.services.tokens import TOKEN_LIFE_S, TokenIssuer, TokenVerifier
from peerchat.testing.passwords import fast_hasher

PEER = Source("p")

SECRET = b"a secret of more than thirty-two bytes"
ANN = Credentials("ann@example.org", "correct horse")


@pytest.fixture
async def store(tmp_path):
    store = await open_store(tmp_path / "data" / "peerchat.db")
    yield store
    await store.close()


@pytest.fixture
def hasher():
    hasher = fast_hasher()
    yield hasher
    hasher.close()


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


async def test_files_are_private(store):
    await store.secret("one")
    assert mode(store.path.parent) == 0o700
    for path in store.path.parent.iterdir():
        assert mode(path) == 0o600, path


async def test_lax_modes_are_repaired(tmp_path, caplog):
    path = tmp_path / "peerchat.db"
    path.touch(0o644)
    path.chmod(0o644)
    store = await open_store(path)
    await store.close()
    assert mode(path) == 0o600
    assert "repaired" in caplog.text


async def test_secrets_last_and_differ(tmp_path):
    path = tmp_path / "peerchat.db"
    first = await open_store(path)
    second = await open_store(path)
    made = await asyncio.gather(first.secret("jwt"), second.secret("jwt"))
    assert made[0] == made[1]
    assert len(made[0]) == 32
    assert await first.secret("other") != made[0]
    await first.close()
    await second.close()


async def test_a_damaged_store_says_what_to_do(tmp_path):
    path = tmp_path / "peerchat.db"
    path.write_bytes(b"this is no database at all" * 100)
    with pytest.raises(ApiError, match="Restore it from a backup") as caught:
        await open_store(path)
    assert caught.value.code is ErrorCode.STORE_FAILED
    assert str(path) in caught.value.message


async def test_pages_that_are_damaged(tmp_path):
    path = tmp_path / "peerchat.db"
    await (await open_store(path)).close()
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 3000)
    with pytest.raises(ApiError, match="is damaged") as caught:
        await open_store(path)
    assert caught.value.code is ErrorCode.STORE_FAILED


async def test_a_failure_while_running_leaves_the_store_usable(store):
    await store.run(lambda c: c.exec_driver_sql("DROP TABLE accepted_prompts"))
    with pytest.raises(ApiError, match="The log says why") as caught:
        await Limiter(store).admit("ann")
    assert caught.value.code is ErrorCode.STORE_FAILED
    assert await store.secret("two")


async def test_a_locked_store_says_what_to_do(store):
    other = sqlite3.connect(store.path, isolation_level=None)
    await store.run(lambda c: c.exec_driver_sql("PRAGMA busy_timeout=1"))
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(ApiError, match="locked by another program") as caught:
        await store.secret("one")
    assert caught.value.code is ErrorCode.STORE_FAILED
    other.execute("ROLLBACK")
    other.close()
    assert await store.secret("one")


async def test_a_full_disk_says_what_to_do(store):
    await store.run(lambda c: c.exec_driver_sql("PRAGMA max_page_count=1"))
    store.quick._connection.execute("PRAGMA max_page_count=1")
    limiter = Limiter(store, 1000)

    async def fill():
        for number in range(200):
            await limiter.admit("x" * 200 + str(number))

    with pytest.raises(ApiError, match="disk is full"):
        await fill()


async def test_a_prompt_is_admitted_while_the_file_is_busy(store):
    limiter = Limiter(store, 2)
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = asyncio.create_task(limiter.admit("ann"))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    other.execute("ROLLBACK")
    other.close()
    assert (await waiting).rate_limit.remaining == 1
    assert (await limiter.admit("ann", request="r")).rate_limit.remaining == 0
    assert (await limiter.admit("ann", request="r")).rate_limit.remaining == 0
    with pytest.raises(ApiError, match="Rate limit"):
        await limiter.admit("ann", request="s")


async def test_a_store_of_a_later_version(tmp_path):
    path = tmp_path / "peerchat.db"
    await (await open_store(path)).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE about SET value = '99'")
    connection.close()
    with pytest.raises(ApiError, match="later peerchat"):
        await open_store(path)


async def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ApiError, match="cannot be used"):
        await open_store(tmp_path / "file" / "peerchat.db")


async def test_a_cancelled_caller_leaves_the_transaction_whole(store):
    limiter = Limiter(store, 10)
    task = asyncio.create_task(limiter.admit("ann"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await limiter.status("ann")).remaining == 9


# Accounts


async def test_register_and_login(store, hasher):
    accounts = Accounts(store, hasher)
    assert (await accounts.register(ANN)).email == "ann@example.org"
    record = await accounts.login(
        Credentials("ANN@EXAMPLE.ORG ", "correct horse"), PEER
    )
    assert record.email == "ann@example.org"
    with pytest.raises(ApiError) as caught:
        await accounts.register(ANN)
    assert caught.value.code is ErrorCode.CONFLICT


async def test_two_at_once_make_one_account(store, hasher):
    accounts = Accounts(store, hasher)
    results = await asyncio.gather(
        *(accounts.register(ANN) for _ in range(5)), return_exceptions=True
    )
    refused = [one for one in results if isinstance(one, ApiError)]
    assert len(refused) == 4
    assert {one.code for one in refused} == {ErrorCode.CONFLICT}


@pytest.mark.parametrize(
    "password", ["x" * 72, "x" * 73, "x" * 1000, "pass\0word", "über" * 30, "pâss wörd"]
)
async def test_every_byte_of_a_password_counts(store, hasher, password):
    accounts = Accounts(store, hasher)
    await accounts.register(Credentials("a@b.org", password))
    await accounts.login(Credentials("a@b.org", password), PEER)
    with pytest.raises(ApiError, match="Invalid credentials"):
        await accounts.login(Credentials("a@b.org", password + "x"), PEER)


async def test_an_unknown_user_costs_a_hash_too(store, hasher, monkeypatch):
    checked = []
    original = hasher._check
    monkeypatch.setattr(
        hasher, "_check", lambda p, h: checked.append(h) or original(p, h)
    )
    accounts = Accounts(store, hasher)
    await accounts.register(ANN)
    messages = []
    for email in ("ann@example.org", "nobody@example.org", "not an address"):
        with pytest.raises(ApiError) as caught:
            await accounts.login(Credentials(email, "wrong one"), PEER)
        messages.append((caught.value.status, caught.value.message))
    assert len(checked) == 3
    assert messages == [(401, "Invalid credentials")] * 3


async def test_hashing_stays_off_the_loop(hasher, monkeypatch):
    threads = set()
    monkeypatch.setattr(
        hasher, "_hash", lambda p: threads.add(threading.current_thread()) or "x"
    )
    await asyncio.gather(*(hasher.hash("password") for _ in range(20)))
    assert threading.current_thread() not in threads
    assert len(threads) <= 2


async def test_the_queue_of_hashes_is_bounded(hasher, monkeypatch):
    gate = threading.Event()
    monkeypatch.setattr(hasher, "_hash", lambda p: gate.wait() and "x")
    results = asyncio.gather(
        *(hasher.hash("password") for _ in range(100)), return_exceptions=True
    )
    await asyncio.sleep(0)
    gate.set()
    busy = [one for one in await results if isinstance(one, ApiError)]
    assert len(busy) == 36
    assert {one.code for one in busy} == {ErrorCode.BUSY}


def test_credentials_hide_the_password():
    assert "horse" not in repr(ANN)


def test_lockout_grows_and_forgives():
    now = [0.0]
    lockout = Lockout(3, now_s=lambda: now[0])
    waits = []
    for _ in range(14):
        lockout.begin("ann")
        try:
            lockout.begin("ann")
        except ApiError as error:
            waits.append(error.retry_after_s)
            now[0] += error.retry_after_s
    assert waits == sorted(waits)
    assert max(waits) == DELAY_MAX_S
    lockout.succeed("ann")
    lockout.begin("ann")
    assert lockout._entries["ann"].attempts == 1


def test_lockout_memory_is_bounded():
    lockout = Lockout()
    for number in range(ENTRIES_MAX + 10):
        lockout.begin(str(number))
    assert len(lockout) == ENTRIES_MAX


# Tokens


def forged(header, claims, signature=b""):
    parts = [
        json.dumps(header).encode(),
        json.dumps(claims).encode(),
        signature,
    ]
    return ".".join(base64.urlsafe_b64encode(p).decode().rstrip("=") for p in parts)


def test_token_claims():
    token = TokenIssuer(SECRET, now_s=lambda: time.time()).issue("ann@example.org")
    claims = TokenVerifier([b"another secret of thirty-two bytes", SECRET]).verify(
        token
    )
    assert (claims.email, claims.role) == ("ann@example.org", "user")
    assert claims.expires_s - claims.issued_s == TOKEN_LIFE_S == 24 * 3600
    assert claims.token_id
    raw = jwt.decode(token, SECRET, algorithms=["HS256"])
    assert set(raw) == {"email", "role", "iat", "exp", "jti", "epoch"}


def test_tokens_of_node_workers_have_no_id():
    claims = {"email": "a@b.org", "role": "user", "iat": 1, "exp": time.time() + 60}
    token = jwt.encode({**claims, "exp": int(claims["exp"])}, SECRET, "HS256")
    assert TokenVerifier([SECRET]).verify(token).email == "a@b.org"


def refused_tokens():
    # Tests may run long after they were collected.
    later = int(time.time()) + 12 * 3600
    good = {"email": "a@b.org", "role": "admin", "iat": 1, "exp": later}
    none = {"alg": "none", "typ": "JWT"}
    long_ago = lambda: time.time() - TOKEN_LIFE_S - 1  # noqa: E731
    issued = TokenIssuer(SECRET).issue("a@b.org")
    return [
        ("", "No token"),
        ("x", "not a JWT"),
        ("a.b.c", "not a JWT"),
        ("é.é.é", "not a JWT"),
        ("x" * 9000, "too long"),
        (forged(none, good), "only HS256"),
        (forged({"alg": "NONE"}, good), "only HS256"),
        (forged({"alg": "HS512"}, good, b"x" * 64), "only HS256"),
        (forged({"alg": "HS256"}, good, b"x" * 32), "signature does not match"),
        (issued[:-2], "Invalid token"),
        (TokenIssuer(b"y" * 40).issue("a@b.org"), "signature does not match"),
        (TokenIssuer(SECRET, now_s=long_ago).issue("a@b.org"), "expired"),
        (jwt.encode({"email": "a@b.org"}, SECRET, "HS256"), "claim is missing"),
        (jwt.encode({**good, "email": 5}, SECRET, "HS256"), "names no account"),
        (jwt.encode({**good, "email": ""}, SECRET, "HS256"), "names no account"),
        (jwt.encode({**good, "iat": later + 900}, SECRET, "HS256"), "future"),
    ]


@pytest.mark.parametrize(("token", "part"), refused_tokens())
def test_refused_tokens_say_why(token, part):
    with pytest.raises(ApiError, match=part) as caught:
        TokenVerifier([SECRET]).verify(token)
    assert (caught.value.code, caught.value.status) == (ErrorCode.UNAUTHORIZED, 401)


def test_no_secret_verifies_nothing():
    with pytest.raises(ApiError):
        TokenVerifier([]).verify(TokenIssuer(SECRET).issue("a@b.org"))


def test_secrets_do_not_show():
    assert "secret" not in repr(TokenIssuer(SECRET)).replace("secrets", "")
    assert SECRET.decode() not in repr(TokenVerifier([SECRET]))


# Identity


def test_identity_lasts_and_is_private(tmp_path):
    path = tmp_path / "data" / "identity.seed"
    first, again = load_identity(path), load_identity(path)
    assert first.seed == again.seed
    assert mode(path) == 0o600
    assert list(path.parent.iterdir()) == [path]
    keys = {first.key_pair(name).public_key for name in ("a", "b", "client")}
    assert len(keys) == 3
    assert first.seed.hex() not in repr(first)
    assert load_identity(tmp_path / "other.seed").seed != first.seed


def test_identity_with_a_lax_mode_is_repaired(tmp_path, caplog):
    path = tmp_path / "identity.seed"
    load_identity(path)
    path.chmod(0o644)
    load_identity(path)
    assert mode(path) == 0o600
    assert "open to others" in caplog.text


def test_a_damaged_identity_says_what_to_do(tmp_path):
    path = tmp_path / "identity.seed"
    path.write_bytes(b"short")
    path.chmod(0o600)
    with pytest.raises(ApiError, match="damaged") as caught:
        load_identity(path)
    assert caught.value.code is ErrorCode.STORE_FAILED
