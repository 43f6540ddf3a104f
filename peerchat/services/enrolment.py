"""The admin's side of invites: lets in whoever has a code, and renews certificates.

Listens under the ``enrol`` key of an admin, which an invite names. A stranger may
connect: the code is what admits, and a connection does nothing but carry it. Everything
costly is behind limits, by source and overall. The joining side is `enrolment_client`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import TypeVar
from weakref import WeakKeyDictionary

import msgspec

from peerchat.api import ApiError
from peerchat.net.driver.connection import Connection
from peerchat.net.errors import DecodeError, NetError
from peerchat.net.identity import PublicKey
from peerchat.net.rpc.server import RpcServer
from peerchat.net.rpc.session import RpcSession
from peerchat.sanitize import display_line
from peerchat.trust.certificate import decode_chain_untrusted
from peerchat.trust.keys import PURPOSES, topic_of, verify_key_proof
from peerchat.trust.record import decode_body_untrusted

from .attempts import Attempts
from .certifier import ADMIN, LIFE_S, Certifier
from .dht_face import Dht
from .enrolment_messages import (
    ENROL_METHOD,
    ENROL_TOPIC,
    PEER_PROOF,
    RENEW_METHOD,
    REQUEST_BYTES_MAX,
    CertifiedReply,
    EnrolRequest,
    RenewRequest,
    refusal,
)
from .identity import Identity
from .membership import Membership, SwarmHomes
from .store import Store
from .swarm_entries import CertificateEntry, InviteEntry, InviteRefused, invite_id_of
from .swarm_register import SwarmRegister
from .tasks import Tasks

logger = logging.getLogger(__name__)

T = TypeVar("T")

CONNECTIONS_MAX = 64
"""At once; each is there for seconds, and members keep none open. Above it the oldest
of whoever has most is closed, so that idle ones shut nobody out."""

CONNECTION_S = 60.0
"""Whoever did not redeem until then comes again."""

REFUSALS_MAX = 5
"""Of one connection; whoever wants more has to shake hands again."""

ATTEMPTS_MAX = 600
ATTEMPTS_OF_SOURCE_MAX = 60
ATTEMPTS_WINDOW_S = 60.0
"""That get as far as signatures, of which each takes seven: half a second of CPU a
minute at most, and ten times what any owner invites. Codes that nobody gave out are
found so by a hash and count for nothing, so that guessing shuts nobody out."""

CODES_KEPT_S = 0.1
"""Between two looks at the store for a code that is not known yet: however many guess,
it is asked ten times a second."""

RENEW_ANNOUNCEMENT_S = 4 * 60.0
"""As for roles: `service.RENEW_S`."""


class Enrolment:
    """The listener of an admin's home for one swarm; `start` and `close`.

    What the home knows is read anew for each request, so that it need not be told of a
    rotation, a new certificate or an invite that another process made.

    Args:
        dht: started.
        homes: of this home.
        name: of the swarm.
        identity: the home's own.
        store: of this home.
        on_refused: called with the reason, to be counted.
        now_s: Unix time.
    """

    def __init__(
        self,
        dht: Dht,
        homes: SwarmHomes,
        name: str,
        identity: Identity,
        store: Store,
        *,
        on_refused: Callable[[str], None] = lambda _why: None,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._dht = dht
        self._homes = homes
        self._name = name
        self._identity = identity
        self._now_s = now_s
        self._root = homes.load(name).root
        self._register = SwarmRegister(store, self._root, now_s=now_s)
        self._key_pair = identity.in_swarm(self._root).purpose_key_pair("enrol")
        self._on_refused = on_refused
        self._attempts = Attempts(
            ATTEMPTS_OF_SOURCE_MAX, ATTEMPTS_MAX, ATTEMPTS_WINDOW_S
        )
        self._codes: frozenset[str] = frozenset()
        self._codes_s = float("-inf")
        self._codes_lock = asyncio.Lock()
        self._refusals: WeakKeyDictionary[RpcSession, int] = WeakKeyDictionary()
        self._sources: dict[Connection, str] = {}
        """Open connections and where from, the oldest first."""
        self._tasks = Tasks()
        self.refused: Counter[str] = Counter()
        """By reason, since the start."""
        self._server = RpcServer(
            dht, on_connection=self._connected, value_bytes_max=REQUEST_BYTES_MAX
        )
        self._server.respond(ENROL_METHOD, self._enrol)
        self._server.respond(RENEW_METHOD, self._renew)

    @property
    def public_key(self) -> PublicKey:
        """What invites of this home name."""
        return self._key_pair.public_key

    async def start(self) -> None:
        """Listen; returns once the holder of an invite can connect.

        Raises:
            NetError: it cannot be announced.
        """
        await self._server.listen(self._key_pair)
        self._tasks.start(self._announce())

    async def close(self) -> None:
        """Stop listening, and cut off who is connected; idempotent."""
        await self._tasks.close()
        await self._server.close()

    async def _announce(self) -> None:
        """Be found by members whose own admin is gone."""
        topic = None
        try:
            while True:
                topic = topic_of(self._homes.load(self._name).secret, ENROL_TOPIC)
                with suppress(NetError):
                    await self._dht.announce(topic, self._key_pair)
                await asyncio.sleep(RENEW_ANNOUNCEMENT_S)
        finally:
            if topic is not None:
                with suppress(NetError, TimeoutError):
                    async with asyncio.timeout(1):
                        await self._dht.unannounce(topic, self._key_pair)

    def _connected(self, connection: Connection) -> None:
        if len(self._sources) >= CONNECTIONS_MAX:
            self._make_room()
        self._sources[connection] = _source_of(connection)
        loop = asyncio.get_running_loop()
        timer = loop.call_later(CONNECTION_S, connection.destroy)

        def closed() -> None:
            timer.cancel()
            self._sources.pop(connection, None)

        connection.add_close_callback(closed)

    def _make_room(self) -> None:
        """Close the oldest connection of the source that has the most."""
        ((busiest, _),) = Counter(self._sources.values()).most_common(1)
        oldest = next(one for one, at in self._sources.items() if at == busiest)
        del self._sources[oldest]
        oldest.destroy()

    # The methods

    async def _enrol(self, body: bytes, session: RpcSession) -> bytes:
        return await self._answer(session, lambda: self._let_in(body, session))

    async def _renew(self, body: bytes, session: RpcSession) -> bytes:
        return await self._answer(session, lambda: self._issue_again(body, session))

    async def _answer(
        self,
        session: RpcSession,
        work: Callable[[], Awaitable[CertificateEntry]],
    ) -> bytes:
        try:
            return msgspec.json.encode(self._reply(await work()))
        except InviteRefused as refused:
            return self._refuse(session, refused.why)
        except ApiError as error:
            logger.error("%s: cannot let anybody in: %s", self._name, error.message)
            return self._refuse(session, "unavailable")

    def _refuse(self, session: RpcSession, why: str) -> bytes:
        key = session.remote_public_key.hex()
        logger.warning("%s: enrolment of %s refused: %s", self._name, key, why)
        self.refused[why] += 1
        self._on_refused(why)
        self._refusals[session] = self._refusals.get(session, 0) + 1
        if self._refusals[session] > REFUSALS_MAX:
            session.connection.destroy()
        return msgspec.json.encode(refusal(why))

    def _count_attempt(self, session: RpcSession) -> None:
        if not self._attempts.is_allowed(_source_of(session.connection)):
            raise InviteRefused("too_many")

    async def _check_code(self, code: bytes) -> None:
        """Refuse a code that was never given out, at the cost of a hash."""
        invite_id = invite_id_of(code)
        asked_s = time.monotonic()
        async with self._codes_lock:
            if invite_id not in self._codes and self._codes_s < asked_s:
                await asyncio.sleep(self._codes_s + CODES_KEPT_S - time.monotonic())
                self._codes_s = time.monotonic()
                entries = await self._register.invites()
                self._codes = frozenset(entry.invite_id for entry in entries)
        if invite_id not in self._codes:
            raise InviteRefused("unknown")

    async def _let_in(self, body: bytes, session: RpcSession) -> CertificateEntry:
        request = _decode(body, EnrolRequest)
        await self._check_code(request.code)
        self._count_attempt(session)
        peer = PublicKey(request.peer)
        keys = {name: PublicKey(key) for name, key in request.keys.items()}
        _check_proofs(request, keys, session)
        if self._is_revoked((peer, *keys.values())):
            raise InviteRefused("revoked")
        certifier = self._certifier(self._homes.load(self._name))

        def issue(invite: InviteEntry) -> CertificateEntry:
            name = invite.name or display_line(request.name, 64) or peer.hex()[:8]
            return certifier.issue(peer, keys, roles=invite.roles, name=name)

        entry = await self._register.redeem(request.code, peer, issue)
        logger.info("%s: %s joined as %s", self._name, peer.hex(), entry.name)
        return entry

    async def _issue_again(self, body: bytes, session: RpcSession) -> CertificateEntry:
        """The newest certificate; a new one for a member's that is half over."""
        peer = PublicKey(_decode(body, RenewRequest).peer)
        self._count_attempt(session)
        entry = await self._register.newest(peer)
        if entry is None:
            raise InviteRefused("unknown")
        if entry.keys.get("client") != session.remote_public_key:
            raise InviteRefused("proof")
        if self._is_revoked((peer, *entry.keys.values()), entry.serial):
            raise InviteRefused("revoked")
        is_fresh = self._now_s() < entry.not_after_s - LIFE_S / 2
        if ADMIN in entry.roles or (is_fresh and self._is_ours(entry)):
            return entry
        certifier = self._certifier(self._homes.load(self._name))
        renewed = certifier.issue(peer, entry.keys, roles=entry.roles, name=entry.name)
        await self._register.add([renewed])
        return renewed

    def _is_ours(self, entry: CertificateEntry) -> bool:
        """Whether the chain is here and leads to us, not to a device that was lost."""
        try:
            issuer = decode_chain_untrusted(entry.chain).issuer
        except DecodeError:
            return False
        own = self._identity.in_swarm(self._root).peer_key_pair.public_key
        return issuer is None or issuer.peer == own

    def _reply(self, entry: CertificateEntry) -> CertifiedReply:
        membership = self._homes.load(self._name)
        return CertifiedReply(
            chain=entry.chain,
            secret=membership.secret,
            generation=membership.generation,
            record_key=membership.record_key,
        )

    def _certifier(self, membership: Membership) -> Certifier:
        return Certifier.of_admin(membership, self._identity, now_s=self._now_s)

    def _is_revoked(self, keys: tuple[PublicKey, ...], serial: bytes = b"") -> bool:
        """Whether the record takes one back, perhaps by another machine's command."""
        record = self._homes.load_record(self._name)
        if record is None:
            return False
        try:
            body = decode_body_untrusted(record.body)
        except DecodeError:
            return False
        is_void = body.is_revoked_serial(serial)
        return is_void or any(body.is_revoked_key(key) for key in keys)


def _source_of(connection: Connection) -> str:
    """Whom an attempt is counted for."""
    address = connection.remote_address
    return address.host if address else connection.remote_public_key.hex()


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise InviteRefused("malformed") from None


def _check_proofs(
    request: EnrolRequest, keys: Mapping[str, PublicKey], session: RpcSession
) -> None:
    """Every key signed that it is this peer's, on this very connection."""
    if keys.keys() != set(PURPOSES) or len({*keys.values(), request.peer}) <= len(keys):
        raise InviteRefused("malformed")
    if keys["client"] != session.remote_public_key:
        raise InviteRefused("proof")
    peer = PublicKey(request.peer)
    challenge = session.connection.handshake_hash
    for purpose, key in (*keys.items(), (PEER_PROOF, peer)):
        proof = request.proofs.get(purpose, b"")
        if not verify_key_proof(key, peer, challenge, proof):
            raise InviteRefused("proof")
