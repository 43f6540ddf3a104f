"""JSON messages of the methods that manage accounts and sessions.

docs/PROTOCOL.md section 11 describes them. Gateways pass the same fields on to auth
peers, with the caller's token beside them. No I/O.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from .account_admin import AdminRequest, AdminResult
from .account_table import AccountRecord, Changes
from .messages import Credentials, TokenText

CHANGES_MAX = 500
"""Changes of one answer; some 60 KB."""

_Text = Annotated[str, msgspec.Meta(max_length=1100)]
_Email = Annotated[str, msgspec.Meta(max_length=300)]
_Code = Annotated[str, msgspec.Meta(max_length=64)]
_Peer = Annotated[str, msgspec.Meta(max_length=64)]


class Asked(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What every request to an auth peer may carry besides."""

    token: TokenText = ""
    source: _Peer = ""
    """Public key, hex, of the client that a gateway asks for."""


class RegisterRequest(Asked, frozen=True, kw_only=True, omit_defaults=True):
    """Make an account."""

    email: str
    password: str
    code: _Code = ""

    def credentials(self) -> Credentials:
        return Credentials(self.email, self.password)


class LoginRequest(Asked, frozen=True, kw_only=True, omit_defaults=True):
    """Check a password."""

    email: str
    password: str

    def credentials(self) -> Credentials:
        return Credentials(self.email, self.password)


class PasswordRequest(Asked, frozen=True, kw_only=True, omit_defaults=True):
    """Set a new password."""

    old: _Text
    new: _Text


class SessionRequest(Asked, frozen=True, kw_only=True, omit_defaults=True):
    """A method that needs nothing but the token."""


class ManageRequest(
    Asked, frozen=True, kw_only=True, omit_defaults=True, rename="camel"
):
    """An admin's action."""

    action: Annotated[str, msgspec.Meta(max_length=32)]
    email: _Email = ""
    limit: int | None = None
    password: _Text = ""
    expires_s: int | None = None
    after: _Email = ""

    def request(self) -> AdminRequest:
        return AdminRequest(
            self.action,
            self.email,
            self.limit,
            self.password,
            self.expires_s,
            self.after,
        )


class ChangesRequest(msgspec.Struct, frozen=True):
    """What happened since; for gateways."""

    since: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 0
    after: _Email = ""


class SessionReply(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"
):
    """Sessions were ended."""

    success: bool
    status: int
    email: str
    epoch: int
    """Tokens of an earlier one are worth nothing from now on."""
    key: str = ""
    """A token that takes the place of the caller's."""


class AccountInfo(msgspec.Struct, frozen=True, rename="camel"):
    """An account as an admin sees it."""

    email: str
    role: str
    status: str
    epoch: int
    max_requests: int | None
    created_ms: int
    changed_ms: int

    @classmethod
    def of(cls, record: AccountRecord) -> AccountInfo:
        return cls(
            record.email,
            record.role,
            record.status,
            record.epoch,
            record.max_requests,
            record.created_ms,
            record.changed_ms,
        )


class ManageReply(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"
):
    """The action was done; ``accounts`` are those it was done to."""

    success: bool
    status: int
    accounts: list[AccountInfo]
    has_more: bool = False
    password: str = ""
    code: str = ""
    expires_ms: int | None = None

    @classmethod
    def of(cls, result: AdminResult) -> ManageReply:
        return cls(
            success=True,
            status=200,
            accounts=[AccountInfo.of(record) for record in result.accounts],
            has_more=result.has_more,
            password=result.password,
            code=result.code.code if result.code else "",
            expires_ms=result.code.expires_ms if result.code else None,
        )


class AccountChange(msgspec.Struct, frozen=True, rename="camel"):
    """What a gateway must know of an account."""

    email: _Email
    epoch: int
    status: Annotated[str, msgspec.Meta(max_length=16)]
    max_requests: int | None = None
    changed_ms: int = 0


class ChangesReply(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Changes, oldest first; with ``has_more`` ask again from the last one on."""

    success: Literal[True] = True
    status: Literal[200] = 200
    now: int
    changes: Annotated[list[AccountChange], msgspec.Meta(max_length=4 * CHANGES_MAX)]
    has_more: bool = False

    @classmethod
    def of(cls, changes: Changes) -> ChangesReply:
        return cls(
            now=changes.now_ms,
            changes=[
                AccountChange(r.email, r.epoch, r.status, r.max_requests, r.changed_ms)
                for r in changes.accounts
            ],
            has_more=changes.has_more,
        )
