"""Any bytes: a message or DecodeError. Any message: its own bytes."""

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from peerchat.net.dht.messages import (
    RequestMessage,
    ResponseMessage,
    decode_untrusted,
    encode_request,
    encode_response,
)
from peerchat.net.errors import DecodeError
from peerchat.net.identity import Address

addresses = st.builds(
    Address,
    st.ip_addresses(v=4).map(str),
    st.integers(0, 65535),
)
keys = st.none() | st.binary(min_size=32, max_size=32)
values = st.none() | st.binary(max_size=400)
tids = st.integers(0, 65535)
requests = st.builds(
    RequestMessage,
    tid=tids,
    to=addresses,
    command=st.integers(0, 2**53),
    is_internal=st.booleans(),
    id=keys,
    token=keys,
    target=keys,
    value=values,
)
responses = st.builds(
    ResponseMessage,
    tid=tids,
    to=addresses,
    id=keys,
    token=keys,
    closer_nodes=st.lists(addresses, max_size=20).map(tuple),
    error=st.integers(0, 2**53),
    value=values,
)


def encode(message):
    if isinstance(message, RequestMessage):
        return encode_request(message)
    return encode_response(message)


@given(requests | responses)
def test_messages_come_back(message):
    assert decode_untrusted(encode(message)) == message


@given(st.binary(max_size=200), st.sampled_from([b"", b"\x03", b"\x13"]))
def test_any_bytes_parse_or_are_refused(data, start):
    with contextlib.suppress(DecodeError):
        message = decode_untrusted(start + data)
        assert decode_untrusted(encode(message)) == message


@given(requests | responses, st.data())
def test_a_flipped_bit_parses_or_is_refused(message, data):
    raw = bytearray(encode(message))
    index = data.draw(st.integers(0, len(raw) - 1))
    raw[index] ^= 1 << data.draw(st.integers(0, 7))
    with contextlib.suppress(DecodeError):
        decode_untrusted(bytes(raw))
