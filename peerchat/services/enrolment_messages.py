"""What a joining peer and an admin say to each other: docs/PROTOCOL.md section 20.

JSON as for all unary methods; bytes are base64. No I/O.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from peerchat.net.errors import DecodeError
from peerchat.trust.certificate import CHAIN_BYTES_MAX

ENROL_METHOD = "enrol"
RENEW_METHOD = "renew"

ENROL_TOPIC = "enrol"
"""Under the keyed topic of this name admins are found by members whose own admin is
gone: after a restore the owner listens under another key."""

PEER_PROOF = "peer"
"""The proof that the holder of the peer's own key asks."""

REQUEST_BYTES_MAX = 8 * 1024
"""Six keys, seven signatures and a name have 1.5 kB."""
REPLY_BYTES_MAX = 16 * 1024
"""A chain of the longest and two secrets."""

Key = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Signature = Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]
Label = Annotated[str, msgspec.Meta(max_length=32)]


class EnrolRequest(msgspec.Struct, frozen=True, rename="camel"):
    """An invite's code, and the keys of whoever has it."""

    code: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    peer: Key
    keys: Annotated[dict[Label, Key], msgspec.Meta(max_length=16)]
    proofs: Annotated[dict[Label, Signature], msgspec.Meta(max_length=17)]
    """By each key and, as ``peer``, by the peer's own, over the handshake hash."""
    name: Annotated[str, msgspec.Meta(max_length=64)] = ""

    def __repr__(self) -> str:
        return f"EnrolRequest(peer={self.peer.hex()})"


class RenewRequest(msgspec.Struct, frozen=True, rename="camel"):
    """A member wants its newest certificate; its connection proves who it is."""

    peer: Key


class CertifiedReply(msgspec.Struct, frozen=True, rename="camel"):
    """Everything that a member needs to know."""

    chain: Annotated[bytes, msgspec.Meta(max_length=CHAIN_BYTES_MAX)]
    secret: Key
    generation: Annotated[int, msgspec.Meta(ge=0, le=2**53)]
    record_key: Key
    status: int = 200

    def __repr__(self) -> str:
        return f"CertifiedReply(generation={self.generation})"


class RefusedReply(msgspec.Struct, frozen=True, rename="camel"):
    """No; ``refused`` is for programs and ``message`` for people."""

    status: int
    refused: Annotated[str, msgspec.Meta(max_length=32)]
    message: Annotated[str, msgspec.Meta(max_length=256)]


REFUSALS: dict[str, tuple[int, str]] = {
    "unknown": (404, "This invite is not known to whoever made it: ask for a new one."),
    "withdrawn": (410, "This invite was withdrawn: ask for a new one."),
    "expired": (410, "This invite has expired: ask for a new one."),
    "used": (409, "This invite was used already: ask for a new one."),
    "revoked": (403, "This peer was removed from the swarm: ask its owner."),
    "proof": (403, "The keys are not those of the peer that asks: update peerchat."),
    "malformed": (400, "The request is malformed: update peerchat."),
    "too_many": (429, "Too many attempts at once: try again in a minute."),
    "unavailable": (503, "Whoever made the invite cannot sign now: try again later."),
}
"""Why nobody is let in: status and message."""


def refusal(why: str) -> RefusedReply:
    """The answer for one of `REFUSALS`."""
    status, message = REFUSALS[why]
    return RefusedReply(status, why, message)


def decode_reply_untrusted(data: bytes | None) -> CertifiedReply | RefusedReply:
    """An admin's answer; raises `DecodeError`."""
    if not data or len(data) > REPLY_BYTES_MAX:
        raise DecodeError("no answer, or far too long a one")
    try:
        status = msgspec.json.decode(data, type=_Status).status
        if status == 200:
            return msgspec.json.decode(data, type=CertifiedReply)
        return msgspec.json.decode(data, type=RefusedReply)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise DecodeError(f"answer to an enrolment: {type(error).__name__}") from None


class _Status(msgspec.Struct):
    status: int
