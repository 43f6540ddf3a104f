"""A network of hosts in one process, with seeded delay, loss, copies and reordering.

`SimNetwork.host(ip)` gives an `Env` for one host; everything built on it (DHT node,
UDX endpoint, whole HyperDHT) then talks through this network's links. Runs on a
`VirtualLoop`; the same seed gives the same run.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from peerchat.net.env import Datagram, DatagramReceiver, Env
from peerchat.net.identity import Address

DATAGRAM_BYTES_MAX = 2048
"""Larger datagrams are cut off by the reference's read buffer; losing them shows it."""


@dataclass(frozen=True, slots=True)
class Link:
    """What happens to datagrams on the way; rates are between 0 and 1."""

    delay_min_s: float = 0.005
    delay_max_s: float = 0.020
    """Drawn anew for each datagram: a wide range reorders."""
    loss: float = 0.0
    duplicate: float = 0.0


class SimClock:
    """The running loop's clock."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def call_at(
        self, when_s: float, callback: Callable[[], None]
    ) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_at(when_s, callback)

    def call_soon(self, callback: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_soon(callback)

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)

    def unix_ms(self) -> int:
        return 1_700_000_000_000 + int(self.now() * 1000)


class SeededRandom:
    """Repeatable randomness."""

    def __init__(self, seed: int | str) -> None:
        self._random = random.Random(seed)

    def token_bytes(self, length: int) -> bytes:
        return self._random.randbytes(length)

    def randbelow(self, bound: int) -> int:
        return self._random.randrange(bound)

    def uniform(self, low: float, high: float) -> float:
        return self._random.uniform(low, high)


@dataclass(slots=True)
class SimStatistics:
    """What the network did; for assertions and for the replay line."""

    sent: int = 0
    delivered: int = 0
    lost: int = 0
    duplicated: int = 0


@dataclass(slots=True)
class SimSocket:
    """One bound UDP socket of one simulated host."""

    network: SimNetwork
    address: Address
    receiver: DatagramReceiver
    is_closed: bool = False
    _inbox: list[Datagram] = field(default_factory=list)

    def send(self, data: bytes, to: Address) -> None:
        if not self.is_closed:
            self.network.transmit(bytes(data), self.address, Address(*to))

    def send_batch(self, data: Sequence[bytes], to: Address) -> None:
        for one in data:
            self.send(one, to)

    def close(self) -> None:
        self.is_closed = True
        self.network.unbind(self.address)

    def arrive(self, data: bytes, source: Address) -> None:
        """Deliver with whatever else arrives in the same turn, as one batch."""
        if not self._inbox:
            asyncio.get_running_loop().call_soon(self._drain)
        self._inbox.append((data, source))

    def _drain(self) -> None:
        batch, self._inbox = self._inbox, []
        if not self.is_closed:
            self.receiver(self, batch)


class _HostDatagrams:
    """Opens sockets on one host of the network."""

    def __init__(self, network: SimNetwork, ip: str) -> None:
        self._network = network
        self._ip = ip

    async def bind(self, host: str, port: int, receiver: DatagramReceiver) -> SimSocket:
        return self._network.bind(self._ip, port, receiver)


class SimNetwork:
    """Every host reaches every other, unless a host is down or a pair is cut."""

    def __init__(self, seed: int | str, link: Link | None = None) -> None:
        self.seed = seed
        self.link = link or Link()
        self.statistics = SimStatistics()
        self._random = random.Random(f"network {seed}")
        self._sockets: dict[Address, SimSocket] = {}
        self._links: dict[tuple[str, str], Link] = {}
        self._down: set[str] = set()
        self._cut: set[tuple[str, str]] = set()

    def host(self, ip: str) -> Env:
        """An environment whose sockets have this IPv4 address."""
        chance = SeededRandom(f"{self.seed} {ip}")
        return Env(SimClock(), chance, _HostDatagrams(self, ip))

    def set_link(self, source: str, destination: str, link: Link) -> None:
        """Give one direction between two hosts its own behaviour."""
        self._links[source, destination] = link

    def take_down(self, ip: str) -> None:
        """Nothing leaves or reaches the host any more, as when its power fails."""
        self._down.add(ip)

    def bring_up(self, ip: str) -> None:
        self._down.discard(ip)

    def cut(self, a: str, b: str) -> None:
        """No datagram passes between the two, in either direction."""
        self._cut |= {(a, b), (b, a)}

    def mend(self, a: str, b: str) -> None:
        self._cut -= {(a, b), (b, a)}

    def bind(self, ip: str, port: int, receiver: DatagramReceiver) -> SimSocket:
        if port == 0:
            port = next(
                candidate
                for candidate in iter(lambda: self._random.randrange(20_000, 60_000), 0)
                if Address(ip, candidate) not in self._sockets
            )
        address = Address(ip, port)
        if address in self._sockets:
            raise OSError(98, f"{address} is taken")
        socket = SimSocket(self, address, receiver)
        self._sockets[address] = socket
        return socket

    def unbind(self, address: Address) -> None:
        self._sockets.pop(address, None)

    def transmit(self, data: bytes, source: Address, destination: Address) -> None:
        """Decide a datagram's fate now and deliver it later."""
        self.statistics.sent += 1
        link = self._links.get((source.host, destination.host), self.link)
        is_lost = self._random.random() < link.loss or len(data) > DATAGRAM_BYTES_MAX
        copies = 2 if self._random.random() < link.duplicate else 1
        if is_lost or not self._can_pass(source, destination):
            self.statistics.lost += 1
            return
        self.statistics.duplicated += copies - 1
        loop = asyncio.get_running_loop()
        for _ in range(copies):
            delay_s = self._random.uniform(link.delay_min_s, link.delay_max_s)
            # The loop's heap does not keep the order of equal times; a link does.
            delay_s += self.statistics.sent * 1e-10
            loop.call_later(delay_s, self._deliver, data, source, destination)

    def _can_pass(self, source: Address, destination: Address) -> bool:
        hosts = (source.host, destination.host)
        return hosts not in self._cut and self._down.isdisjoint(hosts)

    def _deliver(self, data: bytes, source: Address, destination: Address) -> None:
        socket = self._sockets.get(destination)
        if socket is not None and self._can_pass(source, destination):
            self.statistics.delivered += 1
            socket.arrive(data, source)
