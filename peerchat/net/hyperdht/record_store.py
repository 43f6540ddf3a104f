"""What a persistent node keeps of mutable and immutable records.

Answers MUTABLE_PUT, MUTABLE_GET, IMMUTABLE_PUT and IMMUTABLE_GET. What is malformed,
not signed by its owner, or put under another target than its own gets no answer.
Source: hyperdht/lib/persistent.js; docs/PROTOCOL.md section 5.8.
"""

from __future__ import annotations

from dataclasses import dataclass

from peerchat.net.crypto.primitives import hash_target
from peerchat.net.dht.request import IncomingRequest
from peerchat.net.env import Clock
from peerchat.net.errors import DecodeError
from peerchat.net.identity import Target

from .cache import ExpiringCache
from .constants import Command, PutError
from .limits import RateLimiter
from .mutable import (
    MutablePut,
    MutableRecord,
    decode_mutable_put_untrusted,
    decode_seq_untrusted,
    put_error,
)

RECORD_STORE_SIZE_MAX = 32_768
"""Records in a generation of either store (hyperdht/index.js): at most 42 MB of them,
and 167 MB in all four generations, which takes somebody who fills them on purpose."""

RECORD_STORE_AGE_S = 48 * 3600.0
"""What nobody reads or puts again lives 32 to 64 hours (hyperdht/index.js)."""

KEPT_BYTES_MAX = 1274
"""Longest answer value that fits 1472 bytes of UDP payload behind header (10), id (32),
token (32), 20 closer nodes (121) and length (3): a longer one could be stored over
some links, and brought back over none."""


PUTS_PER_S = 200.0
PUTS_BURST = 1000.0
"""Puts from one host: checking signatures then takes 2 % of a core at most, and one
host needs minutes to drive the records of others out. The reference has no limit."""


@dataclass(slots=True)
class RecordCounters:
    """What the stores did so far."""

    puts: int = 0
    gets: int = 0
    refused: int = 0
    """Puts that are malformed, forged, too many, too long or not the newest version."""


class RecordStore:
    """The records of one node, and the commands on them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._mutables: ExpiringCache[Target, MutableRecord] = ExpiringCache(
            RECORD_STORE_SIZE_MAX, RECORD_STORE_AGE_S, is_renewed_by_reading=True
        )
        self._immutables: ExpiringCache[Target, bytes] = ExpiringCache(
            RECORD_STORE_SIZE_MAX, RECORD_STORE_AGE_S, is_renewed_by_reading=True
        )
        self._puts = RateLimiter(PUTS_PER_S, PUTS_BURST)
        self.counters = RecordCounters()

    def __len__(self) -> int:
        return len(self._mutables) + len(self._immutables)

    def receive(self, request: IncomingRequest) -> bool:
        """Deal with a request; False when its command is not one of these."""
        match request.command:
            case Command.MUTABLE_PUT:
                self._receive_mutable_put(request)
            case Command.MUTABLE_GET:
                self._receive_mutable_get(request)
            case Command.IMMUTABLE_PUT:
                self._receive_immutable_put(request)
            case Command.IMMUTABLE_GET:
                self._receive_immutable_get(request)
            case _:
                return False
        return True

    # This node's own use

    def mutable(self, target: Target) -> MutableRecord | None:
        return self._mutables.get(target, self._clock.now())

    def immutable(self, target: Target) -> bytes | None:
        return self._immutables.get(target, self._clock.now())

    def put_mutable(self, target: Target, record: MutableRecord) -> PutError | None:
        """Keep a version that its owner signed; or why not."""
        error = put_error(self.mutable(target), record)
        if error is None:
            self._mutables.set(target, record, self._clock.now())
        return error

    def put_immutable(self, target: Target, value: bytes) -> None:
        """Keep a value that hashes to the target."""
        self._immutables.set(target, value, self._clock.now())

    # Requests of others

    def _receive_mutable_put(self, request: IncomingRequest) -> None:
        put = _valid_put(request) if self._may_put(request) else None
        if put is None or request.target is None:
            self.counters.refused += 1
            return
        error = self.put_mutable(request.target, put.record)
        if error is not None:
            self.counters.refused += 1
            request.error(error)
            return
        self.counters.puts += 1
        request.reply(None)

    def _receive_mutable_get(self, request: IncomingRequest) -> None:
        if request.target is None or request.value is None:
            return
        try:
            seq_min = decode_seq_untrusted(request.value)
        except DecodeError:
            return
        self.counters.gets += 1
        record = self.mutable(request.target)
        is_wanted = record is not None and record.seq >= seq_min
        request.reply(record.encode() if record is not None and is_wanted else None)

    def _receive_immutable_put(self, request: IncomingRequest) -> None:
        value, target = request.value, request.target
        if (
            value is None
            or target is None
            or len(value) > KEPT_BYTES_MAX
            or not self._may_put(request)
            or hash_target(value) != target
        ):
            self.counters.refused += 1
            return
        self.counters.puts += 1
        self.put_immutable(target, value)
        request.reply(None)

    def _receive_immutable_get(self, request: IncomingRequest) -> None:
        if request.target is None:
            return
        self.counters.gets += 1
        request.reply(self.immutable(request.target))

    def _may_put(self, request: IncomingRequest) -> bool:
        """The token proves the host, so that nobody spends another's share."""
        host = request.from_address.host
        return request.token is not None and self._puts.allow(host, self._clock.now())


def _valid_put(request: IncomingRequest) -> MutablePut | None:
    """The put of a request if the owner of its target signed it; cheapest first."""
    if request.value is None:
        return None
    try:
        put = decode_mutable_put_untrusted(request.value)
    except DecodeError:
        return None
    if hash_target(put.public_key) != request.target:
        return None
    if len(put.record.encode()) > KEPT_BYTES_MAX:
        return None
    return put if put.record.is_signed_by(put.public_key) else None
