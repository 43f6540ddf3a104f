"""A private swarm that lives on loopback sockets while it is attacked.

`Town` has an owner's box with all roles, a second gateway without accounts of its own,
and a laptop whose user asks. `Intruder` is a peer that knows what a test gives it.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

from peerchat.api import Role
from peerchat.client import Client
from peerchat.net import HyperDHT, system_env
from peerchat.net.crypto.primitives import KeyPair
from peerchat.net.identity import PublicKey
from peerchat.net.rpc.server import RpcServer
from peerchat.services.gate import Gate
from peerchat.services.identity import Identity
from peerchat.services.membership import Membership, SwarmHomes
from peerchat.services.node_runtime import NodeRuntime
from peerchat.services.root_key import unlock_root
from peerchat.services.swarm import Swarm
from peerchat.services.trust import Trust
from peerchat.settings import Home
from peerchat.trust.certificate import Chain, encode_chain, sign_certificate
from peerchat.trust.keys import PURPOSES
from tests.driver.private_homes import Homes
from tests.unit.test_gate import Everybody

PASSWORD = "correct horse battery"
USER, ADMIN = "ann@example.org", "owner@example.org"
SERVING = ("auth", "gateway", "processor")
REFRESH_S = 1
DAY_S = 24 * 3600
MANY = 1_000_000
BEHIND = frozenset({Role.GATEWAY})


class Intruder:
    """A peer with a node of its own; its certificate is whatever a test gives it."""

    def __init__(self, town: Town, dht: HyperDHT, chain: bytes, secret: bytes) -> None:
        number = next(town.numbers)
        identity = Identity(number.to_bytes(32, "big"))
        folder = town.folder / f"intruder{number}"
        self.homes = SwarmHomes(Home(folder, folder, folder, folder))
        kept = town.box.trust.membership
        self.homes.save(
            Membership("club", kept.root, secret, 0, kept.record_key, chain, None)
        )
        self.town = town
        self.dht = dht
        self.identity = identity
        self.trust = Trust(dht, self.homes, "club", identity, refresh_s=REFRESH_S)
        self.own = self.trust.identity
        self.swarm = Swarm(dht, self.own, trust=self.trust)
        self.heard: list[tuple[str, bytes]] = []
        """Methods and bodies that reached it."""

    def with_chain(self, chain: Chain | bytes) -> None:
        """Show this certificate from now on."""
        data = chain if isinstance(chain, bytes) else encode_chain(chain)
        self.homes.update("club", lambda kept: replace(kept, chain=data))
        self.trust._follower._set(self.homes.load("club"))

    @asynccontextmanager
    async def serving(self, role: Role, *, is_silent: bool = False):
        """Announced as a role; notes whatever it is told."""

        async def hear(method, body):
            self.heard.append((method, body))
            return b'{"status":"healthy","success":true,"service":"%s"}' % role.encode()

        if is_silent:
            server = self.dht.create_server(lambda _connection: None)
        else:
            server = RpcServer(
                self.dht,
                capability=self.trust.capability,
                on_connection=lambda one: Gate(Everybody(self.trust), one),
            )
            for name in ("ping", "login", "processRequest", "register"):
                server.respond(name, lambda body, _one, name=name: hear(name, body))
        pair = self.own.role_key_pair(role)
        await server.listen(pair)
        topic = self.town.box.trust.topic(role)
        await self.dht.announce(topic, pair)
        try:
            yield pair.public_key
        finally:
            await self.dht.unannounce(topic, pair)
            await server.close()

    async def close(self) -> None:
        await self.swarm.close()
        await self.dht.close()


class Town:
    """See the top; `started` makes it."""

    def __init__(self, folder: Path, homes: Homes, bootstrap: str) -> None:
        self.folder = folder
        self.homes = homes
        self.bootstrap = bootstrap
        self.first: HyperDHT
        """The node that everybody joined by, and that stores what they put."""
        self.numbers = itertools.count(1)
        self.box: NodeRuntime
        self.far: NodeRuntime
        self.laptop: NodeRuntime
        self.root: KeyPair

    @property
    def secrets(self) -> list[str]:
        """What no log may show."""
        kept = self.box.trust.membership
        secrets = [kept.secret, kept.record_key, self.root.seed]
        return [one.hex() for one in secrets] + [PASSWORD, self.laptop.client.token]

    async def node(self) -> HyperDHT:
        """Somebody's node of the DHT."""
        dht = HyperDHT(system_env(), bootstrap=[self.bootstrap], host="127.0.0.1")
        await dht.start()
        return dht

    async def intruder(self, *, secret: bytes | None = None) -> Intruder:
        """Without a certificate; knows the secret unless told another one."""
        known = self.box.trust.membership.secret if secret is None else secret
        return Intruder(self, await self.node(), b"", known)

    def certificate(self, own: Identity, roles=(), *, signer=None, issuer=None, **more):
        """A certificate of this swarm for an identity, as it is or wrong."""
        now_s = int(time.time())
        keys = {one: own.purpose_key_pair(one).public_key for one in PURPOSES}
        certificate = sign_certificate(
            signer or self.root,
            peer=own.peer_key_pair.public_key,
            keys=more.get("keys", keys),
            roles=roles,
            name="somebody",
            not_before_s=now_s + more.get("starts_s", -3600),
            not_after_s=now_s + more.get("ends_s", DAY_S),
            serial=next(self.numbers).to_bytes(16, "big"),
        )
        return Chain(certificate, issuer)

    async def ask(self) -> None:
        """The legitimate user asks and is answered."""
        answer = await self.laptop.client.ask_whole("What is peerchat?")
        assert answer.text

    @asynccontextmanager
    async def unharmed(self) -> AsyncIterator[None]:
        """A member asks all the time during what is done here, and once more after."""
        done = asyncio.Event()

        async def asking() -> None:
            while True:
                await self.ask()
                if done.is_set():
                    return
                await asyncio.sleep(0.05)

        async with asyncio.TaskGroup() as group:
            group.create_task(asking())
            yield
            done.set()

    async def client(self, name: str, *, email: str = "") -> Client:
        """A member's program; registered and logged in when there is an address."""
        await self.homes.join(name)
        client = Client(self.homes.settings(name))
        await client.start()
        if email:
            await client.register(email, PASSWORD)
            await client.login(email, PASSWORD)
        return client

    def key(self, role: Role) -> PublicKey:
        """Of a role of the box."""
        return PublicKey(bytes.fromhex(self.box.role_keys()[role]))

    def forget_peers(self) -> None:
        """Everybody looks everything up anew, so that intruders are found."""
        for one in (self.box, self.far, self.laptop):
            one.swarm._found.clear()


