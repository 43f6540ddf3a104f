"""Schemathesis sends the bridge what its own document allows, and what it does not.

Whatever comes: no failure of the server, and only answers that the document describes.
"""

from __future__ import annotations

import asyncio
import re
import struct
import sys
from pathlib import Path

import pytest

from peerchat.api import Embeddings, Fragment, PromptRequest, Role, ToolCall, ToolCalls
from peerchat.net.identity import PublicKey
from tests.bridge_world import BEARER, Starter, start
from tests.scripted_swarm import (
    ScriptedAnswer,
    ScriptedPeer,
    ScriptedSwarm,
    finished,
    gateway,
    healthy,
)

__all__ = ["start"]

COMMAND = Path(sys.executable).with_name("schemathesis")

EXAMPLES = 5
"""For each path, beside those that cover every field's limits."""

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
)

pytestmark = pytest.mark.skipif(
    not COMMAND.exists(), reason="schemathesis is not installed"
)


class AnsweringSwarm(ScriptedSwarm):
    """Answers whatever is asked."""

    def ask(self, key: PublicKey, request: PromptRequest, token: str) -> ScriptedAnswer:
        vectors = (struct.pack("<2f", 0.5, -1),) * len(request.inputs)
        said = Embeddings("m", vectors, 1) if vectors else Fragment("Hello")
        calls = [ToolCalls((ToolCall("c", "f", "{}"),))] if request.tools else []
        return ScriptedAnswer(request, [said, *calls, finished()])


async def test_answers_are_as_described(start: Starter, tmp_path: Path) -> None:
    processor = ScriptedPeer(Role.PROCESSOR, ping=healthy("processor", models=["m"]))
    bridge = await start(AnsweringSwarm(a=gateway(), b=processor))
    running = await asyncio.create_subprocess_exec(
        COMMAND, "run", f"{bridge.url}/openapi.json", "--seed", "1", "--no-color",
        "--checks", ",".join(CHECKS), "--max-examples", str(EXAMPLES),
        "--phases", "examples,coverage,fuzzing", "--generation-database", "none",
        "--header", f"Authorization: {BEARER['Authorization']}",
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said = (await running.communicate())[0].decode()
    assert running.returncode == 0, said[-8000:]
    counted = re.search(r"(\d+) generated", said)
    assert counted is not None, said[-2000:]
    assert int(counted[1]) > 100
