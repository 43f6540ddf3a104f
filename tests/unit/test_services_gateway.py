"""Every method of the contract, and what goes wrong with it, over real connections."""

import asyncio
import json

import pytest

from peerchat.api import (
    ApiError,
    ErrorCode,
    Finished,
    Fragment,
    Progress,
    PromptRequest,
    Role,
    Usage,
)
from peerchat.net.errors import PeerNotFound
from peerchat.services.gateway import GatewayRole
from peerchat.services.limits import Limiter
from peerchat.services.messages import ENVELOPE_MESSAGE
from peerchat.services.metrics import RoleMetrics
from peerchat.services.metrics_http import exposition
from peerchat.services.prompt_stream import Caller
from peerchat.services.swarm import topic_of
from peerchat.services.tokens import TokenIssuer, TokenVerifier

from .services_world import EMAIL, PASSWORD, SECRET, World, call, read, token

WHO = {"email": EMAIL, "password": PASSWORD}


@pytest.fixture
async def world(tmp_path):
    async with World(tmp_path) as one:
        yield one


def request(prompt="one two", **more):
    return PromptRequest(prompt, "request-1", **more)


async def test_accounts_by_a_gateway(world):
    await world.auth()
    gateway, client = await world.gateway(), world.peer()
    assert await call(client, gateway, "register", WHO) == {
        "success": True,
        "status": 201,
        "message": "User registered successfully",
        "email": EMAIL,
    }
    assert await call(client, gateway, "register", WHO) == {
        "success": False,
        "status": 409,
        "message": "User already exists",
    }
    wrong = {"email": EMAIL, "password": "another one"}
    unknown = {"email": "bob@example.org", "password": PASSWORD}
    refused = {"success": False, "status": 401, "message": "Invalid credentials"}
    assert await call(client, gateway, "login", wrong) == refused
    assert await call(client, gateway, "login", unknown) == refused
    login = await call(client, gateway, "login", {**WHO, "email": " Ann@Example.ORG "})
    assert {**login, "key": ""} == {
        "success": True,
        "status": 200,
        "email": EMAIL,
        "key": "",
        "rateLimitInfo": {
            "remainingRequests": 10,
            "maxRequests": 10,
            "nextResetInSeconds": 0,
            "windowDurationMinutes": 1,
        },
    }
    verified = await call(client, gateway, "verifySession", {}, login["key"])
    assert (verified["valid"], verified["email"]) == (True, EMAIL)
    assert verified["rateLimitInfo"] == login["rateLimitInfo"]


@pytest.mark.parametrize(
    ("data", "part"),
    [
        ({}, "required"),
        ({"email": EMAIL}, "required"),
        ({"email": EMAIL, "password": 5}, "required"),
        ({"email": EMAIL, "password": "short"}, "at least 8"),
        ({"email": "no address", "password": PASSWORD}, "Invalid email"),
        ({"email": "local@localhost", "password": PASSWORD}, "reserved"),
        ({"email": "a" * 300 + "@example.org", "password": PASSWORD}, "longer"),
    ],
)
async def test_what_cannot_be_registered(world, data, part):
    await world.auth()
    gateway, client = await world.gateway(), world.peer()
    answer = await call(client, gateway, "register", data)
    assert (answer["success"], answer["status"]) == (False, 400)
    assert part in answer["message"]


@pytest.mark.parametrize(
    "method", ["register", "login", "verifySession", "processPrompt"]
)
@pytest.mark.parametrize("body", [{"email": "x"}, {"data": {}}, [], "x", None, 5])
async def test_envelope_of_another_form(world, method, body):
    gateway, client = await world.gateway(), world.peer()
    key = gateway.key(Role.GATEWAY)
    answer = await client.swarm.request(key, method, body, timeout_s=10)
    assert answer["status"] == 400
    assert answer["message"] == ENVELOPE_MESSAGE


async def test_ping_with_and_without_a_body(world):
    gateway, client = await world.gateway(), world.peer()
    session = await client.swarm.session(gateway.key(Role.GATEWAY))
    for body in (b"", b"{}", b"not json"):
        answer = json.loads(await session.request("ping", body, timeout_s=5))
        assert (answer["status"], answer["service"]) == ("healthy", "gateway")
        assert answer["timestamp"] > 1_600_000_000_000
    session.release()


async def test_unknown_method_is_an_error(world):
    gateway, client = await world.gateway(), world.peer()
    with pytest.raises(ApiError, match="Unknown method"):
        await call(client, gateway, "noSuchMethod")


