"""Two UDX machines over a bad network in virtual time.

Every run is drawn from one number. `UDX_SIM_SEED=17 pytest` on this file
replays one, `UDX_SIM_SEEDS=2000` sweeps that many.
"""

from __future__ import annotations

import heapq
import itertools
import os
import random
from dataclasses import dataclass, field

import pytest

from peerchat.net.udx.stream import UdxStream

VIRTUAL_TIME_MAX_S = 3600.0
STEPS_MAX = 400_000


def seeds() -> list[int]:
    if "UDX_SIM_SEED" in os.environ:
        return [int(os.environ["UDX_SIM_SEED"])]
    return list(range(int(os.environ.get("UDX_SIM_SEEDS", "50"))))


@dataclass
class Weather:
    """What one run's network does to datagrams."""

    loss: float
    duplicate: float
    delay_s: float
    jitter_s: float
    datagram_bytes_max: int
    stalls: list[tuple[float, float]]

    @classmethod
    def draw(cls, chance: random.Random) -> Weather:
        loss = chance.choice([0, 0, 0.01, 0.05, 0.2])
        return cls(
            loss=loss,
            duplicate=chance.choice([0, 0, 0.05, 0.3]),
            delay_s=chance.choice([0.0001, 0.005, 0.05, 0.3]),
            jitter_s=chance.choice([0, 0, 0.001, 0.05, 0.5]),
            datagram_bytes_max=chance.choice([1172, 1300, 1472]),
            stalls=[
                (start := chance.uniform(0, 5), start + chance.uniform(0.1, 6))
                # With much loss as well, 13 s of silence would be bad luck enough.
                for _ in range(chance.choice([0, 0, 1, 2]) if loss < 0.2 else 0)
            ],
        )

    def delays(self, chance: random.Random, data: bytes, now: float) -> list[float]:
        """When each copy of a datagram arrives, from now; none: it is lost."""
        is_stalled = any(start <= now < stop for start, stop in self.stalls)
        if is_stalled or len(data) > self.datagram_bytes_max:
            return []
        copies = 1 + (chance.random() < self.duplicate)
        return [
            self.delay_s + chance.random() * self.jitter_s
            for _ in range(copies)
            if chance.random() >= self.loss
        ]


@dataclass
class Side:
    """A machine, its owner's plan, and what came out."""

    name: str
    machine: UdxStream
    to_write: bytes
    block_bytes: int
    read_pause_s: float
    """How long the reader sleeps between readings; 0: it reads at once."""
    received: bytearray = field(default_factory=bytearray)
    written: int = 0
    read_at: float = 0.0

    def act(self, now: float) -> None:
        machine = self.machine
        while self.written < len(self.to_write) and machine.unsent_bytes < 200_000:
            stop = self.written + self.block_bytes
            machine.write(self.to_write[self.written : stop])
            self.written = min(stop, len(self.to_write))
        if self.written == len(self.to_write) and not machine.is_ending:
            machine.end()
        if machine.has_data and now >= self.read_at:
            self.received += machine.take_data()
            self.read_at = now + self.read_pause_s


class World:
    """Runs two sides until both are closed."""

    def __init__(self, seed: int) -> None:
        chance = self.chance = random.Random(seed)
        self.weather = Weather.draw(chance)
        self.now = 0.0
        self._count = itertools.count()
        self._arrivals: list[tuple[float, int, Side, bytes]] = []
        near_wrap = chance.choice([0, 2**32 - 5, 2**31 - 5])
        window = chance.choice([4 * 1024 * 1024, 4 * 1024 * 1024, 100_000, 3000, 1])
        # A window that lets hardly anything through asks for little to carry.
        scale = {1: 0.0001, 3000: 0.01}.get(window, 1)
        self.sides = [
            Side(
                name,
                UdxStream(
                    index,
                    initial_seq=near_wrap,
                    initial_ack=near_wrap,
                    window_bytes_max=window,
                ),
                chance.randbytes(
                    int(scale * chance.choice([0, 1, 5000, 300_000, 2_000_000]))
                ),
                chance.choice([1, 100, 1152, 65536]) if scale == 1 else 1000,
                chance.choice([0, 0, 0.01, 0.5]) if scale == 1 else 0.01,
            )
            for index, name in enumerate("ab")
        ]
        self.sides[0].machine.connect(1)
        self.sides[1].machine.connect(0)

    def run(self) -> None:
        for _ in range(STEPS_MAX):
            for side, peer in (self.sides, self.sides[::-1]):
                side.act(self.now)
                for datagram in side.machine.datagrams_to_send(self.now):
                    self._transmit(datagram, peer)
            if all(side.machine.is_closed for side in self.sides):
                return
            self._advance()
            assert self.now < VIRTUAL_TIME_MAX_S, "the transfer does not end"
        raise AssertionError("the machines spin")

    def _transmit(self, datagram: bytes, peer: Side) -> None:
        for delay_s in self.weather.delays(self.chance, datagram, self.now):
            entry = (self.now + delay_s, next(self._count), peer, datagram)
            heapq.heappush(self._arrivals, entry)

    def _advance(self) -> None:
        """Go to the next thing that happens and let it happen."""
        times = [
            deadline
            for side in self.sides
            if (deadline := side.machine.next_timer()) is not None
        ]
        times += [s.read_at for s in self.sides if s.machine.has_data]
        times += [self._arrivals[0][0]] if self._arrivals else []
        assert times, "nothing will ever happen again"
        self.now = max(self.now, min(times))
        while self._arrivals and self._arrivals[0][0] <= self.now:
            _, _, side, datagram = heapq.heappop(self._arrivals)
            side.machine.receive_packet_untrusted(datagram, self.now)
        for side in self.sides:
            side.machine.handle_timer(self.now)


@pytest.mark.parametrize("seed", seeds())
def test_every_byte_arrives_and_both_sides_close(seed: int):
    world = World(seed)
    print(f"replay: UDX_SIM_SEED={seed} pytest {__file__}", world.weather)
    world.run()
    for side, peer in (world.sides, world.sides[::-1]):
        print(side.name, side.machine.statistics())
        assert bytes(side.received) == peer.to_write
        assert side.machine.close_reason is None
        assert side.machine.buffered == 0
