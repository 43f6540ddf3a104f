"""Whose an API key is, as a gateway knows it: asked of auth peers, kept for a while.

A key that was revoked elsewhere works on here for as long as its owner is kept, which
is one refresh, like a session that was ended.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from peerchat.api import ApiError

from .api_keys import PREFIX, wrong_key
from .auth_client import AuthClient
from .key_messages import ResolveRequest
from .tokens import Claims

KNOWN_MAX = 10_000
"""Keys that are kept; the one that was not used for longest goes first."""

FOREVER = 2**53
"""Of epochs: a key lives on when sessions are ended."""


@dataclass(frozen=True, slots=True)
class _Known:
    email: str
    until_s: float


class KnownKeys:
    """Resolves keys.

    Args:
        auth: the way to auth peers.
        refresh_s: how long an answer counts.
        now_s: of any clock that only goes forward.
    """

    def __init__(
        self,
        auth: AuthClient,
        refresh_s: float,
        *,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._auth = auth
        self._refresh_s = refresh_s
        self._now_s = now_s
        self._known: OrderedDict[bytes, _Known] = OrderedDict()

    @staticmethod
    def is_key(token: str) -> bool:
        """Whether it is a key rather than a session token."""
        return token.startswith(PREFIX)

    async def claims(self, key: str) -> Claims:
        """Whose a key is.

        Raises:
            ApiError: 401 for nobody's; NO_AUTH and its like when nobody can tell.
        """
        now_s = self._now_s()
        digest = hashlib.blake2b(key.encode("utf-8", "replace"), digest_size=32)
        name = digest.digest()
        known = self._known.get(name)
        if known is None or known.until_s <= now_s:
            self._known.pop(name, None)
            known = _Known(await self._resolve(key), now_s + self._refresh_s)
            self._known[name] = known
            while len(self._known) > KNOWN_MAX:
                self._known.popitem(last=False)
        self._known.move_to_end(name)
        issued_s = int(time.time())
        return Claims(known.email, "user", issued_s, issued_s, epoch=FOREVER)

    def forget(self) -> None:
        """Ask anew from now on: a key was revoked through this gateway."""
        self._known.clear()

    async def _resolve(self, key: str) -> str:
        try:
            reply = await self._auth.with_token(
                "resolveKey", ResolveRequest(token=key), ""
            )
        except ApiError as error:
            if error.status == 501:
                # The accounts are somebody else's, who must not be shown keys.
                raise wrong_key() from error
            raise
        email = reply.get("email")
        if not isinstance(email, str) or not email:
            raise wrong_key()
        return email