def counted(node: NodeRuntime, reason: str) -> float:
    """How many peers the process counts as refused for it, in its metrics."""
    return _total(node, "refused_peers", reason=reason)


def refusals(node: NodeRuntime, role: Role, method: str, outcome: str) -> float:
    """How many calls of a method ended so, in the metrics of a role."""
    return _total(node, "requests", role=role, method=method, outcome=outcome)


def _total(node: NodeRuntime, name: str, **labels: str) -> float:
    return sum(
        one.registry.get_sample_value(
            f"peerchat_{name}_total", {"role": role.value, **labels}
        )
        or 0
        for role, one in node.metrics.items()
        if labels.get("role", role) == role
    )


async def until(check) -> None:
    async with asyncio.timeout(10):
        while not check():  # noqa: ASYNC110, what changes has no event
            await asyncio.sleep(0.02)


@asynccontextmanager
async def started(folder: Path) -> AsyncIterator[Town]:
    """A town with everybody in it."""
    async with AsyncExitStack() as stack:
        dht = HyperDHT.bootstrapper(system_env(), "127.0.0.1", 0)
        first = await stack.enter_async_context(dht)
        where = f"127.0.0.1:{first.address.port}"
        homes = Homes(folder, where)
        town = Town(folder, homes, where)
        town.first = first
        plenty = {"max_requests": MANY, "bcrypt_cost": 10, "slots": 4}
        await homes.create("box")
        town.root = await unlock_root(homes.swarms("box").homes, "club", "")
        town.box = await stack.enter_async_context(homes.serving("box", **plenty))
        await homes.join("far", roles=["gateway"])
        await homes.join("laptop")
        far = homes.serving("far", BEHIND, **plenty)
        town.far = await stack.enter_async_context(far)
        laptop = NodeRuntime(homes.settings("laptop"))
        town.laptop = await stack.enter_async_context(laptop)
        client = town.laptop.client
        for email in (ADMIN, USER):
            await client.register(email, PASSWORD)
        await client.login(USER, PASSWORD)
        yield town
