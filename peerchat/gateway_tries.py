"""How many gateways one call tries, and what those say that have not the account."""

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
    """How much is still tried of one call."""

    def __init__(self) -> None:
        self._clock = asyncio.get_running_loop().time
        self._until_s = self._clock() + TRIED_S
        self._tried = 0
        self._rounds = 0
        self._hope_until_s: float | None = None

    def worth(self, keys: Iterable[PublicKey]) -> Iterator[PublicKey]:
        """Those of the gateways that are worth a try, when their turn has come."""
        for key in keys:
            is_late = self._tried >= GATEWAYS_TRIED and self._clock() > self._until_s
            if is_late or self._tried >= GATEWAYS_TRIED_MAX:
                return
            self._tried += 1
            yield key

    def was_met(self) -> None:
        """A gateway was there until now."""
        self._hope_until_s = None

    async def go_on(self, met_s: float, *, is_any: bool) -> bool:
        """Whether to look for gateways anew; waits until it is time to.

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
        if now_s - met_s > MET_S or now_s >= self._hope_until_s:
            return False
        await asyncio.sleep(AGAIN_S)
        return True


class Refusals:
    """What gateways said that know nothing of an account."""

    def __init__(self) -> None:
        self.first: ApiError | None = None
        """The one to tell: a 401 says more than that somebody has no accounts."""
        self.gateways: set[PublicKey] = set()
        """Who said so, and need not be asked again."""
        self._strangers = 0

    def take(self, key: PublicKey, error: ApiError) -> bool:
        """Whether another gateway may do what this one refused to."""
        is_stranger = error.code is ErrorCode.UNAUTHORIZED
        if not is_stranger and error.status != STATUS_NOT_HERE:
            return False
        self.gateways.add(key)
        self._strangers += is_stranger
        was_told = self.first is not None and self.first.status != STATUS_NOT_HERE
        if not was_told:
            self.first = error
        return self._strangers < STRANGERS_MAX


def account_away() -> ApiError:
    """In an open swarm each gateway has accounts and API keys of its own."""
    return ApiError(
        ErrorCode.NO_GATEWAY,
        "The gateway that knows this account or API key does not answer; ask again "
        "soon.",
        status=503,
        retry_after_s=10,
    )
