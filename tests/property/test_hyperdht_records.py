"""Any bytes are a record or raise DecodeError; what was written is read back."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerchat.net.errors import DecodeError
from peerchat.net.hyperdht import mutable as m
from peerchat.net.hyperdht.record_store import RecordStore
from peerchat.net.identity import PublicKey
from tests.unit.hyperdht_requests import TOKEN, ManualClock, Outbox, incoming

PARSERS = [
    m.decode_mutable_put_untrusted,
    m.decode_mutable_record_untrusted,
    m.decode_seq_untrusted,
]
RECORD = st.builds(
    m.MutableRecord,
    st.integers(0, m.SEQ_MAX),
    st.binary(max_size=300),
    st.binary(min_size=64, max_size=64),
)
PUT = st.builds(
    m.MutablePut, st.binary(min_size=32, max_size=32).map(PublicKey), RECORD
)


@pytest.mark.parametrize("parse", PARSERS)
@given(data=st.binary(max_size=200))
def test_any_bytes_parse_or_raise_decode_error(parse, data):
    with contextlib.suppress(DecodeError):
        parse(data)


@pytest.mark.parametrize("parse", PARSERS)
@given(put=PUT, cut=st.integers(0, 500), flip=st.integers(0, 500))
def test_damaged_messages_parse_or_raise_decode_error(parse, put, cut, flip):
    data = bytearray(put.encode())
    data[flip % len(data)] ^= 1 << (flip % 8)
    with contextlib.suppress(DecodeError):
        parse(bytes(data[: max(1, cut)]))


@given(put=PUT)
def test_puts_and_records_survive(put):
    assert m.decode_mutable_put_untrusted(put.encode()) == put
    record = m.decode_mutable_record_untrusted(put.record.encode())
    assert record == put.record


@given(
    command=st.integers(6, 9),
    target=st.none() | st.binary(min_size=32, max_size=32),
    value=st.none() | st.binary(max_size=200) | PUT.map(m.MutablePut.encode),
    token=st.sampled_from([None, TOKEN]),
)
def test_a_node_deals_with_any_request_and_keeps_nothing_forged(
    command, target, value, token
):
    store, outbox = RecordStore(ManualClock()), Outbox()
    assert store.receive(incoming(outbox, command, target, value, token=token))
    assert len(store) == 0
    assert len(outbox.sent) <= 1
