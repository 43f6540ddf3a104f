"""One request of ours on its way: tries, time-outs, and the one outcome.

Source: docs/PROTOCOL.md section 4; ``dht-rpc/lib/io.js`` class Request.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from peerchat.net.env import Clock, DatagramSocket, Timer
from peerchat.net.errors import NetError, RequestTimeout
from peerchat.net.identity import Address, NodeId

TRY_TIMEOUT_S = 1.0
RETRIES = 3
"""Tries after the first; queries use 5."""


@dataclass(frozen=True, slots=True)
class Response:
    """An answer to a request of ours."""

    from_address: Address
    to: Address
    """Our own address as the node that answers sees it."""
    id: NodeId | None
    """The node's id; None for ephemeral nodes and for ids its address belies."""
    token: bytes | None
    closer_nodes: tuple[Address, ...]
    error: int
    """0, or what `messages.ErrorCode` or the command defines."""
    value: bytes | None
    rtt_s: float
    """From the first try to the answer: an upper bound when there were retries."""
    is_on_server_socket: bool = field(default=True, compare=False)


@dataclass(slots=True, eq=False)
class PendingRequest:
    """Ends with exactly one of `on_response` and `on_error`, unless cancelled."""

    tid: int
    to: Address
    data: bytes
    socket: DatagramSocket
    clock: Clock
    transmit: Callable[[PendingRequest], None]
    """Sends now or queues until the congestion window has room."""
    on_response: Callable[[Response], None]
    on_error: Callable[[NetError], None]
    on_finished: Callable[[PendingRequest], None]
    """Takes the request out of the table of those in flight."""
    on_timed_out: Callable[[PendingRequest], None]
    on_slow: Callable[[], None] | None = None
    """Called once, when the first try was not answered in time."""
    to_id: NodeId | None = None
    retries: int = RETRIES
    try_timeout_s: float = TRY_TIMEOUT_S
    is_any_sender_fine: bool = False
    is_forced: bool = False
    sent: int = 0
    is_done: bool = False
    first_sent_at_s: float = 0.0
    _timer: Timer | None = None

    def accepts(self, sender: Address) -> bool:
        """Whether an answer with our tid may come from there."""
        return self.sent > 0 and (self.is_any_sender_fine or sender == self.to)

    def send_now(self) -> None:
        """Put one try on the wire and wait for it."""
        now = self.clock.now()
        if self.sent == 0:
            self.first_sent_at_s = now
        self.sent += 1
        self.socket.send(self.data, self.to)
        self._timer = self.clock.call_at(now + self.try_timeout_s, self._on_timeout)

    def resolve(self, response: Response) -> None:
        if not self.is_done:
            self._finish()
            self.on_response(response)

    def fail(self, error: NetError) -> None:
        if not self.is_done:
            self._finish()
            self.on_error(error)

    def cancel(self) -> None:
        """Forget the request; neither callback will come."""
        if not self.is_done:
            self._finish()

    def _finish(self) -> None:
        self.is_done = True
        if self._timer is not None:
            self._timer.cancel()
        self.on_finished(self)

    def _on_timeout(self) -> None:
        if self.on_slow is not None:
            on_slow, self.on_slow = self.on_slow, None
            on_slow()
        self._try_again()

    def _try_again(self) -> None:
        if self.is_done:
            return
        if self.sent <= self.retries:
            self.transmit(self)
            return
        self.on_timed_out(self)
        self.fail(RequestTimeout(f"{self.to} answered none of {self.sent} tries"))
