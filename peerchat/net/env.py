"""The three doors for everything that is not determined: clock, chance, datagrams.

Whatever in this library waits, draws a random number or sends a packet does so
through an `Env`. Production supplies one over asyncio and real sockets
(`peerchat.net.driver.env`), the simulator another over virtual time and seeded links
(`peerchat.testing`), so that a whole network replays from one seed.

Coroutines may use asyncio's own primitives (events, task groups, timeouts): the
simulator runs an event loop whose clock is the virtual one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from .identity import Address

Datagram = tuple[bytes, Address]
"""Payload and the remote address: where from when received, where to when sent."""

DatagramReceiver = Callable[["DatagramSocket", Sequence[Datagram]], None]
"""Called with every datagram of one read batch, in the order of arrival."""


class Timer(Protocol):
    """A pending call; `cancel` is idempotent."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """Monotonic time in seconds, and things that happen later."""

    def now(self) -> float: ...

    def call_at(self, when_s: float, callback: Callable[[], None]) -> Timer: ...

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Run once in this turn of the loop, after the work at hand."""

    async def sleep(self, delay_s: float) -> None: ...

    def unix_ms(self) -> int:
        """Wall-clock time; only for records whose wire format wants it."""


class Random(Protocol):
    """Randomness; the production one is the operating system's."""

    def token_bytes(self, length: int) -> bytes: ...

    def randbelow(self, bound: int) -> int: ...

    def uniform(self, low: float, high: float) -> float: ...


class DatagramSocket(Protocol):
    """One bound UDP socket."""

    @property
    def address(self) -> Address:
        """The local address; the port is never 0."""

    def send(self, data: bytes, to: Address) -> None:
        """Hand over one datagram; never blocks, may lose it as networks do."""

    def send_batch(self, data: Sequence[bytes], to: Address) -> None:
        """Hand over several datagrams to one address."""

    def close(self) -> None:
        """Stop receiving and free the port; idempotent."""


class Datagrams(Protocol):
    """Opens UDP sockets. `UdxEndpoint` is one that first takes what is UDX."""

    async def bind(
        self, host: str, port: int, receiver: DatagramReceiver
    ) -> DatagramSocket:
        """Bind ``host:port`` (port 0: any); raises OSError when it is taken."""


@dataclass(frozen=True, slots=True)
class Env:
    """The three doors together."""

    clock: Clock
    random: Random
    datagrams: Datagrams
