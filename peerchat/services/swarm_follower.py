"""What this home knows of a private swarm, kept up to date while a process runs.

Secret, certificate and record are those of the home's files, which other processes of
the home change as well; the newest record comes from the DHT. Whom that admits is
`services.trust`'s to say.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import replace

from peerchat.api import ApiError
from peerchat.net.errors import DecodeError, NetError
from peerchat.net.hyperdht.mutable import MutableRecord
from peerchat.trust.certificate import Chain, decode_chain_untrusted
from peerchat.trust.record import RecordBody

from .dht_face import Dht
from .identity import Identity
from .membership import Membership, StoredRecord, SwarmHomes
from .swarm_record import ChunksMissing, RecordSource

logger = logging.getLogger(__name__)

REFRESH_TIMEOUT_S = 60.0

REPUT_S = 6 * 3600.0
"""Nodes forget records after about two days; every member that runs puts the record
again, so that it outlives its owner's holidays."""

_NOTHING = RecordBody("", 0, bytes(16), 0)
"""What holds before the first record was seen: nobody is revoked."""


class SwarmFollower:
    """Secret, certificate and record of one swarm, as new as can be.

    Args:
        dht: started.
        homes: the home's swarms.
        name: which of them.
        identity: of the home; what is used is derived for this swarm.
        on_rollback: called when the DHT shows an older record than it did before.

    Raises:
        ApiError: the home is in no such swarm, or its files are damaged.
    """

    def __init__(
        self,
        dht: Dht,
        homes: SwarmHomes,
        name: str,
        identity: Identity,
        on_rollback: Callable[[], None] = lambda: None,
    ) -> None:
        self.membership = homes.load(name)
        self.name = self.membership.name
        self.root = self.membership.root
        self.identity = identity.in_swarm(self.root)
        self.record: RecordBody = _NOTHING
        self.chain: Chain | None = _chain_of(self.membership)
        """This peer's certificate; None when the file's is damaged."""
        self._homes = homes
        self._on_rollback = on_rollback
        self._source = RecordSource(dht, self.root, self.membership.record_key)
        self._kept: StoredRecord | None = None
        self._put_s = float("-inf")
        self._read_kept_record()

    async def refresh(self) -> bool:
        """Read record and files again; never raises for the network.

        Returns:
            Whether anything changed.
        """
        before = self.membership, self.record
        try:
            async with asyncio.timeout(REFRESH_TIMEOUT_S):
                await self._follow_dht()
        except (NetError, ChunksMissing, TimeoutError) as error:
            logger.warning("the swarm record could not be read: %s", error)
        self._follow_disk()
        return (self.membership, self.record) != before

    async def _follow_dht(self) -> None:
        head = await self._source.newest_head()
        seen_seq = self.membership.record_seq
        if head is None or head.seq < seen_seq:
            if head is not None:
                logger.warning(
                    "the DHT shows record %d of this swarm, which is older than %d: "
                    "refused, and put again",
                    head.seq,
                    seen_seq,
                )
                self._on_rollback()
            await self._put_again()
        elif self._kept is None or head.seq > self._kept.seq:
            await self._take(head)
        elif _loop_s() - self._put_s > REPUT_S:
            await self._put_again()

    async def _take(self, head: MutableRecord) -> None:
        try:
            record = await self._source.fetch(head)
            body = self._source.read_untrusted(record)
        except DecodeError as error:
            logger.error("record %d of this swarm cannot be read: %s", head.seq, error)
            return
        self._put_s = _loop_s()
        self._homes.save_record(self.name, record)
        self._use(record, body)

    def _use(self, record: StoredRecord, body: RecordBody) -> None:
        self._kept, self.record = record, body
        membership = replace(
            self.membership,
            record_seq=max(record.seq, self.membership.record_seq),
        )
        if body.generation > membership.generation:
            membership = self._rotated(membership, body)
        self._keep(membership)

    def _rotated(self, membership: Membership, body: RecordBody) -> Membership:
        """Take the new secret, if the owner sealed it to this peer."""
        try:
            secret = body.open_secret(self.identity.peer_key_pair)
        except DecodeError as error:
            logger.error("the swarm's new secret cannot be read: %s", error)
            return membership
        if secret is None:
            logger.warning("the swarm has a new secret, and this home was left out")
            return membership
        logger.info("the swarm has a new secret (generation %d)", body.generation)
        return replace(membership, secret=secret, generation=body.generation)

    def _keep(self, membership: Membership) -> None:
        """On disk, where another process of this home may have been faster."""
        if membership == self.membership:
            return

        def change(kept: Membership) -> Membership:
            newer = membership if membership.generation > kept.generation else kept
            return replace(
                kept,
                secret=newer.secret,
                generation=newer.generation,
                record_seq=max(kept.record_seq, membership.record_seq),
            )

        self._set(self._homes.update(self.name, change))

    def _follow_disk(self) -> None:
        """Another process of this home may have renewed, rotated or revoked."""
        try:
            membership = self._homes.load(self.name)
        except ApiError as error:
            logger.warning("%s", error.message)
            return
        if membership.root != self.root:
            return  # it was left, and the name is another swarm's now
        self._set(membership)
        if self._kept is None or membership.record_seq > self._kept.seq:
            self._read_kept_record()

    async def _put_again(self) -> None:
        kept = self._kept
        if kept is None or kept.seq < self.membership.record_seq:
            return
        try:
            await self._source.put(kept)
        except NetError as error:
            logger.info("the swarm record could not be put again: %s", error)
        else:
            self._put_s = _loop_s() + random.uniform(0, REPUT_S)

    def _read_kept_record(self) -> None:
        record = self._homes.load_record(self.name)
        if record is None or (self._kept and record.seq <= self._kept.seq):
            return
        try:
            body = self._source.read_untrusted(record)
        except DecodeError as error:
            logger.warning("the kept swarm record is of no use: %s", error)
            return
        self._use(record, body)

    def _set(self, membership: Membership) -> None:
        if membership.chain != self.membership.chain:
            self.chain = _chain_of(membership)
        self.membership = membership


def _chain_of(membership: Membership) -> Chain | None:
    try:
        return decode_chain_untrusted(membership.chain)
    except DecodeError:
        return None


def _loop_s() -> float:
    return asyncio.get_running_loop().time()
