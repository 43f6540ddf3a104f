"""Homes in a private swarm that meet at one bootstrap node on loopback."""

import dataclasses

from peerchat.api import Role
from peerchat.services.node_runtime import NodeRuntime
from peerchat.services.private_swarms import PrivateSwarms
from tests.driver.test_host_runtime import settings

SERVED = frozenset({Role.AUTH, Role.GATEWAY, Role.PROCESSOR})
EMAIL = "ann@example.org"


class Homes:
    """Homes of one test that meet at one bootstrap node."""

    def __init__(self, folder, bootstrap):
        self._folder = folder
        self._bootstrap = bootstrap

    def settings(self, name, swarm="club", *, is_open=False, **more):
        where = {"bootstrap": self._bootstrap, "swarm_refresh_s": 1, **more}
        given = settings(self._folder, name, swarm="club", **where)
        return dataclasses.replace(given, swarm=swarm, is_open=is_open)

    def swarms(self, name):
        return PrivateSwarms(self.settings(name))

    def serving(self, name, roles=SERVED, **more):
        given = self.settings(name, roles=roles, **more)
        return NodeRuntime(given, is_serving=True)

    async def create(self, name="box"):
        return await self.swarms(name).create("club", "")

    async def join(self, name, *, by="box", roles=()):
        """Redeem an invite while the home of whoever made it serves."""
        line, _ = await self.swarms(by).invite("club", roles=roles)
        return await self.swarms(name).join(line)
