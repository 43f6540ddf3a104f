"""Who gave an answer, and how: what every API's answers say of it."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import openai
import pytest
from ollama import ChatResponse

from peerchat.api import Finished, Fragment
from peerchat.cli.recorded import read_recorded
from peerchat.net.crypto.primitives import KeyPair
from peerchat.services.receipt_claims import Verdict, claims_of
from peerchat.services.receipts import (
    VERSION,
    Statement,
    answer_hash,
    open_receipt_untrusted,
    seal,
)
from tests.bridge_world import BEARER, EVENTS, Bridge, bridge, start
from tests.scripted_swarm import finished

__all__ = ["bridge", "start"]

SIGNER = KeyPair.from_seed(bytes(32))
TURN = {"role": "user", "content": "Hi"}
CHAT = {"model": "m", "messages": [TURN]}
BEGUN = {"model": "m", "messages": [TURN, {"role": "assistant", "content": "Hel"}]}
ASKED = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"model": "m", "prompt": "Hi"},
    "/api/chat": CHAT,
    "/api/generate": {"model": "m", "prompt": "Hi"},
    "/inference": {"query": "Hi"},
}


def end_of(answer: str, *, prefix_chars: int = 0) -> Finished:
    statement = Statement(
        VERSION, "r", bytes(32), answer_hash(answer), "m", 1, 2, 0, "stop", prefix_chars
    )
    end = finished(request_id="r", receipt=seal(statement, SIGNER))
    return replace(end, usage=replace(end.usage, continued=2))


async def last_piece(bridge: Bridge, path: str, body: dict) -> dict:
    """What the last line but OpenAI's usage and ``[DONE]`` says."""
    async with bridge.session.post(
        bridge.url + path, json={**body, "stream": True}, headers=EVENTS
    ) as response:
        lines = (await response.text()).splitlines()
    found = [json.loads(line.removeprefix("data: ")) for line in lines if "{" in line]
    (last,) = (one for one in found if "peerchat" in one)
    return last


async def said_of(bridge: Bridge, path: str, body: dict, *, is_stream: bool) -> dict:
    if is_stream:
        return (await last_piece(bridge, path, body))["peerchat"]
    status, answer, _ = await bridge.post(path, {**body, "stream": False}, **BEARER)
    assert status == 200, answer
    return answer["peerchat"]


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("path", ASKED)
async def test_every_answer_tells_how_it_came_and_has_its_receipt(
    bridge: Bridge, path: str, is_stream: bool
) -> None:
    end = end_of("Hello")
    bridge.gateway.steps = [Fragment("Hel"), Fragment("lo"), end]
    told = await said_of(bridge, path, ASKED[path], is_stream=is_stream)
    receipt = open_receipt_untrusted(base64.b64decode(told.pop("receipt")))
    assert receipt.begin_in("Hello") == 0
    assert receipt.key == SIGNER.public_key
    assert told == {
        "request_id": "r",
        "peer": end.usage.peer,
        "model": "model",
        "finish_reason": "stop",
        "answer_tokens": 2,
        "continued": 2,
    }


async def test_without_a_receipt_there_is_none(bridge: Bridge) -> None:
    told = await said_of(bridge, "/api/chat", CHAT, is_stream=True)
    assert "receipt" not in told


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat"])
async def test_of_a_begun_answer_it_says_where_the_rest_begins(
    bridge: Bridge, path: str, is_stream: bool
) -> None:
    bridge.gateway.steps = [Fragment("lo"), end_of("lo", prefix_chars=3)]
    told = await said_of(bridge, path, BEGUN, is_stream=is_stream)
    assert told["starts_at"] == 3


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(
    ("path", "body", "shown", "said"),
    [
        ("/v1/chat/completions", CHAT, "Hello", "all 5 characters"),
        ("/v1/chat/completions", BEGUN, "lo", "all 2 characters"),
        ("/api/chat", BEGUN, "lo", "all 2 characters"),
        (
            "/v1/completions",
            {"model": "m", "prompt": "Say: ", "echo": True},
            "Hello",
            "all 5 characters; the 5 before them are told to be of the request, and "
            "nobody signed them",
        ),
        ("/inference", {"query": "Hi"}, "Hello", "all 5 characters"),
    ],
)
async def test_what_is_saved_can_be_verified(
    bridge: Bridge, path: str, body: dict, shown: str, said: str, is_stream: bool
) -> None:
    bridge.gateway.steps = [Fragment(shown), end_of(shown, prefix_chars=5 - len(shown))]
    asked = {**body, "stream": is_stream}
    async with bridge.session.post(
        bridge.url + path, json=asked, headers=EVENTS if is_stream else BEARER
    ) as response:
        recorded = read_recorded(await response.text())
    receipt = open_receipt_untrusted(recorded.receipt)
    claims = {one.name: one for one in claims_of(receipt, recorded, [], 10**10)}
    assert claims["answer"].verdict is Verdict.HOLDS
    assert claims["answer"].says == said


async def test_what_stands_before_a_completion_is_told(bridge: Bridge) -> None:
    bridge.gateway.steps = [Fragment("Hello"), end_of("Hello")]
    body = {"model": "m", "prompt": "Say: ", "echo": True}
    told = await said_of(bridge, "/v1/completions", body, is_stream=False)
    assert told["starts_at"] == -5


async def test_the_package_openai_keeps_it(bridge: Bridge) -> None:
    bridge.gateway.steps = [Fragment("Hello"), end_of("Hello")]
    async with openai.AsyncOpenAI(
        base_url=f"{bridge.url}/v1", api_key=BEARER["Authorization"][7:]
    ) as client:
        whole = await client.chat.completions.create(**CHAT)
        stream = await client.chat.completions.create(**CHAT, stream=True)
        pieces = [piece async for piece in stream]
    assert whole.model_extra is not None
    assert whole.model_extra["peerchat"]["continued"] == 2
    assert json.loads(whole.model_dump_json())["peerchat"]["receipt"]
    assert pieces[-1].model_extra is not None
    assert pieces[-1].model_extra["peerchat"]["receipt"]


async def test_the_package_ollama_skips_it(bridge: Bridge) -> None:
    bridge.gateway.steps = [Fragment("Hello"), end_of("Hello")]
    last = await last_piece(bridge, "/api/chat", CHAT)
    assert ChatResponse.model_validate(last).done
