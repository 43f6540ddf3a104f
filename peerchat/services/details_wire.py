"""What a processor tells of its models beside their names, as bytes.

docs/PROTOCOL.md section 21, message DETAILS: sent when the channel opens and when there
is something new, never with each status. No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated

import msgspec

from peerchat.api import ModelDetails
from peerchat.net.errors import DecodeError
from peerchat.sanitize import display_line

from .engines.base import CAPABILITIES
from .prompt_wire import figure
from .status_wire import MODELS_MAX, Name

DETAILS = 1
"""The type of message; peers of the first version overlook it."""

DETAILS_BYTES_MAX = 64 * 1024
"""Of a message: two hundred models of some 200 bytes, and room for long names."""

WORD_CHARS_MAX = 64
FAMILIES_MAX = 8
CAPABILITIES_MAX = 32
DIGEST_BYTES = 32

_HEX = re.compile(r"[0-9a-f]{64}")

Word = Annotated[str, msgspec.Meta(max_length=WORD_CHARS_MAX)]
Number = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class Details(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """`ModelDetails` on the wire."""

    name: Name
    family: Word = ""
    families: Annotated[list[Word], msgspec.Meta(max_length=FAMILIES_MAX)] = []
    parameters: Word = ""
    quantization: Word = ""
    file_format: Word = ""
    size_bytes: Number | None = None
    digest: Annotated[bytes, msgspec.Meta(max_length=DIGEST_BYTES)] = b""
    context_tokens: Number | None = None
    vector_length: Number | None = None
    capabilities: Annotated[list[Word], msgspec.Meta(max_length=CAPABILITIES_MAX)] = []
    modified_s: float | None = None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(
    Annotated[list[Details], msgspec.Meta(max_length=MODELS_MAX)]
)


def encode_details(models: Iterable[ModelDetails]) -> bytes:
    """The payload of the message: as many of the models, in order, as fit."""
    parts: list[Details] = []
    size = 8
    for model in models:
        one = _of(model)
        size += len(_encoder.encode(one))
        if size > DETAILS_BYTES_MAX or len(parts) == MODELS_MAX:
            break
        parts.append(one)
    return _encoder.encode(parts)


def decode_details_untrusted(payload: bytes) -> Mapping[str, ModelDetails]:
    """The models by name, with their words made harmless; or `DecodeError`."""
    if len(payload) > DETAILS_BYTES_MAX:
        raise DecodeError(f"details of {len(payload)} bytes")
    try:
        found = _decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise DecodeError(str(error)) from None
    told = (_told(one) for one in found)
    return {one.name: one for one in told}


def _of(model: ModelDetails) -> Details:
    return Details(
        model.name[:256],
        model.family[:WORD_CHARS_MAX],
        [word[:WORD_CHARS_MAX] for word in model.families[:FAMILIES_MAX]],
        model.parameters[:WORD_CHARS_MAX],
        model.quantization[:WORD_CHARS_MAX],
        model.file_format[:WORD_CHARS_MAX],
        _number(model.size_bytes),
        bytes.fromhex(model.digest) if _HEX.fullmatch(model.digest) else b"",
        _number(model.context_tokens),
        _number(model.vector_length),
        sorted(model.capabilities & CAPABILITIES),
        model.modified_s,
    )


def _number(value: int | None) -> int | None:
    return value if value is not None and 0 <= value <= 2**53 else None


def _told(one: Details) -> ModelDetails:
    return ModelDetails(
        name=display_line(one.name),
        family=display_line(one.family),
        families=tuple(map(display_line, one.families)),
        parameters=display_line(one.parameters),
        quantization=display_line(one.quantization),
        file_format=display_line(one.file_format),
        size_bytes=one.size_bytes,
        digest=one.digest.hex() if len(one.digest) == DIGEST_BYTES else "",
        context_tokens=one.context_tokens or None,
        vector_length=one.vector_length or None,
        # Other words are of a later version.
        capabilities=CAPABILITIES.intersection(one.capabilities),
        modified_s=figure(one.modified_s),
    )
