"""One process of what is measured: ``gateway``, ``processor``, or neither: ``dht``."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import tempfile
from collections.abc import AsyncGenerator
from pathlib import Path

import uvloop

from peerchat.__main__ import OBJECTS_BETWEEN_COLLECTIONS
from peerchat.api import AnswerEvent, Finished, Fragment, PromptRequest, Role, Usage
from peerchat.net import HyperDHT, system_env
from peerchat.services.gateway import GatewayRole
from peerchat.services.identity import Identity
from peerchat.services.limits import Limiter
from peerchat.services.processor import ProcessorRole
from peerchat.services.store import open_store
from peerchat.services.swarm import Swarm
from peerchat.services.tokens import TokenVerifier
from peerchat.settings import Home, Settings
from peerchat.testing.engine import ScriptedEngine

SECRET = b"the secret of a benchmark, 32 bytes and more"
FIRST_S = 0.02
"""Until the first fragment: what a model takes to read a prompt."""
EVERY_S = 0.02
HELD_EVERY_S = 5.0
"""Silence for longer would be a stall, and another processor would go on."""


class PacedEngine(ScriptedEngine):
    """A fragment every 20 ms; the prompt says how many, and ``hold`` never ends."""

    async def stream(self, request: PromptRequest) -> AsyncGenerator[AnswerEvent, None]:
        clock = asyncio.get_running_loop()
        count = 10**9 if request.prompt == "hold" else int(request.prompt)
        done = len(request.prefix.split())
        at_s = clock.time() + FIRST_S
        for number in range(done, count):
            await asyncio.sleep(at_s - clock.time())
            yield Fragment(f"{number} ")
            at_s += HELD_EVERY_S if request.prompt == "hold" else EVERY_S
        yield Finished(Usage("paced", "", "stop", 0.0, answer_tokens=count - done), "")


async def joined(bootstrap: str) -> HyperDHT:
    dht = HyperDHT(
        system_env(),
        bootstrap=[bootstrap] if bootstrap else (),
        host="127.0.0.1",
        ephemeral=bool(bootstrap),
        firewalled=False,
    )
    await dht.start()
    return dht


async def serve(role: GatewayRole | ProcessorRole) -> asyncio.Task[None]:
    ready = asyncio.Event()
    task = asyncio.get_running_loop().create_task(role.run(ready.set))
    await ready.wait()
    return task


async def run(kind: str, bootstrap: str, count: int) -> None:
    dht = await joined(bootstrap)
    folder = Path(tempfile.mkdtemp())
    settings = Settings(Home(folder, folder, folder, folder), slots=64)
    tasks, keys = [], []
    for _ in range(0 if kind == "dht" else count):
        swarm = Swarm(dht, Identity.generate())
        if kind == "gateway":
            limiter = Limiter(await open_store(folder / "limits.db"), 10**9)
            tasks.append(
                await serve(GatewayRole(swarm, TokenVerifier([SECRET]), limiter))
            )
            keys.append(swarm.identity.role_key_pair(Role.GATEWAY).public_key.hex())
        else:
            pair = swarm.identity.role_key_pair(Role.PROCESSOR)
            tasks.append(
                await serve(
                    ProcessorRole(swarm, PacedEngine(), settings, key_pair=pair)
                )
            )
            keys.append(pair.public_key.hex())
    said = {"dht": str(dht.address), "keys": keys, "pid": os.getpid()}
    print(json.dumps(said), flush=True)
    await asyncio.gather(*tasks, asyncio.Event().wait())


if __name__ == "__main__":
    # As the installed command does.
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS, *gc.get_threshold()[1:])
    uvloop.run(run(sys.argv[1], sys.argv[2], int(sys.argv[3])))
