"""Session tokens of private swarms: JWT, EdDSA, 24 hours, with the signer's papers.

A certified auth peer signs with its token key and puts its certificate chain into the
header, as ``crt``. So a gateway needs to ask nobody: the chain leads to the swarm's
root, and the record says what was revoked. HS256 is refused: a secret that verifies
would also sign.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from peerchat.api import ApiError
from peerchat.net.crypto.primitives import KeyPair
from peerchat.net.errors import DecodeError
from peerchat.net.identity import PublicKey
from peerchat.trust.certificate import (
    CHAIN_BYTES_MAX,
    CLOCK_SKEW_S,
    Chain,
    Revocations,
    check_chain,
    check_key,
    check_still_holds,
    decode_chain_untrusted,
)
from peerchat.trust.errors import TrustRefused

from .known_tokens import KnownTokens
from .tokens import (
    TOKEN_LIFE_S,
    Claims,
    check_form,
    claims_of,
    read_claims,
    reason_of,
    refused,
)

ALGORITHM = "EdDSA"
CHAIN_HEADER = "crt"

CHAINS_KEPT = 256
"""Chains whose signatures were checked, some 2 MB; a swarm has a few auth peers."""

_jwt = jwt.PyJWT(options={"require": ["exp", "iat"]})


class CertifiedIssuer:
    """Signs tokens as this auth peer.

    Args:
        key_pair: the peer's token key.
        chain: gives its newest certificate chain, encoded.
        now_s: Unix time.
    """

    def __init__(
        self,
        key_pair: KeyPair,
        chain: Callable[[], bytes],
        *,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(key_pair.seed)
        self._chain = chain
        self._now_s = now_s

    def __repr__(self) -> str:
        return "CertifiedIssuer()"

    def issue(self, email: str, role: str = "user", epoch: int = 0) -> str:
        """A token for the account, valid from now for 24 hours."""
        claims = claims_of(email, role, epoch, int(self._now_s()))
        chain = base64.urlsafe_b64encode(self._chain()).rstrip(b"=").decode()
        headers = {CHAIN_HEADER: chain}
        return _jwt.encode(claims, self._key, algorithm=ALGORITHM, headers=headers)


class CertifiedVerifier:
    """Checks tokens of a private swarm.

    Args:
        root: the swarm's root key.
        revocations: what has been taken back; asked at every check.
        now_s: Unix time.
    """

    def __init__(
        self,
        root: PublicKey,
        revocations: Revocations,
        *,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._root = root
        self._revocations = revocations
        self._now_s = now_s
        self._chains: OrderedDict[bytes, Chain] = OrderedDict()
        self._known = KnownTokens[tuple[Claims, Chain]]()

    def verify(self, token: str) -> Claims:
        """The claims of a valid token.

        Raises:
            ApiError: UNAUTHORIZED, status 401; the message tells what is wrong.
        """
        check_form(token)
        if known := self._known.get(token, self._now_s()):
            claims, chain = known
            self._check_still(chain)
            return claims
        chain, key = self._signer(_header(token))
        try:
            said = _jwt.decode(token, key, algorithms=[ALGORITHM], leeway=CLOCK_SKEW_S)
        except jwt.InvalidSignatureError:
            raise refused("Invalid token: the signature does not match") from None
        except jwt.PyJWTError as error:
            raise refused(reason_of(error, ALGORITHM)) from None
        except (ValueError, TypeError, UnicodeError, RecursionError):
            raise refused("Invalid token: not a JWT") from None
        claims = read_claims(said)
        if claims.expires_s - claims.issued_s > TOKEN_LIFE_S:
            # Ended sessions are remembered only for as long as this.
            raise refused("Invalid token: it lives longer than any may")
        self._known.keep(token, (claims, chain), claims.expires_s)
        return claims

    def _signer(self, header: dict[str, Any]) -> tuple[Chain, Ed25519PublicKey]:
        """The peer whose chain comes along, if it holds now, and its token key."""
        if header.get("alg") != ALGORITHM:
            raise refused(f"Invalid token: only {ALGORITHM} is accepted")
        data = _chain_bytes(header.get(CHAIN_HEADER))
        try:
            chain = self._chains.get(data)
            if chain is None:
                chain = decode_chain_untrusted(data)
                self._check(chain)
                self._keep(data, chain)
            else:
                self._chains.move_to_end(data)
                self._check_still(chain)
            key = chain.certificate.keys.get("token", b"")
            check_key(chain, key, "token")
        except (TrustRefused, DecodeError) as error:
            raise _bad_signer(error) from None
        return chain, Ed25519PublicKey.from_public_bytes(key)

    def _check_still(self, chain: Chain) -> None:
        """What may have changed since it was checked: dates and revocations."""
        try:
            check_still_holds(chain, now_s=self._now_s(), revocations=self._revocations)
        except TrustRefused as error:
            raise _bad_signer(error) from None

    def _check(self, chain: Chain) -> None:
        check_chain(
            chain,
            root=self._root,
            now_s=self._now_s(),
            revocations=self._revocations,
        )

    def _keep(self, data: bytes, chain: Chain) -> None:
        self._chains[data] = chain
        while len(self._chains) > CHAINS_KEPT:
            self._chains.popitem(last=False)


def _bad_signer(error: TrustRefused | DecodeError) -> ApiError:
    message = getattr(error, "message", "") or str(error)
    return refused(f"Invalid token: its signer: {message}")


def _header(token: str) -> dict[str, Any]:
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, TypeError, UnicodeError, RecursionError):
        raise refused("Invalid token: not a JWT") from None
    return dict(header)


def _chain_bytes(text: object) -> bytes:
    if not isinstance(text, str) or not text.isascii():
        raise refused("Invalid token: it does not say who signed it")
    if len(text) > CHAIN_BYTES_MAX * 4 // 3 + 4:
        raise refused("Invalid token: its certificate is too long")
    padded = text + "=" * (-len(text) % 4)
    try:
        return base64.b64decode(padded, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise refused("Invalid token: its certificate is no base64") from None
