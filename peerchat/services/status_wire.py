"""The ``peerchat/status`` channel as bytes: what a processor tells gateways of itself.

docs/PROTOCOL.md section 21. The asking side opens it and says nothing more; the serving
side sends its status, one MessagePack array a message. No I/O.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from peerchat.api import Closed, ClosedReason
from peerchat.net.encoding import Reader, Writer
from peerchat.net.errors import DecodeError
from peerchat.sanitize import display_line

from .prompt_wire import figure

PROTOCOL = "peerchat/status"
"""Name of the Protomux channel; its id is the public key of the serving peer."""

VERSION = 1
STATUS = 0
"""The type of message; `details_wire` has the other one."""

STATUS_BYTES_MAX = 64 * 1024
MODELS_MAX = 200
SLOTS_MAX = 1024

Name = Annotated[str, msgspec.Meta(max_length=256)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**31)]
Size = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class Loaded(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A model in memory, as far as the engine tells."""

    kept_s: float | None = None
    size_bytes: Size | None = None
    vram_bytes: Size | None = None
    context_tokens: Count | None = None


class ModelStatus(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A model that is served."""

    name: Name
    tokens_per_s: float | None = None
    """That it was seen to write."""
    load_s: float | None = None
    """Until it could begin; 0 when it is in memory, None when nobody knows."""
    loaded: Loaded | None = None
    """The engine has it in memory."""


class Closing(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Why nothing new is taken."""

    reason: Name = ""
    """Of `ClosedReason`; another word is of a later version."""
    opens_in_s: float | None = None


class Status(msgspec.Struct, array_like=True, frozen=True):
    """How a processor is."""

    models: Annotated[list[ModelStatus], msgspec.Meta(max_length=MODELS_MAX)]
    slots: Annotated[int, msgspec.Meta(ge=1, le=SLOTS_MAX)] = 1
    busy: Count = 0
    queued: Count = 0
    is_healthy: bool = True
    is_paused: bool = False
    """Takes nothing new: its owner wants it so, or it is closing."""
    engine: Name = ""
    answer_s: float | None = None
    """A slot is held for so long, on average."""
    closing: Closing | None = None
    """With ``is_paused``, why, if its owner wants it so."""

    @property
    def closed(self) -> Closed | None:
        """Why nothing new is taken; as paused where it is not told."""
        if not self.is_paused:
            return None
        told = self.closing or Closing()
        is_known = told.reason in frozenset(ClosedReason)
        reason = ClosedReason(told.reason) if is_known else ClosedReason.PAUSED
        return Closed(reason, told.opens_in_s)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Status)


def encode_status(status: Status) -> bytes:
    """The payload of a status message."""
    return _encoder.encode(status)


def decode_status_untrusted(payload: bytes) -> Status:
    """A status with its words made harmless, or `DecodeError`."""
    if len(payload) > STATUS_BYTES_MAX:
        raise DecodeError(f"a status of {len(payload)} bytes")
    try:
        status = _decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise DecodeError(str(error)) from None
    return msgspec.structs.replace(
        status,
        models=[_harmless(one) for one in status.models],
        engine=display_line(status.engine, 64),
        answer_s=figure(status.answer_s),
        closing=closing_of(status.closed),
    )


def closing_of(closed: Closed | None) -> Closing | None:
    """As it is told."""
    if closed is None:
        return None
    return Closing(closed.reason.value, figure(closed.opens_in_s))


def _harmless(model: ModelStatus) -> ModelStatus:
    loaded = model.loaded
    if loaded is not None:
        loaded = msgspec.structs.replace(loaded, kept_s=figure(loaded.kept_s))
    return ModelStatus(
        display_line(model.name),
        figure(model.tokens_per_s),
        figure(model.load_s),
        loaded,
    )


def encode_handshake() -> bytes:
    """What each side says when it opens the channel."""
    return Writer().uint(VERSION).getvalue()


def check_handshake_untrusted(data: bytes) -> None:
    """Raise `DecodeError` unless the peer has a version."""
    if Reader(data).uint() < 1:
        raise DecodeError("version 0 of peerchat/status")
