"""Receipts: what a processor signs about an answer it gave (docs/PROTOCOL.md 12.3).

A receipt is MessagePack ``[statement, public key, signature]``; the signature is over a
namespace and the statement's bytes, which are MessagePack of `Statement`. Whoever has
prompt and answer can compare their hashes; whoever has not learns neither from it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Annotated

import msgspec

from peerchat.api import Message, PromptRequest
from peerchat.net.crypto.primitives import KeyPair, namespace, sign, verify
from peerchat.net.errors import DecodeError
from peerchat.sanitize import display_line

VERSION = 1
RECEIPT_BYTES_MAX = 4 * 1024
HASH_BYTES = 32

NAMESPACE = namespace(b"peerchat/receipt", 0)

Hash = Annotated[bytes, msgspec.Meta(min_length=HASH_BYTES, max_length=HASH_BYTES)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Word = Annotated[str, msgspec.Meta(max_length=256)]


class Statement(msgspec.Struct, array_like=True, frozen=True):
    """What is signed."""

    version: Annotated[int, msgspec.Meta(ge=1)]
    request_id: Word
    request_hash: Hash
    answer_hash: Hash
    model: Word
    prompt_tokens: Count | None
    answer_tokens: Count | None
    finished_at_ms: Count
    finish_reason: Word
    prefix_chars: Count = 0
    """The answer was begun by another processor: the hash is of what follows these."""


class _Sealed(msgspec.Struct, array_like=True, frozen=True):
    statement: bytes
    key: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    signature: Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]


class Receipt(msgspec.Struct, frozen=True):
    """A statement whose signature holds, and whose it is."""

    statement: Statement
    key: bytes

    def begin_in(self, shown: str, starts: Iterable[int] = (0,)) -> int | None:
        """Where what was signed begins in an answer that was shown; None: nowhere.

        Args:
            shown: the answer, of all who said a part of it.
            starts: places in the whole answer where that may begin: later, if the asker
                gave the beginning; below 0, if more stands before it.
        """
        before = self.statement.prefix_chars
        for begin in sorted({0, *(before - start for start in starts)}):
            is_there = 0 <= begin <= len(shown)
            if is_there and answer_hash(shown[begin:]) == self.statement.answer_hash:
                return begin
        return None


class AnswerHash:
    """The hash of an answer's text while it streams."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=HASH_BYTES)

    def add(self, text: str) -> None:
        """The next piece."""
        self._hash.update(text.encode("utf-8", "replace"))

    def digest(self) -> bytes:
        """Of all pieces so far."""
        return self._hash.digest()


def seal(statement: Statement, key_pair: KeyPair) -> bytes:
    """A receipt of the holder of the key pair."""
    body = msgspec.msgpack.encode(statement)
    signature = sign(NAMESPACE + body, key_pair)
    return msgspec.msgpack.encode(_Sealed(body, bytes(key_pair.public_key), signature))


def open_receipt_untrusted(data: bytes) -> Receipt:
    """The receipt, if its signature holds.

    Raises:
        DecodeError: it is none, or somebody changed it.
    """
    if len(data) > RECEIPT_BYTES_MAX:
        raise DecodeError(f"a receipt of {len(data)} bytes")
    try:
        sealed = msgspec.msgpack.decode(data, type=_Sealed)
        statement = msgspec.msgpack.decode(sealed.statement, type=Statement)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise DecodeError(f"not a receipt: {error}") from None
    if not verify(NAMESPACE + sealed.statement, sealed.signature, sealed.key):
        raise DecodeError("the signature of the receipt does not hold")
    return Receipt(_shown(statement), sealed.key)


def request_hash(request: PromptRequest) -> bytes:
    """What was asked: everything that an answer depends on but model and options."""
    return _digest(
        [
            request.prompt,
            [_digest(image) for image in request.images],
            [_turn(turn) for turn in request.history],
            msgspec.json.encode(list(request.tools), order="sorted"),
            msgspec.json.encode(request.response_format, order="sorted"),
            request.is_raw,
            request.suffix,
            list(request.inputs),
        ]
    )


def answer_hash(text: str) -> bytes:
    """Of an answer's text, made inert as a reader sees it."""
    whole = AnswerHash()
    whole.add(text)
    return whole.digest()


def _turn(turn: Message) -> list[object]:
    calls = [[one.call_id, one.name, one.arguments] for one in turn.tool_calls]
    images = [_digest(image) for image in turn.images]
    return [turn.role, turn.content, images, calls, turn.tool_call_id, turn.tool_name]


def _digest(value: object) -> bytes:
    data = value if isinstance(value, bytes) else msgspec.msgpack.encode(value)
    return hashlib.blake2b(data, digest_size=HASH_BYTES).digest()


def _shown(statement: Statement) -> Statement:
    return msgspec.structs.replace(
        statement,
        request_id=display_line(statement.request_id),
        model=display_line(statement.model),
        finish_reason=display_line(statement.finish_reason, 32),
    )
