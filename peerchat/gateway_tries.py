"""How many gateways one call tries, and what those say that refuse it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

from .api import ApiError, ErrorCode
from .net.identity import PublicKey

GATEWAYS_TRIED_MAX = 32
"""The DHT names dead peers for up to twenty minutes; most are found dead at once."""

GATEWAYS_TRIED = 6
TRIED_S = 20.0
"""After so many dead gateways a user would rather hear of it than wait on."""

STRANGERS_MAX = 3
"""Gateways that do not know a token, before it is worth nothing: in an open swarm each
home has accounts and API keys of its own."""

STATUS_NOT_HERE = 501
"""Of a gateway without the accounts: another one may have them."""

MET_S = 60.0
"""A gateway that was met within this time may be about to return: it restarts."""

HOPE_S = 10.0
"""It is waited for so long: one that is stopped has 8 s for what runs, and is back some
2 s later."""

AGAIN_S = 0.5
"""Between two looks for it."""

LOOK_AGE_S = 1.0
"""Of a look-up that is good enough for that."""


class Tries:
    """What was tried of one call, and what is still worth a try."""

    def __init__(self) -> None:
        self.refusal: ApiError | None = None
        """The one to tell: a 401 says more than that somebody has no accounts."""
        self._clock = asyncio.get_running_loop().time
        self._until_s = self._clock() + TRIED_S
        self._tried = 0
        self._strangers = 0
        self._refused: set[PublicKey] = set()
        self._rounds = 0
        self._hope_until_s: float | None = None

    def worth(self, keys: Iterable[PublicKey]) -> Iterator[PublicKey]:
        """Those of the gateways that are worth a try, when their turn has come."""
        for key in keys:
            if key in self._refused:
                continue
            is_late = self._tried >= GATEWAYS_TRIED and self._clock() > self._until_s
            if is_late or self._tried >= GATEWAYS_TRIED_MAX:
                return
            self._tried += 1
            yield key

    def refused(self, key: PublicKey) -> None:
        """It is there, and would say the same again: another one may not."""
        self._refused.add(key)

    def was_met(self) -> None:
        """A gateway was there until now."""
        self._hope_until_s = None

    async def go_on(self, met_s: float, lost_s: float, *, is_any: bool) -> bool:
        """Whether to look for gateways anew; waits until it is time to.

        Who refused is there, so nobody else is hoped for, unless one was lost that may
        know what others do not.

        Args:
            met_s: when one was there last.
            lost_s: when one that had been there was lost.
            is_any: the last look gave one; then another look finds what came back
                meanwhile.
        """
        now_s = self._clock()
        self._rounds += 1
        if self._hope_until_s is None:
            self._hope_until_s = now_s + HOPE_S
        if self._rounds == 1 and is_any:
            return True
        is_hopeless = not was_lately(met_s, now_s) or now_s >= self._hope_until_s
        if is_hopeless or (self._refused and not was_lately(lost_s, now_s)):
            return False
        await asyncio.sleep(AGAIN_S)
        return True

    def may_go_on(self, key: PublicKey, error: ApiError) -> bool:
        """Whether a refusal comes of lacking the account, which another may have."""
        is_stranger = error.code is ErrorCode.UNAUTHORIZED
        if not is_stranger and error.status != STATUS_NOT_HERE:
            return False
        self.refused(key)
        self._strangers += is_stranger
        if self.refusal is None or self.refusal.status == STATUS_NOT_HERE:
            self.refusal = error
        return self._strangers < STRANGERS_MAX


def was_lately(at_s: float, now_s: float) -> bool:
    """Whether a gateway of that time may be about to return."""
    return now_s - at_s <= MET_S


def account_away() -> ApiError:
    """In an open swarm each gateway has accounts and API keys of its own."""
    return ApiError(
        ErrorCode.NO_GATEWAY,
        "The gateway that knows this account or API key does not answer; ask again "
        "soon.",
        status=503,
        retry_after_s=10,
    )
