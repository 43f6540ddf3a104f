"""A client's calls, its login, and how it survives the loss of gateways."""

from __future__ import annotations

import asyncio
import json
import stat
import sys
from pathlib import Path

import pytest

from peerchat import gateway_tries
from peerchat.api import (
    ApiError,
    ErrorCode,
    Finished,
    Fragment,
    Progress,
    RateLimit,
    Role,
)
from peerchat.client import Client
from peerchat.config import load_settings
from peerchat.gateways import NOT_THERE
from peerchat.net.errors import (
    DhtUnreachable,
    PeerUnreachable,
    RequestTimeout,
    RpcClosed,
)
from peerchat.session_file import Session, SessionFile
from tests.scripted_swarm import (
    TOKEN,
    ScriptedPeer,
    ScriptedSwarm,
    finished,
    gateway,
    healthy,
    key,
)

from .waiting import until

EMAIL = "ann@example.org"
LOST = ApiError(ErrorCode.PEER_LOST, "gone", status=502)
STOPPED = ApiError(ErrorCode.STOPPED, "stopping", status=503)


@pytest.fixture(autouse=True)
def _no_hope(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is waited for; the tests of that say otherwise."""
    monkeypatch.setattr(gateway_tries, "HOPE_S", 0.0)
    monkeypatch.setattr(gateway_tries, "AGAIN_S", 0.0)


async def logged_in(swarm: ScriptedSwarm) -> Client:
    client = Client(swarm=swarm)
    await client.start()
    await client.login(EMAIL, "password")
    return client


async def failure(call) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await call
    assert "\n" not in caught.value.message
    return caught.value


async def test_register_login_verify_ask_logout() -> None:
    swarm = ScriptedSwarm(a=gateway())
    async with Client(swarm=swarm) as client:
        assert (await client.register(EMAIL, "password")).email == EMAIL
        assert client.account is None
        assert (await client.login(EMAIL, "password")).email == EMAIL
        assert client.token == TOKEN
        verified = await client.verify()
        assert verified.account.email == EMAIL
        assert client.rate_limit == RateLimit(9, 10, 60, 1.0)
        answer = await client.ask_whole("Hi", model="m", options={"seed": 1})
        assert answer.text == "Hello you"
        assert answer.usage.answer_tokens == 2
        (asked,) = swarm.peers[key(1)].answers
        assert asked.request.model == "m"
        assert asked.request_id == answer.request_id
        assert swarm.peers[key(1)].tokens == [TOKEN]
        await client.logout()
        assert (await failure(client.verify())).code is ErrorCode.UNAUTHORIZED


async def test_asking_without_a_login_says_what_to_do() -> None:
    async with Client(swarm=ScriptedSwarm(a=gateway())) as client:
        error = await failure(client.ask_whole("Hi"))
        assert error.status == 401
        assert "peerchat login" in error.message


async def test_a_closed_client_says_so() -> None:
    client = Client(swarm=ScriptedSwarm(a=gateway()))
    assert (await failure(client.login(EMAIL, "p"))).code is ErrorCode.STOPPED


@pytest.mark.parametrize(
    ("reply", "code", "status", "words"),
    [
        (
            {"success": False, "status": 401, "message": "Invalid credentials"},
            ErrorCode.UNAUTHORIZED,
            401,
            "Invalid credentials",
        ),
        (
            {"success": False, "status": 503, "code": "no_auth", "message": "No auth"},
            ErrorCode.NO_AUTH,
            503,
            "No auth",
        ),
        (
            {"status": 429, "message": "Rate limit exceeded", "retryAfter": 42},
            ErrorCode.RATE_LIMITED,
            429,
            "Rate limit exceeded: try again in 42 s.",
        ),
        ({"error": True, "message": "broken"}, ErrorCode.INTERNAL, 502, "broken"),
        ("[HRPC_ERR]=on\x1b[31m fire", ErrorCode.INTERNAL, 502, "on fire"),
        ([1, 2], ErrorCode.INTERNAL, 502, "no object"),
        (None, ErrorCode.INTERNAL, 502, "no object"),
        ({"success": False, "status": "x"}, ErrorCode.INTERNAL, 502, "without saying"),
        ({"success": True, "key": 7}, ErrorCode.INTERNAL, 502, "no token"),
    ],
)
async def test_refusals_are_told_in_words(
    reply: object, code: ErrorCode, status: int, words: str
) -> None:
    swarm = ScriptedSwarm(a=gateway(login=lambda _: reply), b=gateway())
    async with Client(swarm=swarm) as client:
        error = await failure(client.login(EMAIL, "password"))
    assert (error.code, error.status) == (code, status)
    assert words in error.message
    assert swarm.dropped == []


async def test_nobody_there() -> None:
    swarm = ScriptedSwarm()
    async with Client(swarm=swarm) as client:
        error = await failure(client.login(EMAIL, "p"))
        assert error.code is ErrorCode.NO_GATEWAY
        assert "gateway" in error.message
        assert not (await client.status()).has_gateway
        swarm.find_error = DhtUnreachable("nobody")
        error = await failure(client.login(EMAIL, "p"))
        assert error.code is ErrorCode.DHT_UNREACHABLE
        assert "--bootstrap" in error.message
        assert "--bootstrap" in (await client.status()).problem


@pytest.mark.parametrize(
    "error", [PeerUnreachable("x"), RequestTimeout("x"), RpcClosed("x"), LOST]
)
async def test_a_lost_gateway_is_dropped_and_the_next_one_asked(
    error: Exception,
) -> None:
    swarm = ScriptedSwarm(a=gateway(login=error), b=gateway())
    client = await logged_in(swarm)
    assert swarm.dropped == [key(1)]
    await client.verify()
    assert [method for method, _ in swarm.peers[key(2)].calls] == [
        "login",
        "verifySession",
    ]
    await client.aclose()


async def test_the_gateway_that_answered_last_is_asked_first() -> None:
    swarm = ScriptedSwarm(a=gateway(login=PeerUnreachable("x")), b=gateway())
    client = await logged_in(swarm)
    swarm.dropped.clear()
    await client.verify()
    assert swarm.peers[key(2)].calls[-1][0] == "verifySession"
    await client.aclose()


async def test_dead_gateways_are_not_tried_for_ever() -> None:
    swarm = ScriptedSwarm(**{f"g{i}": gateway(login=LOST) for i in range(40)})
    async with Client(swarm=swarm) as client:
        assert (await failure(client.login(EMAIL, "p"))).code is ErrorCode.NO_GATEWAY
    assert sum(len(peer.calls) for peer in swarm.peers.values()) == 32


async def test_gateways_that_take_long_to_fail_are_fewer(monkeypatch) -> None:
    monkeypatch.setattr(gateway_tries, "TRIED_S", -1.0)
    swarm = ScriptedSwarm(**{f"g{i}": gateway(login=LOST) for i in range(40)})
    async with Client(swarm=swarm) as client:
        assert (await failure(client.login(EMAIL, "p"))).code is ErrorCode.NO_GATEWAY
    assert sum(len(peer.calls) for peer in swarm.peers.values()) == 6


async def test_a_gateway_that_says_nothing_is_overtaken() -> None:
    swarm = ScriptedSwarm(a=gateway(), b=gateway())
    swarm.unreachable[key(1)] = asyncio.Event()
    client = await logged_in(swarm)
    assert (await client.ask_whole("Hi")).text == "Hello you"
    assert (swarm.peers[key(1)].calls, swarm.peers[key(1)].answers) == ([], [])
    assert swarm.dropped[0] == key(1)
    await client.aclose()


FOREIGN = {"success": False, "status": 401, "message": "Unauthorized: Invalid token"}
NOT_OURS = {"success": False, "status": 501, "message": "Not the accounts' gateway"}


@pytest.mark.parametrize("refusal", [FOREIGN, NOT_OURS])
async def test_another_gateway_may_have_the_account(refusal: dict) -> None:
    swarm = ScriptedSwarm(
        a=gateway(verifySession=refusal, manageAccounts=refusal),
        b=gateway(manageAccounts={"accounts": []}),
    )
    client = await logged_in(swarm)
    await client.verify()
    assert (await client.manage_accounts("list")).accounts == ()
    assert swarm.dropped == []
    await client.aclose()


async def test_a_prompt_goes_on_to_a_gateway_that_knows_the_token() -> None:
    swarm = ScriptedSwarm(a=gateway(), b=gateway())
    refused = ApiError(ErrorCode.UNAUTHORIZED, "Unauthorized", status=401)
    swarm.peers[key(1)].steps = [refused]
    client = await logged_in(swarm)
    assert (await client.ask_whole("Hi")).text == "Hello you"
    assert swarm.dropped == []
    await client.aclose()


async def test_a_token_that_is_worth_nothing_is_shown_to_few() -> None:
    peers = {f"g{i}": gateway(verifySession=FOREIGN) for i in range(8)}
    swarm = ScriptedSwarm(**peers)
    refused = ApiError(ErrorCode.UNAUTHORIZED, "Unauthorized", status=401)
    for peer in peers.values():
        peer.steps = [refused]
    client = await logged_in(swarm)
    for work in (client.verify(), client.ask_whole("Hi")):
        assert (await failure(work)).code is ErrorCode.UNAUTHORIZED
    asked = [
        sum(
            method == "verifySession"
            for peer in peers.values()
            for method, _ in peer.calls
        ),
        sum(len(peer.answers) for peer in peers.values()),
    ]
    assert asked == [gateway_tries.STRANGERS_MAX] * 2
    await client.aclose()


async def test_who_refused_is_not_asked_again() -> None:
    swarm = ScriptedSwarm(a=gateway(verifySession=FOREIGN))
    (peer,) = swarm.peers.values()
    peer.steps = [ApiError(ErrorCode.UNAUTHORIZED, "Unauthorized", status=401)]
    client = await logged_in(swarm)
    asked_before = len(peer.calls)
    assert (await failure(client.verify())).code is ErrorCode.UNAUTHORIZED
    assert (await failure(client.ask_whole("Hi"))).code is ErrorCode.UNAUTHORIZED
    assert (len(peer.calls) - asked_before, len(peer.answers)) == (1, 1)
    await client.aclose()


async def test_a_wrong_password_is_not_tried_elsewhere() -> None:
    swarm = ScriptedSwarm(a=gateway(changePassword=FOREIGN), b=gateway())
    client = await logged_in(swarm)
    error = await failure(client.change_password("old", "new"))
    assert error.code is ErrorCode.UNAUTHORIZED
    assert swarm.peers[key(2)].calls == []
    await client.aclose()


async def test_an_account_is_not_made_twice_by_accident() -> None:
    swarm = ScriptedSwarm(a=gateway(register=RpcClosed("x")), b=gateway())
    async with Client(swarm=swarm) as client:
        error = await failure(client.register(EMAIL, "password"))
        assert error.code is ErrorCode.PEER_LOST
        assert "log in" in error.message
        assert swarm.peers[key(2)].calls == []
        await client.register(EMAIL, "password")


async def test_an_answer_moves_to_the_next_gateway_before_its_first_fragment() -> None:
    swarm = ScriptedSwarm(a=gateway(), b=gateway())
    swarm.peers[key(1)].steps = [Progress("queued", 1), LOST]
    client = await logged_in(swarm)
    async with client.ask("Hi") as answer:
        events = [event async for event in answer]
    assert [type(event) for event in events] == [
        *(Progress, Progress),
        *(Fragment, Fragment, Finished),
    ]
    assert events[1] == Progress("retrying")
    assert swarm.dropped == [key(1)]
    assert swarm.peers[key(1)].answers[0].is_closed.is_set()
    await client.aclose()


@pytest.mark.parametrize("code", sorted(NOT_THERE))
async def test_who_cannot_go_on_is_passed_over(code: ErrorCode) -> None:
    swarm = ScriptedSwarm(a=gateway(), b=gateway(), c=gateway())
    swarm.peers[key(1)].steps = [Fragment("Hel"), LOST]
    swarm.peers[key(2)].steps = [ApiError(code, "Not here.", status=503)]
    swarm.peers[key(3)].steps = [Fragment("lo you"), finished()]
    client = await logged_in(swarm)
    assert (await client.ask_whole("Hi")).text == "Hello you"
    await client.aclose()


async def test_a_loss_after_the_first_fragment_goes_on_elsewhere() -> None:
    swarm = ScriptedSwarm(a=gateway(), b=gateway())
    swarm.peers[key(1)].steps = [Fragment("Hel"), LOST]
    swarm.peers[key(2)].steps = [Fragment("lo you"), finished()]
    client = await logged_in(swarm)
    answer = await client.ask_whole("Hi")
    assert (answer.text, answer.usage.continued) == ("Hello you", 1)
    first, second = (swarm.peers[key(n)].answers[0].request for n in (1, 2))
    assert (first.prefix, second.prefix) == ("", "Hel")
    assert first.request_id == second.request_id


async def test_a_loss_with_nobody_left_leaves_a_part() -> None:
    swarm = ScriptedSwarm(a=gateway())
    swarm.peers[key(1)].steps = [Fragment("Hel"), LOST]
    client = await logged_in(swarm)
    error = await failure(client.ask_whole("Hi"))
    assert error.code is ErrorCode.PEER_LOST
    assert error.is_partial


async def test_a_silent_gateway_is_asked_too_and_kept_if_it_is_there() -> None:
    swarm, go_on = ScriptedSwarm(a=gateway()), asyncio.Event()
    (peer,) = swarm.peers.values()
    peer.steps = [Fragment("Hel"), go_on, Fragment("lo you"), finished()]
    client = await logged_in(swarm)
    swarm.reached.clear()
    asking = asyncio.ensure_future(client.ask_whole("Hi"))
    await peer.was_asked.wait()
    (answer,) = peer.answers
    await answer.is_waiting.wait()
    answer.is_silent = True
    await until(lambda: key(1) in swarm.reached)
    go_on.set()
    whole = await asking
    assert (whole.text, whole.usage.continued) == ("Hello you", 0)
    await client.aclose()


async def test_a_strangers_refusal_is_not_told_of_what_broke_off() -> None:
    swarm = ScriptedSwarm(a=gateway(), b=gateway())
    swarm.peers[key(1)].steps = [Fragment("Hel"), LOST]
    stranger = ApiError(ErrorCode.UNAUTHORIZED, "Unauthorized", status=401)
    swarm.peers[key(2)].steps = [stranger]
    client = await logged_in(swarm)
    error = await failure(client.ask_whole("Hi"))
    assert (error.code, error.is_partial) == (ErrorCode.PEER_LOST, True)
    await client.aclose()


@pytest.mark.parametrize("error", [LOST, STOPPED])
async def test_the_only_gateway_is_waited_for(monkeypatch, error: ApiError) -> None:
    monkeypatch.setattr(gateway_tries, "HOPE_S", 60.0)
    swarm = ScriptedSwarm(a=gateway())
    peer = swarm.peers[key(1)]
    peer.steps = [Fragment("Hel"), error]
    client = await logged_in(swarm)
    answer = asyncio.create_task(client.ask_whole("Hi"))
    await until(lambda: swarm.looks > 2)
    peer.steps = [Fragment("lo you"), finished()]
    swarm.dropped.clear()  # it is found again
    assert (await answer).text == "Hello you"
    await client.aclose()


async def test_the_gateway_of_the_account_is_waited_for(monkeypatch) -> None:
    monkeypatch.setattr(gateway_tries, "HOPE_S", 60.0)
    swarm = ScriptedSwarm(a=gateway(), b=gateway())
    home, other = swarm.peers[key(1)], swarm.peers[key(2)]
    home.steps = [Fragment("Hel"), LOST]
    other.steps = [ApiError(ErrorCode.UNAUTHORIZED, "Invalid token", status=401)]
    client = await logged_in(swarm)
    answer = asyncio.create_task(client.ask_whole("Hi"))
    await until(lambda: swarm.looks > 2)
    home.steps = [Fragment("lo you"), finished()]
    swarm.dropped.clear()
    assert (await answer).text == "Hello you"
    assert len(other.answers) == 1
    await client.aclose()


async def test_who_does_not_know_the_account_is_not_taken_at_its_word() -> None:
    swarm = ScriptedSwarm(a=gateway(), b=gateway(verifySession=FOREIGN))
    client = await logged_in(swarm)
    swarm.peers[key(1)].steps = [LOST]
    swarm.peers[key(2)].steps = [ApiError(ErrorCode.UNAUTHORIZED, "No", status=401)]
    assert (await failure(client.ask_whole("Hi"))).code is ErrorCode.NO_GATEWAY
    error = await failure(client.verify())
    assert (error.code, error.status) == (ErrorCode.NO_GATEWAY, 503)
    assert "the gateway that knows" in error.message.lower()
    await client.aclose()


async def test_a_gateway_that_refuses_is_not_waited_for(monkeypatch) -> None:
    monkeypatch.setattr(gateway_tries, "HOPE_S", 60.0)
    monkeypatch.setattr(gateway_tries, "AGAIN_S", 60.0)
    swarm = ScriptedSwarm(a=gateway(verifySession=FOREIGN))
    client = await logged_in(swarm)
    assert (await failure(client.verify())).code is ErrorCode.UNAUTHORIZED
    await client.aclose()


async def test_a_refused_prompt_is_not_asked_elsewhere() -> None:
    swarm = ScriptedSwarm(a=gateway(), b=gateway())
    refused = ApiError(
        ErrorCode.RATE_LIMITED, "Rate limit exceeded", status=429, retry_after_s=42
    )
    swarm.peers[key(1)].steps = [refused]
    client = await logged_in(swarm)
    error = await failure(client.ask_whole("Hi"))
    assert error.code is ErrorCode.RATE_LIMITED
    assert "42 s" in error.message
    assert swarm.peers[key(2)].answers == []
    assert swarm.dropped == []
    await client.aclose()


async def test_no_gateway_left_for_an_answer() -> None:
    swarm = ScriptedSwarm(a=gateway())
    client = await logged_in(swarm)
    swarm.peers[key(1)].steps = [LOST]
    assert (await failure(client.ask_whole("Hi"))).code is ErrorCode.NO_GATEWAY
    await client.aclose()


async def test_the_limit_left_is_taken_from_the_end_of_an_answer() -> None:
    swarm = ScriptedSwarm(a=gateway())
    client = await logged_in(swarm)
    limit = RateLimit(3, 10, 5, 1.0)
    swarm.peers[key(1)].steps = [finished(rate_limit=limit)]
    await client.ask_whole("Hi")
    assert client.rate_limit == limit
    await client.aclose()


async def stalled(client: Client, swarm: ScriptedSwarm):
    swarm.peers[key(1)].steps = [Fragment("Hel"), asyncio.Event()]
    answer = client.ask("Hi")
    assert await anext(aiter(answer)) == Fragment("Hel")
    return answer, swarm.peers[key(1)].answers[-1]


async def test_closing_an_answer_closes_it_on_the_next_hop() -> None:
    swarm = ScriptedSwarm(a=gateway())
    client = await logged_in(swarm)
    answer, hop = await stalled(client, swarm)
    await answer.aclose()
    assert hop.is_closed.is_set()
    assert [event async for event in answer] == []
    await answer.aclose()
    await client.aclose()


async def test_another_task_may_close_an_answer() -> None:
    swarm = ScriptedSwarm(a=gateway())
    client = await logged_in(swarm)
    answer, hop = await stalled(client, swarm)

    async def read_on() -> list[object]:
        return [event async for event in answer]

    async with asyncio.TaskGroup() as group:
        reading = group.create_task(read_on())
        await hop.is_waiting.wait()
        await answer.aclose()
    assert reading.result() == []
    assert hop.is_closed.is_set()
    await client.aclose()


async def test_cancelling_the_reader_closes_the_answer() -> None:
    swarm = ScriptedSwarm(a=gateway())
    client = await logged_in(swarm)
    swarm.peers[key(1)].steps = [asyncio.Event()]
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(client.ask_whole("Hi"))
        await swarm.peers[key(1)].was_asked.wait()
        hop = swarm.peers[key(1)].answers[0]
        await hop.is_waiting.wait()
        reading.cancel()
    assert hop.is_closed.is_set()
    await client.aclose()


async def test_closing_the_client_closes_its_answers() -> None:
    swarm = ScriptedSwarm(a=gateway())
    client = await logged_in(swarm)
    _, hop = await stalled(client, swarm)
    await client.aclose()
    assert hop.is_closed.is_set()
    await client.aclose()


async def test_an_answer_that_was_never_read_can_be_closed() -> None:
    swarm = ScriptedSwarm(a=gateway())
    client = await logged_in(swarm)
    await client.ask("Hi").aclose()
    assert swarm.peers[key(1)].answers == []
    await client.aclose()


async def test_peers_and_models() -> None:
    models = [{"name": "tiny", "engine": "ollama", "context_tokens": 4096}, "big\x1b[m"]
    swarm = ScriptedSwarm(
        a=gateway(),
        b=ScriptedPeer(Role.AUTH),
        c=ScriptedPeer(
            Role.PROCESSOR, ping=healthy("processor", models=models, busy=1, slots=2)
        ),
        d=ScriptedPeer(Role.PROCESSOR, ping=healthy("processor", models=["tiny", 7])),
    )
    async with Client(swarm=swarm) as client:
        peers = await client.peers()
        found = await client.models()
    assert [peer.role for peer in peers[:2]] == [Role.GATEWAY, Role.AUTH]
    assert peers[0].is_self
    assert peers[0].rtt_s is not None
    assert not peers[1].is_reachable
    (full,) = [peer for peer in peers if peer.key == key(3).hex()]
    assert (full.models, full.busy, full.slots) == (("tiny", "big"), 1, 2)
    assert [model.name for model in found] == ["big", "tiny"]
    assert set(found[1].peers) == {key(3).hex(), key(4).hex()}
    assert found[0].peers == (key(3).hex(),)


async def test_a_login_is_remembered_in_its_own_swarm_only(tmp_path: Path) -> None:
    solo = load_settings({"home": tmp_path}, environ={})
    in_open = load_settings({"home": tmp_path, "is_open": True}, environ={})
    swarm = ScriptedSwarm(a=gateway())
    async with Client(solo, swarm=swarm, remember=True) as client:
        await client.login(EMAIL, "password", is_local=True)
    async with Client(solo, swarm=swarm, remember=True) as client:
        assert client.token == TOKEN
        assert client.account is not None
        assert client.account.is_local
    async with Client(in_open, swarm=swarm, remember=True) as client:
        assert client.token == ""
    async with Client(solo, swarm=swarm) as client:
        assert client.token == ""
    async with Client(solo, swarm=swarm, remember=True) as client:
        await client.logout()
    async with Client(solo, swarm=swarm, remember=True) as client:
        assert client.account is None


async def test_keywords_make_settings(tmp_path: Path) -> None:
    client = Client(
        swarm=ScriptedSwarm(a=gateway()), remember=True, home=tmp_path, open=True
    )
    await client.start()
    await client.login(EMAIL, "password")
    await client.aclose()
    kept = SessionFile(tmp_path / "state" / "session.json").load("open")
    assert kept == Session(EMAIL, TOKEN)


def test_the_session_file_is_private_and_whole(tmp_path: Path) -> None:
    file = SessionFile(tmp_path / "state" / "session.json")
    assert file.load("solo") is None
    file.clear("solo")
    file.save("solo", Session(EMAIL, TOKEN))
    assert file.load("solo") == Session(EMAIL, TOKEN)
    if sys.platform != "win32":
        assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700
    assert [path.name for path in file.path.parent.iterdir()] == ["session.json"]
    assert TOKEN not in repr(Session(EMAIL, TOKEN))


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", '{"sessions":[]}', '{"sessions":{"solo":1}}', "\xff"),
        json.dumps({"sessions": {"solo": {"email": 1, "token": "x"}}}),
        json.dumps({"sessions": {"solo": {"email": "x", "token": ""}}}),
    ],
)
def test_a_damaged_session_file_is_nobodys(tmp_path: Path, text: str) -> None:
    file = SessionFile(tmp_path / "session.json")
    file.path.write_text(text, encoding="latin-1")
    assert file.load("solo") is None
    file.save("solo", Session(EMAIL, TOKEN))
    assert file.load("solo") is not None


def test_a_session_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("in the way")
    with pytest.raises(ApiError) as caught:
        SessionFile(tmp_path / "state" / "session.json").save(
            "solo", Session(EMAIL, TOKEN)
        )
    assert caught.value.code is ErrorCode.STORE_FAILED
    assert str(tmp_path) in caught.value.message
