"""Tokens of private swarms: who may sign, what is refused, what ends a session."""

import base64
import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from peerchat.api import ApiError, ErrorCode
from peerchat.net.crypto.primitives import KeyPair, blake2b_256
from peerchat.services.account_messages import AccountChange, ChangesReply
from peerchat.services.certified_tokens import (
    CHAINS_KEPT,
    CertifiedIssuer,
    CertifiedVerifier,
)
from peerchat.services.known_accounts import KNOWN_MAX, KnownAccounts
from peerchat.services.known_tokens import KEPT, KnownTokens
from peerchat.services.tokens import TOKEN_LIFE_S, Claims, TokenIssuer, TokenVerifier
from peerchat.trust.certificate import (
    CHAIN_BYTES_MAX,
    Chain,
    encode_chain,
    sign_certificate,
)

EMAIL = "ann@example.org"
NOW_S = int(time.time())


def pair(name):
    return KeyPair.from_seed(blake2b_256(name.encode()))


ROOT, ADMIN, OTHER_ROOT = pair("root"), pair("admin"), pair("other root")


class Record:
    """What was taken back; grows while a test runs."""

    def __init__(self):
        self.serials, self.keys, self.asked = set(), set(), 0

    def is_revoked_serial(self, serial):
        self.asked += 1
        return serial in self.serials

    def is_revoked_key(self, key):
        return key in self.keys


def certificate(
    name="auth peer", issuer=ROOT, roles=("auth",), keys=("auth", "token"), **more
):
    return sign_certificate(
        issuer,
        peer=pair(name).public_key,
        keys={purpose: pair(f"{name} {purpose}").public_key for purpose in keys},
        roles=roles,
        name=name,
        not_before_s=more.get("not_before_s", NOW_S - 3600),
        not_after_s=more.get("not_after_s", NOW_S + 3600),
        serial=more.get("serial", b"s" * 16),
    )


@pytest.fixture(autouse=True)
def _now():
    """Tests may run long after they were collected."""
    global NOW_S
    NOW_S = int(time.time())


def token_of(chain, *, signer="auth peer token", now_s=time.time, epoch=0):
    issuer = CertifiedIssuer(pair(signer), lambda: encode_chain(chain), now_s=now_s)
    return issuer.issue(EMAIL, "user", epoch)


@pytest.fixture
def record():
    return Record()


@pytest.fixture
def verifier(record):
    return CertifiedVerifier(ROOT.public_key, record)


def refused(verifier, token, part):
    with pytest.raises(ApiError, match=part) as caught:
        verifier.verify(token)
    assert (caught.value.code, caught.value.status) == (ErrorCode.UNAUTHORIZED, 401)
    assert token == "" or token not in caught.value.message


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def forged(header, claims, signature=b""):
    parts = json.dumps(header).encode(), json.dumps(claims).encode(), signature
    return ".".join(encoded(part) for part in parts)


def test_a_certified_peer_signs(verifier):
    claims = verifier.verify(token_of(Chain(certificate()), epoch=3))
    assert (claims.email, claims.role, claims.epoch) == (EMAIL, "user", 3)
    assert claims.expires_s - claims.issued_s == TOKEN_LIFE_S
    assert claims.token_id


def test_a_peer_that_an_admin_certified_signs(verifier):
    admin = certificate("admin", roles=["admin"], keys=["enrol"], serial=b"a" * 16)
    chain = Chain(certificate(issuer=ADMIN), admin)
    assert verifier.verify(token_of(chain)).email == EMAIL


def test_a_token_of_the_largest_chain_fits_what_messages_take(verifier):
    name = "é" * 64
    every = ("client", "auth", "gateway", "processor", "enrol", "token")
    roles = ("auth", "gateway", "processor")
    admin = certificate("admin", roles=["admin", *roles], keys=every)
    mine = certificate("auth peer", issuer=ADMIN, roles=roles, keys=every)
    chain = encode_chain(Chain(mine, admin))
    room = CHAIN_BYTES_MAX - len(chain)
    assert room > len(name)
    issuer = CertifiedIssuer(pair("auth peer token"), lambda: chain)
    token = issuer.issue("a" * 242 + "@example.org")
    assert len(token) + room * 16 / 9 < 8192
    verifier.verify(token)


