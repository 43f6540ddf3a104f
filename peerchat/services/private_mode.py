"""What runs beside the roles in a private swarm: the record, renewal, enrolment.

Every process follows the swarm record and renews its certificate; one that stays (a
serve, or the app) of an admin's home also lets in those who hold an invite.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import TYPE_CHECKING

from peerchat.api import ApiError, Role
from peerchat.net.errors import NetError
from peerchat.settings import Settings

from .dht_face import Dht
from .enrolment_client import needs_renewal, renew
from .identity import Identity
from .membership import SwarmHomes
from .tasks import Tasks
from .trust import Trust

if TYPE_CHECKING:
    from .enrolment import Enrolment
    from .metrics import RoleMetrics
    from .store import Store

logger = logging.getLogger(__name__)

FIRST_LOOK_S = 10.0
"""For the record, before roles are announced; what was kept is used after that."""

RENEWAL_S = 6 * 3600.0
"""Between two looks whether the certificate must be renewed."""

ENROLMENT_RETRY_S = 30.0


class PrivateMode:
    """One private swarm of this process; `start` and `close`.

    Args:
        dht: started.
        settings: name the swarm.
        identity: of the home.

    Raises:
        ApiError: this home is not in the swarm.
    """

    def __init__(self, dht: Dht, settings: Settings, identity: Identity) -> None:
        self.homes = SwarmHomes(settings.home)
        self.trust = Trust(
            dht,
            self.homes,
            settings.swarm,
            identity,
            refresh_s=settings.swarm_refresh_s,
        )
        self._dht = dht
        self._name = settings.swarm
        self._identity = identity
        self._tasks = Tasks()
        self._enrolment: Enrolment | None = None

    def count_in(self, metrics: dict[Role, RoleMetrics]) -> None:
        """Count refused peers with the role that refused them.

        What this process refused as a client is counted with one of its roles: the
        gateway's, which asks most, if it is there.
        """

        def count(role: Role | None, reason: str) -> None:
            chosen = metrics.get(role or Role.GATEWAY) or next(
                iter(metrics.values()), None
            )
            if chosen is not None:
                chosen.refused_peer(reason)

        self.trust.on_refused = count

    async def start(
        self, *, is_staying: bool, wanted: AbstractSet[str] = frozenset()
    ) -> None:
        """Follow the record.

        Args:
            is_staying: look at it before this returns; a command looks meanwhile.
            wanted: roles to be served; the owner may have granted them since.
        """
        if is_staying:
            with suppress(TimeoutError):
                async with asyncio.timeout(FIRST_LOOK_S):
                    await self.trust.refresh()
        if self.trust.problem or wanted - self.trust.roles or self._is_left_out:
            await self._renew()
            await self.trust.refresh()
        self.trust.subscribe(self._follow_rotation)
        self.trust.refresh_soon()
        self._tasks.start(self.trust.run())
        self._tasks.start(self._keep_renewed())

    async def let_in(self, open_store: Callable[[], Awaitable[Store]]) -> None:
        """Answer those who hold an invite of this home, if it is an admin's."""
        if self.trust.is_admin and self._enrolment is None:
            from .enrolment import Enrolment

            self._enrolment = Enrolment(
                self._dht,
                self.homes,
                self._name,
                self._identity,
                await open_store(),
                on_refused=self._count_invite,
            )
            self._tasks.start(self._listen(self._enrolment))

    def _count_invite(self, why: str) -> None:
        if self.trust.on_refused is not None:
            self.trust.on_refused(None, f"invite_{why}")

    @property
    def _is_left_out(self) -> bool:
        """Whether a rotated secret was sealed to others only; an admin may have it."""
        return self.trust.record.generation > self.trust.membership.generation

    def _follow_rotation(self) -> None:
        if self._is_left_out and not self.trust.problem:
            self._tasks.start(self._renew())

    async def close(self) -> None:
        """Stop; idempotent."""
        await self._tasks.close()
        if self._enrolment is not None:
            await self._enrolment.close()

    async def _listen(self, enrolment: Enrolment) -> None:
        while True:
            try:
                await enrolment.start()
            except NetError as error:
                logger.warning("invites cannot be answered yet: %s", error)
                await asyncio.sleep(ENROLMENT_RETRY_S)
            else:
                return

    async def _keep_renewed(self) -> None:
        while True:
            await asyncio.sleep(random.uniform(0.5, 1.0) * RENEWAL_S)
            if needs_renewal(self.trust.membership, time.time()):
                await self._renew()

    async def _renew(self) -> None:
        try:
            await renew(self._dht, self.homes, self._name, self._identity)
        except ApiError as error:
            logger.warning("the certificate was not renewed: %s", error.message)
        else:
            self.trust.refresh_soon()
