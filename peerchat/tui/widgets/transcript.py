"""The conversation on the screen: a window of turns over all that are in memory.

Hundreds of mounted messages make every resize and theme switch take seconds, so at
most `TURNS_MOUNTED_MAX` turns are widgets; scrolling past an end moves the window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from textual.containers import VerticalScroll
from textual.reactive import reactive

from peerchat.tui.conversation import Turn
from peerchat.tui.wording import count

from .inert import Inert

if TYPE_CHECKING:
    from .message import TurnView

TURNS_MOUNTED_MAX = 25
"""Fifty messages, prompts and answers."""

PAGE_TURNS = 8
"""How far the window moves at its ends."""


class Transcript(VerticalScroll, can_focus=False):
    """Shows the newest turns and stays at the end until the user scrolls up."""

    is_following: reactive[bool] = reactive(True)
    """The end is in sight, and stays so while the answer grows."""

    def __init__(self) -> None:
        super().__init__()
        self._turns: Sequence[Turn] = ()
        self._start = 0
        self._views: list[TurnView] = []
        self._earlier = Inert(classes="edge")
        self._later = Inert(classes="edge")
        self._is_moving = False

    def on_mount(self) -> None:
        self.mount_all([self._earlier, self._later])
        self._show_edges()
        self.anchor()

    @property
    def views(self) -> Sequence[TurnView]:
        """The mounted turns, oldest first."""
        return tuple(self._views)

    async def show_turns(self, turns: Sequence[Turn]) -> None:
        """Show the newest of these turns, the last one at the bottom."""
        self._turns = tuple(turns)
        await self._move_to(max(0, len(turns) - TURNS_MOUNTED_MAX))
        self.follow()

    async def refresh_turns(self, now: float, *, is_animated: bool) -> None:
        """Bring every mounted turn up to date; those that are over cost nothing."""
        for view in self._views:
            await view.refresh_turn(now, is_animated=is_animated)

    @property
    def is_settled(self) -> bool:
        """Every mounted turn is over and shown whole."""
        return all(view.is_settled for view in self._views)

    def follow(self) -> None:
        """Go to the end and stay there."""
        self.anchor()

    async def page_up(self) -> None:
        """Scroll up by a page; at the top, show earlier turns."""
        if self.scroll_offset.y > 0:
            self.scroll_page_up(animate=False)
        else:
            await self.show_earlier()

    async def page_down(self) -> None:
        """Scroll down by a page; at the bottom, show later turns."""
        if self.scroll_offset.y < self.max_scroll_y:
            self.scroll_page_down(animate=False)
        else:
            await self.show_later()

    async def to_end(self) -> None:
        """Show the newest turns and follow them."""
        await self._move_to(max(0, len(self._turns) - TURNS_MOUNTED_MAX))
        self.follow()

    async def show_earlier(self) -> None:
        """Move the window towards the beginning; what was at the top stays in sight."""
        if self._start > 0 and self._views:
            top = self._views[0]
            await self._move_to(max(0, self._start - PAGE_TURNS))
            self._keep_in_sight(top, at_top=True)

    async def show_later(self) -> None:
        """Move the window towards the end."""
        if self._start + len(self._views) < len(self._turns) and self._views:
            bottom = self._views[-1]
            last_start = max(0, len(self._turns) - TURNS_MOUNTED_MAX)
            await self._move_to(min(last_start, self._start + PAGE_TURNS))
            self._keep_in_sight(bottom, at_top=False)

    def _keep_in_sight(self, view: TurnView, *, at_top: bool) -> None:
        self.release_anchor()
        self._is_moving = True
        self.call_after_refresh(self._scroll_to_kept, view, at_top=at_top)

    def _scroll_to_kept(self, view: TurnView, *, at_top: bool) -> None:
        """Scroll without taking that for the user's wish to move the window back.

        On a tall screen, what is kept in sight may be at the window's other end.
        """
        if view.is_attached:
            self.scroll_to_widget(
                view, animate=False, top=at_top, force=True, immediate=True
            )
        self._is_moving = False

    async def _move_to(self, start: int) -> None:
        """Mount and unmount so that the window begins at a turn."""
        # With it comes Markdown, which no app needs before its first answer.
        from .message import TurnView

        self._is_moving = True
        wanted = list(self._turns[start : start + TURNS_MOUNTED_MAX])
        mounted = {view.turn: view for view in self._views}
        gone = [view for turn, view in mounted.items() if turn not in set(wanted)]
        views = [mounted.get(turn) or TurnView(turn) for turn in wanted]
        with self.app.batch_update():
            await self.remove_children(gone)
            previous: Inert | TurnView = self._earlier
            for view in views:
                if not view.is_attached:
                    await self.mount(view, after=previous)
                previous = view
            self._start, self._views = start, views
            self._show_edges()
        self._is_moving = False

    def _show_edges(self) -> None:
        later = len(self._turns) - self._start - len(self._views)
        self._earlier.display = self._start > 0
        self._earlier.update(f"↑ {count(self._start, 'earlier turn')}")
        self._later.display = later > 0
        self._later.update(f"↓ {count(later, 'later turn')}")

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self.is_following = new_value >= self.max_scroll_y - 1
        if self._is_moving or round(old_value) == round(new_value):
            return
        # A turn that becomes shorter moves the end up into sight; only somebody who
        # scrolls down wants what is later.
        if new_value <= 0 and self._start > 0:
            self.call_later(self.show_earlier)
        elif self.is_following and new_value > old_value:
            self.call_later(self.show_later)
