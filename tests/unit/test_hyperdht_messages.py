"""Every HyperDHT value equals the bytes of the npm packages, both ways."""

import json
from pathlib import Path

import pytest

from peerchat.net.errors import DecodeError
from peerchat.net.hyperdht import messages as m
from peerchat.net.hyperdht.addresses import (
    first_public,
    is_bogon,
    is_private,
    is_reserved,
    local_addresses,
    match_address,
)
from peerchat.net.hyperdht.constants import Mode
from peerchat.net.identity import Address, PublicKey

VECTORS = json.loads(
    (Path(__file__).parent.parent / "vectors" / "hyperdht.json").read_text()
)
KEY_A = PublicKey(bytes.fromhex(VECTORS["keys"]["publicKeyA"]))
KEY_B = PublicKey(bytes.fromhex(VECTORS["keys"]["publicKeyB"]))
RELAYS = (Address("10.0.0.1", 1), Address("255.254.253.252", 65535))
PEER = m.PeerRecord(KEY_A, RELAYS)


def address(vector):
    return Address(vector["host"], vector["port"]) if vector else None


def test_peer_records():
    assert PEER.encode().hex() == VECTORS["peer"]
    assert m.decode_peer_untrusted(bytes.fromhex(VECTORS["peer"])) == PEER
    bare = m.PeerRecord(KEY_B)
    assert bare.encode().hex() == VECTORS["peerBare"]


def test_lookup_replies():
    records = [PEER.encode(), m.PeerRecord(KEY_B).encode()]
    encoded = m.encode_lookup_reply(records, 1_700_000_000_000)
    assert encoded.hex() == VECTORS["lookup"]
    reply = m.decode_lookup_reply_untrusted(encoded)
    assert reply == m.LookupReply((PEER, m.PeerRecord(KEY_B)), 1_700_000_000_000)


def test_a_lookup_reply_without_a_bump_is_an_old_one():
    encoded = m.encode_lookup_reply([PEER.encode()], 0)[:-1]
    assert m.decode_lookup_reply_untrusted(encoded) == m.LookupReply((PEER,))


def test_announcements():
    vector = VECTORS["announce"]
    announce = m.Announce(
        PEER,
        bytes.fromhex(vector["refresh"]),
        bytes.fromhex(vector["announceSignature"]),
        vector["bump"],
    )
    assert announce.encode().hex() == vector["announce"]
    assert m.decode_announce_untrusted(announce.encode()) == announce
    unannounce = m.Announce(
        m.PeerRecord(KEY_A), None, bytes.fromhex(vector["unannounceSignature"])
    )
    assert unannounce.encode().hex() == vector["unannounce"]
    renew = m.Announce(refresh=bytes([24]) * 32)
    assert renew.encode().hex() == vector["renew"]


@pytest.mark.parametrize("vector", VECTORS["handshakes"])
def test_handshakes(vector):
    handshake = m.Handshake(
        Mode(vector["mode"]),
        bytes.fromhex(vector["noise"]),
        address(vector["peerAddress"]),
        address(vector["relayAddress"]),
    )
    assert handshake.encode().hex() == vector["bytes"]
    assert m.decode_handshake_untrusted(handshake.encode()) == handshake


@pytest.mark.parametrize("vector", VECTORS["holepunches"])
def test_holepunches(vector):
    holepunch = m.Holepunch(
        Mode(vector["mode"]),
        vector["id"],
        bytes.fromhex(vector["payload"]),
        address(vector["peerAddress"]),
    )
    assert holepunch.encode().hex() == vector["bytes"]
    assert m.decode_holepunch_untrusted(holepunch.encode()) == holepunch


PAYLOADS = {
    "client": m.NoisePayload(
        firewall=1,
        addresses4=(Address("127.0.0.1", 1234),),
        udx=m.UdxInfo(305419896),
        secret_stream=1,
    ),
    "server": m.NoisePayload(
        holepunch=m.HolepunchInfo(
            3, (m.RelayInfo(Address("1.2.3.4", 5), Address("6.7.8.9", 10)),)
        ),
        udx=m.UdxInfo(99, reusable_socket=True),
        secret_stream=1,
        relay_through=m.RelayThrough(KEY_B, bytes([31]) * 32),
        relay_addresses=(Address("9.9.9.9", 9),),
    ),
    "all": m.NoisePayload(
        error=3,
        firewall=3,
        holepunch=m.HolepunchInfo(70000, ()),
        addresses4=RELAYS,
        addresses6=(Address("2001:db8::1", 80),),
        udx=m.UdxInfo(4294967295, 4294967295),
        secret_stream=1,
        relay_addresses=RELAYS,
    ),
}


@pytest.mark.parametrize("name", PAYLOADS)
def test_noise_payloads(name):
    encoded = PAYLOADS[name].encode()
    assert encoded.hex() == VECTORS["payloads"][name]
    assert m.decode_noise_payload_untrusted(encoded) == PAYLOADS[name]


def test_a_payload_of_another_version_says_only_that():
    payload = m.decode_noise_payload_untrusted(b"\x02whatever comes")
    assert payload == m.NoisePayload(version=2)


def test_unknown_routing_modes_are_refused():
    with pytest.raises(DecodeError):
        m.decode_handshake_untrusted(bytes([0, 5, 0]))


@pytest.mark.parametrize("vector", VECTORS["bogon"], ids=lambda v: v["host"])
def test_kinds_of_addresses(vector):
    host = vector["host"]
    assert is_private(host) is vector["private"]
    assert is_reserved(host) is vector["reserved"]
    assert is_bogon(host) is vector["bogon"]


@pytest.mark.parametrize("vector", VECTORS["matches"])
def test_matching_of_local_addresses(vector):
    own = [Address(host, 1) for host in vector["own"]]
    remote = [Address(host, 1) for host in vector["remote"]]
    match = match_address(own, remote)
    assert (match.host if match else None) == vector["match"]


def test_first_public_address():
    fallback = Address("10.0.0.1", 5)
    addresses = [Address("192.168.0.1", 1), Address("8.8.8.8", 2)]
    assert first_public(addresses, fallback) == Address("8.8.8.8", 2)
    assert first_public(addresses[:1], fallback) == fallback


def test_local_addresses_of_a_bound_host_are_that_host():
    assert local_addresses(Address("1.2.3.4", 5)) == [Address("1.2.3.4", 5)]


def test_local_addresses_of_all_hosts_carry_the_port_and_are_never_empty():
    found = local_addresses(Address("0.0.0.0", 5))
    assert found
    assert all(one.port == 5 and one.host != "0.0.0.0" for one in found)
