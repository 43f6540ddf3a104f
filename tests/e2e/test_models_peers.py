"""Model files between processes: listed, pulled, the giver killed in mid-transfer."""

import asyncio
import contextlib
import hashlib
import json
import os
import signal
from pathlib import Path

import pytest

from peerchat.api import ApiError, Role
from peerchat.config import load_settings
from peerchat.services.models.file_wire import PIECE_BYTES
from peerchat.services.models.pull_peers import (
    ask_offers,
    choose_offer,
    pull_from_peers,
)
from peerchat.services.models.store import ModelStore
from peerchat.services.node_runtime import NodeRuntime
from tests.e2e.test_open_swarm import serve
from tests.tiny_gguf import tiny_model

pytestmark = pytest.mark.e2e

MODEL = tiny_model().read_bytes() + bytes(range(256)) * 4096 * 23 + b"end"
SHARES = {"PEERCHAT_SHARE_MODELS": "on"}


def stock(home: Path) -> None:
    folder = home / "data" / "models"
    folder.mkdir(parents=True)
    (folder / "big.gguf").write_bytes(MODEL)


def test_the_commands_list_and_pull(spawn, run, dht: str, tmp_path: Path) -> None:
    box, laptop = tmp_path / "box", tmp_path / "laptop"
    stock(box)
    ready = serve(spawn, box, dht, "processor", **SHARES).event("ready")
    where = ("--open", "--bootstrap", dht, "--home", str(laptop), "--json")
    listed = run("models", "list", "--peer", "swarm", *where)
    assert listed.returncode == 0, listed.stderr
    offer = json.loads(listed.stdout)
    assert (offer["name"], offer["size"]) == ("big", len(MODEL))
    assert offer["sha256"] == hashlib.sha256(MODEL).hexdigest()
    assert offer["peer"] in json.dumps(ready)
    pulled = run("models", "pull", f"big@{offer['peer'][:8]}", *where)
    assert pulled.returncode == 0, pulled.stderr
    *progress, end = map(json.loads, pulled.stdout.splitlines())
    assert progress[0] == {"name": "big", "completed": 0, "total": len(MODEL)}
    assert Path(end["path"]).read_bytes() == MODEL
    wrong = run("models", "pull", f"big@{offer['peer'][:8]}", "--sha256", "0" * 64,
                *where)  # fmt: skip
    assert wrong.returncode == 1
    assert "big" in wrong.stderr or "big" in wrong.stdout
    missing = run("models", "pull", "big@0000", *where)
    assert missing.returncode == 1


def test_an_open_processor_gives_nothing_unless_told(
    spawn, run, dht: str, tmp_path: Path
) -> None:
    stock(tmp_path / "box")
    serve(spawn, tmp_path / "box", dht, "processor").event("ready")
    done = run("models", "pull", "big@swarm", "--open", "--bootstrap", dht,
               "--home", str(tmp_path / "laptop"))  # fmt: skip
    assert done.returncode == 1
    assert "no model file" in done.stderr.lower()


@contextlib.asynccontextmanager
async def laptop_of(tmp_path: Path, dht: str):
    given = {"home": tmp_path / "laptop", "bootstrap": dht, "is_open": True}
    async with NodeRuntime(load_settings(given)) as node:
        yield node


async def givers(node: NodeRuntime, count: int):
    """The file, and the keys of who gives it once so many do."""
    async with asyncio.timeout(30):
        while True:
            keys = await node.swarm.find(Role.PROCESSOR, max_age_s=0)
            found = choose_offer(await ask_offers(node.swarm, keys), "big")
            if found is not None and len(found[1]) == count:
                return found
            await asyncio.sleep(0.2)


async def test_another_peer_goes_on_when_the_giver_is_killed(
    spawn, dht: str, tmp_path: Path
) -> None:
    running = {}
    for name in ("first", "second"):
        stock(tmp_path / name)
        one = serve(spawn, tmp_path / name, dht, "processor", **SHARES)
        key = one.event("ready")["roles"]["processor"]["key"]
        running[key] = one
    async with laptop_of(tmp_path, dht) as node:
        offer, keys = await givers(node, 2)
        victim = running[keys[0].hex()].process
        killed_at: list[int] = []

        def watch(progress) -> None:
            if progress.completed >= 6 * PIECE_BYTES and not killed_at:
                killed_at.append(progress.completed)
                os.kill(victim.pid, signal.SIGKILL)

        store = ModelStore(node.settings.home.models_dir)
        pulled = await pull_from_peers(
            store, node.swarm, offer, keys, on_progress=watch
        )
    assert 0 < killed_at[0] < len(MODEL)
    assert victim.wait() == -signal.SIGKILL
    assert pulled.path.read_bytes() == MODEL


async def test_a_pull_goes_on_when_the_only_giver_comes_back(
    spawn, dht: str, tmp_path: Path
) -> None:
    stock(tmp_path / "box")
    box = serve(spawn, tmp_path / "box", dht, "processor", **SHARES)
    box.event("ready")
    async with laptop_of(tmp_path, dht) as node:
        offer, keys = await givers(node, 1)
        store = ModelStore(node.settings.home.models_dir)
        told: list[int] = []

        def watch(progress) -> None:
            told.append(progress.completed)
            if progress.completed >= 6 * PIECE_BYTES:
                box.process.kill()

        with pytest.raises(ApiError, match="run the same command again"):
            await pull_from_peers(store, node.swarm, offer, keys, on_progress=watch)
        kept = store.part_path("big").read_bytes()
        assert len(kept) >= 6 * PIECE_BYTES
        assert MODEL.startswith(kept)
        serve(spawn, tmp_path / "box", dht, "processor", **SHARES).event("ready")
        offer, keys = await givers(node, 1)
        told.clear()

        def tell(progress) -> None:
            told.append(progress.completed)

        pulled = await pull_from_peers(store, node.swarm, offer, keys, on_progress=tell)
        assert told[0] == len(kept) - len(kept) % PIECE_BYTES
        assert pulled.path.read_bytes() == MODEL
