"""Signatures and Noise messages equal those of the npm packages."""

import json
from pathlib import Path

import pytest

from peerchat.net.crypto.primitives import KeyPair, hash_target
from peerchat.net.errors import RemoteProtocolError
from peerchat.net.hyperdht import messages as m
from peerchat.net.hyperdht.handshake import NoiseWrap
from peerchat.net.hyperdht.signatures import is_signed, signed_announce
from peerchat.net.identity import NodeId, Target
from peerchat.testing.network import SeededRandom
from tests.unit.test_hyperdht_messages import PAYLOADS

VECTORS = json.loads(
    (Path(__file__).parent.parent / "vectors" / "hyperdht.json").read_text()
)
KEYS_A = KeyPair.from_seed(bytes.fromhex(VECTORS["keys"]["seedA"]))
KEYS_B = KeyPair.from_seed(bytes.fromhex(VECTORS["keys"]["seedB"]))
TOKEN = bytes.fromhex(VECTORS["announce"]["token"])
NODE = NodeId(bytes.fromhex(VECTORS["announce"]["id"]))
TARGET = Target(bytes.fromhex(VECTORS["announce"]["target"]))


class FixedRandom(SeededRandom):
    """Gives one known value as every run of random bytes."""

    def __init__(self, value: bytes) -> None:
        super().__init__(0)
        self._value = value

    def token_bytes(self, length: int) -> bytes:
        assert length == len(self._value)
        return self._value


def announcement(name):
    return m.decode_announce_untrusted(bytes.fromhex(VECTORS["announce"][name]))


def unsigned(announce):
    return m.Announce(announce.peer, announce.refresh, None, announce.bump)


def test_the_target_of_a_server_is_the_hash_of_its_key():
    assert hash_target(KEYS_A.public_key) == TARGET


@pytest.mark.parametrize("is_removal", [False, True])
def test_announcements_are_signed_as_npm_does(is_removal):
    expected = announcement("unannounce" if is_removal else "announce")
    signed = signed_announce(
        TARGET, TOKEN, NODE, KEYS_A, unsigned(expected), is_removal=is_removal
    )
    assert signed == expected
    assert is_signed(TARGET, TOKEN, NODE, signed, is_removal=is_removal)
    assert not is_signed(TARGET, TOKEN, NODE, signed, is_removal=not is_removal)


def test_a_signature_is_for_one_node_one_token_one_topic_one_record():
    good = announcement("announce")
    other = bytes(32)
    assert is_signed(TARGET, TOKEN, NODE, good)
    assert not is_signed(Target(other), TOKEN, NODE, good)
    assert not is_signed(TARGET, other, NODE, good)
    assert not is_signed(TARGET, TOKEN, NodeId(other), good)
    someone = m.PeerRecord(KEYS_B.public_key)
    assert not is_signed(
        TARGET, TOKEN, NODE, m.Announce(someone, good.refresh, good.signature)
    )
    assert not is_signed(
        TARGET, TOKEN, NODE, m.Announce(good.peer, None, good.signature)
    )
    assert not is_signed(TARGET, TOKEN, NODE, unsigned(good))
    assert not is_signed(TARGET, TOKEN, NODE, m.Announce(signature=good.signature))


def pair():
    vector = VECTORS["noise"]
    client = NoiseWrap(
        KEYS_A, FixedRandom(bytes.fromhex(vector["ephemeralA"])), KEYS_B.public_key
    )
    server = NoiseWrap(KEYS_B, FixedRandom(bytes.fromhex(vector["ephemeralB"])))
    return client, server


def test_a_handshake_is_byte_for_byte_that_of_npm():
    vector = VECTORS["noise"]
    client, server = pair()
    message1 = client.send(PAYLOADS["client"])
    assert message1.hex() == vector["message1"]
    assert server.receive_untrusted(message1) == PAYLOADS["client"]
    assert server.remote_public_key == KEYS_A.public_key
    message2 = server.send(PAYLOADS["server"])
    assert message2.hex() == vector["message2"]
    assert client.receive_untrusted(message2) == PAYLOADS["server"]
    result, other = client.result(), server.result()
    assert result.handshake_hash.hex() == vector["hash"]
    assert result.tx_key.hex() == vector["tx"] == other.rx_key.hex()
    assert result.rx_key.hex() == vector["rx"] == other.tx_key.hex()
    assert other.remote_public_key == KEYS_A.public_key


def test_a_server_does_not_take_a_message_for_another():
    client, _ = pair()
    message = client.send(PAYLOADS["client"])
    other = NoiseWrap(KEYS_A, SeededRandom(1))
    with pytest.raises(RemoteProtocolError):
        other.receive_untrusted(message)


def test_a_client_does_not_take_an_answer_of_another():
    client, _ = pair()
    client.send(PAYLOADS["client"])
    with pytest.raises(RemoteProtocolError):
        client.receive_untrusted(bytes.fromhex(VECTORS["noise"]["message2"])[:-1])


@pytest.mark.parametrize("length", [0, 31, 32, 79, 95, 96, 200])
def test_short_and_random_messages_are_refused(length):
    server = NoiseWrap(KEYS_B, SeededRandom(1))
    with pytest.raises(RemoteProtocolError):
        server.receive_untrusted(SeededRandom(length).token_bytes(length))
