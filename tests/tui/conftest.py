"""An app in front of a scripted node, with a clock that the test holds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest
from textual import events
from textual.css.stylesheet import Stylesheet
from textual.pilot import Pilot

from peerchat.testing.node import ScriptedNode
from peerchat.tui.app import PeerchatApp
from peerchat.tui.widgets.prompt import Prompt


class HeldClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> HeldClock:
    return HeldClock()


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The developer's own terminal settings change nothing."""
    for name in ("NO_COLOR", "TEXTUAL_ANIMATIONS", "TEXTUAL_THEME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True, scope="session")
def utc() -> Iterator[None]:
    """Dates on the screen are local; everybody's pictures are of one place."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pilot asks three times a key, 20 ms each, whether the process is idle.

    That was more than half of this suite. The question stays, it is asked more often.
    """
    monkeypatch.setattr("textual._wait.SLEEP_GRANULARITY", 0.005)
    monkeypatch.setattr("textual._wait.SLEEP_IDLE", 0.001)


@pytest.fixture(autouse=True, scope="session")
def parse_styles_once() -> Iterator[None]:
    """Every app parses the same styles; the result is read only, also to Textual."""
    parse, parsed = Stylesheet._parse_rules, {}

    def parse_once(self, css, read_from, is_default_rules=False, *rest, **more):
        variables = tuple(sorted(self._variables.items()))
        key = (css, read_from, is_default_rules, rest, *more.items(), variables)
        if key not in parsed:
            parsed[key] = parse(self, css, read_from, is_default_rules, *rest, **more)
        return parsed[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stylesheet, "_parse_rules", parse_once)
        yield


def open_app(node: ScriptedNode, clock: Callable[[], float]) -> PeerchatApp:
    """An app without animation, so that a picture of it is always the same."""
    app = PeerchatApp(node, clock=clock)
    app.animation_level = "none"
    return app


async def until(pilot: Pilot[None], condition: Callable[[], object]) -> None:
    """Let the app work until a condition holds."""
    async with asyncio.timeout(20):
        while not condition():
            if pilot.app._exception is not None:
                raise pilot.app._exception
            await pilot.pause(0.01)


async def fill(pilot: Pilot[None], *values: str) -> None:
    """Fill a form from where the focus is, a field each, and press Enter in the last.

    Pasting is one event a field; a key costs a drawing of the screen.
    """
    for value in values:
        assert pilot.app.focused is not None
        pilot.app.focused.post_message(events.Paste(value))
        await pilot.press("enter")


async def say(pilot: Pilot[None], text: str) -> None:
    """Type a prompt, whatever has the focus, and send it."""
    prompt = prompt_of(pilot)
    prompt.load_text(text)
    prompt.move_cursor(prompt.document.end)
    prompt.submit()
    await pilot.pause()


def prompt_of(pilot: Pilot[None]) -> Prompt:
    return chat_of(pilot).prompt


def chat_of(pilot: Pilot[None]):
    assert isinstance(pilot.app, PeerchatApp)
    return pilot.app.chat


async def settled(pilot: Pilot[None]) -> None:
    """Let the app answer everything and draw it."""
    chat = chat_of(pilot)
    await until(
        pilot,
        lambda: (
            chat.session.running is None
            and not chat.session.can_run()
            and chat.transcript.is_settled
        ),
    )
    await pilot.pause()


def frame_text(app: PeerchatApp) -> str:
    """What the terminal would get as text, line by line: the composed frame."""
    strips = app.screen._compositor.render_strips()
    return "\n".join(strip.text for strip in strips)
