"""Waits for figures that do not say themselves when they change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until(claim: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Return once it is true; TimeoutError if that never comes."""
    async with asyncio.timeout(timeout_s):
        while not claim():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
