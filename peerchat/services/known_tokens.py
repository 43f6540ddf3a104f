"""Tokens whose signature was checked before: one session asks many times."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

KEPT = 1024
"""Sessions that ask in turn; a digest and the claims of each, under a megabyte."""

C = TypeVar("C")


@dataclass(frozen=True, slots=True)
class _Known(Generic[C]):
    checked: C
    expires_s: float


class KnownTokens(Generic[C]):
    """What was found in a token, until it expires. The token itself is not kept."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, _Known[C]] = OrderedDict()

    def get(self, token: str, now_s: float) -> C | None:
        """What was kept for exactly this token, if it is still good by its dates."""
        key = _key(token)
        known = self._known.get(key)
        if known is None:
            return None
        if known.expires_s <= now_s:
            del self._known[key]  # a whole check says what is wrong
            return None
        self._known.move_to_end(key)
        return known.checked

    def keep(self, token: str, checked: C, expires_s: float) -> None:
        """Remember it; the one that was not used for longest goes."""
        self._known[_key(token)] = _Known(checked, expires_s)
        while len(self._known) > KEPT:
            self._known.popitem(last=False)


def _key(token: str) -> bytes:
    return hashlib.blake2b(token.encode("utf-8", "replace"), digest_size=32).digest()
