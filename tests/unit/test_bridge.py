"""Every path of the bridge and every way it can refuse, over a scripted swarm."""

from __future__ import annotations

import asyncio
import io
import json
import re
import socket
from pathlib import Path

import aiohttp
import pytest

from peerchat.api import (
    ApiError,
    ErrorCode,
    Fragment,
    Progress,
    RateLimit,
    Role,
)
from peerchat.config import find_home
from peerchat.gateways import Gateways
from peerchat.net.errors import PeerUnreachable
from peerchat.services.bridge import BridgeRole
from peerchat.services.bridge.documents import docs_page, openapi
from peerchat.services.bridge.operations import OPERATIONS, SCHEMAS
from peerchat.settings import Settings
from tests.bridge_world import BEARER, EVENTS, WHO, Bridge, Starter, bridge, start
from tests.scripted_swarm import (
    LIMIT,
    TOKEN,
    ScriptedAnswer,
    ScriptedPeer,
    ScriptedSwarm,
    finished,
    gateway,
    healthy,
    key,
)

__all__ = ["bridge", "start"]


def check(schema_name: str, body: dict) -> None:
    """The body has the fields that the document says, and no other."""
    schema = SCHEMAS[schema_name]
    assert set(body) <= set(schema["properties"])
    assert set(schema.get("required", ())) <= set(body)


def check_error(body: dict, status: int, *, is_node_path: bool = True) -> str:
    check("Error", {k: v for k, v in body.items() if k != "valid"})
    assert set(body["error"]) == {"message", "type", "code"}
    if is_node_path:
        assert body["success"] is False
        assert body["status"] == status
        assert body["message"] == body["error"]["message"]
    return body["error"]["message"]


# The paths when all goes well


async def test_register(bridge: Bridge) -> None:
    status, body, _ = await bridge.post("/register", WHO)
    assert status == 201
    assert body == {
        "success": True,
        "status": 201,
        "message": "User registered successfully",
        "email": WHO["email"],
    }
    check("Registered", body)


async def test_login(bridge: Bridge) -> None:
    status, body, response = await bridge.post("/login", WHO)
    assert status == 200
    assert body == {
        "success": True,
        "status": 200,
        "email": WHO["email"],
        "key": TOKEN,
    }
    assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("name", ["query", "prompt"])
async def test_inference(bridge: Bridge, name: str) -> None:
    end = finished(rate_limit=RateLimit(9, 10, 60, 1.0), request_id="r-1")
    thought = Fragment("hm", is_thinking=True)
    bridge.gateway.steps = [thought, Fragment("Hello"), Fragment(" you"), end]
    status, body, _ = await bridge.post(
        "/inference", {name: "Hi", "model": "m", "options": {"seed": 1}}, **BEARER
    )
    assert status == 200
    check("Answer", body)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", body.pop("processed_at"))
    assert body == {
        "prompt": "Hi",
        "response": "Hello you",
        "requestId": "r-1",
        "rateLimitInfo": LIMIT,
        "peerchat": {
            "request_id": "r-1",
            "peer": end.usage.peer,
            "model": "model",
            "finish_reason": "stop",
            "answer_tokens": 2,
            "continued": 0,
        },
    }
    (asked,) = bridge.gateway.answers
    assert asked.request.model == "m"
    assert asked.request.options == {"seed": 1}
    assert bridge.gateway.tokens == [TOKEN]


async def test_the_request_id_is_the_same_on_every_hop(bridge: Bridge) -> None:
    _, body, response = await bridge.post("/inference", {"query": "Hi"}, **BEARER)
    (asked,) = bridge.gateway.answers
    assert asked.request_id == response.headers["X-Request-Id"] == body["requestId"]


async def test_verify_session(bridge: Bridge) -> None:
    status, body, _ = await bridge.post("/verify-session", **BEARER)
    assert status == 200
    assert body == {"valid": True, "email": WHO["email"], "rateLimitInfo": LIMIT}


async def test_a_token_is_confirmed_to_whoever_has_it(bridge: Bridge) -> None:
    status, body, _ = await bridge.post("/get-api-token", **BEARER)
    assert (status, body) == (200, {"success": True, "token": TOKEN})


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer"}, {"Authorization": "Bearer forged"}]
)
async def test_no_token_is_handed_to_a_caller_without_one(
    bridge: Bridge, headers: dict[str, str]
) -> None:
    await bridge.post("/login", WHO)
    await bridge.post("/get-api-token", **BEARER)
    status, body, _ = await bridge.post("/get-api-token", WHO, **headers)
    assert status == 401
    check_error(body, 401)
    assert TOKEN not in json.dumps(body)


