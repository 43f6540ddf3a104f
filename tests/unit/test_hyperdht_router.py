"""Handshake and holepunch messages go the right way, and only where they may."""

import pytest

from peerchat.net.dht.messages import RequestMessage, ResponseMessage
from peerchat.net.hyperdht.constants import NOISE_BYTES_MAX, Command, Mode
from peerchat.net.hyperdht.messages import (
    Handshake,
    Holepunch,
    decode_handshake_untrusted,
    decode_holepunch_untrusted,
)
from peerchat.net.hyperdht.router import SERVERS_MAX, Forward, Router
from peerchat.net.identity import Address, Target
from tests.unit.hyperdht_requests import ManualClock, Outbox, incoming

TARGET = Target(b"t" * 32)
CLIENT = Address("10.0.0.2", 2)
RELAY = Address("10.0.0.3", 3)
SERVER = Address("10.0.0.4", 4)
NOISE = b"noise message"


class FakeServer:
    """Answers every handshake with the same bytes."""

    record = b"its record"

    def __init__(self) -> None:
        self.got: list[tuple[bytes, Address | None]] = []

    def receive_handshake(self, noise, peer_address, request, answer):
        self.got.append((noise, peer_address))
        answer(b"answer")


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def router(clock):
    return Router(clock)


@pytest.fixture
def outbox():
    return Outbox()


def shake(router, outbox, message, source, tid=7):
    value = message if isinstance(message, bytes) else message.encode()
    router.receive_handshake(
        incoming(outbox, Command.PEER_HANDSHAKE, TARGET, value, source=source, tid=tid)
    )


def relayed(outbox, to):
    """The request that was sent on, and that its envelope stayed the same."""
    sent = outbox.take()
    assert isinstance(sent.message, RequestMessage)
    assert sent.to == sent.message.to == to
    assert (sent.message.tid, sent.message.target) == (7, TARGET)
    assert sent.message.token is None
    return sent.message.value


def replied(outbox, to):
    sent = outbox.take()
    assert isinstance(sent.message, ResponseMessage)
    assert sent.to == sent.message.to == to
    assert sent.message.tid == 7
    assert sent.message.token is None
    return sent.message


def test_a_relay_passes_a_client_on_to_the_server(router, outbox):
    router.set_forward(TARGET, Forward(SERVER, b"record"))
    shake(router, outbox, Handshake(Mode.FROM_CLIENT, NOISE), CLIENT)
    onward = decode_handshake_untrusted(relayed(outbox, SERVER))
    assert onward == Handshake(Mode.FROM_RELAY, NOISE, CLIENT)


def test_a_relay_hands_the_answer_back_with_the_address_of_the_server(router, outbox):
    router.set_forward(TARGET, Forward(SERVER, b"record"))
    shake(router, outbox, Handshake(Mode.FROM_CLIENT, NOISE), CLIENT)
    outbox.take()
    shake(router, outbox, Handshake(Mode.FROM_SERVER, b"answer", CLIENT), SERVER)
    reply = replied(outbox, CLIENT)
    assert reply.closer_nodes == ()
    assert decode_handshake_untrusted(reply.value) == Handshake(
        Mode.REPLY, b"answer", SERVER
    )


def test_an_answer_that_nobody_asked_for_is_not_reflected(router, outbox, clock):
    answer = Handshake(Mode.FROM_SERVER, b"answer", CLIENT)
    shake(router, outbox, answer, SERVER)
    router.set_forward(TARGET, Forward(SERVER, b"record"))
    shake(router, outbox, Handshake(Mode.FROM_CLIENT, NOISE), CLIENT)
    outbox.take()
    shake(router, outbox, answer, SERVER, tid=8)
    clock.now_s += 60
    shake(router, outbox, answer, SERVER)
    assert outbox.sent == []
    assert router.counters.malformed == 3


def test_a_second_relay_tells_the_server_who_the_first_is(router, outbox):
    router.set_forward(TARGET, Forward(SERVER, b"record"))
    shake(router, outbox, Handshake(Mode.FROM_RELAY, NOISE, CLIENT), RELAY)
    onward = decode_handshake_untrusted(relayed(outbox, SERVER))
    assert onward == Handshake(Mode.FROM_SECOND_RELAY, NOISE, CLIENT, RELAY)


def test_a_client_may_name_the_relay_to_use(router, outbox):
    message = Handshake(Mode.FROM_CLIENT, NOISE, None, RELAY)
    shake(router, outbox, message, CLIENT)
    onward = decode_handshake_untrusted(relayed(outbox, RELAY))
    assert onward == Handshake(Mode.FROM_RELAY, NOISE, CLIENT)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.1.2.3", "224.0.0.1"])
def test_a_client_from_outside_may_not_name_our_own_machine(router, outbox, host):
    message = Handshake(Mode.FROM_CLIENT, NOISE, None, Address(host, 53))
    shake(router, outbox, message, CLIENT)
    assert isinstance(outbox.take().message, ResponseMessage)


def test_without_a_route_the_client_learns_closer_nodes(router, outbox):
    shake(router, outbox, Handshake(Mode.FROM_CLIENT, NOISE), CLIENT)
    reply = replied(outbox, CLIENT)
    assert reply.value is None
    assert reply.closer_nodes == outbox.closer


