"""Make an invite, and hand it over: a line to copy, a code to photograph."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Button, Checkbox

from peerchat.api import ApiError, Swarms
from peerchat.tui.clipboard import Clipboard
from peerchat.tui.qr import Code, make_code
from peerchat.tui.swarm_wording import parse_duration, swarm_failure_words
from peerchat.tui.widgets.field import Field
from peerchat.tui.widgets.inert import Inert
from peerchat.tui.wording import Tone, Words, count

from .form import FormScreen

ROLES = ("processor", "gateway", "auth", "admin")
"""What an invite can grant besides asking, the usual one first."""

USES_MAX = 1000

NAME_CHARS_MAX = 64


class Tick(Checkbox):
    """A checkbox that says without colour whether it is on."""

    def __init__(self, label: str) -> None:
        super().__init__(label, id=label, compact=True)

    @property
    def BUTTON_INNER(self) -> str:  # type: ignore[override]
        return "x" if self.value else " "


class InviteScreen(FormScreen[str]):
    """Dismissed with the line."""

    TITLE_WORDS = "Invite into the swarm"

    def __init__(self, swarms: Swarms, name: str = "") -> None:
        super().__init__()
        self._swarms = swarms
        self._whom = Field(
            "For whom",
            "Ada's laptop; may stay empty",
            id="whom",
            value=name,
            max_length=NAME_CHARS_MAX,
        )
        self._uses = Field("How often", id="uses", value="1", max_length=4)
        self._expires = Field("Good for", id="expires", value="24h", max_length=12)
        self._roles = [Tick(role) for role in ROLES]

    def fields(self) -> Iterable[Widget]:
        yield self._whom
        yield Inert("May ask. May also serve as:", classes="label")
        yield Horizontal(*self._roles, classes="row roles")
        yield Horizontal(self._uses, self._expires, classes="row")

    def buttons(self) -> Iterable[Button]:
        yield Button("Make the invite", id="submit", variant="primary")
        yield Button("Back", id="leave")

    def hint(self) -> Words | None:
        if self._roles[-1].value:
            return Words("", "An admin lets others in, as you do.", Tone.WARNING)
        return Words("", "Good for: 30m, 24h, 7d, 2w.", Tone.INFO)

    @on(Checkbox.Changed)
    def _role_changed(self) -> None:
        self.say(self.hint())

    def submitted(self) -> None:
        uses = self._uses.value.strip()
        seconds = parse_duration(self._expires.value)
        if not (uses.isascii() and uses.isdigit() and 0 < int(uses) <= USES_MAX):
            self.complain("How often?", f"A number from 1 to {USES_MAX}", self._uses)
        elif seconds is None:
            advice = "Write it as 30m, 24h, 7d or 2w; at most a year"
            self.complain("Good for how long?", advice, self._expires)
        else:
            roles = [box.id or "" for box in self._roles if box.value]
            self.attempt(
                "Making the invite…",
                lambda: self._swarms.invite(
                    roles=roles,
                    uses=int(uses),
                    expires_s=float(seconds),
                    name=self._whom.value.strip(),
                ),
                self._done,
            )

    def _done(self, line: str) -> None:
        self.dismiss(line)

    def words_of(self, error: ApiError) -> Words:
        return swarm_failure_words(error)


class InviteLineScreen(FormScreen[None]):
    """Shows an invite; it cannot be shown again, only made anew."""

    TITLE_WORDS = "The invite"
    SUBTITLE_WORDS = "Esc: done"
    AUTO_FOCUS = "#copy"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("c", "copy", "Copy", show=False),
        Binding("q", "code", "QR code", show=False),
    ]

    def __init__(self, line: str, clipboard: Clipboard) -> None:
        super().__init__()
        self._line = line
        self._clipboard = clipboard
        self._code: Code | None = None

    def fields(self) -> Iterable[Widget]:
        text = "Send it by a way that nobody else reads: whoever has it gets in."
        yield Inert(text, classes="text")
        yield Inert(self._line, classes="line")

    def buttons(self) -> Iterable[Button]:
        yield Button("Copy", id="copy", variant="primary")
        yield Button("QR code", id="qr")
        yield Button("Done", id="leave")

    def hint(self) -> Words | None:
        advice = (
            f"{count(len(self._line), 'character')}, one line. The other side types "
            "/join, or peerchat swarm join."
        )
        return Words("", advice, Tone.INFO)

    @on(Button.Pressed, "#copy")
    def action_copy(self) -> None:
        """Copy the line and say what came of it."""
        self.run_worker(self._copy(), group="copy", exclusive=True, exit_on_error=False)

    async def _copy(self) -> None:
        copied = await self._clipboard.copy(self._line)
        tone = Tone.INFO if copied.is_sure else Tone.WARNING
        self.say(Words("", copied.words, tone))

    @on(Button.Pressed, "#qr")
    def action_code(self) -> None:
        """Show the code when the terminal has the room."""
        self._code = self._code or make_code(self._line)
        code = self._code
        size = self.app.size
        if code is None:
            self.say(Words("Too long for a QR code", "Copy the line instead"))
        elif size.width < code.columns or size.height < code.rows:
            needs = f"It needs {code.columns}x{code.rows}, this is "
            advice = f"{needs}{size.width}x{size.height}; or copy the line"
            self.say(Words("Make the terminal bigger", advice, Tone.WARNING))
        else:
            self.app.push_screen(CodeScreen(code))


class CodeScreen(ModalScreen[None]):
    """The QR code alone: every row is needed for it."""

    CSS_PATH = "form.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter,space", "dismiss", "Back", show=False)
    ]

    def __init__(self, code: Code) -> None:
        super().__init__()
        self._shown = code

    def compose(self) -> ComposeResult:
        yield Inert(self._shown.content(), classes="code")

    def on_click(self) -> None:
        self.dismiss(None)