@pytest.mark.parametrize("key", ["", "x", "a.b.c", "é", "x" * 9000])
async def test_without_a_valid_token(world, key):
    gateway, client = await world.gateway(), world.peer()
    verified = await call(client, gateway, "verifySession", {}, key)
    # A key longer than any token is no envelope of the contract.
    assert verified["status"] == (400 if len(key) > 8192 else 401)
    assert verified["valid"] is False
    prompted = await call(client, gateway, "processPrompt", {"prompt": "x"}, key)
    assert prompted["success"] is False
    if len(key) <= 8192:
        assert prompted["status"] == 401
        assert prompted["message"] == "Unauthorized: Invalid or expired token"


async def test_a_token_of_another_secret_is_refused(world):
    gateway, client = await world.gateway(), world.peer()
    key = TokenIssuer(b"some other secret of thirty-two bytes").issue(EMAIL)
    verified = await call(client, gateway, "verifySession", {}, key)
    assert verified["status"] == 401
    assert "signature" in verified["message"]


async def test_whole_answers_until_the_limit(world):
    await world.processor("one")
    gateway, client = await world.gateway(max_requests=3), world.peer()
    for left in (2, 1, 0):
        answer = await call(
            client, gateway, "processPrompt", {"prompt": "one two"}, token()
        )
        assert (answer["prompt"], answer["response"]) == ("one two", "one two ")
        assert answer["rateLimitInfo"]["remainingRequests"] == left
        assert set(answer) == {
            *("prompt", "response", "processed_at", "requestId", "rateLimitInfo")
        }
    refused = await call(client, gateway, "processPrompt", {"prompt": "x"}, token())
    assert set(refused) == {"status", "message", "retryAfter", "rateLimitInfo"}
    assert (refused["status"], refused["message"]) == (429, "Rate limit exceeded")
    assert 0 < refused["retryAfter"] <= 60
    assert refused["rateLimitInfo"]["remainingRequests"] == 0
    other = await call(
        client, gateway, "processPrompt", {"prompt": "x"}, token("bob@example.org")
    )
    assert other["response"] == "x "


@pytest.mark.parametrize("prompt", ["", " \n", "x" * (256 * 1024 + 1), None, 5])
async def test_a_wrong_prompt_does_not_count(world, prompt):
    await world.processor("one")
    gateway, client = await world.gateway(), world.peer()
    data = {"prompt": prompt}
    answer = await call(client, gateway, "processPrompt", data, token())
    assert (answer["success"], answer["status"]) == (False, 400)
    verified = await call(client, gateway, "verifySession", {}, token())
    assert verified["rateLimitInfo"]["remainingRequests"] == 10
    assert world.served == []


async def test_streamed_answer_tells_who_served_it(world):
    processor = await world.processor("one")
    gateway, client = await world.gateway(), world.peer()
    answer = client.swarm.ask(gateway.key(Role.GATEWAY), request(), token())
    text, end = await read(answer)
    assert text == "one two "
    assert end.usage.peer == processor.key(Role.PROCESSOR).hex()
    assert end.request_id == "request-1"
    assert end.rate_limit.remaining == 9


async def test_an_answer_read_to_its_end_counts_as_ok(world):
    await world.processor("one")
    metrics = RoleMetrics(Role.GATEWAY)
    limiter = Limiter(await world.store("limits.db"), 10, 1.0)
    role = GatewayRole(
        world.peer().swarm, TokenVerifier([SECRET]), limiter, metrics=metrics
    )
    answer = role.answer(request(), Caller("somebody", token()))
    async for event in answer:
        if isinstance(event, Finished):
            break
    await answer.aclose()  # as the channel does once it sent the end
    text = exposition([metrics])[0].decode()
    assert 'method="processPrompt",outcome="ok",role="gateway"} 1.0' in text
    assert "cancelled" not in text


async def test_nobody_there(world):
    gateway, client = await world.gateway(), world.peer()
    login = await call(client, gateway, "login", WHO)
    assert (login["success"], login["status"]) == (False, 503)
    assert "auth" in login["message"]
    register = await call(client, gateway, "register", WHO)
    assert "auth" in register["message"]
    prompted = await call(client, gateway, "processPrompt", {"prompt": "x"}, token())
    assert prompted["error"] is True
    assert prompted["requestId"]
    assert "processor" in prompted["message"]
    # Nobody took the prompt: it does not count.
    assert prompted["rateLimitInfo"]["remainingRequests"] == 10


