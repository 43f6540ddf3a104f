"""Which gateway counts a user's prompts: rendezvous hashing (Thaler, Ravishankar 1998).

Every gateway that knows the same gateways comes to the same order without a word
between them, and when one goes, only the users it counted move.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from peerchat.net.identity import PublicKey


def owners(user: str, gateways: Iterable[PublicKey]) -> list[PublicKey]:
    """The gateways in the order in which they are to be asked about the user."""
    name = hashlib.blake2b(user.encode("utf-8", "replace"), digest_size=32).digest()

    def weight(key: PublicKey) -> tuple[bytes, bytes]:
        return hashlib.blake2b(bytes(key), key=name, digest_size=8).digest(), bytes(key)

    return sorted(set(gateways), key=weight, reverse=True)