async def test_health(start: Starter) -> None:
    bridge = await start()
    status, body, _ = await bridge.call("GET", "/health")
    assert (status, body["status"], body["gateway"]) == (200, "healthy", True)
    check("Health", body)
    alone = await start(ScriptedSwarm())
    status, unwell, _ = await alone.call("GET", "/health")
    assert (status, unwell["status"], unwell["gateway"]) == (503, "unhealthy", False)
    assert set(body) <= set(unwell)
    for each, wanted in ((bridge, 200), (alone, 503)):
        async with each.session.head(f"{each.url}/health") as response:
            assert (response.status, await response.read()) == (wanted, b"")


async def test_health_asks_the_swarm_once_for_many_callers(bridge: Bridge) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(10):
            group.create_task(bridge.call("GET", "/health"))
    assert len(bridge.gateway.calls) == 1


async def test_models(start: Starter) -> None:
    processor = ScriptedPeer(Role.PROCESSOR, ping=healthy("processor", models=["m"]))
    bridge = await start(ScriptedSwarm(a=gateway(), b=processor))
    status, body, _ = await bridge.call("GET", "/models")
    assert status == 200
    (model,) = body["models"]
    assert (model["name"], model["peers"]) == ("m", [key(2).hex()])


async def test_metrics_count_what_happened(bridge: Bridge) -> None:
    await bridge.post("/inference", {"query": "Hi"}, **BEARER)
    await bridge.post("/inference", {"query": "Hi"})
    await bridge.post("/verify-session")
    await bridge.call("GET", "/no/such/path")
    async with bridge.session.get(bridge.url + "/metrics") as response:
        text = await response.text()
        assert response.headers["Content-Type"].startswith("text/plain")
    counted = re.findall(
        r'peerchat_requests_total\{method="(\w+)",outcome="(\w+)",role="bridge"\} 1',
        text,
    )
    assert sorted(counted) == [
        ("inference", "ok"),
        ("inference", "unauthorized"),
        ("unknown", "invalid_request"),
        ("verify_session", "unauthorized"),
    ]
    assert 'peerchat_tokens_total{kind="answer",role="bridge"} 2.0' in text
    assert "/no/such/path" not in text


# Streaming


async def events_of(response: aiohttp.ClientResponse) -> list[tuple[str, dict]]:
    found = []
    for block in (await response.text()).strip().split("\n\n"):
        name, data = block.split("\n")
        body = json.loads(data.removeprefix("data: "))
        found.append((name.removeprefix("event: "), body))
    return found


async def test_inference_streams_events(bridge: Bridge) -> None:
    bridge.gateway.steps = [
        Progress("queued", position=2),
        Fragment("hm", is_thinking=True),
        Fragment("line\nbreak\r\r"),
        finished(rate_limit=RateLimit(9, 10, 60, 1.0)),
    ]
    async with bridge.session.post(
        bridge.url + "/inference", json={"query": "Hi"}, headers=EVENTS
    ) as response:
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        events = await events_of(response)
    assert [name for name, _ in events] == ["progress", "fragment", "fragment", "done"]
    assert events[0][1]["position"] == 2
    assert events[1][1] == {"text": "hm", "thinking": True}
    assert events[2][1] == {"text": "line\nbreak\r\r"}
    assert events[3][1]["requestId"] == bridge.gateway.answers[0].request_id
    assert events[3][1]["usage"]["answer_tokens"] == 2
    assert events[3][1]["rateLimitInfo"] == LIMIT


async def test_a_refusal_before_the_first_event_has_its_status(bridge: Bridge) -> None:
    refused = ApiError(ErrorCode.NO_PROCESSOR, "No processor", status=503)
    bridge.gateway.steps = [refused]
    status, body, _ = await bridge.post("/inference", {"query": "Hi"}, **EVENTS)
    assert status == 503
    assert "No processor" in check_error(body, 503)


async def test_a_failure_in_mid_stream_is_an_event(bridge: Bridge) -> None:
    lost = ApiError(ErrorCode.ENGINE_FAILED, "The engine died.", status=502)
    bridge.gateway.steps = [Fragment("Hel"), lost]
    async with bridge.session.post(
        bridge.url + "/inference", json={"query": "Hi"}, headers=EVENTS
    ) as response:
        events = await events_of(response)
    assert [name for name, _ in events] == ["fragment", "error"]
    assert events[1][1]["error"]["code"] == "engine_failed"


async def was_asked(bridge: Bridge) -> ScriptedAnswer:
    await bridge.gateway.was_asked.wait()
    answer = bridge.gateway.answers[0]
    await answer.is_waiting.wait()
    return answer


