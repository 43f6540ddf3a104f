"""Our figures beside the Node.js reference, interleaved in one run.

    python -m tests.bench [rounds] [testnet size]

Prints a Markdown table of medians. Needs Node.js and `npm ci` in tests/node.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .idle import resident_mb

ROOT = Path(__file__).parent.parent.parent
NODE = ROOT / "tests" / "node"
READY_TIMEOUT_S = 120

SIDES = {
    "Node.js": (["node", "bench_server.js"], ["node", "bench_client.js"]),
    "Python": (
        [sys.executable, "-m", "tests.bench.server"],
        [sys.executable, "-m", "tests.bench.client"],
    ),
}
PAIRINGS = [(client, server) for server in SIDES for client in SIDES]
ROWS = {
    "rps1": "requests/s, 1 in flight",
    "rps16": "requests/s, 16 in flight",
    "rps64": "requests/s, 64 in flight",
    "rttP50us": "request p50, µs",
    "rttP99us": "request p99, µs",
    "bulkMBs": "one-way bulk, MB/s",
    "connectColdMs": "cold connect, ms",
    "connectWarmMs": "second connect, ms",
    "bootMs": "start to bootstrapped, ms",
    "announceMs": "announce, ms",
    "lookupMs": "lookup, ms",
}


@contextmanager
def process(command: list[str], **environ: str) -> Iterator[subprocess.Popen[str]]:
    is_node = command[0] == "node"
    running = subprocess.Popen(
        command,
        cwd=NODE if is_node else ROOT,
        env={**os.environ, **environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield running
    finally:
        running.kill()
        running.communicate()


def first_line(running: subprocess.Popen[str]) -> dict[str, object]:
    assert running.stdout is not None
    line = running.stdout.readline()
    if not line:
        raise SystemExit(f"{running.args} ended with {running.wait()}")
    return json.loads(line)


def one_round(size: str) -> dict[str, dict[str, float]]:
    figures: dict[str, dict[str, float]] = {}
    with process(["node", "bench_testnet.js", size]) as testnet:
        where = {"BOOTSTRAP": json.dumps(first_line(testnet)["bootstrap"])}
        for client, server in PAIRINGS:
            with process(SIDES[server][0], **where) as serving:
                keys = first_line(serving)
                named = {"RPC_KEY": str(keys["rpc"]), "BULK_KEY": str(keys["bulk"])}
                with process(SIDES[client][1], **where, **named) as asking:
                    figures[f"{client} → {server}"] = first_line(asking)
        for name, command in (
            ("Node.js", ["node", "--expose-gc", "bench_idle.js"]),
            ("Python", [sys.executable, "-m", "tests.bench.idle"]),
        ):
            with process(command, **where) as idle:
                figures[f"idle {name}"] = first_line(idle)
    return figures


def serve_mb() -> float:
    """Resident memory of `peerchat serve --role all`, once ready, solo."""
    ports = ["--http-port", "0", "--metrics-port", "0"]
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, "-m", "peerchat", "serve", "--role", "all"]
        with process(
            [*command, "--home", home, "--engine", "guide", *ports]
        ) as serving:
            assert serving.stdout is not None
            serving.stdout.readline()
            return resident_mb(str(serving.pid))


def table(rounds: list[dict[str, dict[str, float]]]) -> str:
    names = [f"{client} → {server}" for client, server in PAIRINGS]
    lines = ["| | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    for key, label in ROWS.items():
        cells = []
        for name in names:
            value = statistics.median(one[name][key] for one in rounds)
            cells.append(f"{value:,.0f}" if value >= 100 else f"{value:.1f}")
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    size = sys.argv[2] if len(sys.argv) > 2 else "4"
    rounds = []
    for index in range(count):
        rounds.append(one_round(size))
        print(f"round {index + 1}: {json.dumps(rounds[-1])}", file=sys.stderr)
    print(table(rounds))
    for name in ("Node.js", "Python"):
        value = statistics.median(one[f"idle {name}"]["rssMB"] for one in rounds)
        print(f"\nIdle node, {name}: {value:.0f} MB resident.")
    print(f"\n`peerchat serve --role all`: {serve_mb():.0f} MB resident.")
    python = f"Python {platform.python_version()}, {platform.system()}"
    print(f"\n{os.cpu_count()} cores, {python}.")


if __name__ == "__main__":
    main()
