"""The client side of the benchmark, with the contract of tests/node/bench_client.js."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import time
from collections.abc import Awaitable, Callable

import uvloop

from peerchat.net import HyperDHT, KeyPair, PublicKey, RpcClient, hash_topic, system_env

from .server import bootstrap

TOTAL = int(os.environ.get("TOTAL", 64 * 1024 * 1024))
SEQUENTIAL = int(os.environ.get("SEQ", 3000))
SECONDS = float(os.environ.get("SECS", 2))
CHUNK = bytes([1]) * int(os.environ.get("CHUNK", 65536))


def make() -> HyperDHT:
    is_open = {"firewalled": False} if os.environ.get("OPEN") == "1" else {}
    return HyperDHT(
        system_env(), bootstrap=bootstrap(), host="127.0.0.1", ephemeral=True, **is_open
    )


async def timed_ms(action: Callable[[], Awaitable[object]]) -> float:
    started = time.perf_counter()
    await action()
    return (time.perf_counter() - started) * 1000


def quantile(values: list[float], at: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * at))]


async def connects(bulk_key: PublicKey) -> dict[str, float]:
    """Five fresh nodes: start, first connect, second connect."""
    boots, colds, warms = [], [], []
    for _ in range(5):
        dht = make()
        boots.append(await timed_ms(dht.start))
        for times in (colds, warms):
            started = time.perf_counter()
            connection = await dht.connect(bulk_key)
            times.append((time.perf_counter() - started) * 1000)
            connection.destroy()
            await connection.wait_closed()
        await dht.close()
    medians = [statistics.median(times) for times in (boots, colds, warms)]
    return dict(zip(("bootMs", "connectColdMs", "connectWarmMs"), medians, strict=True))


async def announces(dht: HyperDHT) -> dict[str, float]:
    announce, look = [], []
    for index in range(5):
        topic = hash_topic(f"topic{index}")
        announce.append(
            await timed_ms(lambda t=topic: dht.announce(t, dht.default_key_pair))
        )
        look.append(await timed_ms(lambda t=topic: dht.lookup(t)))
    return {
        "announceMs": statistics.median(announce),
        "lookupMs": statistics.median(look),
    }


async def requests(dht: HyperDHT, rpc_key: PublicKey) -> dict[str, float]:
    rpc = RpcClient(dht, key_pair=KeyPair.generate(os.urandom(32)))
    session = await rpc.session(rpc_key)
    payload = json.dumps({"id": 1, "method": "echo", "body": "x" * 64}).encode()

    async def one() -> None:
        await session.request("echo", payload, timeout_s=30)

    for _ in range(500):
        await one()
    latencies = [await timed_ms(one) for _ in range(SEQUENTIAL)]
    out = {
        "rttP50us": quantile(latencies, 0.5) * 1000,
        "rttP99us": quantile(latencies, 0.99) * 1000,
    }
    for at_once in (1, 16, 64):
        out[f"rps{at_once}"] = await rate(one, at_once)
    await rpc.close()
    return out


async def rate(one: Callable[[], Awaitable[None]], at_once: int) -> float:
    done = 0
    started = time.perf_counter()
    end = started + SECONDS

    async def worker() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await one()
            done += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(worker())
    return done / (time.perf_counter() - started)


async def bulk(dht: HyperDHT, bulk_key: PublicKey) -> dict[str, float]:
    connection = await dht.connect(bulk_key)
    rates = []
    for _ in range(2):
        started = time.perf_counter()
        for _ in range(TOTAL // len(CHUNK)):
            if not connection.write(CHUNK):
                await connection.drain()
        await connection.read()
        rates.append(TOTAL / 1e6 / (time.perf_counter() - started))
    connection.destroy()
    return {"bulkMBs": rates[0], "bulk2MBs": rates[1]}


async def main() -> None:
    rpc_key = PublicKey(bytes.fromhex(os.environ["RPC_KEY"]))
    bulk_key = PublicKey(bytes.fromhex(os.environ["BULK_KEY"]))
    out = await connects(bulk_key)
    dht = make()
    await dht.start()
    out |= await announces(dht)
    out |= await requests(dht, rpc_key)
    out |= await bulk(dht, bulk_key)
    await dht.close()
    print(json.dumps(out), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
