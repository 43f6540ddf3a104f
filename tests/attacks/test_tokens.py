"""Session tokens that no gateway takes, wherever they are shown."""

import asyncio
import base64
import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from peerchat.api import ApiError, ErrorCode, Role
from peerchat.net.identity import PublicKey
from peerchat.trust.certificate import encode_chain

from .town import PASSWORD, REFRESH_S, USER, refusals

pytestmark = pytest.mark.asyncio(loop_scope="session")

KINDS = (
    "wrong key",
    "alg none",
    "HS256 with the public key",
    "expired",
    "by a processor",
    "of a foreign root",
    "no chain",
    "of the open swarm",
)


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def claims(age_s: int = 0) -> dict:
    now_s = int(time.time()) - age_s
    return {"email": USER, "role": "admin", "iat": now_s, "exp": now_s + 24 * 3600}


def signed(pair, chain, said=None):
    key = Ed25519PrivateKey.from_private_bytes(pair.seed)
    headers = {} if chain is None else {"crt": encoded(chain)}
    return jwt.encode(said or claims(), key, "EdDSA", headers=headers)


def forged(town, intruder, kind):
    """A token that an attacker makes; only the expired one's signer is right."""
    box = town.box.trust
    chain, right = box.membership.chain, box.identity.purpose_key_pair("token")
    own = intruder.own.purpose_key_pair("token")
    match kind:
        case "wrong key":
            return signed(own, chain)
        case "alg none":
            head = {"alg": "none", "typ": "JWT", "crt": encoded(chain)}
            parts = json.dumps(head).encode(), json.dumps(claims()).encode(), b""
            return ".".join(map(encoded, parts))
        case "HS256 with the public key":
            secret = bytes(right.public_key)
            return jwt.encode(claims(), secret, "HS256", {"crt": encoded(chain)})
        case "expired":
            return signed(right, chain, claims(age_s=25 * 3600))
        case "by a processor":
            own_chain = town.certificate(intruder.own, ("processor", "gateway"))
            return signed(own, encode_chain(own_chain))
        case "of a foreign root":
            root = intruder.own.key_pair("root")
            foreign = town.certificate(intruder.own, ("auth",), signer=root)
            return signed(own, encode_chain(foreign))
        case "no chain":
            return signed(own, None)
        case "of the open swarm":
            return jwt.encode(claims(), b"x" * 32, "HS256")
    raise AssertionError(kind)


async def refused(town, node, token) -> None:
    """Neither a question nor a session of this token is taken."""
    gateway = PublicKey(bytes.fromhex(node.role_keys()[Role.GATEWAY]))
    for method in ("verifySession", "processPrompt", "manageAccounts"):
        data = {"prompt": "x", "action": "list"}
        body = {"data": data, "meta": {"key": token}}
        reply = await town.laptop.swarm.request(gateway, method, body, 10)
        assert reply["status"] == 401, (method, reply)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_token_that_is_not_one(town, intruder, kind, caplog):
    token = forged(town, intruder, kind)
    async with town.unharmed():
        for node in (town.box, town.far):
            how = (node, Role.GATEWAY, "verifySession", "unauthorized")
            before = refusals(*how)
            await refused(town, node, token)
            assert refusals(*how) == before + 1
    assert token not in caplog.text


@pytest.mark.parametrize("change", ["password", "logout"])
async def test_a_token_from_before(town, change):
    client = await town.client(f"leaver-{change}", email=f"{change}@example.org")
    old = client.token
    await client.verify()
    async with town.unharmed():
        if change == "password":
            await client.change_password(PASSWORD, "another horse battery")
        else:
            await client.logout_everywhere()
        # Whoever was told knows at once; the others within one refresh.
        await asyncio.sleep(REFRESH_S + 0.5)
        for node in (town.box, town.far):
            await refused(town, node, old)
    if change == "password":
        await client.verify()
    await client.aclose()


async def test_an_own_session_manages_no_accounts(town):
    """The claims of a token say admin; the store does not."""
    with pytest.raises(ApiError) as caught:
        await town.laptop.client.manage_accounts("list")
    assert caught.value.status == 403
    assert caught.value.code is ErrorCode.FORBIDDEN
