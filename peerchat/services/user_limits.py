"""One limit for each user across all gateways of a swarm (docs/PROTOCOL.md section 11).

Where gateways share a store, the store is the truth. Elsewhere one gateway counts a
user's prompts, the first of `limit_owner.owners` that can be reached, and the others
ask it. When it dies the next one begins with an empty window: a user gains no more. It
counts again as soon as it is heard again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import secrets
from collections import OrderedDict
from dataclasses import dataclass

import msgspec

from peerchat.api import ApiError, ErrorCode, RateLimit, Role
from peerchat.net.errors import NetError
from peerchat.net.identity import PublicKey
from peerchat.replies import count_of, rate_limit_of, reply_untrusted, text_of

from .limit_owner import owners
from .limit_passes import LimitPasses
from .limits import Admission, Limiter
from .messages import RATE_LIMITED_MESSAGE
from .swarm import Swarm
from .tasks import Tasks
from .tokens import Claims

logger = logging.getLogger(__name__)

ASK_TIMEOUT_S = 1.0
"""An owner that needs longer is as good as gone: the next one counts."""

CONNECT_TIMEOUT_S = 3.0
"""For the first question to one that we are not connected to."""

GATEWAYS_FRESH_S = 30.0
"""So long may two gateways disagree on who is there."""

AWAY_MAX = 64
"""Owners that did not answer and are looked for; a swarm has not more gateways."""

FOLLOW_EVERY_S = 1.0
LOOKED_FOR_AT_ONCE = 4
LOOK_AGAIN_S = 5.0
AWAY_KEPT_S = 20 * 60.0
"""Nodes of the DHT name a dead peer no longer than this."""

STRANGER_S = 60.0
"""A gateway of another home that does not take our tokens, or a Node.js one."""

TICKETS_MAX = 10_000
"""Admissions for other gateways that can still be taken back."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A prompt that was counted, here or by its owner."""

    rate_limit: RateLimit
    admission: Admission | None = None
    owner: PublicKey | None = None
    ticket: str = ""


@dataclass(slots=True)
class _Away:
    """An owner that did not answer."""

    since_s: float
    look_at_s: float
    """When it is looked for again; never, while it is."""


