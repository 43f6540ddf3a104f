"""What the proof of membership and the certificates add to connecting.

    python -m tests.bench.trust [rounds]

An open and a private swarm on the same nodes on loopback, asked in turn: from nothing
to the answer of a first ``ping`` over a new connection. Prints a Markdown table. Both
ends are in one process, so the added time is that of both together.
"""

from __future__ import annotations

import gc
import platform
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import uvloop

from peerchat.api import Role
from peerchat.net import HyperDHT, system_env
from peerchat.net.crypto.primitives import KeyPair
from peerchat.net.identity import PublicKey
from peerchat.services.identity import Identity
from peerchat.services.membership import Membership, SwarmHomes
from peerchat.services.swarm import Swarm
from peerchat.services.trust import Trust
from peerchat.settings import Home
from peerchat.trust.certificate import Certificate, Chain, encode_chain
from peerchat.trust.certificate import sign_certificate as sign
from peerchat.trust.keys import PURPOSES

ROUNDS = 300
WARM_UP = 20
ROOT, ADMIN = KeyPair.from_seed(b"r" * 32), KeyPair.from_seed(b"a" * 32)
ROLES = ("auth", "gateway", "processor")
SEEDS = (b"1", b"2")


def certificate(
    issuer: KeyPair, own: Identity, roles: tuple[str, ...], peer: PublicKey
) -> Certificate:
    now_s = int(time.time())
    return sign(
        issuer,
        peer=peer,
        keys={one: own.purpose_key_pair(one).public_key for one in PURPOSES},
        roles=roles,
        name="a name of usual length",
        not_before_s=now_s - 60,
        not_after_s=now_s + 3600,
        serial=own.seed[:16],
    )


def trust_of(dht: HyperDHT, folder: Path, seed: bytes) -> Trust:
    """A member as an invite makes one: certified by an admin, whom the root made."""
    identity = Identity(seed * 32)
    own = identity.in_swarm(ROOT.public_key)
    admin = Identity(b"a" * 32).in_swarm(ROOT.public_key)
    by_root = certificate(ROOT, admin, ("admin", *ROLES), ADMIN.public_key)
    mine = certificate(ADMIN, own, ROLES, own.peer_key_pair.public_key)
    chain = encode_chain(Chain(mine, by_root))
    homes = SwarmHomes(Home(folder / seed.hex(), *[folder / seed.hex()] * 3))
    homes.save(
        Membership("bench", ROOT.public_key, b"s" * 32, 0, b"k" * 32, chain),
    )
    return Trust(dht, homes, "bench", identity)


async def ping(_body: bytes, _peer: str) -> object:
    return {"status": "healthy"}


async def connecting(
    serving: tuple[HyperDHT, Identity, Trust | None],
    asking: tuple[HyperDHT, Identity, Trust | None],
    stack: AsyncExitStack,
) -> Callable[[], Awaitable[float]]:
    """What makes one fresh connection, asks over it, and gives the milliseconds."""
    dht, identity, trust = serving
    box = Swarm(dht, identity, trust=trust)
    stack.push_async_callback(box.close)
    service = await box.serve(Role.GATEWAY, {"ping": ping})

    async def once() -> float:
        dht, identity, trust = asking
        swarm = Swarm(dht, identity, trust=trust)
        began_s = time.perf_counter()
        await swarm.request(service.public_key, "ping", {}, 10)
        took_s = time.perf_counter() - began_s
        await swarm.close()
        return took_s * 1000

    return once


@asynccontextmanager
async def sides(
    folder: Path,
) -> AsyncIterator[dict[str, Callable[[], Awaitable[float]]]]:
    """Both kinds of swarm, on the same two nodes."""
    async with AsyncExitStack() as stack:
        first = HyperDHT.bootstrapper(system_env(), "127.0.0.1", 0)
        bootstrap = await stack.enter_async_context(first)
        where = [f"127.0.0.1:{bootstrap.address.port}"]
        nodes = []
        for _ in range(2):
            nodes.append(HyperDHT(system_env(), bootstrap=where, host="127.0.0.1"))
            await nodes[-1].start()
            stack.push_async_callback(nodes[-1].close)
        trusts = [
            trust_of(n, folder, seed) for n, seed in zip(nodes, SEEDS, strict=True)
        ]
        plain = [
            (n, Identity(b"o" + s * 31), None)
            for n, s in zip(nodes, SEEDS, strict=True)
        ]
        member = [(n, t.identity, t) for n, t in zip(nodes, trusts, strict=True)]
        yield {
            "open": await connecting(plain[0], plain[1], stack),
            "private": await connecting(member[0], member[1], stack),
        }


async def measure(rounds: int) -> dict[str, list[float]]:
    with tempfile.TemporaryDirectory() as folder:
        async with sides(Path(folder)) as made:
            times: dict[str, list[float]] = {name: [] for name in made}
            for number in range(rounds + WARM_UP):
                # In turn, and each first as often: what else runs meets both.
                names = list(made) if number % 2 else list(reversed(made))
                for name in names:
                    took_ms = await made[name]()
                    if number >= WARM_UP:
                        times[name].append(took_ms)
            return times


def quantile(values: list[float], at: float) -> float:
    return sorted(values)[int(len(values) * at)]


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    gc.freeze()
    times = uvloop.run(measure(rounds))
    rows: dict[str, Callable[[list[float]], float]] = {
        "median": lambda values: quantile(values, 0.5),
        "p90": lambda values: quantile(values, 0.9),
    }
    print("| connect and first answer, ms | open | private | added |")
    print("|---|---:|---:|---:|")
    for label, figure in rows.items():
        before, after = figure(times["open"]), figure(times["private"])
        print(f"| {label} | {before:.2f} | {after:.2f} | {after - before:.2f} |")
    print(f"\n{rounds} rounds, Python {platform.python_version()}, loopback.")


if __name__ == "__main__":
    main()