def test_a_route_is_forgotten_after_a_while(router, outbox, clock):
    router.set_forward(TARGET, Forward(SERVER, b"record"))
    assert router.record_of(TARGET) == b"record"
    clock.now_s += 30 * 60
    assert router.record_of(TARGET) is None
    assert router.relay_of(TARGET) is None


def test_a_server_answers_a_client_directly(router, outbox):
    server = FakeServer()
    assert router.add_server(TARGET, server)
    shake(router, outbox, Handshake(Mode.FROM_CLIENT, NOISE), CLIENT)
    reply = replied(outbox, CLIENT)
    assert decode_handshake_untrusted(reply.value) == Handshake(Mode.REPLY, b"answer")
    assert server.got == [(NOISE, None)]


def test_a_server_answers_through_the_relay(router, outbox):
    server = FakeServer()
    router.add_server(TARGET, server)
    shake(router, outbox, Handshake(Mode.FROM_RELAY, NOISE, CLIENT), RELAY)
    back = decode_handshake_untrusted(relayed(outbox, RELAY))
    assert back == Handshake(Mode.FROM_SERVER, b"answer", CLIENT)
    assert server.got == [(NOISE, CLIENT)]


def test_a_server_answers_to_the_first_of_two_relays(router, outbox):
    router.add_server(TARGET, FakeServer())
    second = Address("10.0.0.5", 5)
    message = Handshake(Mode.FROM_SECOND_RELAY, NOISE, CLIENT, RELAY)
    shake(router, outbox, message, second)
    back = decode_handshake_untrusted(relayed(outbox, RELAY))
    assert back == Handshake(Mode.FROM_SERVER, b"answer", CLIENT)


def test_our_own_server_goes_before_a_forward(router, outbox):
    router.set_forward(TARGET, Forward(RELAY, b"record"))
    server = FakeServer()
    router.add_server(TARGET, server)
    router.set_forward(TARGET, Forward(RELAY, b"record"))
    assert router.record_of(TARGET) == server.record
    assert router.relay_of(TARGET) is None
    assert not router.add_server(TARGET, FakeServer())
    router.remove_server(TARGET)
    assert router.record_of(TARGET) is None


def test_servers_are_limited(router):
    for index in range(SERVERS_MAX):
        target = Target(index.to_bytes(32, "big"))
        assert router.add_server(target, FakeServer())
    assert not router.add_server(TARGET, FakeServer())


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xff",
        Handshake(Mode.FROM_CLIENT, b""),
        Handshake(Mode.FROM_CLIENT, bytes(NOISE_BYTES_MAX + 1)),
        Handshake(Mode.REPLY, NOISE),
        Handshake(Mode.FROM_RELAY, NOISE),
        Handshake(Mode.FROM_SECOND_RELAY, NOISE, CLIENT),
        Handshake(Mode.FROM_SERVER, NOISE),
    ],
)
@pytest.mark.parametrize("has_server", [True, False])
def test_what_makes_no_sense_is_dropped(router, outbox, message, has_server):
    if has_server:
        router.add_server(TARGET, FakeServer())
    shake(router, outbox, message, CLIENT)
    assert outbox.sent == []


def punch(router, outbox, message, source):
    router.receive_holepunch(
        incoming(
            outbox, Command.PEER_HOLEPUNCH, TARGET, message.encode(), source=source
        )
    )


def test_two_peers_punch_through_us(router, outbox):
    router.set_forward(TARGET, Forward(SERVER, b"record"))
    punch(router, outbox, Holepunch(Mode.FROM_CLIENT, 3, b"sealed"), CLIENT)
    onward = decode_holepunch_untrusted(relayed(outbox, SERVER))
    assert onward == Holepunch(Mode.FROM_RELAY, 3, b"sealed", CLIENT)
    punch(router, outbox, Holepunch(Mode.FROM_SERVER, 0, b"back", CLIENT), SERVER)
    reply = replied(outbox, CLIENT)
    assert decode_holepunch_untrusted(reply.value) == Holepunch(
        Mode.REPLY, 0, b"back", SERVER
    )


def test_a_client_names_the_server_as_its_relay_saw_it(router, outbox):
    message = Holepunch(Mode.FROM_CLIENT, 3, b"sealed", SERVER)
    punch(router, outbox, message, CLIENT)
    assert relayed(outbox, SERVER)


@pytest.mark.parametrize(
    "message",
    [
        Holepunch(Mode.FROM_CLIENT, 0, b"x"),
        Holepunch(Mode.FROM_CLIENT, 0, b"x", Address("127.0.0.1", 53)),
        Holepunch(Mode.FROM_RELAY, 0, b"x", CLIENT),
        Holepunch(Mode.FROM_SERVER, 0, b"x", CLIENT),
        Holepunch(Mode.FROM_SERVER, 0, b"x"),
        Holepunch(Mode.REPLY, 0, b"x", CLIENT),
    ],
)
def test_punches_that_go_nowhere_are_dropped(router, outbox, message):
    punch(router, outbox, message, SERVER)
    assert outbox.sent == []
