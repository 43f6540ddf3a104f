"""Answers to the internal commands, which every node understands.

Source: docs/PROTOCOL.md section 4; ``dht-rpc/index.js`` _onrequest.
"""

from __future__ import annotations

from peerchat.net.encoding import Reader
from peerchat.net.env import Clock, Timer
from peerchat.net.errors import RemoteProtocolError
from peerchat.net.identity import Address

from .messages import Command
from .neighbours import Neighbours
from .request import IncomingRequest

DELAY_MS_MAX = 10_000
DELAYED_PINGS_MAX = 256
"""Answers held back at once; each costs a timer, and anyone may ask for one."""


class InternalCommands:
    """Answers requests with the internal flag."""

    def __init__(self, clock: Clock, neighbours: Neighbours) -> None:
        self._clock = clock
        self._neighbours = neighbours
        self._delayed: dict[object, Timer] = {}

    def handle(self, request: IncomingRequest) -> bool:
        """Answer, or ignore what makes no sense; False when the command is unknown."""
        try:
            return self._handle(request)
        except RemoteProtocolError:
            return True

    def close(self) -> None:
        """Forget the answers that are held back."""
        for timer in self._delayed.values():
            timer.cancel()
        self._delayed.clear()

    def _handle(self, request: IncomingRequest) -> bool:
        match request.command:
            case Command.PING:
                _acknowledge(request)
            case Command.PING_NAT:
                _ping_other_port(request)
            case Command.FIND_NODE:
                if request.target is not None:
                    request.reply(None, token=False)
            case Command.DOWN_HINT:
                self._neighbours.down_hint(_value(request).ipv4())
                _acknowledge(request)
            case Command.DELAYED_PING:
                self._delay(request, _value(request).u32())
            case _:
                return False
        return True

    def _delay(self, request: IncomingRequest, delay_ms: int) -> None:
        if delay_ms > DELAY_MS_MAX or len(self._delayed) >= DELAYED_PINGS_MAX:
            return
        key = object()

        def answer() -> None:
            del self._delayed[key]
            _acknowledge(request)

        when_s = self._clock.now() + delay_ms / 1000
        self._delayed[key] = self._clock.call_at(when_s, answer)


def _value(request: IncomingRequest) -> Reader:
    return Reader(request.value or b"")


def _acknowledge(request: IncomingRequest, to: Address | None = None) -> None:
    request.reply(None, closer_nodes=False, token=False, to=to)


def _ping_other_port(request: IncomingRequest) -> None:
    """Answer to another socket of the same host, so that it learns if it is reached."""
    port = _value(request).u16()
    if port:
        _acknowledge(request, Address(request.from_address.host, port))
