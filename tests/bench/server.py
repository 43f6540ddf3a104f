"""The server side of the benchmark, with the contract of tests/node/bench_server.js."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time

import uvloop

from peerchat.net import Connection, HyperDHT, KeyPair, RpcServer, system_env
from peerchat.net.errors import ConnectionLost


def bootstrap() -> list[str]:
    return [
        f"{one['host']}:{one['port']}" for one in json.loads(os.environ["BOOTSTRAP"])
    ]


async def echo(value: bytes | None, _session: object) -> bytes:
    return json.dumps(json.loads(value or b"null")).encode()


async def count(connection: Connection, total: int) -> None:
    """Count bytes; after each ``total`` write an 8-byte little-endian count back."""
    received = 0
    with contextlib.suppress(ConnectionLost):  # the client is killed at the end
        while (data := await connection.read()) is not None:
            received += len(data)
            if received >= total:
                connection.write(received.to_bytes(8, "little"))
                received = 0
        connection.end()


async def main() -> None:
    is_open = {"firewalled": False} if os.environ.get("OPEN") == "1" else {}
    dht = HyperDHT(
        system_env(), bootstrap=bootstrap(), host="127.0.0.1", ephemeral=True, **is_open
    )
    await dht.start()
    rpc = RpcServer(dht)
    rpc.respond("echo", echo)
    started = time.perf_counter()
    await rpc.listen(KeyPair.from_seed(bytes([7]) * 32))
    listen_ms = (time.perf_counter() - started) * 1000
    total = int(os.environ.get("TOTAL", 64 * 1024 * 1024))
    tasks: set[asyncio.Task[None]] = set()

    def on_connection(connection: Connection) -> None:
        task = asyncio.get_running_loop().create_task(count(connection, total))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    bulk = dht.create_server(on_connection)
    await bulk.listen(KeyPair.from_seed(bytes([9]) * 32))
    keys = {"rpc": rpc.public_key.hex(), "bulk": bulk.public_key.hex()}
    print(json.dumps({**keys, "listenMs": listen_ms}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
