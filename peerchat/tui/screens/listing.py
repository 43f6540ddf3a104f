"""What the lists of swarms and members are: rows that are fetched, and keys on them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from textual import on
from textual.content import Content
from textual.widget import Widget
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from peerchat.api import ApiError
from peerchat.sanitize import display_line
from peerchat.tui.swarm_wording import swarm_failure_words
from peerchat.tui.wording import Words

from .form import FormScreen

ValueT = TypeVar("ValueT")
ResultT = TypeVar("ResultT")

ROWS_MAX = 500
"""Far more than anybody reads; a swarm's owner may have let in thousands."""

NAME_CHARS = 22


@dataclass(frozen=True, slots=True)
class Row(Generic[ValueT]):
    """One line of a list; a heading has no value."""

    name: str
    note: str = ""
    value: ValueT | None = None
    is_marked: bool = False
    is_dim: bool = False

    def content(self) -> Content:
        """The line, made inert."""
        if self.value is None:
            return Content.styled(display_line(self.name), "bold $primary")
        mark = "●" if self.is_marked else " "
        name = display_line(self.name, NAME_CHARS)
        return Content.assemble(
            f"{mark} ",
            (f"{name:<{NAME_CHARS}} ", "dim" if self.is_dim else ""),
            (display_line(self.note), "dim"),
        )


class ListingScreen(FormScreen[ResultT], Generic[ResultT, ValueT]):
    """A list over a line of words; rows come from a slow call."""

    def __init__(self) -> None:
        super().__init__()
        self._rows: Sequence[Row[ValueT]] = ()
        self._list = OptionList(id="rows", markup=False)

    def fields(self) -> Iterable[Widget]:
        return (self._list,)

    async def load(self) -> Sequence[Row[ValueT]]:
        """Fetch the rows; raises `ApiError`."""
        raise NotImplementedError

    def chosen(self, value: ValueT) -> None:
        """Enter on a row."""

    def on_mount(self) -> None:
        self.reload()

    def reload(self) -> None:
        """Fetch the rows anew."""
        self.attempt("Looking…", self.load, self._show)

    def _show(self, rows: Sequence[Row[ValueT]]) -> None:
        self.show_rows(rows)
        self.say(self.hint())

    def show_rows(self, rows: Sequence[Row[ValueT]]) -> None:
        """Replace the rows; the highlight stays where it was."""
        options = self._list
        at = options.highlighted
        self._rows = rows[:ROWS_MAX]
        options.set_options(
            Option(row.content(), disabled=row.value is None) for row in self._rows
        )
        usable = [i for i, row in enumerate(self._rows) if row.value is not None]
        first = next((i for i in usable if self._rows[i].is_marked), None)
        fallback = usable[0] if usable else None
        options.highlighted = at if at in usable else first or fallback

    @on(OptionList.OptionSelected)
    def _select(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        value = self._rows[event.option_index].value
        if value is not None and not self._is_busy:
            self.chosen(value)

    def words_of(self, error: ApiError) -> Words:
        return swarm_failure_words(error)

    def act(self, doing: str, call: Callable[[], Awaitable[None]]) -> None:
        """Do something to a row, then fetch the rows anew."""
        self.attempt(doing, call, lambda nothing: self.reload())
