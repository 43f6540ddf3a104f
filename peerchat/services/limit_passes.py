"""How gateways of an open swarm name users to each other (docs/PROTOCOL.md section 11).

Anybody may announce a gateway there, so none is shown a session token or an API key for
counting. A pass is good for counting alone and for a minute, and says nothing to who
has not the secret that sessions are signed with.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Sequence

import jwt

from .tokens import ALGORITHM, Claims, check_form, reason_of, refused

PASS_LIFE_S = 60
CLOCK_SKEW_S = 60
"""Between two gateways: a pass that looks too old, or too new, by less is good."""
PURPOSE = "limits"

_jwt = jwt.PyJWT(options={"require": ["exp", "iat", "sub"]})


class LimitPasses:
    """Makes passes with the first of the secrets, and takes those of all.

    The key is derived, so that nowhere a pass is taken for a session's token.
    """

    def __init__(
        self, secrets: Sequence[bytes], *, now_s: Callable[[], float] = time.time
    ) -> None:
        label = b"peerchat/limits"
        self._keys = [hmac.digest(secret, label, "sha256") for secret in secrets]
        self._now_s = now_s

    def __repr__(self) -> str:
        return "LimitPasses()"

    def issue(self, user: str) -> str:
        """A pass for one user, good from now."""
        now_s = int(self._now_s())
        claims = {"sub": user, "iat": now_s, "exp": now_s + PASS_LIFE_S, "aud": PURPOSE}
        return _jwt.encode(claims, self._keys[0], algorithm=ALGORITHM)

    def verify(self, text: str) -> Claims:
        """Whom a pass is for; raises `ApiError` (401)."""
        check_form(text)
        for key in self._keys:
            try:
                said = _jwt.decode(
                    text,
                    key,
                    algorithms=[ALGORITHM],
                    audience=PURPOSE,
                    leeway=CLOCK_SKEW_S,
                )
            except jwt.InvalidSignatureError:
                continue
            except jwt.PyJWTError as error:
                raise refused(reason_of(error, ALGORITHM)) from None
            except (ValueError, TypeError, UnicodeError, RecursionError):
                break
            return Claims(said["sub"], "user", int(said["iat"]), int(said["exp"]))
        raise refused("Invalid pass: its gateway has another secret than this one")
