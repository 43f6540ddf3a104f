"""The hello: opens for members, on this connection, from the other side."""

from __future__ import annotations

import msgspec
import pytest

from peerchat.net.crypto.primitives import secretbox_seal
from peerchat.net.errors import DecodeError, LocalProtocolError
from peerchat.trust import hello
from peerchat.trust.certificate import CHAIN_BYTES_MAX
from peerchat.trust.errors import RefusalReason, TrustRefused

SECRET, HASH, NONCE = b"s" * 32, b"h" * 64, b"n" * 24


def seal(chain: bytes = b"chain", *, is_initiator: bool = True) -> bytes:
    return hello.seal_hello(
        SECRET, HASH, is_initiator=is_initiator, chain=chain, nonce=NONCE
    )


def refusal(
    data: bytes,
    secret: bytes = SECRET,
    handshake_hash: bytes = HASH,
    *,
    is_initiator: bool = True,
) -> RefusalReason:
    with pytest.raises(TrustRefused) as refused:
        hello.open_hello_untrusted(
            secret, handshake_hash, is_initiator=is_initiator, data=data
        )
    return refused.value.reason


@pytest.mark.parametrize("is_initiator", [True, False])
@pytest.mark.parametrize("chain", [b"", b"c", b"c" * 500, b"c" * CHAIN_BYTES_MAX])
def test_opens(chain: bytes, is_initiator: bool) -> None:
    data = seal(chain, is_initiator=is_initiator)
    assert len(data) <= hello.HELLO_BYTES_MAX
    opened = hello.open_hello_untrusted(
        SECRET, HASH, is_initiator=is_initiator, data=data
    )
    assert opened == chain


def test_other_secret_other_connection_own_echo() -> None:
    data = seal()
    assert refusal(data, b"x" * 32) is RefusalReason.WRONG_SECRET
    assert refusal(data, SECRET, b"x" * 64) is RefusalReason.WRONG_SECRET
    assert refusal(data, is_initiator=False) is RefusalReason.WRONG_SECRET


def test_nothing_is_no_proof() -> None:
    assert refusal(b"") is RefusalReason.NO_PROOF


def test_every_tampered_byte_and_cut() -> None:
    data = seal()
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1
        assert refusal(bytes(changed)) is RefusalReason.WRONG_SECRET
    for length in range(1, len(data)):
        assert refusal(data[:length]) is RefusalReason.WRONG_SECRET
    assert refusal(data + b"\0") is RefusalReason.WRONG_SECRET
    assert refusal(bytes(hello.HELLO_BYTES_MAX + 1)) is RefusalReason.WRONG_SECRET


def test_length_does_not_tell_a_peer_without_a_certificate_from_one_with() -> None:
    lengths = {len(seal(b"c" * length)) for length in range(1600)}
    assert lengths == {24 + 16 + 2048}
    every = {len(seal(b"c" * length)) for length in range(0, CHAIN_BYTES_MAX + 1, 7)}
    assert every == {24 + 16 + 2048 * steps for steps in (1, 2, 3)}


def test_member_that_says_nonsense_does_not_parse() -> None:
    key = hello._hello_key(SECRET, HASH, is_initiator=True)
    for body in (b"", b"\xc0", msgspec.msgpack.encode([b"c" * (CHAIN_BYTES_MAX + 1)])):
        data = NONCE + secretbox_seal(key, NONCE, body)
        with pytest.raises(DecodeError):
            hello.open_hello_untrusted(SECRET, HASH, is_initiator=True, data=data)


def test_later_version_says_more() -> None:
    key = hello._hello_key(SECRET, HASH, is_initiator=True)
    body = msgspec.msgpack.encode([b"chain", b"", {"more": 1}])
    data = NONCE + secretbox_seal(key, NONCE, body)
    opened = hello.open_hello_untrusted(SECRET, HASH, is_initiator=True, data=data)
    assert opened == b"chain"


def test_our_own_mistakes() -> None:
    wrong = [
        (b"short", HASH, b"", NONCE),
        (SECRET, b"short", b"", NONCE),
        (SECRET, HASH, bytes(CHAIN_BYTES_MAX + 1), NONCE),
        (SECRET, HASH, b"", b"short"),
    ]
    for secret, handshake_hash, chain, nonce in wrong:
        with pytest.raises(LocalProtocolError):
            hello.seal_hello(
                secret, handshake_hash, is_initiator=True, chain=chain, nonce=nonce
            )
