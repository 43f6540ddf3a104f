"""A file of secrets, under a passphrase when there is one.

Magic, kind, content, checksum. The parameters of Argon2id belong to the kind and are
not in the file, so that no foreign file makes us spend more on it than on our own.
Source: docs/PROTOCOL.md section 19; RFC 9106.
"""

from __future__ import annotations

import unicodedata
from enum import IntEnum

from nacl import bindings

from peerchat.net.crypto.primitives import (
    SECRETBOX_NONCE_BYTES,
    blake2b_256,
    secretbox_open_untrusted,
    secretbox_seal,
)
from peerchat.net.encoding import Reader
from peerchat.net.errors import DecodeError, LocalProtocolError, RemoteProtocolError

from .codec import check_length
from .errors import WrongPassphrase

SALT_BYTES = bindings.crypto_pwhash_SALTBYTES
NONCE_BYTES = SECRETBOX_NONCE_BYTES
PASSPHRASE_CHARS_MAX = 1024
"""Nobody types more; what is pasted by mistake is not hashed."""

_CHECKSUM_BYTES = 8
_KEY_BYTES = 32


class Kind(IntEnum):
    """How the content is kept."""

    PLAIN = 0
    ARGON2ID_MODERATE = 1
    """libsodium's moderate limits: 3 passes over 256 MiB, below a second on a desktop.
    An opening key is used by hand and seldom."""


def lock(
    magic: bytes, content: bytes, passphrase: str | None, *, salt: bytes, nonce: bytes
) -> bytes:
    """A file; with a passphrase this takes about a second and belongs in a thread."""
    if passphrase is None:
        return _finish(magic + bytes((Kind.PLAIN,)) + content)
    if not passphrase:
        raise LocalProtocolError("an empty passphrase protects nothing")
    check_length(nonce, NONCE_BYTES, "a nonce")
    box = secretbox_seal(_stretch(passphrase, salt), nonce, content)
    return _finish(magic + bytes((Kind.ARGON2ID_MODERATE,)) + salt + nonce + box)


def unlock_untrusted(
    magic: bytes, data: bytes, passphrase: str | None, bytes_max: int, what: str
) -> bytes:
    """The content of a file that `lock` made.

    Args:
        magic: what the file begins with.
        data: the file.
        passphrase: looked at when the file is locked.
        bytes_max: a longer file is refused unread.
        what: begins the message of an error, "The backup" for example.

    Raises:
        DecodeError: it is another kind of file, damaged, or from a later version.
        WrongPassphrase: it needs a passphrase, or another one.
    """
    kind, reader = _open_untrusted(magic, data, bytes_max, what)
    if kind is Kind.PLAIN:
        return reader.raw()
    salt, nonce = reader.fixed(SALT_BYTES), reader.fixed(NONCE_BYTES)
    if not passphrase:
        raise WrongPassphrase(f"{what} is locked: its passphrase is needed.")
    try:
        return secretbox_open_untrusted(_stretch(passphrase, salt), nonce, reader.raw())
    except RemoteProtocolError:
        raise WrongPassphrase(f"{what} does not open: wrong passphrase.") from None


def is_locked_untrusted(magic: bytes, data: bytes, bytes_max: int, what: str) -> bool:
    """Whether the file needs a passphrase; `DecodeError` when it is not such a file."""
    kind, _ = _open_untrusted(magic, data, bytes_max, what)
    return kind is not Kind.PLAIN


def _open_untrusted(
    magic: bytes, data: bytes, bytes_max: int, what: str
) -> tuple[Kind, Reader]:
    """The kind, and a reader of what comes between it and the checksum."""
    if not data.startswith(magic):
        raise DecodeError(f"{what} is not what it should be: another kind of file.")
    end = len(data) - _CHECKSUM_BYTES
    if len(data) > bytes_max or end <= len(magic):
        raise DecodeError(f"{what} is damaged: wrong length.")
    if _finish(data[:end]) != data:
        raise DecodeError(f"{what} is damaged: wrong checksum.")
    kind = data[len(magic)]
    if kind not in tuple(Kind):
        raise DecodeError(f"{what} is from a later version. Update peerchat.")
    return Kind(kind), Reader(data[:end], len(magic) + 1)


def _finish(data: bytes) -> bytes:
    """With a checksum, which tells damage from a wrong passphrase."""
    return data + blake2b_256(data)[:_CHECKSUM_BYTES]


def _stretch(passphrase: str, salt: bytes) -> bytes:
    """The key that a passphrase gives; the same however its accents were typed."""
    if len(passphrase) > PASSPHRASE_CHARS_MAX:
        raise WrongPassphrase(
            f"A passphrase has at most {PASSPHRASE_CHARS_MAX} characters."
        )
    check_length(salt, SALT_BYTES, "a salt")
    return bindings.crypto_pwhash_alg(
        _KEY_BYTES,
        unicodedata.normalize("NFC", passphrase).encode("utf-8", "surrogatepass"),
        salt,
        bindings.crypto_pwhash_argon2id_OPSLIMIT_MODERATE,
        bindings.crypto_pwhash_argon2id_MEMLIMIT_MODERATE,
        bindings.crypto_pwhash_ALG_ARGON2ID13,
    )
