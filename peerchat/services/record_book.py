"""The swarm record in the hands of its owner: new versions are written here.

How any member reads it and keeps it alive is in `swarm_record`.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable

from peerchat.api import ApiError, ErrorCode
from peerchat.net.crypto.primitives import KeyPair
from peerchat.net.errors import DecodeError, LocalProtocolError
from peerchat.net.hyperdht.mutable import sign_mutable
from peerchat.trust.blob import split
from peerchat.trust.keys import fingerprint_of
from peerchat.trust.record import RecordBody, decode_body_untrusted, encode_body

from .dht_face import Dht
from .membership import Membership, StoredRecord, SwarmHomes
from .swarm_record import ChunksMissing, RecordSource

logger = logging.getLogger(__name__)


class RecordBook:
    """The record of one swarm as this home has it."""

    def __init__(
        self,
        homes: SwarmHomes,
        name: str,
        *,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._homes = homes
        self._name = name
        self._now_s = now_s

    def body(self) -> RecordBody:
        """The newest version that is kept; an empty one of a swarm that has none."""
        record = self._homes.load_record(self._name)
        membership = self._homes.load(self._name)
        if record is not None:
            try:
                return decode_body_untrusted(record.body)
            except DecodeError:
                logger.warning("the record of %s is damaged: left out", self._name)
        return empty_body(membership.name, membership, self._now_s())

    def sign(self, root: KeyPair, body: RecordBody) -> StoredRecord:
        """A version after all others; nothing is kept or published yet.

        Raises:
            ApiError: the record would be too long.
        """
        membership = self._homes.load(self._name)
        kept = self._homes.load_record(self._name)
        newest = max(membership.record_seq, kept.seq if kept else 0)
        now_s = int(self._now_s())
        # The clock makes it later than versions that this home has not heard of.
        seq = max(newest + 1, now_s)
        body = dataclasses.replace(body, issued_s=now_s)
        return signed(root, body, membership.record_key, seq)

    def keep(self, record: StoredRecord) -> None:
        """Use a version from now on, unless a newer one is kept already."""
        self._homes.save_record(self._name, record)
        self._homes.update(
            self._name,
            lambda one: dataclasses.replace(
                one, record_seq=max(one.record_seq, record.seq)
            ),
        )

    async def refresh(self, dht: Dht) -> None:
        """Keep what the DHT has, if it is newer: another home of the owner wrote it.

        Raises:
            NetError: no DHT node answers.
            ApiError: there is a newer one, and it cannot be read.
        """
        kept = self._homes.load_record(self._name)
        source = self._source(dht)
        head = await source.newest_head()
        if head is None or head.seq <= (kept.seq if kept else 0):
            return
        try:
            record = await source.fetch(head)
            source.read_untrusted(record)
        except (ChunksMissing, DecodeError) as error:
            raise ApiError(
                ErrorCode.DHT_UNREACHABLE,
                "The newest swarm record cannot be read now, and what it says would be "
                "lost: try again while more members are online.",
                status=503,
            ) from error
        self.keep(record)

    async def publish(self, dht: Dht, record: StoredRecord) -> None:
        """Put a version into the DHT, and keep it once that took it.

        Raises:
            NetError: nobody stored it; nothing has changed.
        """
        await self._source(dht).put(record)
        self.keep(record)

    def _source(self, dht: Dht) -> RecordSource:
        membership = self._homes.load(self._name)
        return RecordSource(dht, membership.root, membership.record_key)


def empty_body(name: str, membership: Membership, now_s: float) -> RecordBody:
    """The first record of a swarm."""
    return RecordBody(
        name=name,
        generation=membership.generation,
        fingerprint=fingerprint_of(membership.secret),
        issued_s=int(now_s),
    )


def signed(
    root: KeyPair, body: RecordBody, record_key: bytes, seq: int
) -> StoredRecord:
    """A version of the record; equal arguments give equal bytes.

    Raises:
        ApiError: the record would be too long.
    """
    try:
        data = encode_body(body)
    except LocalProtocolError as error:
        raise ApiError(ErrorCode.INVALID_REQUEST, str(error), status=413) from None
    record = sign_mutable(root, split(data, record_key).head, seq)
    return StoredRecord(seq, record.value, record.signature, data)
