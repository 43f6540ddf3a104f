"""A `Static` that nothing foreign can speak through."""

from __future__ import annotations

from textual.content import Content
from textual.visual import VisualType
from textual.widgets import Static

from peerchat.sanitize import display_text


class Inert(Static):
    """Shows text as it is: no markup, no escape sequences, no direction overrides.

    Text from anywhere may be given; `Content` is taken as our own and is to be built
    from sanitised pieces.
    """

    def __init__(
        self,
        text: str | Content = "",
        *,
        id: str | None = None,  # noqa: A002  Textual's own name for it
        classes: str | None = None,
    ) -> None:
        super().__init__(_inert(text), markup=False, id=id, classes=classes)

    def update(self, content: VisualType = "", *, layout: bool = True) -> None:
        """Show something else; what is shown already costs neither layout nor paint."""
        shown = _inert(content) if isinstance(content, str) else content
        if not _is_same(shown, self.content):
            super().update(shown, layout=layout)


def _inert(text: str | Content) -> str | Content:
    return display_text(text) if isinstance(text, str) else text


def _is_same(one: VisualType, other: VisualType) -> bool:
    """Whether both look alike; `Content` itself compares no styles."""
    if isinstance(one, Content) and isinstance(other, Content):
        return one.plain == other.plain and one.spans == other.spans
    return isinstance(one, str) and isinstance(other, str) and one == other
