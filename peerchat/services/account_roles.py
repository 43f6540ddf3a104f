"""Puts the roles auth and gateway together: whose tokens count, whose accounts.

In a private swarm tokens are signed by certified auth peers. Elsewhere they are signed
with `JWT_SECRET`, or with a secret of the store, which all that use the store share.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from peerchat.api import ApiError, ErrorCode, Role
from peerchat.settings import Settings
from peerchat.trust.certificate import encode_chain

from .accounts import Accounts
from .auth import AuthRole
from .auth_client import AuthClient
from .certified_tokens import CertifiedIssuer, CertifiedVerifier
from .gateway import GatewayRole
from .known_accounts import ChangeSource, KnownAccounts, StoreChanges
from .limits import Limiter
from .metrics import RoleMetrics
from .passwords import PasswordHasher
from .store import Store
from .supervisor import RunnableRole
from .swarm import Swarm
from .tokens import Issuer, TokenIssuer, TokenVerifier, Verifier
from .trust import Trust

logger = logging.getLogger(__name__)

SECRET_NAME = "jwt_secret"


@dataclass(frozen=True, slots=True)
class _Tokens:
    """How tokens are made and checked."""

    issuer: Issuer
    verifier: Verifier
    local: Verifier | None = None
    """Checks that of the home's own user."""


class _Record:
    """The swarm record as it is at each question; it is replaced when it changes."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust

    def is_revoked_serial(self, serial: bytes) -> bool:
        return self._trust.record.is_revoked_serial(serial)

    def is_revoked_key(self, key: bytes) -> bool:
        return self._trust.record.is_revoked_key(key)


async def build_account_roles(
    wanted: frozenset[Role],
    swarm: Swarm,
    settings: Settings,
    store: Store,
    metrics: Mapping[Role, RoleMetrics],
    on_close: Callable[[Callable[[], None]], object],
) -> Mapping[Role, RunnableRole]:
    """Those of auth and gateway that are wanted.

    Args:
        wanted: roles of this process.
        swarm: with its trust, in a private one.
        settings: of this process.
        store: open.
        metrics: of each role.
        on_close: takes what must be called at the end.
    """
    tokens = await _tokens(swarm, settings, store)
    built: dict[Role, RunnableRole] = {}
    if Role.AUTH in wanted:
        hasher = PasswordHasher(settings.bcrypt_cost)
        on_close(hasher.close)
        accounts = Accounts(
            store,
            hasher,
            registration=settings.registration,
            makes_admin=swarm.trust is not None,
        )
        built[Role.AUTH] = AuthRole(
            swarm,
            accounts,
            tokens.issuer,
            verifier=tokens.verifier,
            local=tokens.local,
            is_gateway=lambda peer: _is_gateway(swarm, peer),
            metrics=metrics[Role.AUTH],
        )
    if Role.GATEWAY in wanted:
        built[Role.GATEWAY] = GatewayRole(
            swarm,
            tokens.verifier,
            Limiter(store, settings.max_requests, settings.window_minutes),
            known=KnownAccounts(
                _source(wanted, swarm, settings, store), settings.swarm_refresh_s
            ),
            refresh_s=settings.swarm_refresh_s,
            is_private=swarm.trust is not None,
            is_shared=store.is_shared,
            stall_s=settings.stall_s,
            prompt_bytes_max=settings.prompt_bytes_max,
            metrics=metrics[Role.GATEWAY],
        )
    return built


async def _tokens(swarm: Swarm, settings: Settings, store: Store) -> _Tokens:
    trust = swarm.trust
    if trust is not None:
        verifier = CertifiedVerifier(trust.membership.root, _Record(trust))
        issuer = CertifiedIssuer(
            trust.identity.purpose_key_pair("token"), lambda: _chain(trust)
        )
        return _Tokens(issuer, verifier)
    stored = await store.secret(SECRET_NAME)
    shared = settings.jwt_secret.encode()
    own = TokenVerifier([stored])
    return _Tokens(
        TokenIssuer(shared or stored),
        TokenVerifier([shared, stored]) if shared else own,
        own if settings.is_solo else None,
    )


def _source(
    wanted: frozenset[Role], swarm: Swarm, settings: Settings, store: Store
) -> ChangeSource:
    """The store, if the accounts are in it, else the swarm's auth peers.

    An open swarm's are anybody: they could end everybody's sessions.
    """
    is_here = Role.AUTH in wanted or bool(settings.database_url)
    if swarm.trust is None or is_here:
        return StoreChanges(store)
    return AuthClient(swarm, is_private=True)


def _is_gateway(swarm: Swarm, peer: str) -> bool:
    """Only gateways are let through to auth in a private swarm; else one's own is."""
    return swarm.trust is not None or peer == swarm.public_key.hex()


def _chain(trust: Trust) -> bytes:
    if trust.chain is None:
        raise ApiError(ErrorCode.NO_AUTH, trust.problem, status=503)
    return encode_chain(trust.chain)
