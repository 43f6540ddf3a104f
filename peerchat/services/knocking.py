"""After a rotation: whoever serves under the old topics learns that there is a record.

Nothing is said to them but a hello under the new secret. They refuse it, and whoever
refuses somebody looks soon whether it is behind. So members are without gateways for
seconds, not for the time between two looks at the record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress

from peerchat.api import Role
from peerchat.net.errors import NetError
from peerchat.net.identity import PublicKey
from peerchat.trust.keys import topic_of

from .dht_face import Dht
from .identity import CERTIFIED_ROLES
from .peer_sessions import PeerSessions
from .trust import Trust

KNOCKING_S = 5.0
"""For all of it: those who are not reached look at the record in their own time."""

KNOCKED_MAX = 256
AT_ONCE = 16


async def knock(dht: Dht, trust: Trust, old_secret: bytes) -> None:
    """Show a new secret to those who are announced under the old one; never raises.

    Args:
        dht: started.
        trust: of who has the new secret.
        old_secret: the one before.
    """
    sessions = PeerSessions(dht, trust.identity.key_pair("client"), trust)
    room = asyncio.Semaphore(AT_ONCE)

    async def look(role: Role, key: PublicKey) -> None:
        with suppress(NetError):
            async with room:
                await sessions.prove(key, role)

    async def visit(role: Role) -> None:
        found: Iterable[PublicKey] = ()
        with suppress(NetError):
            records = await dht.lookup(topic_of(old_secret, role.value))
            found = dict.fromkeys(record.public_key for record in records)
        async with asyncio.TaskGroup() as group:
            for key in list(found)[:KNOCKED_MAX]:
                group.create_task(look(role, key))

    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(KNOCKING_S), asyncio.TaskGroup() as group:
                for role in CERTIFIED_ROLES:
                    group.create_task(visit(role))
    finally:
        await sessions.close()
