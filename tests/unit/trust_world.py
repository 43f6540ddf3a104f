"""A private swarm on a network in memory: a root key, homes, and what they run."""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Self

from peerchat.api import Finished, Fragment, PromptRequest, Role, Usage
from peerchat.net.crypto.primitives import KeyPair
from peerchat.net.identity import PublicKey
from peerchat.services.identity import Identity
from peerchat.services.membership import Membership, StoredRecord, SwarmHomes
from peerchat.services.swarm import Swarm
from peerchat.services.trust import Trust
from peerchat.settings import Home
from peerchat.testing.memory_network import MemoryDht, MemoryNetwork
from peerchat.trust.blob import split
from peerchat.trust.certificate import Chain, encode_chain, sign_certificate
from peerchat.trust.keys import PURPOSES, fingerprint_of, seal_to
from peerchat.trust.record import Grant, RecordBody, encode_body

NAME = "home"
DAY_S = 24 * 3600
SERVING = ("auth", "gateway", "processor")


def home_at(folder: Path) -> Home:
    return Home(folder, folder / "data", folder / "state", folder / "logs")


class Member:
    """One home in the swarm and its running node."""

    def __init__(self, world: PrivateWorld, dht, identity: Identity, homes) -> None:
        self.world = world
        self.dht = dht
        self.identity = identity
        self.homes = homes
        self.trust = Trust(dht, homes, NAME, identity, refresh_s=world.refresh_s)
        self.own = self.trust.identity
        self.swarm = Swarm(dht, self.own, trust=self.trust)
        self.served: list[str] = []
        self.stopped = asyncio.Event()

    @property
    def peer(self) -> PublicKey:
        return self.own.peer_key_pair.public_key

    @property
    def serial(self) -> bytes:
        return self.trust.chain.certificate.serial

    def key(self, role: Role) -> PublicKey:
        return self.own.role_key_pair(role).public_key

    def all_keys(self) -> list[PublicKey]:
        return [
            self.peer,
            *(self.own.purpose_key_pair(one).public_key for one in PURPOSES),
        ]

    async def serve(self, role: Role, *, is_endless: bool = False):
        async def ping(_body: bytes, _peer: str) -> object:
            return {"status": "healthy", "service": role.value}

        async def work(body: bytes, _peer: str) -> object:
            self.served.append(body.decode())
            return {"done": True}

        async def answer(request, _caller):
            self.served.append(request.prompt)
            try:
                for word in request.prompt.split():
                    yield Fragment(word + " ")
                while is_endless:
                    yield Fragment("more ")
                    await asyncio.sleep(0.01)
                yield Finished(Usage("m", "", "stop", 0.1))
            finally:
                self.stopped.set()

        return await self.swarm.serve(role, {"ping": ping, "work": work}, answer)

    def run(self) -> None:
        """Follow the record."""
        self.world.spawn(self.trust.run())


class PrivateWorld:
    """A root key and its members; ``async with``."""

    def __init__(self, folder: Path, network: MemoryNetwork | None = None) -> None:
        self.folder = folder
        self.network = network or MemoryNetwork()
        self.root = KeyPair.from_seed(b"root" * 8)
        self.secret = b"s" * 32
        self.record_key = b"k" * 32
        self.refresh_s = 0.2
        self.body = RecordBody(NAME, 0, fingerprint_of(self.secret), int(time.time()))
        self.seq = 0
        self._numbers = itertools.count(1)
        self._resources = AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._resources.aclose()
        for result in results:
            if isinstance(result, Exception):
                raise result

    def spawn(self, work) -> None:
        self._tasks.append(asyncio.create_task(work))

    def dht(self) -> MemoryDht:
        return self.network.node()

    def certificate(
        self,
        identity: Identity,
        roles=(),
        *,
        issuer: Chain | None = None,
        signer: KeyPair | None = None,
        starts_s: float = -60,
        ends_s: float = DAY_S,
        keys: dict[str, PublicKey] | None = None,
    ) -> Chain:
        """A certificate for an identity in this swarm."""
        now_s = int(time.time())
        own = {one: identity.purpose_key_pair(one).public_key for one in PURPOSES}
        certificate = sign_certificate(
            signer or self.root,
            peer=identity.peer_key_pair.public_key,
            keys=own if keys is None else keys,
            roles=roles,
            name="somebody",
            not_before_s=now_s + int(starts_s),
            not_after_s=now_s + int(ends_s),
            serial=next(self._numbers).to_bytes(16, "big"),
        )
        return Chain(certificate, issuer.certificate if issuer else None)

    def member(self, roles=(), chain: bytes | None = None, dht=None, **more) -> Member:
        """A new home; ``chain`` replaces the certificate that it would have."""
        number = next(self._numbers)
        identity = Identity(number.to_bytes(32, "big"))
        own = identity.in_swarm(self.root.public_key)
        if chain is None:
            chain = encode_chain(self.certificate(own, roles, **more))
        homes = SwarmHomes(home_at(self.folder / f"home{number}"))
        homes.save(
            Membership(
                name=NAME,
                root=self.root.public_key,
                secret=self.secret,
                generation=self.body.generation,
                record_key=self.record_key,
                chain=chain,
            )
        )
        member = Member(self, dht or self.dht(), identity, homes)
        self._resources.push_async_callback(member.swarm.close)
        return member

    # The record

    async def publish(self, dht=None, **changes) -> StoredRecord:
        """A new version of the record, put by its owner."""
        dht = dht or self.dht()
        self.body = replace(self.body, **changes)
        self.seq += 1
        data = encode_body(self.body)
        parts = split(data, self.record_key)
        for chunk in parts.chunks:
            await dht.immutable_put(chunk)
        put = await dht.mutable_put(self.root, parts.head, self.seq)
        return StoredRecord(self.seq, parts.head, put.signature, data)

    async def revoke(self, *members: Member, dht=None) -> None:
        keys = {key for member in members for key in member.all_keys()}
        await self.publish(
            dht,
            revoked_serials=self.body.revoked_serials | {m.serial for m in members},
            revoked_keys=self.body.revoked_keys | keys,
        )

    async def rotate(self, *remaining: Member, dht=None) -> None:
        self.secret = bytes([self.body.generation + 1]) * 32
        await self.publish(
            dht,
            generation=self.body.generation + 1,
            fingerprint=fingerprint_of(self.secret),
            sealed_secrets={
                member.peer: seal_to(member.peer, self.secret, bytes([n]) * 32)
                for n, member in enumerate(remaining)
            },
        )

    async def grant(self, key: PublicKey, role: str, ends_s: float = DAY_S) -> None:
        ends = int(time.time() + ends_s)
        grants = (*self.body.grants, Grant(key, role, "worker", ends))
        await self.publish(grants=grants)


def prompt(text: str = "hello there") -> PromptRequest:
    return PromptRequest(text, "r1")


async def read(answer) -> str:
    text = ""
    async for event in answer:
        if isinstance(event, Fragment):
            text += event.text
    return text
