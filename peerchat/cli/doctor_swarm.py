"""What `peerchat doctor` looks at in a private swarm."""

from __future__ import annotations

import asyncio
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from peerchat.api import ApiError, Role
from peerchat.settings import Settings
from peerchat.swarm_files import swarm_dir

from .finding import Finding

if TYPE_CHECKING:
    from peerchat.net.identity import PublicKey
    from peerchat.services.dht_face import Dht
    from peerchat.services.private_swarms import OpenDht
    from peerchat.services.swarm import Swarm
    from peerchat.services.trust import Trust

NEEDED = (Role.GATEWAY, Role.AUTH, Role.PROCESSOR)
PEERS_MAX = 16
"""Of a role; whether there is one is what counts."""

PEER_TIMEOUT_S = 3.0


async def check_swarm(
    settings: Settings,
    *,
    open_dht: OpenDht | None = None,
    now_s: Callable[[], float] = time.time,
) -> Sequence[Finding]:
    """Whether this home is in its swarm, and would be let in; nothing without one."""
    from peerchat.services.identity import load_identity
    from peerchat.services.membership import SwarmHomes
    from peerchat.services.swarm_network import join_network
    from peerchat.services.trust import Trust

    if not settings.swarm:
        return []
    homes = SwarmHomes(settings.home)
    found = list(_modes(settings))  # before they are read, which repairs them
    membership = homes.load(settings.swarm)
    join = open_dht or (lambda hints: join_network(settings, hints))
    identity = load_identity(settings.home.seed_path)
    try:
        async with join(membership.bootstrap) as dht:
            trust = Trust(dht, homes, settings.swarm, identity, now_s=now_s)
            record = await _record(dht, trust)
            await trust.refresh()
            peers = [] if trust.problem else [await _peers(dht, trust)]
    except ApiError as error:
        kept = "what is known of the swarm may be out of date"
        return [*found, Finding("record", False, f"{error.message} Until then {kept}.")]
    return [*found, record, *_time(trust, now_s()), _certificate(trust), *peers]


async def _record(dht: Dht, trust: Trust) -> Finding:
    """Whether the DHT has the record, and none from before the newest one seen."""
    from peerchat.net.errors import DecodeError, NetError
    from peerchat.services.swarm_record import ChunksMissing, RecordSource

    seen_seq = trust.membership.record_seq
    source = RecordSource(dht, trust.membership.root, trust.membership.record_key)
    try:
        head = await source.newest_head()
        if head is None:
            known = trust.record
            has_changed = known.generation or known.revoked_keys or known.grants
            is_needed = bool(has_changed or known.revoked_serials)
            detail = (
                "no DHT node has the swarm record: start peerchat serve on a machine "
                "of the swarm, which puts it there; check --bootstrap"
            )
            # Nothing was taken back or granted so far: nobody misses it.
            return Finding("record", False if is_needed else None, detail)
        if head.seq < seen_seq:
            detail = (
                f"the DHT shows record {head.seq}, older than {seen_seq} which was "
                "seen: it is not taken, and the newer one put again. If this stays, "
                "use other nodes with --bootstrap"
            )
            return Finding("record", False, detail)
        body = source.read_untrusted(await source.fetch(head))
    except (NetError, ChunksMissing, DecodeError) as error:
        detail = f"the swarm record cannot be read ({error}): try again in a minute"
        return Finding("record", False, detail)
    return Finding("record", True, f"number {head.seq} of {_day(body.issued_s)}")


def _certificate(trust: Trust) -> Finding:
    if problem := trust.problem:
        return Finding("member", False, problem)
    assert trust.chain is not None
    certificate = trust.chain.certificate
    roles = " ".join(sorted(certificate.roles)) or "none, it may ask"
    detail = (
        f"in {trust.membership.name} until {_day(certificate.not_after_s)}, "
        f"roles: {roles}"
    )
    if trust.record.generation > trust.membership.generation:
        detail += (
            ". The swarm has a new secret that was not sealed to this home: run "
            "peerchat swarm renew while an admin's machine runs"
        )
        return Finding("member", False, detail)
    return Finding("member", True, detail)


async def _peers(dht: Dht, trust: Trust) -> Finding:
    """Whether somebody is there for all that a prompt takes."""
    from peerchat.services.swarm import Swarm

    swarm = Swarm(dht, trust.identity, trust=trust)
    try:
        found = {role: await _count(swarm, role) for role in NEEDED}
    finally:
        await swarm.close()
    missing = [role.value for role, number in found.items() if not number]
    if missing:
        detail = (
            f"nobody is online as {' or '.join(missing)}: run peerchat serve --role "
            f"{missing[0]} on a machine that was granted it"
        )
        return Finding("peers", None, detail)
    counts = (f"{role.value} {number}" for role, number in found.items())
    return Finding("peers", True, f"online: {', '.join(counts)}")


async def _count(swarm: Swarm, role: Role) -> int:
    """How many showed that they serve the role."""
    from peerchat.net.errors import NetError

    async def is_there(key: PublicKey) -> bool:
        try:
            async with asyncio.timeout(PEER_TIMEOUT_S):
                await swarm.credentials(key, role)
        except (NetError, TimeoutError):
            return False
        return True

    keys = await swarm.find(role)
    return sum(await asyncio.gather(*map(is_there, keys[:PEERS_MAX])))


def _time(trust: Trust, now_s: float) -> Iterator[Finding]:
    """Certificate and record were made in the past, unless this clock is behind."""
    from peerchat.trust.certificate import CLOCK_SKEW_S

    made_s = [trust.record.issued_s]
    if trust.chain is not None:
        made_s.append(trust.chain.certificate.not_before_s)
    behind_s = max(made_s) - now_s
    if behind_s > CLOCK_SKEW_S:
        detail = (
            f"the clock is {behind_s / 60:.0f} minutes or more behind the swarm's: set "
            "it, or certificates look as if they were not valid yet"
        )
        yield Finding("clock", False, detail)


def _modes(settings: Settings) -> Iterator[Finding]:
    """Secrets that other users of this machine can read."""
    folder = swarm_dir(settings.home, settings.swarm)
    if sys.platform == "win32" or not folder.is_dir():
        return
    lax = [
        (path, wanted)
        for path, wanted in (
            (folder, "700"),
            *((one, "600") for one in folder.iterdir()),
        )
        if stat.S_IMODE(path.stat().st_mode) & 0o077
    ]
    for path, wanted in lax:
        detail = f"others can read {path}: run chmod {wanted} '{path}'"
        yield Finding("modes", False, detail)
    if not lax:
        yield Finding("modes", True, f"only you can read {folder}")


def _day(unix_s: int) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(unix_s))