class UserLimits:
    """The limiter as the whole swarm has it.

    Args:
        swarm: the way to the other gateways.
        limiter: counts the users whose owner this gateway is.
        is_shared: all gateways use one store.
        passes: name a user in an open swarm; elsewhere its own token does.
    """

    def __init__(
        self,
        swarm: Swarm,
        limiter: Limiter,
        *,
        is_shared: bool = False,
        passes: LimitPasses | None = None,
    ) -> None:
        self._swarm = swarm
        self._limiter = limiter
        self._is_shared = is_shared
        self._passes = passes
        self._tickets: OrderedDict[str, Admission] = OrderedDict()
        self._strangers: dict[PublicKey, float] = {}
        """Gateways that would not count for us, and until when they are not asked."""
        self._away: dict[PublicKey, _Away] = {}
        self._fresh_until_s = float("-inf")
        self._looking = Tasks()

    async def run(self) -> None:
        """Look for owners that went away, until cancelled."""
        while True:
            await asyncio.sleep(FOLLOW_EVERY_S)
            self._look_for_away()

    def _look_for_away(self) -> None:
        now_s = asyncio.get_running_loop().time()
        # Who waits longest first: the dead take their time, and none may starve.
        in_turn = sorted(self._away.items(), key=lambda item: item[1].look_at_s)
        for owner, away in in_turn:
            if now_s - away.since_s > AWAY_KEPT_S:
                del self._away[owner]
            elif away.look_at_s <= now_s and len(self._looking) < LOOKED_FOR_AT_ONCE:
                away.look_at_s = math.inf
                self._looking.start(self._look_for(owner, away))

    async def close(self) -> None:
        """Look for nobody any more."""
        await self._looking.close()

    async def admit(
        self, user: str, most: int | None, token: str, request: str
    ) -> Accepted:
        """Count one prompt; raises as `Limiter.admit`."""
        body = {"request": request}
        for owner in await self._owners(user):
            if self._swarm.is_self(owner):
                break
            reply = await self._ask(owner, "limitAdmit", body, user, token)
            if reply is not None:
                return Accepted(reply[0], owner=owner, ticket=reply[1])
        admission = await self._limiter.admit(user, most, request=request)
        return Accepted(admission.rate_limit, admission)

    async def take_back(self, accepted: Accepted, user: str, token: str) -> None:
        """The prompt was not accepted after all."""
        if accepted.admission is not None:
            await self._limiter.take_back(accepted.admission)
        elif accepted.owner is not None:
            body = {"ticket": accepted.ticket}
            await self._ask(accepted.owner, "limitTakeBack", body, user, token)

    async def status(self, user: str, most: int | None, token: str) -> RateLimit:
        """What the user has left, by whoever counts it."""
        for owner in await self._owners(user) if token else ():
            if self._swarm.is_self(owner):
                break
            reply = await self._ask(owner, "limitStatus", {}, user, token)
            if reply is not None:
                return reply[0]
        return await self._limiter.status(user, most)

    # As owner

    def passed(self, proof: str) -> Claims | None:
        """Whom a gateway of an open swarm asks for; raises `ApiError` (401).

        None: elsewhere the user's own token says it.
        """
        return None if self._passes is None else self._passes.verify(proof)

    async def admit_for(
        self, user: str, most: int | None, request: str
    ) -> tuple[RateLimit, str]:
        """Another gateway asks; gives a ticket to take it back with."""
        admission = await self._limiter.admit(user, most, request=request)
        ticket = secrets.token_hex(16)
        self._tickets[ticket] = admission
        while len(self._tickets) > TICKETS_MAX:
            self._tickets.popitem(last=False)
        return admission.rate_limit, ticket

    async def take_back_for(self, ticket: str) -> None:
        """Whoever has the ticket had it from here."""
        admission = self._tickets.pop(ticket, None)
        if admission is not None:
            await self._limiter.take_back(admission)

    async def own_status(self, user: str, most: int | None) -> RateLimit:
        """What was counted here."""
        return await self._limiter.status(user, most)

    async def _owners(self, user: str) -> list[PublicKey]:
        if self._is_shared:
            return []
        try:
            found = await self._swarm.find(Role.GATEWAY)
        except (NetError, ApiError):
            return []
        now_s = asyncio.get_running_loop().time()
        if self._fresh_until_s <= now_s:
            # Not waited for: a look-up takes seconds where nodes of the DHT are dead.
            self._fresh_until_s = now_s + GATEWAYS_FRESH_S
            self._looking.start(self._look())
        self._strangers = {
            k: at_s for k, at_s in self._strangers.items() if at_s > now_s
        }
        no_owners = self._strangers.keys() | self._away.keys()
        asked = (key for key in found if self._swarm.is_proven(key))
        return owners(user, (key for key in asked if key not in no_owners))

    async def _look(self) -> None:
        with contextlib.suppress(NetError, ApiError):
            await self._swarm.find(Role.GATEWAY, max_age_s=LOOK_AGAIN_S)

    async def _look_for(self, owner: PublicKey, away: _Away) -> None:
        """One that is back counts again."""
        try:
            with contextlib.suppress(NetError, ApiError):
                await self._swarm.reach(owner)
                self._away.pop(owner, None)
                await self._swarm.find(Role.GATEWAY, max_age_s=0.0)
        finally:
            away.look_at_s = asyncio.get_running_loop().time() + LOOK_AGAIN_S

    def _note_away(self, owner: PublicKey) -> None:
        now_s = asyncio.get_running_loop().time()
        self._away[owner] = _Away(now_s, now_s)
        while len(self._away) > AWAY_MAX:
            self._away.pop(next(iter(self._away)))

    async def _ask(
        self, owner: PublicKey, method: str, data: object, user: str, token: str
    ) -> tuple[RateLimit, str] | None:
        """What the owner says; None when it cannot be asked."""
        proof = self._passes.issue(user) if self._passes else token
        body = {"data": data, "meta": {"key": proof}}
        is_connected = self._swarm.is_connected(owner)
        timeout_s = ASK_TIMEOUT_S if is_connected else CONNECT_TIMEOUT_S
        try:
            reply = reply_untrusted(
                await self._swarm.request(owner, method, body, timeout_s)
            )
        except NetError as error:
            logger.info("%s of gateway %s: %s", method, owner.hex()[:8], error)
            self._swarm.drop(Role.GATEWAY, owner)
            self._note_away(owner)
            return None
        except ApiError as error:
            if error.code is ErrorCode.RATE_LIMITED:
                raise _limited(error) from error
            logger.info("%s of gateway %s: %s", method, owner.hex()[:8], error.message)
            until_s = asyncio.get_running_loop().time() + STRANGER_S
            self._strangers[owner] = until_s
            return None
        limit = rate_limit_of(reply)
        return None if limit is None else (limit, text_of(reply.get("ticket"), 64))


def _limited(error: ApiError) -> ApiError:
    limit = error.rate_limit
    retry_after_s = count_of(error.retry_after_s) or (limit.reset_s if limit else 1)
    return ApiError(
        ErrorCode.RATE_LIMITED,
        RATE_LIMITED_MESSAGE,
        status=429,
        retry_after_s=retry_after_s,
        rate_limit=limit,
    )


class AdmitData(msgspec.Struct, frozen=True):
    """What ``limitAdmit`` takes."""

    request: str = ""


class TicketData(msgspec.Struct, frozen=True):
    """What ``limitTakeBack`` takes."""

    ticket: str = ""
