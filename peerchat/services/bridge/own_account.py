"""The account of this home, for callers on the Ollama port who have no token."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from peerchat.api import ApiError, ErrorCode
from peerchat.session_file import SessionFile, swarm_scope
from peerchat.settings import Settings


class OwnAccount:
    """Who is logged in in this home, and in solo the local user.

    Args:
        settings: of this process, with the swarm it is in.
        local_token: makes a token of the local user; None outside solo.
    """

    def __init__(
        self,
        settings: Settings,
        local_token: Callable[[], Awaitable[str]] | None = None,
    ) -> None:
        self._sessions = SessionFile(settings.home.session_path)
        self._scope = swarm_scope(settings)
        self._local_token = local_token

    async def token(self) -> str:
        """Read anew each time: people log in and out while this runs."""
        session = self._sessions.load(self._scope)
        if session is not None and not session.is_local:
            return session.token
        if self._local_token is not None:
            return await self._local_token()
        raise ApiError(
            ErrorCode.UNAUTHORIZED,
            "Nobody is logged in in this home: run peerchat login EMAIL, or send the "
            "header Authorization: Bearer TOKEN.",
            status=401,
        )
