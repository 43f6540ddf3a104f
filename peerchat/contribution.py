"""What the owner of a processor gives: models, hours, tokens a day, and whether at all.

Running answers are never touched; what is decided here is whether anything new comes.
No I/O and no clock: the local time comes with each call.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from fnmatch import fnmatchcase

from .api import Closed, ClosedReason
from .model_names import short_name

_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


@dataclass(frozen=True, slots=True)
class Hours:
    """A time of day; over midnight when it ends before it begins."""

    begin: time
    end: time

    def __str__(self) -> str:
        return f"{self.begin:%H:%M}-{self.end:%H:%M}"

    def has(self, now: time) -> bool:
        """Whether it is that time."""
        if self.begin < self.end:
            return self.begin <= now < self.end
        return now >= self.begin or now < self.end

    def next_begin(self, now: datetime) -> datetime:
        """When it begins next."""
        today = datetime.combine(now.date(), self.begin, now.tzinfo)
        return today if today > now else today + timedelta(days=1)


def parse_hours(text: str) -> Hours:
    """Read ``22:00-07:00``; raises ValueError with what it must be."""
    found = _HOURS.fullmatch(text.strip())
    if found is None:
        raise ValueError("a time of day such as 22:00-07:00")
    first, second, third, fourth = map(int, found.groups())
    hours = Hours(time(first, second), time(third, fourth))
    if hours.begin == hours.end:
        raise ValueError("two different times, such as 22:00-07:00 (none: all day)")
    return hours


class Contribution:
    """The owner's terms, and what was given today.

    Args:
        offer: names of models, ``*`` and ``?`` allowed; empty: all.
        hours: when; None: always.
        tokens_per_day: of answers, from local midnight; None: no cap.
    """

    def __init__(
        self,
        offer: Sequence[str] = (),
        hours: Hours | None = None,
        tokens_per_day: int | None = None,
    ) -> None:
        self.is_paused = False
        """The owner wants nothing new."""
        self._offer = tuple(offer)
        self._hours = hours
        self.tokens_per_day = tokens_per_day
        self._day: date | None = None
        self._spent = 0

    def offers(self, model: str) -> bool:
        """Whether a model is given."""
        if not self._offer:
            return True
        names = (model, short_name(model))
        return any(fnmatchcase(one, glob) for glob in self._offer for one in names)

    def unmatched(self, models: Collection[str]) -> list[str]:
        """What is offered and fits none of these models."""
        return [
            glob
            for glob in self._offer
            if not any(Contribution((glob,)).offers(model) for model in models)
        ]

    def closed(self, now: datetime) -> Closed | None:
        """Why nothing new is taken now, and until when; None when it is."""
        if self.is_paused:
            return Closed(ClosedReason.PAUSED)
        opens = self._opens(now)
        if opens == now:
            return None
        is_outside = self._hours is not None and not self._hours.has(now.time())
        reason = ClosedReason.HOURS if is_outside else ClosedReason.SPENT
        return Closed(reason, (opens - now).total_seconds())

    def _opens(self, now: datetime) -> datetime:
        """From when on something is taken, unless it is paused."""
        cap = self.tokens_per_day
        if cap is not None and self.spent(now) >= cap:
            now = datetime.combine(now.date(), time(), now.tzinfo) + timedelta(days=1)
        if self._hours is None or self._hours.has(now.time()):
            return now
        return self._opens(self._hours.next_begin(now))

    def spent(self, now: datetime) -> int:
        """Tokens of answers since midnight."""
        return self._spent if self._day == now.date() else 0

    def spend(self, tokens: int, now: datetime) -> None:
        """An answer took so many."""
        self._spent = self.spent(now) + max(0, tokens)
        self._day = now.date()