async def test_next_processor_when_one_vanished_before_the_first_text(world):
    async def vanish(_request, _caller):
        world.served.append("dead")
        yield Progress("loading")
        dead.dht.kill()
        await asyncio.Event().wait()

    dead = await world.processor("dead", vanish, slots=8)
    await world.processor("one", slots=1, busy=1)
    gateway, client = await world.gateway(), world.peer()
    answer = client.swarm.ask(gateway.key(Role.GATEWAY), request(), token())
    states = []
    text = ""
    async for event in answer:
        if isinstance(event, Progress):
            states.append(event.state)
        if isinstance(event, Fragment):
            text += event.text
    assert text == "one two "
    assert world.served == ["dead", "one"]
    assert states[-2:] == ["retrying", "serving"]
    # It is not asked again, though the DHT still lists it.
    await read(client.swarm.ask(gateway.key(Role.GATEWAY), request(), token()))
    assert world.served == ["dead", "one", "one"]


async def test_lost_in_the_middle_with_nobody_else_is_told(world):
    async def vanish(_request, _caller):
        world.served.append("dead")
        yield Fragment("half of ")
        await seen.wait()
        dead.dht.kill()
        await asyncio.Event().wait()

    seen = asyncio.Event()
    dead = await world.processor("dead", vanish, slots=8)
    gateway, client = await world.gateway(), world.peer()
    answer = client.swarm.ask(gateway.key(Role.GATEWAY), request(), token())
    got = [await anext(answer)]
    seen.set()
    with pytest.raises(ApiError, match=r"breaks off here.* lost") as caught:
        await anext(answer)
    assert caught.value.code is ErrorCode.PEER_LOST
    assert caught.value.is_partial
    assert [event.text for event in got] == ["half of "]
    assert world.served == ["dead"]


async def test_all_busy(world):
    async def busy(_request, _caller):
        world.served.append("busy")
        raise ApiError(ErrorCode.BUSY, "full", status=503, retry_after_s=7)
        yield

    await world.processor("a", busy)
    await world.processor("b", busy)
    gateway, client = await world.gateway(), world.peer()
    with pytest.raises(ApiError, match="full") as caught:
        await read(client.swarm.ask(gateway.key(Role.GATEWAY), request(), token()))
    assert caught.value.code is ErrorCode.BUSY
    assert caught.value.retry_after_s == 7
    assert caught.value.rate_limit.remaining == 10
    assert world.served == ["busy", "busy"]


async def test_the_processor_that_has_the_model(world):
    await world.processor("small", models=["tiny"], slots=4)
    await world.processor("large", models=["huge", "tiny"], slots=1, busy=1)
    gateway, client = await world.gateway(), world.peer()
    key = gateway.key(Role.GATEWAY)
    await read(client.swarm.ask(key, request(model="huge"), token()))
    await read(client.swarm.ask(key, request(model="tiny"), token()))
    assert world.served == ["large", "small"]
    with pytest.raises(ApiError, match="huge, tiny") as caught:
        await read(client.swarm.ask(key, request(model="none"), token()))
    assert caught.value.code is ErrorCode.MODEL_MISSING


async def test_stop_reaches_the_processor(world):
    async def endless(_request, _caller):
        try:
            while True:
                yield Fragment("on and ")
                await asyncio.sleep(0)
        finally:
            world.stopped.set()

    await world.processor("endless", endless)
    gateway, client = await world.gateway(), world.peer()
    answer = client.swarm.ask(gateway.key(Role.GATEWAY), request(), token())
    assert (await anext(answer)).text == "on and "
    await answer.aclose()
    async with asyncio.timeout(5):
        await world.stopped.wait()


async def test_a_client_that_vanishes_stops_the_processor(world):
    async def stall(_request, _caller):
        try:
            yield Fragment("begun")
            await asyncio.Event().wait()
        finally:
            world.stopped.set()

    await world.processor("stall", stall)
    gateway, client = await world.gateway(), world.peer()
    answer = client.swarm.ask(gateway.key(Role.GATEWAY), request(), token())
    await anext(answer)
    client.dht.kill()
    async with asyncio.timeout(5):
        await world.stopped.wait()


async def test_a_node_processor_is_asked_by_the_unary_method(world):
    said = {"response": "whole \x1b[2Janswer", "model": "node-model", "requestId": "7"}
    worker = await world.node_processor(said)
    gateway, client = await world.gateway(), world.peer()
    key = gateway.key(Role.GATEWAY)
    text, end = await read(client.swarm.ask(key, request(), token()))
    assert text == "whole answer"
    assert end.usage.model == "node-model"
    assert end.usage.peer == worker.key(Role.PROCESSOR).hex()


