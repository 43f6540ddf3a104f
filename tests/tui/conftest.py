"""An app in front of a scripted node, with a clock that the test holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
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


def open_app(node: ScriptedNode, clock: Callable[[], float]) -> PeerchatApp:
    """An app without animation, so that a picture of it is always the same."""
    app = PeerchatApp(node, clock=clock)
    app.animation_level = "none"
    return app


async def until(pilot: Pilot[None], condition: Callable[[], object]) -> None:
    """Let the app work until a condition holds."""
    async with asyncio.timeout(20):
        while not condition():
            await pilot.pause(0.01)


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