@pytest.mark.parametrize("headers", [EVENTS, BEARER])
@pytest.mark.parametrize("first", [[], [Fragment("Hel")]])
async def test_a_caller_who_goes_away_closes_the_answer(
    bridge: Bridge, headers: dict[str, str], first: list[Fragment]
) -> None:
    bridge.gateway.steps = [*first, asyncio.Event()]
    asking = asyncio.ensure_future(
        bridge.call("POST", "/inference", json={"query": "Hi"}, headers=headers)
    )
    answer = await was_asked(bridge)
    asking.cancel()
    async with asyncio.timeout(1):
        await answer.is_closed.wait()
    await asyncio.gather(asking, return_exceptions=True)


# Refusals


@pytest.mark.parametrize(
    ("path", "reply", "status", "words"),
    [
        (
            "/register",
            {"success": False, "status": 409, "message": "User already exists"},
            409,
            "User already exists",
        ),
        (
            "/register",
            {"success": False, "status": 400, "message": "Password too short"},
            400,
            "Password too short",
        ),
        (
            "/login",
            {"success": False, "status": 401, "message": "Invalid credentials"},
            401,
            "Invalid credentials",
        ),
        (
            "/login",
            {"success": False, "status": 503, "message": "No auth", "code": "no_auth"},
            503,
            "No auth",
        ),
        ("/login", PeerUnreachable("x"), 503, "No gateway"),
    ],
)
async def test_a_gateways_refusal_passes_through(
    start: Starter, path: str, reply: object, status: int, words: str
) -> None:
    bridge = await start(ScriptedSwarm(a=gateway(**{path[1:]: reply})))
    got, body, _ = await bridge.post(path, WHO)
    assert got == status
    assert words in check_error(body, status)


async def test_the_limit_says_when_to_come_back(bridge: Bridge) -> None:
    bridge.gateway.steps = [
        ApiError(
            ErrorCode.RATE_LIMITED,
            "Rate limit exceeded",
            status=429,
            retry_after_s=42,
            rate_limit=RateLimit(0, 10, 42, 1.0),
        )
    ]
    status, body, response = await bridge.post("/inference", {"query": "Hi"}, **BEARER)
    assert status == 429
    assert response.headers["Retry-After"] == "42"
    assert body["retryAfter"] == 42
    assert body["rateLimitInfo"]["remainingRequests"] == 0
    assert body["error"]["type"] == "rate_limit_error"
    check_error(body, 429)


@pytest.mark.parametrize("path", ["/inference", "/verify-session", "/get-api-token"])
async def test_paths_that_need_a_token(bridge: Bridge, path: str) -> None:
    for headers in ({}, {"Authorization": "Basic x"}, {"Authorization": "Bearer "}):
        status, body, _ = await bridge.post(path, {"query": "Hi"}, **headers)
        assert status == 401
        assert "Bearer" in check_error(body, 401)
    assert bridge.gateway.calls == []
    if path == "/verify-session":
        status, body, _ = await bridge.post(path, Authorization="Bearer forged")
        assert (status, body["valid"]) == (401, False)


@pytest.mark.parametrize("path", ["/register", "/login", "/inference"])
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b'"x"',
        b"null",
        b"\xff",
        b"[" * 100_000,
        b'{"query":"\\ud800"}',
    ],
)
async def test_malformed_bodies(bridge: Bridge, path: str, data: bytes) -> None:
    status, body, _ = await bridge.call("POST", path, data=data, headers=BEARER)
    assert status == 400
    assert "JSON" in check_error(body, 400)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/register", {}),
        ("/register", {"email": "a@b.c"}),
        ("/login", {"email": 1, "password": "x"}),
        ("/login", {"email": " ", "password": "x"}),
        ("/inference", {}),
        ("/inference", {"query": ""}),
        ("/inference", {"query": " \n"}),
        ("/inference", {"query": 7}),
        ("/inference", {"query": None, "prompt": "hidden by query"}),
        ("/inference", {"query": "x" * (256 * 1024 + 1)}),
        ("/inference", {"query": "é" * (128 * 1024 + 1)}),
        ("/inference", {"query": "x", "model": 1}),
        ("/inference", {"query": "x", "options": []}),
    ],
)
async def test_wrong_fields(bridge: Bridge, path: str, body: object) -> None:
    status, answer, _ = await bridge.post(path, body, **BEARER)
    assert status == 400
    check_error(answer, 400)
    assert bridge.gateway.calls == []
    assert bridge.gateway.answers == []


