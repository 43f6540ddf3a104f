"""Datagrams, ids, tokens and NAT samples against the npm packages."""

import json
from pathlib import Path

import pytest

from peerchat.net.dht.addresses import is_worth_asking, parse_bootstrap
from peerchat.net.dht.messages import (
    RequestMessage,
    ResponseMessage,
    believed_id,
    decode_untrusted,
    encode_request,
    encode_response,
    node_id,
)
from peerchat.net.dht.nat_sampler import NatSampler
from peerchat.net.dht.tokens import Tokens
from peerchat.net.errors import DecodeError
from peerchat.net.identity import Address

VECTORS = json.loads(
    (Path(__file__).parent.parent / "vectors/dht_rpc.json").read_text()
)


def unhex(text):
    return None if text is None else bytes.fromhex(text)


def address(node):
    return Address(node["host"], node["port"])


@pytest.mark.parametrize("vector", VECTORS["requests"])
def test_requests_are_the_reference_s_bytes(vector):
    message = RequestMessage(
        tid=vector["tid"],
        to=address(vector["to"]),
        command=vector["command"],
        is_internal=vector["internal"],
        id=unhex(vector["id"]),
        token=unhex(vector["token"]),
        target=unhex(vector["target"]),
        value=unhex(vector["value"]),
    )
    assert encode_request(message).hex() == vector["hex"]
    assert decode_untrusted(bytes.fromhex(vector["hex"])) == message


@pytest.mark.parametrize("vector", VECTORS["responses"])
def test_responses_are_the_reference_s_bytes(vector):
    message = ResponseMessage(
        tid=vector["tid"],
        to=address(vector["to"]),
        id=unhex(vector["id"]),
        token=unhex(vector["token"]),
        closer_nodes=tuple(address(node) for node in vector["closer"]),
        error=vector["error"],
        value=unhex(vector["value"]),
    )
    assert encode_response(message).hex() == vector["hex"]
    assert decode_untrusted(bytes.fromhex(vector["hex"])) == message


@pytest.mark.parametrize("vector", VECTORS["ids"])
def test_an_id_is_the_hash_of_the_address(vector):
    own_id = node_id(address(vector))
    assert own_id.hex() == vector["id"]
    assert believed_id(own_id, address(vector)) == own_id
    assert believed_id(own_id, Address("10.20.30.40", 50002)) is None
    assert believed_id(None, address(vector)) is None


def test_tokens_rotate_as_the_reference_s_do():
    vector = VECTORS["tokens"]
    tokens = Tokens(bytes.fromhex(vector["seed"]))
    for step in vector["steps"]:
        assert tokens.issue(vector["host"]).hex() == step["current"]
        assert tokens.is_valid(bytes.fromhex(step["current"]), vector["host"])
        assert tokens.is_valid(bytes.fromhex(step["previous"]), vector["host"])
        tokens.rotate()


def test_a_token_is_good_for_one_host_and_two_periods():
    tokens = Tokens(bytes(range(64)))
    token = tokens.issue("10.0.0.1")
    assert not tokens.is_valid(token, "10.0.0.2")
    tokens.rotate()
    assert tokens.is_valid(token, "10.0.0.1")
    tokens.rotate()
    assert not tokens.is_valid(token, "10.0.0.1")


def test_nat_samples_lead_to_the_same_address():
    sampler = NatSampler()
    for host, port, *expected in VECTORS["nat"]:
        sampler.add(Address(host, port))
        assert [sampler.host, sampler.port, sampler.size] == expected


@pytest.mark.parametrize("vector", [*VECTORS["requests"], *VECTORS["responses"]])
def test_what_is_cut_off_does_not_parse(vector):
    data = bytes.fromhex(vector["hex"])
    for end in range(len(data)):
        with pytest.raises(DecodeError):
            decode_untrusted(data[:end])


def test_more_closer_nodes_than_anyone_sends_do_not_parse():
    nodes = tuple(Address("10.0.0.1", port) for port in range(1, 66))
    data = encode_response(
        ResponseMessage(1, Address("1.1.1.1", 1), closer_nodes=nodes)
    )
    with pytest.raises(DecodeError):
        decode_untrusted(data)


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ("127.0.0.1:49737", ("127.0.0.1", 49737, None)),
        ("node1.example.org:1", ("node1.example.org", 1, None)),
        ("1.2.3.4@node1.example.org:65535", ("node1.example.org", 65535, "1.2.3.4")),
        (("1.2.3.4", 5), ("1.2.3.4", 5, None)),
    ],
)
def test_bootstrap_nodes_are_read(node, expected):
    parsed = parse_bootstrap(node)
    assert (parsed.host, parsed.port, parsed.suggested_ip) == expected


@pytest.mark.parametrize(
    "text", ["", "host", "host:", ":1", "host:0", "host:65536", "host:x", "x@host:1"]
)
def test_other_bootstrap_nodes_are_refused_in_words(text):
    with pytest.raises(ValueError, match=r"bootstrap node|IPv4"):
        parse_bootstrap(text)


@pytest.mark.parametrize(
    ("named", "by", "expected"),
    [
        ("10.0.0.1", "1.1.1.1", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "1.1.1.1", False),
        ("0.0.0.1", "1.1.1.1", False),
        ("224.0.0.1", "1.1.1.1", False),
        ("255.255.255.255", "1.1.1.1", False),
    ],
)
def test_addresses_that_cannot_be_nodes_are_not_asked(named, by, expected):
    assert is_worth_asking(Address(named, 5), Address(by, 5)) is expected
    assert not is_worth_asking(Address(named, 0), Address(by, 5))
