"""Node.js peers for the interop tests: the npm packages of tests/node.

A peer is a script of tests/node that prints JSON lines on standard output and reads
JSON lines on standard input; it is killed when its test ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.processes import run, spawn

__all__ = ["node_peer", "run", "spawn"]

NODE_DIR = Path(__file__).parent.parent / "node"
REPLY_TIMEOUT_S = 60.0
LINE_BYTES_MAX = 64 * 1024 * 1024


class NodePeer:
    """A running script; `next()` gives its next JSON line, `send()` gives it one."""

    def __init__(self, script: str, process: asyncio.subprocess.Process) -> None:
        self.script = script
        self.process = process

    async def next(self, timeout_s: float = REPLY_TIMEOUT_S) -> Any:
        assert self.process.stdout is not None
        async with asyncio.timeout(timeout_s):
            line = await self.process.stdout.readline()
        if not line:
            raise AssertionError(f"{self.script} ended: {await self.process.wait()}")
        return json.loads(line)

    async def send(self, message: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        await self.process.stdin.drain()

    async def call(self, message: Any, timeout_s: float = REPLY_TIMEOUT_S) -> Any:
        await self.send(message)
        return await self.next(timeout_s)

    async def kill(self) -> None:
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
        await self.process.wait()


StartNodePeer = Callable[..., Awaitable[NodePeer]]


def why_no_node() -> str:
    """Empty when Node.js peers can run here, else what is missing."""
    if shutil.which("node") is None:
        return "Node.js is not installed"
    if not (NODE_DIR / "node_modules" / "hyperdht").is_dir():
        return "run `npm ci` in tests/node to fetch the reference packages"
    return ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    why = why_no_node()
    if not why:
        return
    if os.environ.get("PEERCHAT_TEST_ALL") == "1":
        raise pytest.UsageError(f"interop tests were asked for, but {why}")
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=why))


@pytest_asyncio.fixture
async def node_peer() -> AsyncIterator[StartNodePeer]:
    """Start ``tests/node/<script>`` with extra environment; all die with the test."""
    peers: list[NodePeer] = []

    async def start(script: str, *args: str, **environ: object) -> NodePeer:
        process = await asyncio.create_subprocess_exec(
            "node",
            script,
            *args,
            cwd=NODE_DIR,
            env={**os.environ, **{key: str(value) for key, value in environ.items()}},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LINE_BYTES_MAX,
        )
        peers.append(peer := NodePeer(script, process))
        return peer

    yield start
    for peer in peers:
        await peer.kill()
