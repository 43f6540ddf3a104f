"""Session tokens: JWT, HS256, 24 hours.

Who knows the secret can both sign and verify, as in the Node.js workers: `JWT_SECRET`
where several peers share it, else a random one of this home's store. `TokenVerifier`
takes several secrets, so that a gateway with a shared one still knows the local account
of its own home.
"""

from __future__ import annotations

import time
import uuid
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jwt

from peerchat.api import ApiError, ErrorCode

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


class TokenIssuer:
    """Signs tokens."""

    def __init__(
        self, secret: bytes, *, now_s: Callable[[], float] = time.time
    ) -> None:
        self._secret = secret
        self._now_s = now_s

    def __repr__(self) -> str:
        return "TokenIssuer()"

    def issue(self, email: str, role: str = "user") -> str:
        """A token for the account, valid from now for 24 hours."""
        now_s = int(self._now_s())
        claims = {
            "email": email,
            "role": role,
            "iat": now_s,
            "exp": now_s + TOKEN_LIFE_S,
            "jti": uuid.uuid4().hex,
        }
        return _jwt.encode(claims, self._secret, algorithm=ALGORITHM)


class TokenVerifier:
    """Checks tokens against one or more secrets."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        self._secrets = tuple(secrets)

    def __repr__(self) -> str:
        return f"TokenVerifier({len(self._secrets)} secrets)"

    def verify(self, token: str) -> Claims:
        """The claims of a valid token.

        Raises:
            ApiError: UNAUTHORIZED, status 401; the message tells what is wrong.
        """
        if not token:
            raise _refused("No token: log in first")
        if len(token) > TOKEN_CHARS_MAX:
            raise _refused("Invalid token: too long")
        claims = self._decoded(token)
        email, role, token_id = (claims.get(key) for key in ("email", "role", "jti"))
        issued_s, expires_s = claims["iat"], claims["exp"]
        if not isinstance(email, str) or not email:
            raise _refused("Invalid token: it names no account")
        return Claims(
            email,
            role if isinstance(role, str) else "user",
            int(issued_s),
            int(expires_s),
            token_id if isinstance(token_id, str) else "",
        )

    def _decoded(self, token: str) -> dict[str, Any]:
        forged: ApiError | None = None
        for secret in self._secrets:
            try:
                return _jwt.decode(token, secret, algorithms=[ALGORITHM])
            except jwt.InvalidSignatureError:
                forged = _refused("Invalid token: the signature does not match")
            except jwt.PyJWTError as error:
                raise _refused(_reason(error)) from None
            except (ValueError, TypeError, UnicodeError, RecursionError):
                raise _refused("Invalid token: not a JWT") from None
        raise forged or _refused("Invalid token: nothing here can verify it")


def _reason(error: jwt.PyJWTError) -> str:
    match error:
        case jwt.ExpiredSignatureError():
            return "Token has expired: log in again"
        case jwt.InvalidAlgorithmError():
            return f"Invalid token: only {ALGORITHM} is accepted"
        case jwt.ImmatureSignatureError():
            return "Invalid token: issued in the future; check the clocks"
        case jwt.MissingRequiredClaimError():
            return "Invalid token: a claim is missing"
    return "Invalid token: not a JWT"


def _refused(message: str) -> ApiError:
    return ApiError(ErrorCode.UNAUTHORIZED, message, status=401)
