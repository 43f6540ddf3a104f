"""The swarm record in the DHT and in the home: read, written, published.

The body goes into immutable values, and the root key signs the head of it as a mutable
one. Any member can put both again; only the owner can write a new version.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from peerchat.api import ApiError, ErrorCode
from peerchat.net.crypto.primitives import KeyPair
from peerchat.net.errors import DecodeError, LocalProtocolError
from peerchat.net.hyperdht.mutable import MutableRecord, sign_mutable
from peerchat.net.identity import PublicKey
from peerchat.trust.blob import Joiner, split
from peerchat.trust.keys import fingerprint_of
from peerchat.trust.record import RecordBody, decode_body_untrusted, encode_body

from .dht_face import Dht
from .membership import Membership, StoredRecord, SwarmHomes

logger = logging.getLogger(__name__)

T = TypeVar("T")

CHUNKS_AT_ONCE = 8
"""Queries of the DHT at a time; each asks some twenty nodes."""


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
        """
        membership = self._homes.load(self._name)
        kept = self._homes.load_record(self._name)
        found = await fetch(dht, membership, after_seq=kept.seq if kept else 0)
        if found is not None:
            self.keep(found)


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


async def publish(
    dht: Dht, root: PublicKey, record_key: bytes, record: StoredRecord
) -> None:
    """Put a version into the DHT, parts first: whoever sees its head can read it.

    Raises:
        NetError: nobody stored it.
    """
    parts = split(record.body, record_key)
    await _at_once(dht.immutable_put(chunk) for chunk in parts.chunks)
    signed_head = MutableRecord(record.seq, record.value, record.signature)
    await dht.mutable_put_signed(root, signed_head)


async def fetch(
    dht: Dht, membership: Membership, *, after_seq: int = 0
) -> StoredRecord | None:
    """The newest version in the DHT; None when it has none after ``after_seq``.

    Raises:
        NetError: no DHT node answers.
    """
    found = await dht.mutable_get(membership.root, after_seq + 1)
    if found is None or found.seq <= after_seq:
        return None
    try:
        joiner = Joiner(found.value, membership.record_key)
        while wanted := joiner.wanted:
            chunks = await _at_once(dht.immutable_get(target) for target in wanted)
            if any(chunk is None for chunk in chunks):
                logger.warning("parts of the record of %s are lost", membership.name)
                return None
            for chunk in chunks:
                joiner.feed_untrusted(chunk or b"")
        body = joiner.body_untrusted()
        decode_body_untrusted(body)
    except DecodeError as error:
        logger.warning("the record of %s cannot be read: %s", membership.name, error)
        return None
    return StoredRecord(found.seq, found.value, found.signature, body)


async def _at_once(calls: Iterable[Awaitable[T]]) -> Sequence[T]:
    limit = asyncio.Semaphore(CHUNKS_AT_ONCE)

    async def one(call: Awaitable[T]) -> T:
        async with limit:
            return await call

    return await asyncio.gather(*(one(call) for call in calls))
