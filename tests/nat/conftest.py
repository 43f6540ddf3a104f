"""Two machines on one machine: network namespaces that a test makes for itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import COMMAND, run, spawn

__all__ = ["lan", "run", "spawn"]


def why_no_namespaces() -> str:
    """Empty when namespaces can be made here, else what is missing."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "network namespaces need Linux and root"
    if shutil.which("ip") is None:
        return "iproute2 is not installed"
    return ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    why = why_no_namespaces()
    if not why:
        return
    if os.environ.get("PEERCHAT_TEST_ALL") == "1":
        raise pytest.UsageError(f"NAT tests were asked for, but {why}")
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=why))


def ip(*args: str) -> None:
    subprocess.run(["ip", *args], check=True, capture_output=True)


class Host:
    """One machine of the LAN."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address

    @property
    def command(self) -> list[str]:
        """The start of a command line that runs the installed command there."""
        return ["ip", "netns", "exec", self.name, str(COMMAND)]


@pytest.fixture
def lan() -> Iterator[tuple[Host, Host]]:
    """Two hosts with a cable between them and no way to anywhere else."""
    tag = uuid.uuid4().hex[:6]
    hosts = [Host(f"pc{n}-{tag}", f"192.168.77.{n}") for n in (1, 2)]
    links = [f"v{n}{tag}" for n in (1, 2)]
    try:
        for host in hosts:
            ip("netns", "add", host.name)
        ip("link", "add", links[0], "type", "veth", "peer", "name", links[1])
        for host, link in zip(hosts, links, strict=True):
            ip("link", "set", link, "netns", host.name)
            ip("-n", host.name, "addr", "add", f"{host.address}/24", "dev", link)
            ip("-n", host.name, "link", "set", "lo", "up")
            ip("-n", host.name, "link", "set", link, "up")
        yield hosts[0], hosts[1]
    finally:
        for host in hosts:
            subprocess.run(["ip", "netns", "del", host.name], check=False)
