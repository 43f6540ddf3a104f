"""Session tokens of open swarms and of a single home: JWT, HS256, 24 hours.

Who knows the secret can both sign and verify, as in the Node.js workers: `JWT_SECRET`
where several peers share it, else a random one of this home's store. `TokenVerifier`
takes several secrets, so that a gateway with a shared one still knows the local account
of its own home. Tokens of private swarms are in `certified_tokens`.
"""

from __future__ import annotations

import time
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jwt

from peerchat.api import ApiError, ErrorCode

from .known_tokens import KnownTokens

ALGORITHM = "HS256"
TOKEN_LIFE_S = 24 * 3600
TOKEN_CHARS_MAX = 8192
"""Ours have about 300."""

# The length of the secret is checked, with a warning, where settings are read.
warnings.filterwarnings("ignore", category=jwt.InsecureKeyLengthWarning)
_jwt = jwt.PyJWT(options={"require": ["exp", "iat"]})


@dataclass(frozen=True, slots=True)
class Claims:
    """What a valid token says."""

    email: str
    role: str
    issued_s: int
    expires_s: int
    token_id: str = ""
    epoch: int = 0
    """Of the account when it was issued; Node.js workers do not set it."""


class Issuer(Protocol):
    """Makes tokens."""

    def issue(self, email: str, role: str = "user", epoch: int = 0) -> str:
        """A token for the account, valid from now for 24 hours."""


class Verifier(Protocol):
    """Checks tokens."""

    def verify(self, token: str) -> Claims:
        """The claims of a valid token; raises `ApiError` (401), which says why not."""


class TokenIssuer:
    """Signs tokens with a shared secret."""

    def __init__(
        self, secret: bytes, *, now_s: Callable[[], float] = time.time
    ) -> None:
        self._secret = secret
        self._now_s = now_s

    def __repr__(self) -> str:
        return "TokenIssuer()"

    def issue(self, email: str, role: str = "user", epoch: int = 0) -> str:
        """A token for the account, valid from now for 24 hours."""
        claims = claims_of(email, role, epoch, int(self._now_s()))
        return _jwt.encode(claims, self._secret, algorithm=ALGORITHM)


class TokenVerifier:
    """Checks tokens against one or more secrets."""

    def __init__(
        self, secrets: Sequence[bytes], *, now_s: Callable[[], float] = time.time
    ) -> None:
        self._secrets = tuple(secrets)
        self._now_s = now_s
        self._known = KnownTokens[Claims]()

    def __repr__(self) -> str:
        return f"TokenVerifier({len(self._secrets)} secrets)"

    def verify(self, token: str) -> Claims:
        """The claims of a valid token.

        Raises:
            ApiError: UNAUTHORIZED, status 401; the message tells what is wrong.
        """
        check_form(token)
        if known := self._known.get(token, self._now_s()):
            return known
        claims = read_claims(self._decoded(token))
        self._known.keep(token, claims, claims.expires_s)
        return claims

    @property
    def secrets(self) -> Sequence[bytes]:
        """What it checks against; never to be shown."""
        return self._secrets

    def _decoded(self, token: str) -> dict[str, Any]:
        forged: ApiError | None = None
        for secret in self._secrets:
            try:
                return _jwt.decode(token, secret, algorithms=[ALGORITHM])
            except jwt.InvalidSignatureError:
                forged = refused("Invalid token: the signature does not match")
            except jwt.PyJWTError as error:
                raise refused(reason_of(error, ALGORITHM)) from None
            except (ValueError, TypeError, UnicodeError, RecursionError):
                raise refused("Invalid token: not a JWT") from None
        raise forged or refused("Invalid token: nothing here can verify it")


def claims_of(email: str, role: str, epoch: int, now_s: int) -> dict[str, object]:
    """What a token says; the first four are the contract's."""
    return {
        "email": email,
        "role": role,
        "iat": now_s,
        "exp": now_s + TOKEN_LIFE_S,
        "jti": uuid.uuid4().hex,
        "epoch": epoch,
    }


def check_form(token: str) -> None:
    """Refuse what cannot be a token; raises `ApiError` (401)."""
    if not token:
        raise refused("No token: log in first")
    if len(token) > TOKEN_CHARS_MAX:
        raise refused("Invalid token: too long")


def read_claims(claims: Mapping[str, Any]) -> Claims:
    """The claims of a token whose signature was right; raises `ApiError` (401)."""
    email, role, token_id = (claims.get(key) for key in ("email", "role", "jti"))
    epoch = claims.get("epoch", 0)
    if not isinstance(email, str) or not email:
        raise refused("Invalid token: it names no account")
    if isinstance(epoch, bool) or not isinstance(epoch, int):
        raise refused("Invalid token: its epoch is no number")
    return Claims(
        email,
        role if isinstance(role, str) else "user",
        int(claims["iat"]),
        int(claims["exp"]),
        token_id if isinstance(token_id, str) else "",
        epoch,
    )


def reason_of(error: jwt.PyJWTError, algorithm: str) -> str:
    """What is wrong with a token, in words for who has it."""
    match error:
        case jwt.ExpiredSignatureError():
            return "Token has expired: log in again"
        case jwt.InvalidAlgorithmError():
            return f"Invalid token: only {algorithm} is accepted"
        case jwt.ImmatureSignatureError():
            return "Invalid token: issued in the future; check the clocks"
        case jwt.MissingRequiredClaimError():
            return "Invalid token: a claim is missing"
    return "Invalid token: not a JWT"


def refused(message: str) -> ApiError:
    """A token that is worth nothing."""
    return ApiError(ErrorCode.UNAUTHORIZED, message, status=401)
