"""What the whole path adds to an engine: client, gateway and processor on loopback.

    python -m tests.bench.path

Each in a process of its own, over real HyperDHT nodes; the engine gives a fragment each
20 ms. Prints a Markdown table. Takes about four minutes.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import uvloop

from peerchat.__main__ import OBJECTS_BETWEEN_COLLECTIONS
from peerchat.api import AnswerEvent, Fragment, Message, PromptRequest
from peerchat.gateways import Gateways
from peerchat.net import HyperDHT
from peerchat.net.identity import PublicKey
from peerchat.services.identity import Identity
from peerchat.services.processor_state import Processor
from peerchat.services.router import Router, _Followed
from peerchat.services.status_wire import ModelStatus, Status
from peerchat.services.swarm import Swarm
from peerchat.services.tokens import TokenIssuer

from .idle import resident_mb
from .path_peer import EVERY_S, SECRET, PacedEngine, joined

ROOT = Path(__file__).parent.parent.parent
FRAGMENTS = 100
ROUNDS = 4
SAMPLES_MIN = 20
"""Answers that a share of them says something about."""

OPEN_STREAMS = 1000
Row = tuple[str, str]
PER_CONNECTION = 60


@dataclass(frozen=True)
class Peer:
    """A process of the path."""

    process: subprocess.Popen[str]
    dht: str
    keys: list[str]


@contextmanager
def peer(kind: str, bootstrap: str = "", count: int = 1) -> Iterator[Peer]:
    command = [
        sys.executable,
        "-m",
        "tests.bench.path_peer",
        kind,
        bootstrap,
        str(count),
    ]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        yield Peer(process, said["dht"], said["keys"])
    finally:
        process.kill()
        process.communicate()


class Asker:
    """A client with connections of its own."""

    def __init__(self, dht: HyperDHT, gateway: Peer) -> None:
        self._swarm = Swarm(dht, Identity.generate())
        self._key = PublicKey(bytes.fromhex(gateway.keys[0]))
        self._number = 0
        self._tokens: dict[int, str] = {}

    def ask(self, prompt: str, user: int) -> AsyncIterator[AnswerEvent]:
        self._number += 1
        token = self._tokens.get(user)
        if token is None:  # as after a login
            token = TokenIssuer(SECRET).issue(f"u{user}@example.org")
            self._tokens[user] = token
        request = PromptRequest(prompt, f"{id(self)}-{self._number}")
        return self._swarm.ask(self._key, request, token)

    async def close(self) -> None:
        await self._swarm.close()


async def timed(events: AsyncIterator[AnswerEvent]) -> tuple[float, float]:
    """Seconds until the first fragment, and until the end."""
    began_s, first_s = time.perf_counter(), 0.0
    async for event in events:
        if isinstance(event, Fragment) and not first_s:
            first_s = time.perf_counter() - began_s
    return first_s, time.perf_counter() - began_s


async def steady(
    make: Callable[[int], AsyncIterator[AnswerEvent]], streams: int
) -> list[tuple[float, float]]:
    """So many streams at every time, each begun at a time of its own."""
    found: list[tuple[float, float]] = []
    rounds = max(ROUNDS, SAMPLES_MIN // streams)

    async def one(number: int) -> None:
        await asyncio.sleep(number / streams * FRAGMENTS * EVERY_S)
        found.extend([await timed(make(number)) for _ in range(rounds)])

    await asyncio.gather(*(one(number) for number in range(streams)))
    return found


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


async def overhead(asker: Asker, streams: int) -> list[str]:
    """What the path adds to the first fragment, and takes off the rate."""
    engine, prompt = PacedEngine(), str(FRAGMENTS)
    direct = await steady(
        lambda n: engine.stream(PromptRequest(prompt, f"direct-{n}")), streams
    )
    path = await steady(lambda n: asker.ask(prompt, n), streams)
    plain = statistics.median(first for first, _ in direct)
    added = [(first - plain) * 1000 for first, _ in path]
    rates = [
        statistics.mean(FRAGMENTS / whole for _, whole in one) for one in (direct, path)
    ]
    return [
        f"{percentile(added, 0.5):.1f}",
        f"{percentile(added, 0.95):.1f}",
        f"{rates[1] / rates[0]:.1%}",
    ]


async def requests_per_s(asker: Asker) -> float:
    """Answers of one fragment, 32 in flight; each takes the engine 20 ms."""
    count, in_flight = 1000, 32
    left = iter(range(count))

    async def work(user: int) -> None:
        for _ in left:
            await timed(asker.ask("1", user))

    began_s = time.perf_counter()
    await asyncio.gather(*(work(user) for user in range(in_flight)))
    return count / (time.perf_counter() - began_s)


async def silence_s(
    events: AsyncIterator[AnswerEvent], victim: Callable[[str], Peer]
) -> float:
    """The longest silence of an answer, of which somebody is killed by kill -9.

    Args:
        events: of the answer.
        victim: who it is, of an answer that the processor with this key gives.
    """
    serving, text, arrived_s = "", "", []
    async for event in events:
        serving = getattr(event, "peer", "") or serving
        if isinstance(event, Fragment):
            text += event.text
            arrived_s.append(time.perf_counter())
            if len(arrived_s) == 20:
                os.kill(victim(serving).process.pid, signal.SIGKILL)
    assert text.split() == [str(number) for number in range(120)]
    return max(after - before for before, after in pairwise(arrived_s))


async def memory(dht: HyperDHT, gateway: Peer) -> float:
    """Kilobytes of the gateway for each open stream."""
    before = resident_mb(str(gateway.process.pid))
    askers, answers = [], []
    for number in range(OPEN_STREAMS):
        if number % PER_CONNECTION == 0:
            askers.append(Asker(dht, gateway))
        answer = askers[-1].ask("hold", number)
        async for event in answer:
            if isinstance(event, Fragment):
                break
        answers.append(answer)
    after = resident_mb(str(gateway.process.pid))
    for asker in askers:
        await asker.close()
    return (after - before) * 1024 / OPEN_STREAMS


async def decision_rows() -> Iterable[Row]:
    """Which of 64 processors, each with 20 models, a long conversation goes to."""
    router = Router(Swarm(await joined(""), Identity.generate()))
    models = [ModelStatus(f"model-{number}", 30.0) for number in range(20)]
    for number in range(64):
        one = Processor(PublicKey(bytes([number]) * 32), pushes=True)
        one.tell(Status(models, slots=8, busy=number % 7), router.now_s)
        router._followed[one.key] = _Followed(one)
    turns = tuple(Message("user", "x" * 2000) for _ in range(40))
    request = PromptRequest("why?", "", "model-7", turns)
    times_us = []
    for _ in range(2000):
        began_s = time.perf_counter()
        assert router.choose(request) is not None
        times_us.append((time.perf_counter() - began_s) * 1e6)
    p50, p99 = (percentile(times_us, share) for share in (0.5, 0.99))
    return [("choice among 64 processors, p50 / p99, µs", f"{p50:.0f} / {p99:.0f}")]


async def path_rows() -> Iterable[Row]:
    """Overhead and throughput of one gateway and one processor."""
    rows: list[Row] = []
    with peer("gateway") as gateway, peer("processor", gateway.dht):
        async with client_of(gateway) as (_dht, asker):
            for streams in (1, 64):
                p50, p95, rate = await overhead(asker, streams)
                rows += [
                    (f"first fragment later by, {streams} streams, p50, ms", p50),
                    ("the same, p95, ms", p95),
                    ("fragments/s, of the engine's own", rate),
                ]
            rate_s = await requests_per_s(asker)
            rows.append(("short answers/s, 32 in flight", f"{rate_s:.0f}"))
    return rows


async def failover_rows() -> Iterable[Row]:
    """The longest silence when who answers, or its gateway, is killed."""
    rounds = [(await processor_killed(), await gateway_killed()) for _ in range(ROUNDS)]
    names = ("processor", "gateway")
    medians = [statistics.median(gaps) * 1000 for gaps in zip(*rounds, strict=True)]
    return [
        (f"kill -9 of the {name} to the next fragment, ms", f"{median_ms:.0f}")
        for name, median_ms in zip(names, medians, strict=True)
    ]


async def processor_killed() -> float:
    with (
        peer("gateway") as gateway,
        peer("processor", gateway.dht) as one,
        peer("processor", gateway.dht) as two,
    ):
        async with client_of(gateway) as (_dht, asker):
            await asyncio.sleep(4)
            victims = {one.keys[0]: one, two.keys[0]: two}
            return await silence_s(asker.ask("120", 0), victims.__getitem__)


async def gateway_killed() -> float:
    token = TokenIssuer(SECRET).issue("ann@example.org")
    with (
        peer("dht") as node,
        peer("gateway", node.dht) as one,
        peer("gateway", node.dht) as two,
        peer("processor", node.dht),
    ):
        dht = await joined(node.dht)
        swarm = Swarm(dht, Identity.generate())
        client = Gateways(swarm)
        try:
            await asyncio.sleep(4)
            answer = client.ask("120", token)
            names = {one.keys[0]: one, two.keys[0]: two}
            return await silence_s(
                aiter(answer), lambda _: names[bytes(client._last_good or b"").hex()]
            )
        finally:
            await client.close()
            await swarm.close()
            await dht.close()


async def memory_rows() -> Iterable[Row]:
    """1,000 answers at once, over 20 processors."""
    with peer("gateway") as gateway, peer("processor", gateway.dht, 20):
        async with client_of(gateway) as (dht, _asker):
            await asyncio.sleep(8)
            each_kb = await memory(dht, gateway)
    return [("memory of the gateway for an open stream, KB", f"{each_kb:.0f}")]


@asynccontextmanager
async def client_of(gateway: Peer) -> AsyncIterator[tuple[HyperDHT, Asker]]:
    dht = await joined(gateway.dht)
    asker = Asker(dht, gateway)
    await timed(asker.ask("1", 0))
    try:
        yield dht, asker
    finally:
        await asker.close()
        await dht.close()


async def main() -> None:
    parts = {
        "path": path_rows,
        "failover": failover_rows,
        "memory": memory_rows,
        "decision": decision_rows,
    }
    wanted = sys.argv[1:] or list(parts)
    print("| | |\n|---|---:|")
    for name in wanted:
        for label, value in await parts[name]():
            print(f"| {label} | {value} |", flush=True)


if __name__ == "__main__":
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS, *gc.get_threshold()[1:])
    uvloop.run(main())