def test_who_may_not_sign(verifier):
    refused(verifier, token_of(Chain(certificate(issuer=OTHER_ROOT))), "another swarm")
    for roles in ([], ["gateway", "processor"]):
        refused(
            verifier, token_of(Chain(certificate(roles=roles))), "certified as auth"
        )
    refused(verifier, token_of(Chain(certificate(keys=["auth"]))), "token key")
    # A right chain, but another key: of another peer, and of the peer's other use.
    right = Chain(certificate())
    for signer in ("somebody token", "auth peer auth"):
        refused(verifier, token_of(right, signer=signer), "signature does not match")
    expired = certificate(not_before_s=NOW_S - 9000, not_after_s=NOW_S - 1000)
    refused(verifier, token_of(Chain(expired)), "expired")
    future = certificate(not_before_s=NOW_S + 1000)
    refused(verifier, token_of(Chain(future)), "not valid yet")
    member = certificate("admin", roles=["auth"])
    refused(
        verifier, token_of(Chain(certificate(issuer=ADMIN), member)), "not an admin"
    )


def test_revocation_is_asked_at_every_check(verifier, record):
    token = token_of(Chain(certificate()))
    verifier.verify(token)
    asked = record.asked
    verifier.verify(token)
    assert record.asked > asked
    record.serials.add(b"s" * 16)
    refused(verifier, token, "removed from the swarm")
    record.serials.clear()
    verifier.verify(token)
    record.keys.add(pair("auth peer token").public_key)
    refused(verifier, token, "removed from the swarm")


def test_a_revoked_admin_takes_along_whom_it_certified(verifier, record):
    admin = certificate("admin", roles=["admin"], serial=b"a" * 16)
    token = token_of(Chain(certificate(issuer=ADMIN), admin))
    verifier.verify(token)
    record.serials.add(b"a" * 16)
    refused(verifier, token, "removed from the swarm")


def test_a_certificate_expires_while_its_chain_is_kept(record):
    now = [float(NOW_S)]
    verifier = CertifiedVerifier(ROOT.public_key, record, now_s=lambda: now[0])
    token = token_of(Chain(certificate()))
    verifier.verify(token)
    now[0] += 3600 + 121
    refused(verifier, token, "expired")


def test_chains_are_checked_once_and_few_are_kept(verifier, monkeypatch):
    checks = []
    check = verifier._check
    monkeypatch.setattr(verifier, "_check", lambda c: checks.append(c) or check(c))
    token = token_of(Chain(certificate()))
    for _ in range(3):
        verifier.verify(token)
    assert len(checks) == 1
    for n in range(CHAINS_KEPT + 5):
        verifier.verify(token_of(Chain(certificate(serial=n.to_bytes(16, "big")))))
    assert len(verifier._chains) == CHAINS_KEPT
    # What is refused is not kept either.
    refused(verifier, token_of(Chain(certificate(issuer=OTHER_ROOT))), "swarm")
    assert len(verifier._chains) == CHAINS_KEPT


def good_claims(**more):
    times = {"iat": NOW_S, "exp": NOW_S + 3600}
    return {"email": EMAIL, "role": "admin", **times, **more}


def test_other_algorithms(verifier):
    chain = encoded(encode_chain(Chain(certificate())))
    for algorithm in ("none", "None", "NONE", "", None, "HS256", "HS512", "ES256"):
        header = {"alg": algorithm, "typ": "JWT", "crt": chain}
        for signature in (b"", b"x" * 64):
            refused(verifier, forged(header, good_claims(), signature), "Invalid token")


def test_hs256_signed_with_a_public_key(verifier):
    """The classic: a verifier that takes its public key for a shared secret."""
    chain = encoded(encode_chain(Chain(certificate())))
    headers = {"crt": chain}
    for key in (
        pair("auth peer token").public_key,
        ROOT.public_key,
        pair("auth peer token").public_key.hex().encode(),
    ):
        token = jwt.encode(good_claims(), bytes(key), "HS256", headers=headers)
        refused(verifier, token, "only EdDSA")
    shared = TokenIssuer(b"a secret of more than thirty-two bytes").issue(EMAIL)
    refused(verifier, shared, "only EdDSA")


