"""`Trust`: what a running member of a private swarm knows, and whom it admits.

What is known comes from `swarm_follower`; here is whom that admits. Connections that
were admitted before are looked at again whenever the swarm record was read.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from peerchat.api import Role
from peerchat.net.crypto.primitives import SECRETBOX_NONCE_BYTES
from peerchat.net.driver.connection import Connection
from peerchat.net.errors import DecodeError
from peerchat.net.identity import PublicKey, Target
from peerchat.settings import SWARM_REFRESH_S
from peerchat.trust.certificate import (
    Chain,
    check_chain,
    check_key,
    check_still_holds,
    decode_chain_untrusted,
)
from peerchat.trust.errors import RefusalReason, TrustRefused
from peerchat.trust.hello import open_hello_untrusted, seal_hello
from peerchat.trust.keys import capability_of, topic_of
from peerchat.trust.record import RecordBody

from .dht_face import Dht
from .gate import Credentials, Gate
from .identity import Identity
from .membership import Membership, SwarmHomes
from .swarm_follower import SwarmFollower

logger = logging.getLogger(__name__)

REFRESH_GAP_S = 5.0
"""Between two looks at the record when peers fail checks: a stranger who knocks makes
this peer ask the DHT no more often."""

LOG_GAP_S = 1.0

ROLLBACK = "rollback"
"""Counted like a reason to refuse a peer: somebody shows an older record."""


class Trust:
    """One swarm of this home, alive; made once in a process.

    Args:
        dht: started.
        homes: the home's swarms.
        name: which of them.
        identity: of the home; what is used is derived for this swarm.
        refresh_s: how long a revoked peer goes on at most.
        now_s: Unix time.

    Raises:
        ApiError: the home is in no such swarm, or its files are damaged.
    """

    def __init__(
        self,
        dht: Dht,
        homes: SwarmHomes,
        name: str,
        identity: Identity,
        *,
        refresh_s: float = SWARM_REFRESH_S,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self.refusals: Counter[str] = Counter()
        """By reason."""
        self.on_refused: Callable[[Role | None, str], None] | None = None
        """Called with the role that refused (None: as a client) and the reason."""
        self._follower = SwarmFollower(
            dht, homes, name, identity, lambda: self._count(None, ROLLBACK)
        )
        self._refresh_s = refresh_s
        self._now_s = now_s
        self._gates: set[Gate] = set()
        self._logged_s: dict[RefusalReason, float] = {}
        self._listeners: list[Callable[[], None]] = []
        self._refreshing = asyncio.Lock()
        self._is_wanted = asyncio.Event()
        self._refreshed_s = float("-inf")

    # What this peer is

    @property
    def identity(self) -> Identity:
        """This peer in this swarm."""
        return self._follower.identity

    @property
    def membership(self) -> Membership:
        """What the home keeps of the swarm, now."""
        return self._follower.membership

    @property
    def record(self) -> RecordBody:
        """What the swarm's root says, now."""
        return self._follower.record

    @property
    def chain(self) -> Chain | None:
        """This peer's certificate."""
        return self._follower.chain

    @property
    def roles(self) -> frozenset[str]:
        """What this peer's certificate grants."""
        return self.chain.certificate.roles if self.chain else frozenset()

    @property
    def is_admin(self) -> bool:
        """Whether this peer certifies others."""
        return "admin" in self.roles

    @property
    def problem(self) -> str:
        """Why this peer is not admitted by others, in one line; empty when it is."""
        name = self.membership.name
        if self.chain is None:
            return f"This home has no usable certificate of {name}: join it again."
        try:
            check_still_holds(self.chain, now_s=self._now_s(), revocations=self.record)
        except TrustRefused as error:
            match error.reason:
                case RefusalReason.REVOKED:
                    return f"This home was removed from the swarm {name}."
                case RefusalReason.EXPIRED:
                    return (
                        f"This home's certificate of the swarm {name} has expired: ask "
                        "for a new invite."
                    )
                case _:
                    return f"This home's certificate of {name}: {error.message}"
        return ""

    def topic(self, role: Role) -> Target:
        """Where a role is announced now."""
        return topic_of(self.membership.secret, role.value)

    def capability(self) -> bytes:
        """What both ends of an RPC connection prove to know."""
        return capability_of(self.membership.secret)

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call whenever secret, certificate or record changed."""
        self._listeners.append(listener)

    # Whom it admits

    def hello(self, connection: Connection) -> bytes:
        """What to say first on a connection."""
        return seal_hello(
            self.membership.secret,
            connection.handshake_hash,
            is_initiator=connection.is_initiator,
            chain=self.membership.chain,
            nonce=os.urandom(SECRETBOX_NONCE_BYTES),
        )

    def admit(self, connection: Connection, hello: bytes | None) -> Credentials:
        """Who the peer is, by what it said; None: it does not speak this protocol.

        Raises:
            TrustRefused: nobody who may be in the swarm.
        """
        key = connection.remote_public_key
        if hello is None:
            return self._granted(key)
        try:
            data = open_hello_untrusted(
                self.membership.secret,
                connection.handshake_hash,
                is_initiator=not connection.is_initiator,
                data=hello,
            )
            if not data:
                return self._granted(key)
            chain = decode_chain_untrusted(data)
        except DecodeError as error:
            raise TrustRefused(RefusalReason.BAD_SIGNATURE) from error
        return self._certified(chain, key)

    def check_again(self, credentials: Credentials) -> None:
        """Raise `TrustRefused` if what a peer was admitted by holds no longer."""
        if credentials.chain is None:
            if self._granted(credentials.key).roles != credentials.roles:
                raise TrustRefused(RefusalReason.WRONG_ROLE)
            return
        check_still_holds(
            credentials.chain, now_s=self._now_s(), revocations=self.record
        )

    def is_revoked_key(self, key: PublicKey) -> bool:
        """Whether a peer is to be refused before it is shaken hands with."""
        return self.record.is_revoked_key(key)

    def note_refusal(
        self, key: PublicKey, error: TrustRefused, role: Role | None
    ) -> None:
        """Count and log a peer that was not admitted, and see whether we are behind."""
        self.refresh_soon()
        self._log_refusal(key, error)
        self._count(role, error.reason.value)

    def add_gate(self, gate: Gate) -> None:
        """Look at this connection again whenever something changed."""
        self._gates.add(gate)

    def remove_gate(self, gate: Gate) -> None:
        """The connection is gone."""
        self._gates.discard(gate)

    def check_chain(self, chain: Chain, key: PublicKey, purpose: str) -> None:
        """Whether a certificate shown elsewhere, as in a token, holds for a key.

        Raises:
            TrustRefused: why it does not.
        """
        self._check(chain)
        check_key(chain, key, purpose)

    def _certified(self, chain: Chain, key: PublicKey) -> Credentials:
        self._check(chain)
        certificate = chain.certificate
        purpose = certificate.purpose_of(key)
        if purpose is None:
            raise TrustRefused(RefusalReason.WRONG_KEY)
        check_key(chain, key, purpose)
        return Credentials(
            key, certificate.peer, certificate.name, certificate.roles, purpose, chain
        )

    def _granted(self, key: PublicKey) -> Credentials:
        if self.record.is_revoked_key(key):
            raise TrustRefused(RefusalReason.REVOKED)
        grants = self.record.grants_of(key, self._now_s())
        if not grants:
            raise TrustRefused(RefusalReason.NO_CERTIFICATE)
        roles = frozenset(grant.role for grant in grants)
        return Credentials(key, key, grants[0].name, roles)

    def _check(self, chain: Chain) -> None:
        check_chain(
            chain,
            root=self.membership.root,
            now_s=self._now_s(),
            revocations=self.record,
        )

    def _log_refusal(self, key: PublicKey, error: TrustRefused) -> None:
        """At most a line a second and reason: who knocks must not fill the log."""
        now_s = time.monotonic()
        last_s = self._logged_s.get(error.reason, float("-inf"))
        level = logging.INFO if now_s - last_s >= LOG_GAP_S else logging.DEBUG
        if level == logging.INFO:
            self._logged_s[error.reason] = now_s
        logger.log(level, "refused %s…: %s", key.hex()[:16], error.message)

    def _count(self, role: Role | None, reason: str) -> None:
        self.refusals[reason] += 1
        if self.on_refused is not None:
            self.on_refused(role, reason)

    # Keeping up

    async def run(self) -> None:
        """Follow the record until cancelled."""
        loop = asyncio.get_running_loop()
        gap_s = min(REFRESH_GAP_S, self._refresh_s)
        while True:
            wait_s = self._refresh_s * random.uniform(0.8, 1.0)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._is_wanted.wait()
            await asyncio.sleep(self._refreshed_s + gap_s - loop.time())
            await self.refresh()

    def refresh_soon(self) -> None:
        """Have `run` look at the record before its time."""
        self._is_wanted.set()

    async def refresh(self, *, if_older_s: float = 0.0) -> bool:
        """Read the record, and follow what it says; never raises for the network.

        Args:
            if_older_s: only when the last look was so long ago.

        Returns:
            Whether anything changed.
        """
        async with self._refreshing:
            now_s = asyncio.get_running_loop().time()
            if now_s - self._refreshed_s < if_older_s:
                return False
            self._refreshed_s = now_s
            self._is_wanted.clear()
            has_changed = await self._follower.refresh()
            if has_changed:
                self._tell()
            self._check_gates()
            return has_changed

    def _tell(self) -> None:
        for listener in list(self._listeners):
            listener()

    def _check_gates(self) -> None:
        for gate in list(self._gates):
            gate.check_again()
