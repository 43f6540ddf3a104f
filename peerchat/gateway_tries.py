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

    async def go_on(self, met_s: float, *, is_any: bool) -> bool:
        """Whether to look for gateways anew; waits until it is time to.

        Who refused is there: nobody is hoped for then.

        Args:
            met_s: when one was there last.
            is_any: the last look gave one; then another look finds what came back
                meanwhile.
        """
        now_s = self._clock()
        self._rounds += 1
        if self._hope_until_s is None:
            self._hope_until_s = now_s + HOPE_S
        if self._rounds == 1 and is_any:
            return True
        is_hopeless = now_s - met_s > MET_S or now_s >= self._hope_until_s
        if is_hopeless or self._refused:
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