def test_an_open_swarm_takes_no_certified_token():
    token = token_of(Chain(certificate()))
    secret = bytes(pair("auth peer token").public_key)
    refused(TokenVerifier([secret]), token, "only HS256")


def test_claims(verifier):
    key = Ed25519PrivateKey.from_private_bytes(pair("auth peer token").seed)
    headers = {"crt": encoded(encode_chain(Chain(certificate())))}

    def signed(claims):
        return jwt.encode(claims, key, "EdDSA", headers=headers)

    assert verifier.verify(signed(good_claims())).epoch == 0
    long_ago = lambda: time.time() - TOKEN_LIFE_S - 200  # noqa: E731
    refused(verifier, token_of(Chain(certificate()), now_s=long_ago), "expired")
    for claims, part in (
        (good_claims(exp=NOW_S + TOKEN_LIFE_S + 10), "lives longer"),
        (good_claims(email=""), "names no account"),
        (good_claims(email=5), "names no account"),
        (good_claims(epoch="1"), "epoch"),
        (good_claims(epoch=True), "epoch"),
        (good_claims(iat=NOW_S + 900, exp=NOW_S + 1000), "future"),
        ({"email": EMAIL}, "claim is missing"),
    ):
        refused(verifier, signed(claims), part)


def test_damaged_tokens(verifier):
    good = token_of(Chain(certificate()))
    head, body, signature = good.split(".")
    chain = encode_chain(Chain(certificate()))
    for header in (
        {"alg": "EdDSA"},
        {"alg": "EdDSA", "crt": 5},
        {"alg": "EdDSA", "crt": ""},
        {"alg": "EdDSA", "crt": "é"},
        {"alg": "EdDSA", "crt": "!" * 40},
        {"alg": "EdDSA", "crt": "A" * 6000},
        {"alg": "EdDSA", "crt": encoded(chain[:-1])},
        {"alg": "EdDSA", "crt": encoded(bytes(chain[:-1]) + b"x")},
    ):
        refused(verifier, forged(header, good_claims(), b"x" * 64), "Invalid token")
    other_body = good_claims(email="admin@example.org")
    swapped = f"{head}.{encoded(json.dumps(other_body).encode())}.{signature}"
    refused(verifier, swapped, "signature does not match")
    for token in ("", "x", "a.b.c", f"{head}.{body}", f"{head}.{body}.", "x" * 9000):
        refused(verifier, token, "token")


def test_keys_do_not_show():
    issuer = CertifiedIssuer(pair("auth peer token"), lambda: b"")
    assert repr(issuer) == "CertifiedIssuer()"


# What ends a session before its token expires


class Source:
    """Auth peers by script: the pages of each round."""

    def __init__(self, *rounds):
        self.rounds = list(rounds)
        self.asked = []

    async def changes(self, since_ms, after):
        self.asked.append((since_ms, after))
        found = self.rounds.pop(0)
        if isinstance(found, Exception):
            raise found
        return found


def page(*changes, now=10**12, more=False):
    return ChangesReply(now=now, changes=list(changes), has_more=more)


def claims(epoch=0, email=EMAIL):
    return Claims(email, "user", NOW_S, NOW_S + 3600, epoch=epoch)


def session_ended(known, said):
    with pytest.raises(ApiError, match="session has ended") as caught:
        known.check(said)
    assert caught.value.status == 401


def nobody():
    return ApiError(ErrorCode.NO_AUTH, "nobody", status=503)


async def test_before_the_first_round_no_token_counts():
    known = KnownAccounts(Source(nobody(), [page()]), 60)
    with pytest.raises(ApiError, match="not heard from an auth peer") as caught:
        known.check(claims())
    assert (caught.value.status, caught.value.retry_after_s) == (503, 5)
    with pytest.raises(ApiError):
        await known.refresh()
    assert not known.is_ready
    await known.refresh()
    known.check(claims())


