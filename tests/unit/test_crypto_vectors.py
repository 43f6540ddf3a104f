"""Bytes of the npm packages: tests/vectors/make.js writes them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from peerchat.net.crypto.noise import HandshakeState, Pattern
from peerchat.net.crypto.primitives import (
    NS_CAPABILITY,
    NS_STREAM_INITIATOR,
    NS_STREAM_RESPONDER,
    NS_STREAM_SEND,
    KeyPair,
    hash_target,
    noise_dh,
    sign,
    verify,
)
from peerchat.net.crypto.secretstream import Pull, Push, SecretStream, stream_id
from peerchat.net.errors import LocalProtocolError, RemoteProtocolError
from peerchat.net.mux import rpc
from peerchat.net.mux.protomux import Protomux

VECTORS = json.loads(
    (Path(__file__).parents[1] / "vectors" / "vectors.json").read_text()
)
A = KeyPair.from_seed(bytes.fromhex(VECTORS["keys"]["seedA"]))
B = KeyPair.from_seed(bytes.fromhex(VECTORS["keys"]["seedB"]))


def unhex(text: str) -> bytes:
    return bytes.fromhex(text)


def sides(pattern: Pattern, name: str) -> tuple[HandshakeState, HandshakeState]:
    vector = VECTORS[name]
    return (
        HandshakeState(
            pattern,
            is_initiator=True,
            static=A,
            ephemeral=KeyPair.from_seed(unhex(vector["ephemeralA"])),
            prologue=unhex(vector["prologue"]),
            remote_static=B.public_key if pattern is Pattern.IK else None,
        ),
        HandshakeState(
            pattern,
            is_initiator=False,
            static=B,
            ephemeral=KeyPair.from_seed(unhex(vector["ephemeralB"])),
            prologue=unhex(vector["prologue"]),
        ),
    )


def test_key_pairs_hashes_signatures_and_namespaces() -> None:
    assert A.public_key.hex() == VECTORS["keys"]["publicA"]
    assert A.seed.hex() not in repr(A)
    assert noise_dh(A, B.public_key).hex() == VECTORS["dh"]
    assert hash_target(b"gateway").hex() == VECTORS["hash"]["output"]
    signature = unhex(VECTORS["signature"]["signature"])
    assert sign(b"signed", A) == signature
    assert verify(b"signed", signature, A.public_key)
    assert not verify(b"signet", signature, A.public_key)
    assert not verify(b"signed", signature, B.public_key)
    assert not verify(b"signed", signature[:63], A.public_key)
    mine = [NS_STREAM_INITIATOR, NS_STREAM_RESPONDER, NS_STREAM_SEND]
    assert [space.hex() for space in mine] == VECTORS["namespaces"]["stream"]
    assert NS_CAPABILITY.hex() == VECTORS["namespaces"]["capability"]


@pytest.mark.parametrize(("pattern", "name"), [(Pattern.IK, "ik"), (Pattern.XX, "xx")])
def test_noise_messages_and_keys(pattern: Pattern, name: str) -> None:
    vector = VECTORS[name]
    pair = sides(pattern, name)
    for number, step in enumerate(vector["messages"]):
        message = pair[number % 2].write_message(unhex(step["payload"]))
        assert message.hex() == step["message"]
        payload = pair[1 - number % 2].read_message_untrusted(message)
        assert payload.hex() == step["payload"]
    a, b = (side.result() for side in pair)
    assert (a.tx_key.hex(), a.rx_key.hex()) == (vector["tx"], vector["rx"])
    assert a.handshake_hash.hex() == vector["hash"] == b.handshake_hash.hex()
    assert (b.tx_key, b.rx_key) == (a.rx_key, a.tx_key)
    assert (a.remote_public_key, b.remote_public_key) == (B.public_key, A.public_key)
    assert a.tx_key.hex() not in repr(a)


@pytest.mark.parametrize("position", [0, 31, 40, 80, 100])
def test_a_changed_noise_message_is_refused_for_good(position: int) -> None:
    a, b = sides(Pattern.IK, "ik")
    message = bytearray(a.write_message(b"payload"))
    message[position] ^= 1
    with pytest.raises(RemoteProtocolError):
        b.read_message_untrusted(bytes(message))
    assert not b.is_complete
    with pytest.raises(LocalProtocolError):
        b.write_message()


def test_noise_refuses_short_messages_low_order_keys_and_wrong_turns() -> None:
    _, b = sides(Pattern.IK, "ik")
    with pytest.raises(RemoteProtocolError, match="short"):
        b.read_message_untrusted(bytes(31))
    _, b = sides(Pattern.IK, "ik")
    with pytest.raises(RemoteProtocolError, match="point"):
        b.read_message_untrusted(b"\x01" + bytes(120))
    a, b = sides(Pattern.XX, "xx")
    with pytest.raises(LocalProtocolError):
        b.write_message()
    with pytest.raises(LocalProtocolError):
        a.read_message_untrusted(b"")
    with pytest.raises(LocalProtocolError):
        a.result()


def test_secretstream_bodies_ids_and_boxes() -> None:
    vector = VECTORS["secretstream"]
    key, header = unhex(vector["key"]), unhex(vector["header"])
    push, pull = Push(key, header), Pull(key, header)
    for step in vector["messages"]:
        assert push.next(unhex(step["plain"])).hex() == step["body"]
        assert pull.next_untrusted(unhex(step["body"])).hex() == step["plain"]
    handshake_hash = unhex(VECTORS["ik"]["hash"])
    for is_initiator, name in ((True, "initiator"), (False, "responder")):
        own = stream_id(handshake_hash, is_initiator=is_initiator)
        assert own.hex() == VECTORS["ids"][name]
    responder = SecretStream(
        tx_key=unhex(VECTORS["ik"]["rx"]),
        rx_key=key,
        handshake_hash=handshake_hash,
        is_initiator=False,
        header=header,
        send_counter=bytes(8),
    )
    box = unhex(VECTORS["box"]["box"])
    assert responder.unbox_untrusted(box).hex() == VECTORS["box"]["plain"]


def test_capability_proofs() -> None:
    vector, handshake_hash = VECTORS["capability"], unhex(VECTORS["ik"]["hash"])
    for is_initiator, name in ((True, "initiator"), (False, "responder")):
        proof = rpc.capability_proof(
            unhex(vector["key"]), handshake_hash, is_initiator=is_initiator
        )
        assert proof.hex() == vector[name]
        rpc.verify_handshake_untrusted(rpc.encode_handshake(proof), proof)
        for wrong in (b"", b"\0", b"\1", rpc.encode_handshake(bytes(32))):
            with pytest.raises(RemoteProtocolError):
                rpc.verify_handshake_untrusted(wrong, proof)


def test_protomux_writes_what_the_reference_writes() -> None:
    frames: list[bytes] = []

    def write(frame: bytes) -> bool:
        frames.append(frame)
        return True

    def take() -> list[str]:
        taken = [frame.hex() for frame in frames]
        frames.clear()
        return taken

    vector = VECTORS["protomux"]
    mux = Protomux(write)
    first = mux.create_channel("alpha", b"\1\2\3", handshake=b"shake")
    second = mux.create_channel("beta", handshake=b"shake")
    assert first is not None
    assert second is not None
    first.open()
    second.open()
    assert take() == vector["opens"]
    first.send(1, b"alone")
    assert take() == vector["message"]
    mux.cork()
    first.send(0, b"a")
    first.send(1, b"b" * 300)
    second.send(0, b"c")
    second.close()
    first.send(0, b"d")
    mux.uncork()
    assert take() == vector["batch"]
    first.close()
    assert take() == vector["close"]


def test_rpc_messages_are_those_of_the_reference() -> None:
    for number, call in enumerate(VECTORS["rpc"]["calls"], 1):
        value = None if call["value"] is None else unhex(call["value"])
        [request], [response] = call["request"], call["response"]
        mine = rpc.encode_request(number, call["method"], value)
        assert "0100" + mine.hex() == request
        decoded = rpc.decode_request_untrusted(mine)
        assert decoded == (number, call["method"], rpc.encode_value(value))
        request_id, result = rpc.decode_response_untrusted(unhex(response)[2:])
        assert request_id == number
        if isinstance(result, rpc.Failure):
            assert "0101" + rpc.encode_failure(number, result).hex() == response
            assert result.code == call["answer"]["code"]
            assert result.cause == call["answer"].get("cause")
        else:
            assert rpc.decode_value_untrusted(result) == value
            assert "0101" + rpc.encode_response(number, value).hex() == response
    event = "0100" + rpc.encode_request(0, "echo", b"event").hex()
    assert [event] == VECTORS["rpc"]["event"]