async def test_large_bodies(bridge: Bridge) -> None:
    data = io.BytesIO(b'{"query":"' + b"x" * (1024 * 1024) + b'"}')
    status, body, _ = await bridge.call("POST", "/inference", data=data, headers=BEARER)
    assert status == 413
    assert "1048576" in check_error(body, 413)


async def test_an_announced_large_body_is_refused_before_it_comes(
    bridge: Bridge,
) -> None:
    status, _ = await spoken(bridge, "Content-Length: 99999999999")
    assert status == 413


async def test_a_body_that_does_not_come_is_given_up(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("peerchat.services.bridge.body.BODY_TIMEOUT_S", 0.05)
    status, body = await spoken(bridge, "Content-Length: 100")
    assert status == 408
    check_error(body, 408)


async def test_a_body_of_another_encoding(
    bridge: Bridge, caplog: pytest.LogCaptureFixture
) -> None:
    headers = {**BEARER, "Content-Encoding": "gzip"}
    status, body, _ = await bridge.call("POST", "/login", data=b"abc", headers=headers)
    assert status == 400
    check_error(body, 400)
    await spoken(bridge, "no header")
    assert [one for one in caplog.records if one.levelname == "ERROR"] == []


async def spoken(bridge: Bridge, header: str) -> tuple[int, dict]:
    """The answer to the head of a POST whose body never comes."""
    host, port = bridge.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"POST /login HTTP/1.1\r\nHost: {host}\r\n{header}\r\n\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    size = int(re.search(r"Content-Length: (\d+)", head)[1])
    body = await reader.readexactly(size)
    writer.close()
    is_json = "application/json" in head
    return int(head.split()[1]), json.loads(body) if is_json else {}


async def test_unknown_paths_and_wrong_methods(bridge: Bridge) -> None:
    status, body, _ = await bridge.call("GET", "/nowhere")
    assert status == 404
    check_error(body, 404, is_node_path=False)
    status, body, response = await bridge.call("GET", "/login")
    assert status == 405
    assert response.headers["Allow"] == "POST"
    check_error(body, 405)
    status, body, _ = await bridge.call("POST", "/health")
    assert status == 405
    status, body, _ = await bridge.call("OPTIONS", "/login")
    assert status == 405


async def test_what_nobody_foresaw_is_500_without_details(start: Starter) -> None:
    bridge = await start(ScriptedSwarm(a=gateway(login=ZeroDivisionError("secret"))))
    status, body, _ = await bridge.post("/login", WHO)
    assert status == 500
    assert "secret" not in json.dumps(body)
    check_error(body, 500)


# Who may call


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:3000", "203.0.113.5", "["]
)
async def test_foreign_hosts_are_refused(bridge: Bridge, host: str) -> None:
    status, body, _ = await bridge.call("GET", "/health", headers={"Host": host})
    assert status == 403
    assert body["error"]["code"] == "forbidden"
    assert body["error"]["type"] == "permission_error"
    assert "allowed_hosts" in body["error"]["message"]
    assert bridge.gateway.calls == []


@pytest.mark.parametrize(
    "host", ["localhost:3000", "127.0.0.1", "[::1]:3000", "LOCALHOST"]
)
async def test_own_hosts_are_served(bridge: Bridge, host: str) -> None:
    status, _, _ = await bridge.call("GET", "/health", headers={"Host": host})
    assert status == 200


async def test_allowed_hosts_are_served(start: Starter) -> None:
    bridge = await start(allowed_hosts=("chat.example",))
    status, _, _ = await bridge.call("GET", "/health", headers={"Host": "chat.example"})
    assert status == 200
    status, _, _ = await bridge.call("GET", "/health", headers={"Host": "x.example"})
    assert status == 403


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:1", "http://["]
)
async def test_foreign_origins_are_refused(bridge: Bridge, origin: str) -> None:
    status, body, response = await bridge.post("/login", WHO, Origin=origin)
    assert status == 403
    assert "allowed_origins" in body["error"]["message"]
    assert "Access-Control-Allow-Origin" not in response.headers
    assert bridge.gateway.calls == []
    status, _, _ = await bridge.call("OPTIONS", "/login", headers={"Origin": origin})
    assert status == 403


async def test_the_bridges_own_pages_may_call(bridge: Bridge) -> None:
    status, _, _ = await bridge.post("/login", WHO, Origin=bridge.url)
    assert status == 200


