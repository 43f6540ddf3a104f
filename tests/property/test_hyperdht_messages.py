"""Any bytes either parse or raise DecodeError; what was written is read back."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerchat.net.errors import DecodeError
from peerchat.net.hyperdht import messages as m
from peerchat.net.hyperdht.constants import Mode
from peerchat.net.identity import Address, PublicKey

PARSERS = [
    m.decode_peer_untrusted,
    m.decode_lookup_reply_untrusted,
    m.decode_announce_untrusted,
    m.decode_handshake_untrusted,
    m.decode_holepunch_untrusted,
    m.decode_noise_payload_untrusted,
]
UINT = st.integers(0, 2**53)
BYTES_32 = st.binary(min_size=32, max_size=32)
ADDRESS = st.builds(
    Address, st.ip_addresses(v=4).map(str), st.integers(min_value=0, max_value=65535)
)
ADDRESS_6 = st.builds(Address, st.ip_addresses(v=6).map(str), st.integers(0, 65535))
PEER = st.builds(
    m.PeerRecord, BYTES_32.map(PublicKey), st.lists(ADDRESS, max_size=5).map(tuple)
)
MODE = st.sampled_from(Mode)
PAYLOAD = st.builds(
    m.NoisePayload,
    error=UINT,
    firewall=UINT,
    holepunch=st.none()
    | st.builds(
        m.HolepunchInfo,
        UINT,
        st.lists(st.builds(m.RelayInfo, ADDRESS, ADDRESS), max_size=4).map(tuple),
    ),
    addresses4=st.lists(ADDRESS, max_size=4).map(tuple),
    addresses6=st.lists(ADDRESS_6, max_size=4).map(tuple),
    udx=st.none() | st.builds(m.UdxInfo, UINT, UINT, st.booleans()),
    secret_stream=st.none() | UINT,
    relay_through=st.none()
    | st.builds(m.RelayThrough, BYTES_32.map(PublicKey), BYTES_32),
    relay_addresses=st.lists(ADDRESS, max_size=4).map(tuple),
)


@pytest.mark.parametrize("parse", PARSERS)
@given(data=st.binary(max_size=200))
def test_any_bytes_parse_or_raise_decode_error(parse, data):
    with contextlib.suppress(DecodeError):
        parse(data)


@pytest.mark.parametrize("parse", PARSERS)
@given(payload=PAYLOAD, cut=st.integers(0, 400), flip=st.integers(0, 400))
def test_damaged_messages_parse_or_raise_decode_error(parse, payload, cut, flip):
    data = bytearray(payload.encode())
    data[flip % len(data)] ^= 1 << (flip % 8)
    with contextlib.suppress(DecodeError):
        parse(bytes(data[: max(1, cut)]))


@given(payload=PAYLOAD)
def test_noise_payloads_survive(payload):
    assert m.decode_noise_payload_untrusted(payload.encode()) == payload


@given(peers=st.lists(PEER, max_size=20), bump=UINT)
def test_lookup_replies_survive(peers, bump):
    data = m.encode_lookup_reply([peer.encode() for peer in peers], bump)
    assert m.decode_lookup_reply_untrusted(data) == m.LookupReply(tuple(peers), bump)


@given(
    announce=st.builds(
        m.Announce,
        st.none() | PEER,
        st.none() | BYTES_32,
        st.none() | st.binary(min_size=64, max_size=64),
        UINT,
    )
)
def test_announcements_survive(announce):
    assert m.decode_announce_untrusted(announce.encode()) == announce


@given(
    handshake=st.builds(
        m.Handshake,
        MODE,
        st.binary(max_size=99),
        st.none() | ADDRESS,
        st.none() | ADDRESS,
    )
)
def test_handshakes_survive(handshake):
    assert m.decode_handshake_untrusted(handshake.encode()) == handshake


@given(
    holepunch=st.builds(
        m.Holepunch, MODE, UINT, st.binary(max_size=99), st.none() | ADDRESS
    )
)
def test_holepunches_survive(holepunch):
    assert m.decode_holepunch_untrusted(holepunch.encode()) == holepunch
