"""The invite line: one line that lets somebody into a swarm.

It is a secret. Its checksum finds damage from copying and nothing more: whoever can
change the line could change the root key in it as well, so trust is checked when it is
redeemed, by the certificate that comes back. Source: docs/PROTOCOL.md section 16.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from typing import Annotated

import msgspec

from peerchat.net.crypto.primitives import blake2b_256
from peerchat.net.encoding import Reader, Writer
from peerchat.net.errors import DecodeError, LocalProtocolError
from peerchat.net.identity import KEY_BYTES, PublicKey
from peerchat.sanitize import display_line

from .codec import (
    NAME_CHARS_MAX,
    SECRET_BYTES,
    Body,
    Count,
    Key,
    Name,
    Serial,
    check_length,
    decode_untrusted,
    encode,
)

SCHEME = "peerchat:"
VERSION = 1
CODE_BYTES = 16
"""128 bits: nobody guesses a code, and it need not be stretched where it is kept."""

BOOTSTRAP_MAX = 4
"""Hints are a way into the network, not a list of it; they make the line longer."""

BOOTSTRAP_CHARS_MAX = 128
BODY_BYTES_MAX = 1024
"""The longest name and four of the longest hints have 920 bytes."""

LINE_CHARS_MAX = 2048
"""A line of the longest body has 1390 characters; the rest is for later versions."""

INPUT_CHARS_MAX = 16 * 1024
"""What somebody pastes, with its white space; more is not looked at."""

_CHECKSUM_BYTES = 4
"""One damaged line in four thousand million passes for a whole one, and then fails at
the certificate."""

_HEAD_BYTES = 3
_HINT = re.compile(rf"[!-~]{{1,{BOOTSTRAP_CHARS_MAX}}}")
_FOREIGN = re.compile("[^A-Za-z0-9_-]")
_WRAPPING = " \t\r\n\"'`<>“”‘’"
_SPACE = re.compile("[\\s\u200b\u2060\ufeff\u00ad]+")
"""White space, and the invisible marks that chats and mail break long words with."""


@dataclass(frozen=True, slots=True)
class Invite:
    """What a line says; believe it when the certificate leads to ``root``."""

    swarm: str
    """The swarm's name as its owner calls it; harmless to show."""
    root: PublicKey
    secret: bytes = field(repr=False)
    enrol_key: PublicKey
    """Who redeems the code: the ``enrol`` key of an admin."""
    code: bytes = field(repr=False)
    expires_s: int
    """Unix time. The admin decides; here it saves a vain attempt."""
    bootstrap: tuple[str, ...] = ()
    """Ways into the network, as the setting `bootstrap` takes them."""


class InviteBody(Body, frozen=True):
    """What is inside the line."""

    swarm: Name
    root: Key
    secret: Key
    enrol_key: Key
    code: Serial
    expires_s: Count
    bootstrap: Annotated[
        list[Annotated[str, msgspec.Meta(max_length=BOOTSTRAP_CHARS_MAX)]],
        msgspec.Meta(max_length=BOOTSTRAP_MAX),
    ] = msgspec.field(default_factory=list)


def format_invite(invite: Invite) -> str:
    """The line, on one line."""
    if len(invite.bootstrap) > BOOTSTRAP_MAX or not all(
        _HINT.fullmatch(hint) for hint in invite.bootstrap
    ):
        raise LocalProtocolError("bootstrap hints do not fit an invite")
    body = encode(
        InviteBody(
            swarm=display_line(invite.swarm, NAME_CHARS_MAX),
            root=check_length(invite.root, KEY_BYTES, "a root key"),
            secret=check_length(invite.secret, SECRET_BYTES, "a swarm secret"),
            enrol_key=check_length(invite.enrol_key, KEY_BYTES, "an enrol key"),
            code=check_length(invite.code, CODE_BYTES, "a code"),
            expires_s=invite.expires_s,
            bootstrap=list(invite.bootstrap),
        )
    )
    payload = Writer().u8(VERSION).u16(len(body)).fixed(body).getvalue()
    return SCHEME + _to_text(payload + _checksum(payload))


def parse_invite_untrusted(text: str) -> Invite:
    """The invite in a line, also one that was wrapped, quoted or indented.

    Raises:
        DecodeError: its message says for people what is wrong with the line.
    """
    body = decode_untrusted(
        _payload_untrusted(text), InviteBody, BODY_BYTES_MAX, "The invite is malformed"
    )
    if not all(_HINT.fullmatch(hint) for hint in body.bootstrap):
        raise DecodeError("The invite is malformed: bootstrap hint")
    return Invite(
        swarm=display_line(body.swarm, NAME_CHARS_MAX),
        root=PublicKey(body.root),
        secret=body.secret,
        enrol_key=PublicKey(body.enrol_key),
        code=body.code,
        expires_s=body.expires_s,
        bootstrap=tuple(body.bootstrap),
    )


def _payload_untrusted(text: str) -> bytes:
    """The body of a line that is whole."""
    if len(text) > INPUT_CHARS_MAX:
        raise DecodeError("This is not an invite: it is far too long.")
    line = _SPACE.sub("", text).strip(_WRAPPING)
    if not line:
        raise DecodeError("This is not an invite: it is empty.")
    if line[: len(SCHEME)].lower() != SCHEME:
        raise DecodeError(f"This is not an invite: invites begin with {SCHEME}")
    line = line[len(SCHEME) :]
    if len(line) > LINE_CHARS_MAX:
        raise DecodeError("This is not an invite: it is too long.")
    if foreign := _FOREIGN.search(line):
        raise DecodeError(
            f"The invite is damaged: {foreign.group()!a} at character"
            f" {len(SCHEME) + foreign.start() + 1} does not belong in it."
            " Copy it again."
        )
    return _body_untrusted(line)


def _body_untrusted(line: str) -> bytes:
    data = _from_text(line)
    if len(data) < _HEAD_BYTES:
        raise DecodeError("The invite is cut short. Copy it again, to its end.")
    reader = Reader(data)
    version, length = reader.u8(), reader.u16()
    surplus = reader.remaining - length - _CHECKSUM_BYTES
    end = len(data) - _CHECKSUM_BYTES
    is_whole = end >= _HEAD_BYTES and data[end:] == _checksum(data[:end])
    if is_whole and version > VERSION and _to_text(data) == line:
        raise DecodeError("The invite is from a later version. Update peerchat.")
    if not is_whole and surplus < 0:
        raise DecodeError("The invite is cut short or damaged. Copy it again.")
    if not is_whole and surplus > 0 and _is_whole(data[: len(data) - surplus]):
        raise DecodeError("Something follows the invite. Copy the invite alone.")
    if not is_whole or surplus or version != VERSION or _to_text(data) != line:
        raise DecodeError("The invite is damaged. Copy it again.")
    return reader.fixed(length)


def _is_whole(data: bytes) -> bool:
    end = len(data) - _CHECKSUM_BYTES
    return data[end:] == _checksum(data[:end])


def _checksum(payload: bytes) -> bytes:
    return blake2b_256(SCHEME.encode(), payload)[:_CHECKSUM_BYTES]


def _to_text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _from_text(line: str) -> bytes:
    """Bytes of the whole groups; a lone last character holds no byte."""
    line = line[:-1] if len(line) % 4 == 1 else line
    return base64.urlsafe_b64decode(line + "=" * (-len(line) % 4))
