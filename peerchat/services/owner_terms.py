"""What this home's owner gives, as its processor has to keep to it from one moment to
the next: `Contribution`, with what the home remembers of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime

from peerchat.api import Closed
from peerchat.closed_text import closed_words
from peerchat.contribution import Contribution
from peerchat.settings import Settings

from .contribution_file import ContributionFile

LOOK_EVERY_S = 0.5
"""Whether the owner paused, an hour or a day began: `peerchat pause` waits for it."""

logger = logging.getLogger(__name__)


class OwnerTerms:
    """Of the processor of this process.

    Args:
        settings: the owner's, and the home.
        on_change: called when it closed or opened.
    """

    def __init__(self, settings: Settings, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._contribution = Contribution(
            settings.offer, settings.hours, settings.tokens_per_day
        )
        self._file = ContributionFile(settings.home)
        self._written_tokens = 0
        self._told: Closed | None = None

    @property
    def closed(self) -> Closed | None:
        """Why nothing new is taken; None when it is."""
        return self._contribution.closed(local_now())

    @property
    def contribution(self) -> Contribution:
        """The terms themselves."""
        return self._contribution

    def begin(self) -> None:
        """Read what the home remembers, and say that it holds."""
        now = local_now()
        self._contribution.is_paused = self._file.is_paused()
        self._contribution.spend(self._file.tokens(now), now)
        self._file.take(is_paused=self._contribution.is_paused)

    async def follow(self) -> None:
        """Notice what changes without a word, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            is_paused = await asyncio.to_thread(self._file.is_paused)
            self._contribution.is_paused = is_paused
            self._notice()
            await asyncio.to_thread(self._file.keep, is_paused=is_paused)
            if due := self._unwritten_tokens():
                await asyncio.to_thread(self._file.write_tokens, *due)

    def end(self) -> None:
        """Nobody serves by these terms any more."""
        if due := self._unwritten_tokens():
            self._file.write_tokens(*due)
        self._file.leave()

    def set_paused(self, is_paused: bool) -> None:
        """Take nothing new, or take it again; remembered in the home.

        Raises:
            ApiError: STORE_FAILED.
        """
        self._file.set_paused(is_paused)
        self._contribution.is_paused = is_paused
        self._notice()
        self._file.keep(is_paused=is_paused)

    def spend(self, tokens: int) -> None:
        """An answer took so many."""
        self._contribution.spend(tokens, local_now())
        self._notice()

    def _notice(self) -> None:
        closed, told = self.closed, self._told
        self._told = closed
        if (closed and closed.reason) == (told and told.reason):
            return
        logger.info("takes prompts: %s", closed_words(closed) if closed else "yes")
        self._on_change()

    def _unwritten_tokens(self) -> tuple[int, datetime] | None:
        """Today's, and the time, if they have to be written down now."""
        if self._contribution.tokens_per_day is None:
            return None
        now = local_now()
        spent = self._contribution.spent(now)
        if spent == self._written_tokens:
            return None
        self._written_tokens = spent
        return spent, now


def local_now() -> datetime:
    """The owner's hours and days are those of this machine."""
    return datetime.now().astimezone()
