"""Requests as they reach the HyperDHT layer, and a record of what they made us send."""

from dataclasses import dataclass, field

from peerchat.net.dht.messages import RequestMessage, ResponseMessage
from peerchat.net.dht.request import IncomingRequest
from peerchat.net.env import Env
from peerchat.net.identity import Address, Target
from peerchat.testing.network import SeededRandom

TOKEN = b"T" * 32
OWN = Address("10.0.0.1", 1000)
STRANGER = Address("10.0.0.9", 99)


class ManualClock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def now(self) -> float:
        return self.now_s

    def unix_ms(self) -> int:
        return 1_700_000_000_000


def manual_env(clock: ManualClock) -> Env:
    return Env(clock, SeededRandom(1), None)


@dataclass
class Sent:
    """One datagram, taken apart."""

    message: RequestMessage | ResponseMessage
    to: Address


@dataclass
class Outbox:
    """Stands in for the sockets of a node."""

    sent: list[Sent] = field(default_factory=list)
    closer: tuple[Address, ...] = (Address("9.9.9.9", 9),)

    def closest_addresses(self, target):
        return self.closer

    def issue_token(self, host):
        return TOKEN

    def send_request(self, message, socket, to):
        self.sent.append(Sent(message, to))

    def send_response(self, message, socket, to):
        self.sent.append(Sent(message, to))

    def take(self) -> Sent:
        """The only datagram sent since the last call."""
        assert len(self.sent) == 1, self.sent
        return self.sent.pop()


class FakeSocket:
    """Remembers single datagrams that did not go through the DHT's codec."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, Address]] = []

    def send(self, data, to):
        self.sent.append((data, to))


def incoming(
    outbox: Outbox,
    command: int,
    target: bytes | None,
    value: bytes | None = None,
    *,
    source: Address = STRANGER,
    tid: int = 7,
    token: bytes | None = None,
) -> IncomingRequest:
    message = RequestMessage(
        tid=tid,
        to=OWN,
        command=command,
        token=token,
        target=None if target is None else Target(target),
        value=value,
    )
    return IncomingRequest(outbox, FakeSocket(), source, None, message, False)
