"""Memory of an idle node, with the contract of tests/node/bench_idle.js."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import uvloop

from peerchat.net import HyperDHT, system_env

from .server import bootstrap


def resident_mb(pid: str = "self") -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(one for one in status.splitlines() if one.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


async def main() -> None:
    dht = HyperDHT(
        system_env(), bootstrap=bootstrap(), host="127.0.0.1", ephemeral=True
    )
    await dht.start()
    await asyncio.sleep(3)
    print(json.dumps({"rssMB": resident_mb()}), flush=True)
    await dht.close()


if __name__ == "__main__":
    uvloop.run(main())
