"""Passes between gateways: what they are good for, and what is shown to strangers."""

from __future__ import annotations

import json

import jwt
import pytest

from peerchat.api import ApiError, Role
from peerchat.services.limit_passes import PASS_LIFE_S, LimitPasses
from peerchat.services.tokens import TokenIssuer, TokenVerifier
from tests.unit.routing_world import RoutingWorld, ask, read_all
from tests.unit.services_world import SECRET

EMAIL = "ann@example.org"
OTHER = b"another secret of thirty-two bytes"


def test_a_pass_names_a_user_for_a_minute():
    passes = LimitPasses([SECRET])
    assert LimitPasses([OTHER, SECRET]).verify(passes.issue(EMAIL)).email == EMAIL
    with pytest.raises(ApiError, match="another secret"):
        LimitPasses([OTHER]).verify(passes.issue(EMAIL))
    old = LimitPasses([SECRET], now_s=lambda: 1_700_000_000.0).issue(EMAIL)
    with pytest.raises(ApiError, match="expired"):
        passes.verify(old)
    claims = jwt.decode(old, options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == PASS_LIFE_S


def test_pass_and_session_are_not_taken_for_each_other():
    passes = LimitPasses([SECRET])
    with pytest.raises(ApiError):
        TokenVerifier([SECRET]).verify(passes.issue(EMAIL))
    with pytest.raises(ApiError):
        passes.verify(TokenIssuer(SECRET).issue(EMAIL))
    for broken in ("", "a.b.c", "\ud800", "x" * 10_000):
        with pytest.raises(ApiError):
            passes.verify(broken)
    assert SECRET.decode() not in repr(passes)


async def test_a_gateway_that_nobody_knows_is_shown_no_session(tmp_path):
    seen: list[bytes] = []

    async def spy(body: bytes, _peer: str) -> object:
        seen.append(body)
        return {"error": "Unauthorized", "status": 401}

    async with RoutingWorld(tmp_path) as world:
        await world.worker()
        entry = await world.entry()
        stranger = world.peer()
        methods = dict.fromkeys(("limitAdmit", "limitStatus", "limitTakeBack"), spy)
        await stranger.swarm.serve(Role.GATEWAY, methods)
        users = [f"u{number}@example.org" for number in range(12)]
        for user in users:  # of whom the stranger owns half
            await read_all(ask(world, entry, f"from {user}?", user=user))
    assert seen
    for body in seen:
        shown = json.loads(body)["meta"]["key"]
        assert LimitPasses([SECRET]).verify(shown).email in users
        with pytest.raises(ApiError):
            TokenVerifier([SECRET]).verify(shown)
