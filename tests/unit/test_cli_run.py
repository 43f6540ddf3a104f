"""How a command that serves is ended."""

from __future__ import annotations

import signal

import pytest

from peerchat.cli.run import termination


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_first_signal_asks_and_the_second_insists(
    number: signal.Signals,
) -> None:
    before = signal.getsignal(number)
    async with termination() as stop:
        signal.raise_signal(number)
        await stop.wait()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(number) is before
