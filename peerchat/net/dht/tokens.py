"""Tokens: proof that whoever writes to this node received a packet at its address.

Pure; `rotate` is called every 7.5 s by `io`. Source: docs/PROTOCOL.md section 4,
``dht-rpc/lib/io.js`` token() and _drain().
"""

from __future__ import annotations

from hashlib import blake2b
from hmac import compare_digest

from peerchat.net.identity import KEY_BYTES


class Tokens:
    """Issues tokens per host with the current secret; takes the previous one too."""

    __slots__ = ("_current", "_previous")

    def __init__(self, seed: bytes) -> None:
        """Args: seed: 64 random bytes."""
        self._previous = seed[:KEY_BYTES]
        self._current = seed[KEY_BYTES : 2 * KEY_BYTES]

    def issue(self, host: str) -> bytes:
        """A token that stays valid until the second rotation from now."""
        return _token(host, self._current)

    def is_valid(self, token: bytes, host: str) -> bool:
        return any(
            compare_digest(token, _token(host, secret))
            for secret in (self._current, self._previous)
        )

    def rotate(self) -> None:
        """Forget the previous secret; its hash becomes the current one."""
        fresh = blake2b(self._previous, digest_size=KEY_BYTES).digest()
        self._previous, self._current = self._current, fresh


def _token(host: str, secret: bytes) -> bytes:
    return blake2b(host.encode(), key=secret, digest_size=KEY_BYTES).digest()
