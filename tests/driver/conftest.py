"""Fixtures of tests with whole nodes on loopback."""

import os

import pytest

from peerchat.net import HyperDHT, system_env
from tests.driver.private_homes import Homes


@pytest.fixture
async def homes(tmp_path, monkeypatch):
    """Homes that share a bootstrap node; nothing of this machine's settings."""
    for name in list(os.environ):
        if name.startswith("PEERCHAT_") or name in ("JWT_SECRET", "OLLAMA_HOST"):
            monkeypatch.delenv(name)
    async with HyperDHT.bootstrapper(system_env(), "127.0.0.1", 0) as dht:
        yield Homes(tmp_path, f"127.0.0.1:{dht.address.port}")