async def test_an_old_epoch_a_disabled_and_a_deleted_account():
    recent = NOW_S * 1000
    known = KnownAccounts(
        Source(
            [
                page(
                    AccountChange(EMAIL, 2, "active", None, recent),
                    AccountChange("off@x.org", 1, "disabled", None, recent),
                    AccountChange("gone@x.org", 1, "deleted", None, recent),
                )
            ]
        ),
        60,
    )
    await known.refresh()
    session_ended(known, claims(0))
    session_ended(known, claims(1))
    known.check(claims(2))
    known.check(claims(3))  # it was issued after what is known
    known.check(claims(0, "other@x.org"))
    for email in ("off@x.org", "gone@x.org"):
        for epoch in (0, 1, 7):
            session_ended(known, claims(epoch, email))


async def test_auth_peers_that_lag_do_not_undo_what_a_newer_one_said():
    recent = NOW_S * 1000
    newer = AccountChange(EMAIL, 2, "active", 5, recent + 1)
    older = AccountChange(EMAIL, 1, "active", None, recent)
    known = KnownAccounts(Source([page(newer), page(older)], [page(older)]), 60)
    for _ in range(2):
        await known.refresh()
        assert known.max_requests(EMAIL) == 5
        session_ended(known, claims(1))


async def test_rounds_overlap_and_begin_anew_after_long_silence():
    now = [float(NOW_S)]
    source = Source(*([page(now=NOW_S * 1000)] for _ in range(4)), nobody(), [page()])
    known = KnownAccounts(source, 60, now_s=lambda: now[0])
    await known.refresh()
    await known.refresh()
    assert source.asked[0] == (0, "")
    assert 0 < NOW_S * 1000 - source.asked[1][0] <= 5 * 60 * 1000
    now[0] += 13 * 3600
    await known.refresh()
    assert source.asked[2] == (0, "")


async def test_pages_are_followed_and_have_an_end():
    recent = NOW_S * 1000
    changes = [AccountChange(f"u{n}@x.org", 1, "active", 1, recent) for n in range(3)]
    known = KnownAccounts(
        Source([page(changes[0], more=True)], [page(changes[1], more=True)], [page()]),
        60,
    )
    await known.refresh()
    assert known._source.asked[1:] == [(recent, "u0@x.org"), (recent, "u1@x.org")]
    # One that repeats itself for ever.
    loop = KnownAccounts(Source(*[[page(changes[0], more=True)]] * 5), 60)
    await loop.refresh()
    assert len(loop._source.asked) == 2


async def test_memory_is_bounded_and_forgets_what_matters_no_more():
    recent = NOW_S * 1000
    many = [
        AccountChange(f"u{n}@x.org", 1, "active", 1, recent + n)
        for n in range(KNOWN_MAX + 10)
    ]
    old = AccountChange("old@x.org", 1, "deleted", None, recent - 26 * 3600 * 1000)
    limited = AccountChange("limited@x.org", 0, "active", 3, 5)
    known = KnownAccounts(Source([page(old, limited)], [page(*many)]), 60)
    await known.refresh()
    assert len(known) == 1
    assert known.max_requests("limited@x.org") == 3
    await known.refresh()
    assert len(known) == KNOWN_MAX
    assert known.max_requests(f"u{KNOWN_MAX + 9}@x.org") == 1


def test_a_token_that_was_checked_before_expires_all_the_same():
    now = [float(NOW_S)]
    secret = b"a secret of thirty-two bytes or more"
    verifier = TokenVerifier([secret], now_s=lambda: now[0])
    token = TokenIssuer(secret).issue(EMAIL)
    first = verifier.verify(token)
    assert verifier.verify(token) is first
    other = token[:-2] + ("AA" if token[-2:] != "AA" else "BB")
    refused(verifier, other, "signature")
    now[0] = first.expires_s
    assert verifier._known.get(token, now[0]) is None


def test_few_checked_tokens_are_kept():
    known = KnownTokens[int]()
    for number in range(KEPT + 5):
        known.keep(f"token {number}", number, 10.0)
    assert known.get("token 4", 0.0) is None
    assert known.get("token 5", 0.0) == 5
    assert len(known._known) == KEPT
