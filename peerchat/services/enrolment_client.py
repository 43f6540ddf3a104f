"""The joining side of invites, and how a member gets its newest certificate.

Nothing that an answer says is believed before its certificate leads to the root key
that the invite, or the home, names.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable

import msgspec

from peerchat.api import ApiError, ErrorCode
from peerchat.net.crypto.primitives import is_equal
from peerchat.net.errors import DecodeError, NetError
from peerchat.net.identity import PublicKey
from peerchat.net.rpc.client import RpcClient
from peerchat.net.rpc.session import RpcSession
from peerchat.sanitize import display_line
from peerchat.trust.certificate import (
    CLOCK_SKEW_S,
    Chain,
    Revocations,
    check_chain,
    check_still_holds,
    decode_chain_untrusted,
)
from peerchat.trust.errors import TrustRefused
from peerchat.trust.invite import Invite
from peerchat.trust.keys import PURPOSES, fingerprint_of, prove_key, topic_of
from peerchat.trust.record import RecordBody, decode_body_untrusted

from .certifier import LIFE_S, own_certificate, own_chain, public_keys
from .dht_face import Dht
from .enrolment_messages import (
    ENROL_METHOD,
    ENROL_TOPIC,
    PEER_PROOF,
    RENEW_METHOD,
    CertifiedReply,
    EnrolRequest,
    RenewRequest,
    decode_reply_untrusted,
)
from .identity import Identity
from .membership import Membership, SwarmHomes

logger = logging.getLogger(__name__)

REDEEM_TIMEOUT_S = 30.0
"""To find the admin, connect, and be answered."""
RENEW_TIMEOUT_S = 10.0
"""Of each admin that is asked."""
ADMINS_MAX = 8
"""Admins that are asked; a swarm has one or two."""

RENEW_BEFORE_S = LIFE_S / 2
"""Half a year of trying, for an admin who is rarely online."""


class _Nothing:
    """No revocations: who joins a new swarm has seen no record; its node looks soon."""

    def is_revoked_serial(self, serial: bytes) -> bool:
        return False

    def is_revoked_key(self, key: bytes) -> bool:
        return False


async def redeem(
    dht: Dht,
    invite: Invite,
    identity: Identity,
    *,
    name: str = "",
    revocations: Revocations | None = None,
    now_s: Callable[[], float] = time.time,
) -> Membership:
    """Use an invite; gives what to save.

    Args:
        dht: started, joined by the invite's bootstrap nodes.
        invite: as parsed.
        identity: the home's own.
        name: for the admin's list of members, unless the invite has one.
        revocations: of the swarm, when the home is in it already.
        now_s: Unix time.

    Raises:
        ApiError: it was refused (the message says why), or nobody answers.
    """
    if now_s() >= invite.expires_s:
        raise ApiError(
            ErrorCode.INVALID_REQUEST,
            "This invite has expired: ask for a new one.",
            status=410,
        )
    own = identity.in_swarm(invite.root)
    rpc = RpcClient(dht, key_pair=own.key_pair("client"))
    try:
        async with asyncio.timeout(REDEEM_TIMEOUT_S):
            session = await rpc.session(invite.enrol_key, hold=True)
            body = msgspec.json.encode(_enrol_request(invite, own, session, name))
            answer = await session.request(
                ENROL_METHOD, body, timeout_s=REDEEM_TIMEOUT_S
            )
            reply = _certified(answer)
    except (NetError, TimeoutError) as error:
        raise ApiError(
            ErrorCode.PEER_LOST,
            "Nobody who made this invite answers: their peerchat must be running. "
            "Try again later.",
            status=504,
        ) from error
    finally:
        await rpc.close()
    _check(reply, invite.root, own, now_s(), revocations or _Nothing())
    return Membership(
        name=invite.swarm,
        root=invite.root,
        secret=reply.secret,
        generation=reply.generation,
        record_key=reply.record_key,
        chain=reply.chain,
        enrol_key=invite.enrol_key,
        bootstrap=invite.bootstrap,
    )


async def renew(
    dht: Dht,
    homes: SwarmHomes,
    name: str,
    identity: Identity,
    *,
    now_s: Callable[[], float] = time.time,
) -> Membership:
    """Get the newest certificate from an admin, and keep it.

    Brings the secret too, when it was rotated and the record that says so is here.

    Raises:
        ApiError: no admin answers, or one refuses and says why.
    """
    membership = homes.load(name)
    own = identity.in_swarm(membership.root)
    rpc = RpcClient(dht, key_pair=own.key_pair("client"))
    body = _record_body(homes, name)
    revocations = body or _Nothing()

    def check(reply: CertifiedReply) -> None:
        chain = _check(reply, membership.root, own, now_s(), revocations)
        _check_not_older(chain, own_chain(membership), now_s(), revocations)

    try:
        reply = await _ask_admins(dht, rpc, membership, own, check)
    finally:
        await rpc.close()

    def change(kept: Membership) -> Membership:
        changed = dataclasses.replace(kept, chain=reply.chain)
        if body is not None and _is_newer(reply, kept, body):
            changed = dataclasses.replace(
                changed, secret=reply.secret, generation=reply.generation
            )
        return changed

    return homes.update(name, change)


def needs_renewal(membership: Membership, now_s: float) -> bool:
    """Whether the certificate is half over; an admin's is the owner's to renew."""
    certificate = own_certificate(membership)
    return now_s > certificate.not_after_s - RENEW_BEFORE_S


def _enrol_request(
    invite: Invite, own: Identity, session: RpcSession, name: str
) -> EnrolRequest:
    peer = own.peer_key_pair
    challenge = session.connection.handshake_hash
    pairs = {purpose: own.purpose_key_pair(purpose) for purpose in PURPOSES}
    return EnrolRequest(
        code=invite.code,
        peer=peer.public_key,
        keys={purpose: pair.public_key for purpose, pair in pairs.items()},
        proofs={
            purpose: prove_key(pair, peer.public_key, challenge)
            for purpose, pair in (*pairs.items(), (PEER_PROOF, peer))
        },
        name=display_line(name, 64),
    )


def _certified(answer: bytes | None) -> CertifiedReply:
    """The admin's yes; its no is an `ApiError`."""
    reply = decode_reply_untrusted(answer)
    if isinstance(reply, CertifiedReply):
        return reply
    codes = {403: ErrorCode.FORBIDDEN, 429: ErrorCode.RATE_LIMITED}
    code = codes.get(reply.status, ErrorCode.UNAUTHORIZED)
    raise ApiError(code, display_line(reply.message, 256), status=reply.status)


