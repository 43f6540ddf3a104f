"""Whose key signed a receipt: what a home knows of it, and what its peer shows.

In a private swarm certificates say which keys are of processors. A home has its own, an
admin's has all that it signed; any other is shown by the processor itself, to whoever
connects to it. In an open swarm nobody vouches for a key.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from peerchat.api import Role
from peerchat.net.errors import DecodeError, NetError
from peerchat.net.identity import PublicKey
from peerchat.settings import Settings
from peerchat.trust.certificate import (
    Chain,
    check_chain,
    check_key,
    decode_chain_untrusted,
)
from peerchat.trust.errors import TrustRefused
from peerchat.trust.record import RecordBody

from .certifier import own_chain
from .gate import Credentials, NotAdmitted
from .identity import load_identity
from .membership import Membership, SwarmHomes
from .private_swarms import PrivateSwarms
from .receipt_claims import Claim, Verdict
from .record_book import RecordBook

PROCESSOR = Role.PROCESSOR.value


class Meeting(Protocol):
    """What is needed of the `Swarm`."""

    async def credentials(self, key: PublicKey, role: Role) -> Credentials | None: ...


class Signers:
    """What one home knows of keys that sign receipts, in the swarm of its settings."""

    def __init__(
        self, settings: Settings, *, now_s: Callable[[], float] = time.time
    ) -> None:
        self._settings = settings
        self._now_s = now_s

    async def known(self, key: PublicKey, at_s: float) -> Claim | None:
        """Without asking anybody; None when only the network can tell.

        Args:
            key: that signed.
            at_s: when it did, by its own words.

        Raises:
            ApiError: this home is in no such swarm, or its files are damaged.
        """
        name = self._settings.swarm
        if name:
            membership = SwarmHomes(self._settings.home).load(name)
            return await self._certified(membership, key, at_s)
        if self._is_own(key):
            return _claim(Verdict.HOLDS, "this machine's own processor")
        if self._settings.is_open:
            return None
        return _claim(
            Verdict.UNCHECKED, "unknown: name the swarm with --swarm NAME, or --open"
        )

    async def met(self, swarm: Meeting, key: PublicKey) -> Claim:
        """What the processor shows now."""
        name = self._settings.swarm
        try:
            found = await swarm.credentials(key, Role.PROCESSOR)
        except NotAdmitted as error:
            return _claim(Verdict.FAILS, f"it is not of the swarm {name}: {error}")
        except NetError:
            return self.unmet("no peer is online under its key")
        if found is None:
            return self.unmet("a peer is online under its key")
        word = "certified" if found.chain else "granted"
        return _claim(Verdict.HOLDS, _named(word, name, found.name))

    def unmet(self, why: str) -> Claim:
        """Nobody showed a certificate. Where processors have some, that is no proof."""
        name = self._settings.swarm
        if not name:
            says = f"unknown: in an open swarm nobody vouches for keys ({why})"
            return _claim(Verdict.UNCHECKED, says)
        return _claim(
            Verdict.FAILS,
            f"no certificate of the swarm {name} is known for it, and {why}: try again "
            "when its processor is online, or at the home of the admin who let it in",
        )

    async def _certified(
        self, membership: Membership, key: PublicKey, at_s: float
    ) -> Claim | None:
        homes, name = SwarmHomes(self._settings.home), membership.name
        record = RecordBook(homes, name, now_s=self._now_s).body()
        for grant in record.grants_of(key, at_s):
            if grant.role == PROCESSOR:
                return _claim(Verdict.HOLDS, _named("granted", name, grant.name))
        if record.is_revoked_key(key):
            return _claim(Verdict.FAILS, f"its key is revoked in the swarm {name}")
        own = own_chain(membership)
        chains = [own]
        if "admin" in own.certificate.roles:
            swarms = PrivateSwarms(self._settings, now_s=self._now_s)
            chains += _chains(e.chain for e in await swarms.certificates(name))
        meant = [one for one in chains if one.certificate.keys.get(PROCESSOR) == key]
        return _judged(meant, membership, record, at_s)

    def _is_own(self, key: PublicKey) -> bool:
        path = self._settings.home.seed_path
        if not path.exists():
            return False
        return load_identity(path).role_key_pair(Role.PROCESSOR).public_key == key


def _judged(
    chains: Sequence[Chain], membership: Membership, record: RecordBody, at_s: float
) -> Claim | None:
    """By the certificate that was valid then, if there was one."""
    problem = ""
    for chain in chains:
        who = _named("certified", membership.name, chain.certificate.name)
        try:
            check_chain(chain, root=membership.root, now_s=at_s, revocations=record)
            check_key(chain, chain.certificate.keys[PROCESSOR], PROCESSOR)
        except TrustRefused as error:
            problem = problem or f"{who}, but: {error.message}"
        else:
            return _claim(Verdict.HOLDS, who)
    return _claim(Verdict.FAILS, problem) if problem else None


def _chains(encoded: Iterator[bytes]) -> Iterator[Chain]:
    """Those that there are: a backup brings certificates back without theirs."""
    for data in filter(None, encoded):
        try:
            yield decode_chain_untrusted(data)
        except DecodeError:
            continue


def _named(word: str, swarm: str, name: str) -> str:
    return f"{word} as a processor of the swarm {swarm}: {name or 'without a name'}"


def _claim(verdict: Verdict, says: str) -> Claim:
    return Claim("signer", verdict, says)