async def test_allowed_origins_may_call_and_read(start: Starter) -> None:
    origin = "https://app.example"
    bridge = await start(allowed_origins=(origin,))
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    async with bridge.session.options(bridge.url + "/login", headers=headers) as asked:
        assert asked.status == 204
        assert asked.headers["Access-Control-Allow-Origin"] == origin
        allowed = asked.headers["Access-Control-Allow-Headers"].split(", ")
        assert allowed == ["Authorization", "*"]  # with those of OpenAI's package
        assert asked.headers["Vary"] == "Origin"
    for headers in (BEARER, EVENTS):
        async with bridge.session.post(
            bridge.url + "/inference",
            json={"query": "Hi"},
            headers={**headers, "Origin": origin},
        ) as response:
            assert response.status == 200
            assert response.headers["Access-Control-Allow-Origin"] == origin
    status, _, response = await bridge.post("/inference", {"query": "x"}, Origin=origin)
    assert status == 401
    assert response.headers["Access-Control-Allow-Origin"] == origin


@pytest.mark.parametrize(
    ("proxies", "forwarded", "address"),
    [
        ((), "203.0.113.9", "127.0.0.1"),
        (("127.0.0.1/32",), "203.0.113.9", "203.0.113.9"),
        (("127.0.0.1/32",), "1.1.1.1, 203.0.113.9", "203.0.113.9"),
        (("127.0.0.0/8", "10.0.0.0/8"), "1.1.1.1, 10.0.0.2", "1.1.1.1"),
        (("127.0.0.1/32",), "not an address", "127.0.0.1"),
        (("127.0.0.1/32",), "", "127.0.0.1"),
    ],
)
async def test_forwarded_addresses_count_only_from_trusted_proxies(
    start: Starter,
    caplog: pytest.LogCaptureFixture,
    proxies: tuple[str, ...],
    forwarded: str,
    address: str,
) -> None:
    caplog.set_level("INFO", "peerchat")
    bridge = await start(trusted_proxies=proxies)
    await bridge.call("GET", "/health", headers={"X-Forwarded-For": forwarded})
    (line,) = [m for m in caplog.messages if m.startswith("GET /health")]
    assert line.endswith(f"from {address}")


async def test_foreign_text_is_inert_in_the_log(
    bridge: Bridge, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "peerchat")
    await bridge.call("GET", "/%1b%5b31m%0aforged")
    (line,) = [m for m in caplog.messages if m.startswith("GET /")]
    assert "\x1b" not in line
    assert "\n" not in line


# The port, and the documents


async def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = Settings(find_home(tmp_path, {})[0], http_port=port)
        role = BridgeRole(settings, Gateways(ScriptedSwarm()))
        with pytest.raises(ApiError) as caught:
            await role.run(lambda: None)
    assert str(port) in caught.value.message
    assert "--http-port" in caught.value.message


async def test_an_address_of_another_machine_is_named(tmp_path: Path) -> None:
    settings = Settings(find_home(tmp_path, {})[0], http_host="192.0.2.1", http_port=0)
    with pytest.raises(ApiError, match="--http-host") as caught:
        await BridgeRole(settings, Gateways(ScriptedSwarm())).run(lambda: None)
    assert "attempting" not in caught.value.message


async def test_the_documents_are_served(bridge: Bridge) -> None:
    status, body, _ = await bridge.call("GET", "/openapi.json")
    assert status == 200
    assert body == json.loads(json.dumps(openapi()))
    async with bridge.session.get(bridge.url + "/docs") as response:
        assert response.content_type == "text/html"
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        assert await response.text() == docs_page()


def test_the_page_loads_nothing_from_elsewhere() -> None:
    page = docs_page()
    assert not re.search(r"""(src|href)=["'](https?:)?//|<script|url\(|@import""", page)
    for operation in OPERATIONS:
        assert f"{operation.method} {operation.path}" in page


def references(value: object) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if "$ref" in value else []
        return own + [ref for part in value.values() for ref in references(part)]
    if isinstance(value, list):
        return [ref for part in value for ref in references(part)]
    return []


def test_the_description_is_whole() -> None:
    document = json.loads(json.dumps(openapi()))
    assert document["openapi"] == "3.1.0"
    schemas = document["components"]["schemas"]
    for reference in references(document):
        assert reference.removeprefix("#/components/schemas/") in schemas
    identifiers = set()
    for methods in document["paths"].values():
        for operation in methods.values():
            identifiers.add(operation["operationId"])
            assert operation["responses"]
            assert all(r["description"] for r in operation["responses"].values())
    assert identifiers == {operation.name for operation in OPERATIONS}
    secured = document["paths"]["/inference"]["post"]
    assert secured["security"] == [{"token": []}]
    for name, schema in schemas.items():
        assert set(schema.get("required", ())) <= set(schema.get("properties", ())), (
            name
        )