def _check(
    reply: CertifiedReply,
    root: PublicKey,
    own: Identity,
    now_s: float,
    revocations: Revocations,
) -> Chain:
    """The certificate is this peer's, with all its keys, in the right swarm."""
    try:
        chain = decode_chain_untrusted(reply.chain)
        check_chain(chain, root=root, now_s=now_s, revocations=revocations)
    except TrustRefused as refused:
        raise ApiError(
            ErrorCode.FORBIDDEN,
            f"The answer is not from this swarm: {refused.message} Ask for a new "
            "invite.",
            status=403,
        ) from None
    except DecodeError as error:
        raise _useless() from error
    certificate = chain.certificate
    is_ours = certificate.peer == own.peer_key_pair.public_key
    if not is_ours or dict(certificate.keys) != public_keys(own):
        raise _useless()
    return chain


def _check_not_older(
    chain: Chain, kept: Chain, now_s: float, revocations: Revocations
) -> None:
    """Whoever met this peer has its former certificates, and could give one back."""
    try:
        check_still_holds(kept, now_s=now_s, revocations=revocations)
    except TrustRefused:
        return
    if chain.certificate.not_before_s < kept.certificate.not_before_s - CLOCK_SKEW_S:
        raise _useless()


def _useless() -> ApiError:
    return ApiError(
        ErrorCode.FORBIDDEN,
        "The answer holds no certificate for this peer: ask for a new invite.",
        status=403,
    )


async def _ask_admins(
    dht: Dht,
    rpc: RpcClient,
    membership: Membership,
    own: Identity,
    check: Callable[[CertifiedReply], None],
) -> CertifiedReply:
    """The first yes that passes the check; else the first no, or that nobody answers.

    Anybody who knows the secret can announce itself as an admin.
    """
    body = msgspec.json.encode(RenewRequest(own.peer_key_pair.public_key))
    refused: ApiError | None = None
    asked: set[PublicKey] = set()
    for known in (_known_admins(membership), None):
        keys = known if known is not None else await _announced(dht, membership)
        for key in keys:
            if key in asked or len(asked) >= ADMINS_MAX:
                continue
            asked.add(key)
            try:
                answer = await rpc.request(
                    key, RENEW_METHOD, body, timeout_s=RENEW_TIMEOUT_S
                )
                reply = _certified(answer)
                check(reply)
                return reply
            except NetError as error:
                logger.info("admin %s does not answer: %s", key.hex(), error)
            except ApiError as error:
                refused = refused or error
    raise refused or ApiError(
        ErrorCode.PEER_LOST,
        f"No admin of {membership.name} answers: the certificate stays as it is.",
        status=504,
    )


def _known_admins(membership: Membership) -> list[PublicKey]:
    issuer = own_chain(membership).issuer
    found = [issuer.keys.get("enrol") if issuer else None, membership.enrol_key]
    return [key for key in found if key is not None]


async def _announced(dht: Dht, membership: Membership) -> list[PublicKey]:
    try:
        records = await dht.lookup(topic_of(membership.secret, ENROL_TOPIC))
    except NetError:
        return []
    return [record.public_key for record in records]


def _record_body(homes: SwarmHomes, name: str) -> RecordBody | None:
    """The record as this home knows it; its node has checked it."""
    record = homes.load_record(name)
    try:
        return None if record is None else decode_body_untrusted(record.body)
    except DecodeError:
        return None


def _is_newer(reply: CertifiedReply, kept: Membership, body: RecordBody) -> bool:
    """Whether the secret is the one that the root key's own record names."""
    return (
        reply.generation > kept.generation
        and reply.generation == body.generation
        and is_equal(fingerprint_of(reply.secret), body.fingerprint)
    )
