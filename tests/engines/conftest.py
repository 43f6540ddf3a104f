from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from .harness import KINDS, Harness, harness


@pytest.fixture(params=KINDS)
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Harness]:
    async with harness(request.param) as made:
        yield made
