"""One swarm for all attacks: it has to live through every one of them."""

import logging
import os

import pytest
import pytest_asyncio

from .town import started


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def town(tmp_path_factory):
    names = [name for name in os.environ if name.startswith("PEERCHAT_")]
    with pytest.MonkeyPatch.context() as patch:
        for name in (*names, "JWT_SECRET", "OLLAMA_HOST"):
            patch.delenv(name, raising=False)
        async with started(tmp_path_factory.mktemp("town")) as one:
            yield one


@pytest_asyncio.fixture(loop_scope="session")
async def intruder(town):
    one = await town.intruder()
    yield one
    await one.close()


@pytest.fixture(autouse=True)
def silent(request, caplog):
    """No attack brings a secret into a log, however much is logged."""
    caplog.set_level(logging.DEBUG, "peerchat")
    yield
    if "town" in request.fixturenames:
        for secret in request.getfixturevalue("town").secrets:
            assert secret not in caplog.text