@pytest.mark.parametrize(
    "answer",
    [
        RuntimeError("engine on fire"),
        {"error": True, "message": "engine on fire", "requestId": "1"},
        "[HRPC_ERR]=engine on fire",
    ],
)
async def test_a_node_processor_that_fails(world, answer):
    if isinstance(answer, RuntimeError):
        answer = ApiError(ErrorCode.INTERNAL, "engine on fire")
    await world.node_processor(answer)
    gateway, client = await world.gateway(), world.peer()
    prompted = await call(client, gateway, "processPrompt", {"prompt": "x"}, token())
    assert prompted["error"] is True
    assert prompted["message"] == "engine on fire"


async def test_a_node_gateway_is_asked_by_the_unary_method(world):
    node, client = world.peer(), world.peer()

    async def process_prompt(body, _peer):
        asked = json.loads(body)
        assert asked["meta"] == {"key": "the token"}
        return {"prompt": "x", "response": asked["data"]["prompt"].upper()}

    await node.swarm.serve(Role.GATEWAY, {"processPrompt": process_prompt})
    answer = client.swarm.ask(node.key(Role.GATEWAY), request(), "the token")
    text, _ = await read(answer)
    assert text == "ONE TWO"


async def test_login_with_the_auth_peer_that_knows_the_user(world):
    await world.auth("a.db")
    await world.auth("b.db")
    gateway, client = await world.gateway(), world.peer()
    for name in ("ann", "bob", "cid", "dan"):
        who = {"email": f"{name}@example.org", "password": PASSWORD}
        assert (await call(client, gateway, "register", who))["status"] == 201
    await world.auth("c.db")
    client.swarm.drop(Role.AUTH, b"")
    gateway.swarm._found.clear()
    for name in ("ann", "bob", "cid", "dan"):
        who = {"email": f"{name}@example.org", "password": PASSWORD}
        assert (await call(client, gateway, "login", who))["status"] == 200


async def test_next_auth_peer_when_one_is_dead(world):
    first, second = await world.auth(), await world.auth()
    gateway, client = await world.gateway(), world.peer()
    await call(client, gateway, "register", WHO)
    first.dht.kill()
    assert (await call(client, gateway, "login", WHO))["status"] == 200
    second.dht.kill()
    login = await call(client, gateway, "login", WHO)
    assert login["status"] == 503


async def test_guessing_is_slowed_down(world):
    await world.auth()
    gateway, client = await world.gateway(), world.peer()
    await call(client, gateway, "register", WHO)
    wrong = {"email": EMAIL, "password": "not this one"}
    answers = await asyncio.gather(
        *(call(client, gateway, "login", wrong) for _ in range(12))
    )
    statuses = {answer["status"] for answer in answers}
    assert statuses == {401, 429}
    locked = next(answer for answer in answers if answer["status"] == 429)
    assert locked["retryAfter"] >= 1
    # Whoever is locked out learns nothing, not even with the right password.
    assert (await call(client, gateway, "login", WHO))["status"] == 429


async def test_a_service_that_closes_is_found_no_more(world):
    peer, client = world.peer(), world.peer()
    service = await peer.swarm.serve(Role.AUTH, {})
    assert await client.swarm.find(Role.AUTH) == [service.public_key]
    await service.close()
    assert world.network.keys(topic_of(Role.AUTH)) == []
    with pytest.raises(PeerNotFound):
        await client.swarm.request(service.public_key, "ping", {}, timeout_s=5)
    assert await client.swarm.find(Role.AUTH) == []


async def test_lookups_are_joined_and_kept(world):
    peer, client = world.peer(), world.peer()
    await peer.swarm.serve(Role.AUTH, {})
    await asyncio.gather(*(client.swarm.find(Role.AUTH) for _ in range(20)))
    await client.swarm.find(Role.AUTH)
    assert world.network.lookups == 1
    key = peer.key(Role.AUTH)
    client.swarm.drop(Role.AUTH, key)
    assert await client.swarm.find(Role.AUTH) == [key]
    assert world.network.lookups == 2


async def test_a_draining_service_finishes_what_runs(world):
    go_on = asyncio.Event()

    async def slow(_request, _caller):
        yield Fragment("first ")
        await go_on.wait()
        yield Fragment("last")
        yield Finished(Usage("m", "", "stop", 1.0))

    processor = await world.processor("slow", slow)
    gateway, client = await world.gateway(), world.peer()
    answer = client.swarm.ask(gateway.key(Role.GATEWAY), request(), token())
    await anext(answer)
    await processor.swarm.withdraw()
    assert world.network.keys(topic_of(Role.PROCESSOR)) == []
    draining = asyncio.create_task(processor.swarm.drain(10))
    await asyncio.sleep(0)
    assert not draining.done()
    go_on.set()
    text, _ = await read(answer)
    assert text == "last"
    await draining
