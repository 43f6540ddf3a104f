"""Certificates: what holds, and each reason for which one does not."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import msgspec
import pytest

from peerchat.net.crypto.primitives import KeyPair, sign
from peerchat.net.errors import DecodeError, LocalProtocolError
from peerchat.net.identity import PublicKey
from peerchat.trust.certificate import (
    CHAIN_BYTES_MAX,
    CLOCK_SKEW_S,
    ROLES,
    Certificate,
    Chain,
    check_chain,
    check_key,
    check_still_holds,
    decode_chain_untrusted,
    encode_chain,
    sign_certificate,
)
from peerchat.trust.codec import NS_CERTIFICATE
from peerchat.trust.errors import MESSAGES, RefusalReason, TrustRefused
from peerchat.trust.keys import PURPOSES
from peerchat.trust.record import RecordBody

ROOT, ADMIN, PEER, STRANGER = (KeyPair.from_seed(bytes((n,)) * 32) for n in range(1, 5))
KEYS = {
    purpose: KeyPair.from_seed(bytes((10 + n,)) * 32).public_key
    for n, purpose in enumerate(PURPOSES)
}
ADMIN_KEYS = {
    purpose: KeyPair.from_seed(bytes((20 + n,)) * 32).public_key
    for n, purpose in enumerate(PURPOSES)
}
NOW_S = 1_800_000_000
HOUR_S = 3600


def record(serials: Iterable[bytes] = (), keys: Iterable[PublicKey] = ()) -> RecordBody:
    return RecordBody(
        "swarm",
        0,
        bytes(16),
        NOW_S,
        revoked_serials=frozenset(serials),
        revoked_keys=frozenset(keys),
    )


NOTHING_REVOKED = record()


def certify(
    issuer: KeyPair = ROOT,
    peer: KeyPair = PEER,
    *,
    keys: Mapping[str, PublicKey] = KEYS,
    roles: Iterable[str] = ("gateway",),
    name: str = "Peer",
    not_before_s: int = NOW_S - HOUR_S,
    not_after_s: int = NOW_S + HOUR_S,
    serial: bytes = b"s" * 16,
) -> Certificate:
    return sign_certificate(
        issuer,
        peer=peer.public_key,
        keys=keys,
        roles=roles,
        name=name,
        not_before_s=not_before_s,
        not_after_s=not_after_s,
        serial=serial,
    )


def certify_admin(
    issuer: KeyPair = ROOT,
    *,
    roles: Iterable[str] = ("admin",),
    not_before_s: int = NOW_S - HOUR_S,
    not_after_s: int = NOW_S + HOUR_S,
) -> Certificate:
    return certify(
        issuer,
        ADMIN,
        keys=ADMIN_KEYS,
        roles=roles,
        name="Admin",
        serial=b"a" * 16,
        not_before_s=not_before_s,
        not_after_s=not_after_s,
    )


BY_ROOT = Chain(certify())
BY_ADMIN = Chain(certify(ADMIN), certify_admin())
CHAINS = pytest.mark.parametrize("chain", [BY_ROOT, BY_ADMIN], ids=["root", "admin"])


def refusal(
    chain: Chain,
    *,
    root: KeyPair = ROOT,
    now_s: float = NOW_S,
    revocations: RecordBody = NOTHING_REVOKED,
) -> RefusalReason | None:
    try:
        check_chain(chain, root=root.public_key, now_s=now_s, revocations=revocations)
    except TrustRefused as refused:
        return refused.reason
    return None


def test_every_reason_has_a_message_and_a_snake_case_value() -> None:
    assert MESSAGES.keys() == set(RefusalReason)
    assert all(reason.value == reason.name.lower() for reason in RefusalReason)
    for reason in RefusalReason:
        refused = TrustRefused(reason)
        assert refused.message == str(refused)
        assert refused.message.splitlines() == [MESSAGES[reason]]
    assert TrustRefused(RefusalReason.EXPIRED, "Why.").message == "Why."


@CHAINS
def test_chain_holds_and_survives_the_wire(chain: Chain) -> None:
    assert refusal(chain) is None
    data = encode_chain(chain)
    assert decode_chain_untrusted(data) == chain
    assert hash(decode_chain_untrusted(data)) == hash(chain)


def test_longest_chain_fits() -> None:
    name = "\N{GRINNING FACE}" * 64
    roles = ROLES - {"admin"}
    longest = Chain(certify(ADMIN, roles=roles, name=name), certify(name=name))
    assert len(encode_chain(longest)) <= CHAIN_BYTES_MAX // 2


@CHAINS
def test_foreign_root(chain: Chain) -> None:
    assert refusal(chain, root=STRANGER) is RefusalReason.FOREIGN_ROOT


def test_issuer_that_does_not_come_along_is_foreign() -> None:
    assert refusal(Chain(BY_ADMIN.certificate)) is RefusalReason.FOREIGN_ROOT


def test_issuer_of_somebody_else_is_foreign() -> None:
    other_admin = certify(peer=STRANGER, roles=["admin"])
    chain = Chain(BY_ADMIN.certificate, other_admin)
    assert refusal(chain) is RefusalReason.FOREIGN_ROOT


def test_root_signature_with_a_needless_issuer_is_foreign() -> None:
    chain = Chain(BY_ROOT.certificate, BY_ADMIN.issuer)
    assert refusal(chain) is RefusalReason.FOREIGN_ROOT


def test_admin_whom_a_stranger_certified_is_foreign() -> None:
    chain = Chain(BY_ADMIN.certificate, certify_admin(STRANGER))
    assert refusal(chain) is RefusalReason.FOREIGN_ROOT


def test_certificate_that_claims_the_root_is_badly_signed() -> None:
    genuine = BY_ROOT.certificate
    forged = dataclasses.replace(
        genuine, signature=sign(NS_CERTIFICATE + genuine.body, STRANGER)
    )
    assert refusal(Chain(forged)) is RefusalReason.BAD_SIGNATURE


def test_signature_without_the_namespace_is_bad() -> None:
    genuine = BY_ROOT.certificate
    bare = dataclasses.replace(genuine, signature=sign(genuine.body, ROOT))
    assert refusal(Chain(bare)) is RefusalReason.BAD_SIGNATURE


@pytest.mark.parametrize(
    "changes",
    [
        {"roles": ROLES},
        {"peer": STRANGER.public_key},
        {"keys": {**KEYS, "gateway": STRANGER.public_key}},
        {"not_after_s": NOW_S * 2},
        {"not_before_s": 0},
        {"serial": b"t" * 16},
        {"name": "Somebody else"},
    ],
    ids=lambda changes: next(iter(changes)),
)
@CHAINS
def test_field_changed_beside_the_signed_body(
    chain: Chain, changes: dict[str, object]
) -> None:
    changed = dataclasses.replace(chain.certificate, **changes)
    refused = refusal(dataclasses.replace(chain, certificate=changed))
    assert refused is RefusalReason.BAD_SIGNATURE


def test_issuer_without_the_admin_role() -> None:
    for roles in ((), ("auth", "gateway", "processor")):
        chain = Chain(certify(ADMIN), certify_admin(roles=roles))
        assert refusal(chain) is RefusalReason.WRONG_ROLE


def test_admin_cannot_make_an_admin() -> None:
    chain = Chain(certify(ADMIN, roles=["admin"]), certify_admin())
    assert refusal(chain) is RefusalReason.WRONG_ROLE


def test_not_yet_valid() -> None:
    start_s = NOW_S - HOUR_S
    assert refusal(BY_ROOT, now_s=start_s - CLOCK_SKEW_S) is None
    early_s = start_s - CLOCK_SKEW_S - 0.1
    assert refusal(BY_ROOT, now_s=early_s) is RefusalReason.NOT_YET_VALID


def test_expired() -> None:
    end_s = NOW_S + HOUR_S
    assert refusal(BY_ROOT, now_s=end_s + CLOCK_SKEW_S - 0.1) is None
    assert refusal(BY_ROOT, now_s=end_s + CLOCK_SKEW_S) is RefusalReason.EXPIRED


def test_validity_of_the_issuer_counts_too() -> None:
    expired = certify_admin(not_before_s=0, not_after_s=NOW_S - HOUR_S)
    assert refusal(Chain(certify(ADMIN), expired)) is RefusalReason.EXPIRED
    early = certify_admin(not_before_s=NOW_S + HOUR_S, not_after_s=NOW_S * 2)
    assert refusal(Chain(certify(ADMIN), early)) is RefusalReason.NOT_YET_VALID


@CHAINS
def test_revoked_serial_and_every_revoked_key(chain: Chain) -> None:
    links = [link for link in (chain.certificate, chain.issuer) if link is not None]
    for link in links:
        by_serial = record(serials=[link.serial])
        assert refusal(chain, revocations=by_serial) is RefusalReason.REVOKED
        for key in (link.peer, *link.keys.values()):
            by_key = record(keys=[key])
            assert refusal(chain, revocations=by_key) is RefusalReason.REVOKED


@CHAINS
def test_revocation_of_others_and_of_the_root_itself_changes_nothing(
    chain: Chain,
) -> None:
    others = record(serials=[b"x" * 16], keys=[STRANGER.public_key, ROOT.public_key])
    assert refusal(chain, revocations=others) is None


def test_revocation_is_told_before_expiry() -> None:
    revoked = record(serials=[BY_ROOT.certificate.serial])
    late_s = NOW_S * 2
    assert refusal(BY_ROOT, now_s=late_s, revocations=revoked) is RefusalReason.REVOKED


@CHAINS
def test_what_time_changes_is_looked_at_again(chain: Chain) -> None:
    def again(now_s: float, revocations: RecordBody) -> RefusalReason | None:
        try:
            check_still_holds(chain, now_s=now_s, revocations=revocations)
        except TrustRefused as refused:
            return refused.reason
        return None

    assert again(NOW_S, NOTHING_REVOKED) is None
    assert again(NOW_S * 2, NOTHING_REVOKED) is RefusalReason.EXPIRED
    assert again(0, NOTHING_REVOKED) is RefusalReason.NOT_YET_VALID
    for link in filter(None, (chain.certificate, chain.issuer)):
        assert again(NOW_S, record(keys=[link.peer])) is RefusalReason.REVOKED


def test_forged_certificate_is_not_looked_up_among_the_revoked() -> None:
    forged = certify(STRANGER)
    revoked = record(serials=[forged.serial])
    refused = refusal(Chain(forged), revocations=revoked)
    assert refused is RefusalReason.FOREIGN_ROOT


@CHAINS
def test_replayed_certificate_with_another_key(chain: Chain) -> None:
    check_key(chain, KEYS["client"], "client")
    for key in (STRANGER.public_key, PEER.public_key, ADMIN_KEYS["client"], b""):
        with pytest.raises(TrustRefused) as refused:
            check_key(chain, key, "client")
        assert refused.value.reason is RefusalReason.WRONG_KEY


def test_key_of_another_purpose() -> None:
    everything = Chain(certify(roles=ROLES))
    for purpose in PURPOSES:
        check_key(everything, KEYS[purpose], purpose)
        assert everything.certificate.purpose_of(KEYS[purpose]) == purpose
        for other in set(PURPOSES) - {purpose}:
            with pytest.raises(TrustRefused) as refused:
                check_key(everything, KEYS[purpose], other)
            assert refused.value.reason is RefusalReason.WRONG_KEY
    assert everything.certificate.purpose_of(PEER.public_key) is None


@pytest.mark.parametrize(
    ("purpose", "role"),
    [
        ("auth", "auth"),
        ("gateway", "gateway"),
        ("processor", "processor"),
        ("token", "auth"),
        ("enrol", "admin"),
    ],
)
def test_role_of_a_key_must_be_granted(purpose: str, role: str) -> None:
    check_key(Chain(certify(roles=[role])), KEYS[purpose], purpose)
    without = Chain(certify(roles=ROLES - {role}))
    with pytest.raises(TrustRefused) as refused:
        check_key(without, KEYS[purpose], purpose)
    assert refused.value.reason is RefusalReason.WRONG_ROLE


def test_plain_member_may_ask() -> None:
    member = Chain(certify(ADMIN, roles=()), certify_admin())
    assert refusal(member) is None
    check_key(member, KEYS["client"], "client")


def test_purpose_without_a_key() -> None:
    few = Chain(certify(keys={"client": KEYS["client"]}, roles=ROLES))
    with pytest.raises(TrustRefused) as refused:
        check_key(few, KEYS["auth"], "auth")
    assert refused.value.reason is RefusalReason.WRONG_KEY


@CHAINS
def test_tampered_byte_at_every_position(chain: Chain) -> None:
    data = encode_chain(chain)
    for position in range(len(data)):
        for bit in (0x01, 0x80):
            changed = bytearray(data)
            changed[position] ^= bit
            _is_refused_or_the_same(bytes(changed), chain)


@CHAINS
def test_every_cut_and_extension(chain: Chain) -> None:
    data = encode_chain(chain)
    for length in range(len(data)):
        with pytest.raises(DecodeError):
            decode_chain_untrusted(data[:length])
    for extended in (data + b"\0", bytes(CHAIN_BYTES_MAX + 1)):
        with pytest.raises(DecodeError):
            decode_chain_untrusted(extended)


def _is_refused_or_the_same(data: bytes, chain: Chain) -> None:
    """Only what is signed counts: other packing of the same statement may pass."""
    try:
        decoded = decode_chain_untrusted(data)
    except DecodeError:
        return
    if refusal(decoded) is None:
        assert decoded == chain


def test_later_version_with_more_fields_purposes_and_roles_holds() -> None:
    fields = [
        PEER.public_key,
        {**KEYS, "later": STRANGER.public_key},
        ["gateway", "later"],
        "Peer",
        NOW_S - HOUR_S,
        NOW_S + HOUR_S,
        b"s" * 16,
        ROOT.public_key,
        "more",
    ]
    body = msgspec.msgpack.encode(fields)
    signed = [body, sign(NS_CERTIFICATE + body, ROOT), "more"]
    chain = decode_chain_untrusted(msgspec.msgpack.encode([signed, None, "more"]))
    assert refusal(chain) is None
    assert chain.certificate.keys == KEYS
    assert chain.certificate.roles == {"gateway"}
    assert decode_chain_untrusted(encode_chain(chain)) == chain


def test_one_key_for_two_purposes_is_no_certificate() -> None:
    keys = {"client": KEYS["client"], "auth": KEYS["client"]}
    with pytest.raises(LocalProtocolError):
        certify(keys=keys)
    fields = [PEER.public_key, keys, [], "", 0, 1, b"s" * 16, ROOT.public_key]
    body = msgspec.msgpack.encode(fields)
    wire = msgspec.msgpack.encode([[body, bytes(64)]])
    with pytest.raises(DecodeError, match="two purposes"):
        decode_chain_untrusted(wire)


def test_name_is_harmless_and_short() -> None:
    name = certify(name="\x1b[31mEve\u202e\n" + "x" * 100).name
    assert name.startswith("Eve x")
    assert len(name) == 64


@pytest.mark.parametrize(
    "wrong",
    [
        {"roles": ["root"]},
        {"keys": {"peer": KEYS["client"]}},
        {"keys": {"client": PublicKey(b"short")}},
        {"serial": b"short"},
        {"not_after_s": NOW_S - 2 * HOUR_S},
        {"not_before_s": -1},
    ],
    ids=str,
)
def test_nothing_is_signed_that_no_peer_accepts(wrong: dict[str, object]) -> None:
    with pytest.raises(LocalProtocolError):
        certify(**wrong)  # type: ignore[arg-type]


def test_secrets_do_not_show_in_representations() -> None:
    assert BY_ROOT.certificate.signature.hex() not in repr(BY_ROOT)
    assert repr(BY_ROOT.certificate.signature) not in repr(BY_ROOT)
