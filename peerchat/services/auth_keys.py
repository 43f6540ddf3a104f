"""An auth peer's methods for API keys."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from .api_keys import ApiKeys
from .key_messages import KeysReply, KeysRequest, ResolveReply, ResolveRequest
from .messages import decode_untrusted, invalid
from .registration import refused


class AuthKeys:
    """Answers them.

    Args:
        keys: of the store's accounts.
        owner: whose a session token is; raises `ApiError` (401).
        is_gateway: whether a peer (hex) may ask whose a key is.
    """

    def __init__(
        self,
        keys: ApiKeys,
        owner: Callable[[str], Awaitable[str]],
        is_gateway: Callable[[str], bool],
    ) -> None:
        self._keys = keys
        self._owner = owner
        self._is_gateway = is_gateway

    async def manage(self, body: bytes, _peer: str) -> object:
        """``manageKeys``: with a session token only, for a key must not make others."""
        request = decode_untrusted(body, KeysRequest)
        email = await self._owner(request.token)
        match request.action:
            case "create":
                return KeysReply.of([await self._keys.create(email, request.name)])
            case "list":
                return KeysReply.of(await self._keys.list(email))
            case "revoke":
                return KeysReply.of([await self._keys.revoke(email, request.key_id)])
        raise invalid("The action must be create, list or revoke")

    async def resolve(self, body: bytes, peer: str) -> object:
        """``resolveKey``."""
        if not self._is_gateway(peer):
            raise refused("Only gateways ask whose a key is.")
        email = await self._keys.resolve(decode_untrusted(body, ResolveRequest).token)
        return ResolveReply(success=True, status=200, email=email)
