"""What a persistent node keeps for others: announcements, by topic and by key.

Answers LOOKUP, FIND_PEER, ANNOUNCE and UNANNOUNCE. A peer that announces the hash of
its own key makes this node its relay; any other topic gets a record.
Source: hyperdht/lib/persistent.js; docs/PROTOCOL.md section 5.3.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from peerchat.net.crypto.primitives import blake2b_256, hash_target
from peerchat.net.dht.request import IncomingRequest
from peerchat.net.env import Env
from peerchat.net.errors import DecodeError
from peerchat.net.identity import NodeId, PublicKey, Target

from .cache import ExpiringCache, RecordCache
from .constants import PEERS_MAX, RELAY_ADDRESSES_MAX
from .limits import SIGNED_BURST, SIGNED_PER_S, RateLimiter
from .messages import (
    Announce,
    PeerRecord,
    decode_announce_untrusted,
    encode_lookup_reply,
)
from .router import Forward, Router
from .signatures import is_signed

BUMP_DRIFT_MAX_MS = 60_000
"""How far ahead of our clock a bump may be: clocks differ, but not by more."""


@dataclass(frozen=True, slots=True)
class _Refreshable:
    """What showing a secret renews."""

    target: Target
    public_key: PublicKey
    record: bytes
    is_own_key: bool


@dataclass(slots=True)
class PersistentCounters:
    """What the stores did so far."""

    lookups: int = 0
    finds: int = 0
    announces: int = 0
    unannounces: int = 0
    refused: int = 0
    """Announcements without a valid signature or that do not parse."""


class Persistent:
    """The stores of one node, and the commands on them."""

    def __init__(self, env: Env, router: Router) -> None:
        self._env = env
        self._router = router
        self._records = RecordCache()
        self._bumps: ExpiringCache[Target, int] = ExpiringCache()
        self._refreshes: ExpiringCache[bytes, _Refreshable] = ExpiringCache()
        self._signed = RateLimiter(SIGNED_PER_S, SIGNED_BURST)
        self.counters = PersistentCounters()

    @property
    def record_count(self) -> int:
        return len(self._records)

    def receive_lookup(self, request: IncomingRequest) -> None:
        if request.target is None:
            return
        self.counters.lookups += 1
        now = self._env.clock.now()
        records = self._records.sample(request.target, PEERS_MAX, now, self._env.random)
        own = self._router.record_of(request.target)
        if own is not None and len(records) < PEERS_MAX:
            records.append(own)
        bump = self._bumps.get(request.target, now) or 0
        request.reply(encode_lookup_reply(records, bump) if records else None)

    def receive_find_peer(self, request: IncomingRequest) -> None:
        if request.target is None:
            return
        self.counters.finds += 1
        request.reply(self._router.record_of(request.target))

    def receive_announce(self, request: IncomingRequest, node: NodeId) -> None:
        """Store a record if its owner signed it for ``node``, which is us, now."""
        announce = self._parse(request) if self._may_verify(request) else None
        if announce is None or request.target is None or request.token is None:
            self.counters.refused += 1
            return
        if announce.peer is None:
            self._refresh(request, announce.refresh)
            return
        if not is_signed(request.target, request.token, node, announce):
            self.counters.refused += 1
            return
        peer = replace(
            announce.peer,
            relay_addresses=announce.peer.relay_addresses[:RELAY_ADDRESSES_MAX],
        )
        item = _Refreshable(
            request.target,
            peer.public_key,
            peer.encode(),
            hash_target(peer.public_key) == request.target,
        )
        if not item.is_own_key:
            self._bump(request.target, announce.bump)
        self._store(request, item)
        if announce.refresh is not None:
            now = self._env.clock.now()
            self._refreshes.set(announce.refresh, item, now)

    def receive_unannounce(self, request: IncomingRequest, node: NodeId) -> None:
        """Remove a record if its owner signed that."""
        announce = self._parse(request) if self._may_verify(request) else None
        if (
            announce is None
            or announce.peer is None
            or request.target is None
            or request.token is None
            or not is_signed(
                request.target, request.token, node, announce, is_removal=True
            )
        ):
            self.counters.refused += 1
            return
        self.counters.unannounces += 1
        self.remove(request.target, announce.peer.public_key)
        request.reply(None, token=False, closer_nodes=False)

    def local_records(self, target: Target) -> list[bytes]:
        """What this node itself would answer a lookup with."""
        now = self._env.clock.now()
        return self._records.sample(target, PEERS_MAX, now, self._env.random)

    def add(self, target: Target, peer: PeerRecord) -> None:
        """Store a record of this program's own, for which nobody need sign."""
        now = self._env.clock.now()
        self._records.add(target, peer.public_key, peer.encode(), now)

    def remove(self, target: Target, public_key: PublicKey) -> None:
        """Forget what ``public_key`` announced under ``target``."""
        if hash_target(public_key) == target:
            self._router.remove_forward(target)
        self._records.remove(target, public_key)

    def _may_verify(self, request: IncomingRequest) -> bool:
        """The token proves the host, so that nobody spends another's share."""
        host = request.from_address.host
        return request.token is not None and self._signed.allow(
            host, self._env.clock.now()
        )

    def _parse(self, request: IncomingRequest) -> Announce | None:
        try:
            return decode_announce_untrusted(request.value or b"")
        except DecodeError:
            return None

    def _refresh(self, request: IncomingRequest, secret: bytes | None) -> None:
        """Renew what was stored with the hash of ``secret``; it is the next hash."""
        now = self._env.clock.now()
        known_as = blake2b_256(secret) if secret else b""
        item = self._refreshes.get(known_as, now)
        if item is None or secret is None:
            self.counters.refused += 1
            return
        self._refreshes.delete(known_as)
        self._refreshes.set(secret, item, now)
        self._store(request, item)

    def _store(self, request: IncomingRequest, item: _Refreshable) -> None:
        now = self._env.clock.now()
        if item.is_own_key:
            forward = Forward(request.from_address, item.record)
            self._router.set_forward(item.target, forward)
            self._records.remove(item.target, item.public_key)
        else:
            self._records.add(item.target, item.public_key, item.record, now)
        self.counters.announces += 1
        request.reply(None, token=False, closer_nodes=False)

    def _bump(self, target: Target, bump: int) -> None:
        now = self._env.clock.now()
        limit = self._env.clock.unix_ms() + BUMP_DRIFT_MAX_MS
        if (self._bumps.get(target, now) or 0) < bump <= limit:
            self._bumps.set(target, bump, now)
