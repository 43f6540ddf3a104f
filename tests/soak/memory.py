"""What is left when everybody rests: objects of requests, gauges, bytes."""

from __future__ import annotations

import gc
import os
import resource
import sys
from collections import Counter
from pathlib import Path

from peerchat.failover_answer import FailoverAnswer
from peerchat.net.driver.connection import Connection
from peerchat.services.admission import Ticket
from peerchat.services.dispatcher import Lease, Place
from peerchat.services.engine_run import EngineRun
from peerchat.services.gateway import GatewayRole
from peerchat.services.patrol import Watchdog
from peerchat.services.processor import ProcessorRole
from peerchat.services.prompt_client import RemoteAnswer
from peerchat.services.prompt_server import _RunningAnswer
from peerchat.services.relay import Relay
from peerchat.services.swarm import Swarm
from peerchat.services.swarm_answer import SwarmAnswer

from .members import ENTRIES, WORKERS, SoakSwarm
from .users import USERS

OF_REQUESTS = (
    EngineRun,
    FailoverAnswer,
    Lease,
    Place,
    Relay,
    RemoteAnswer,
    SwarmAnswer,
    Ticket,
    Watchdog,
    _RunningAnswer,
)
"""None of them lives longer than its request."""

OF_MEMBERS = {
    GatewayRole: ENTRIES,
    ProcessorRole: WORKERS,
    Swarm: ENTRIES + WORKERS + 1 + USERS,
    # Each gateway follows each processor, and both ends are in this process.
    Connection: 2 * ENTRIES * (WORKERS + 1),
}
"""At most so many live when no user asks; the one more answers malformed."""

GAUGES = ("requests_in_flight", "queue_length", "slots_busy")

LEAK_BYTES = 64
"""Of memory that may be left of a prompt. A kilobyte that each leaves in the processor
that lives on shows as 400 bytes: it answers so many of them."""

SLACK_BYTES = 160 * 1024
"""By chance, at any two moments: who lives now, what is cached just then."""

TOLD_MAX = 8


def objects() -> Counter[type]:
    """How many there are of each type."""
    gc.collect()
    return Counter(map(type, gc.get_objects()))


def objects_left(others: Counter[type]) -> dict[str, int]:
    """Objects that should be gone by now, with how many there are.

    Args:
        others: what was there before, of other tests in this process.
    """
    counts = objects()
    counts.subtract({kind: others[kind] for kind in (*OF_REQUESTS, *OF_MEMBERS)})
    left = {kind.__name__: counts[kind] for kind in OF_REQUESTS if counts[kind] > 0}
    for kind, most in OF_MEMBERS.items():
        if counts[kind] > most:
            left[kind.__name__] = counts[kind]
    return left


def gauges_up(swarm: SoakSwarm) -> dict[str, float]:
    """What works on something: gauges that are not at zero, and any engine."""
    up: dict[str, float] = dict.fromkeys(swarm.working.requests, 1)
    for member in (*swarm.workers, *swarm.entries):
        for metric in member.role.metrics.registry.collect():
            for sample in metric.samples:
                if sample.name.endswith(GAUGES) and sample.value:
                    up[f"{sample.name} {sample.labels}"] = sample.value
    for entry in swarm.entries:
        for one in entry.role.router.processors:
            if one.running:
                up[f"running at {one.key.hex()[:8]}"] = one.running
    return up


def rss_mib() -> float:
    """Memory of this process that is resident now; the most of it, off Linux."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def heap() -> Counter[str]:
    """Bytes of all that Python's objects hold, by the names of their types.

    It costs nothing while prompts run, and is exact: what lives at rest is the same
    each time, where resident memory would hide a megabyte.
    """
    gc.collect()
    todo = gc.get_objects()
    seen = set(map(id, todo))
    sizes = Counter[str]()
    while todo:
        for one in todo:
            sizes[type(one).__qualname__] += sys.getsizeof(one)
        # Texts, bytes and numbers are not the collector's: their holders tell of them.
        held = {id(one): one for one in gc.get_referents(*todo)}
        todo = [one for key, one in held.items() if key not in seen]
        seen |= held.keys()
    return sizes


def growth(before: Counter[str], after: Counter[str]) -> str:
    """Which types grew most."""
    grown = Counter(after)
    grown.subtract(before)
    return ", ".join(f"{name} {size:+}" for name, size in grown.most_common(TOLD_MAX))
