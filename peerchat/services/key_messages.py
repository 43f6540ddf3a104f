"""JSON messages of the methods for API keys (docs/PROTOCOL.md section 11)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec

from .account_messages import Asked
from .api_keys import ApiKey


class KeysRequest(Asked, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """``create`` with a name, ``list``, or ``revoke`` with an id."""

    action: Annotated[str, msgspec.Meta(max_length=16)]
    name: Annotated[str, msgspec.Meta(max_length=256)] = ""
    key_id: Annotated[str, msgspec.Meta(max_length=64)] = ""


class ResolveRequest(Asked, frozen=True, kw_only=True, omit_defaults=True):
    """Whose a key is; the key is the token. For gateways."""


class KeyInfo(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """A key as its owner sees it."""

    key_id: str
    name: str
    created_ms: int
    key: str = ""


class KeysReply(msgspec.Struct, frozen=True, kw_only=True):
    """The action was done; ``keys`` are those it was done to."""

    success: bool
    status: int
    keys: list[KeyInfo]

    @classmethod
    def of(cls, keys: Sequence[ApiKey]) -> KeysReply:
        listed = [KeyInfo(k.key_id, k.name, k.created_ms, k.key) for k in keys]
        return cls(success=True, status=200, keys=listed)


class ResolveReply(msgspec.Struct, frozen=True, kw_only=True):
    """The key is good."""

    success: bool
    status: int
    email: str
