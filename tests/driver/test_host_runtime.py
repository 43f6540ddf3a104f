"""Whole nodes on loopback sockets, and the node in its thread."""

import asyncio
import dataclasses
import logging
import os
import threading

import pytest

from peerchat.api import ApiError, ErrorCode, Finished, Fragment, Phase, Role
from peerchat.config import load_settings
from peerchat.net import HyperDHT, system_env
from peerchat.services.contribution_file import ContributionFile
from peerchat.services.host import NodeHost
from peerchat.services.node_runtime import NodeRuntime
from peerchat.services.run_file import RunFile, read_run_file, write_run_file
from peerchat.session_file import Session

PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    for name in list(os.environ):
        if name.startswith("PEERCHAT_") or name in ("JWT_SECRET", "OLLAMA_HOST"):
            monkeypatch.delenv(name)


def settings(folder, name="home", **more):
    given = {"engine": "guide", "http_port": 0, "metrics_port": 0, **more}
    return load_settings({"home": folder / name, **given})


def serving(folder, name="home", roles=frozenset(Role), **more):
    return NodeRuntime(settings(folder, name, roles=roles, **more), is_serving=True)


@pytest.fixture
async def bootstrap():
    async with HyperDHT.bootstrapper(system_env(), "127.0.0.1", 0) as dht:
        yield f"127.0.0.1:{dht.address.port}"


async def test_alone_everything_is_there(tmp_path):
    async with NodeRuntime(settings(tmp_path)) as node:
        assert node.client.account.is_local
        answer = await node.client.ask_whole("What is peerchat?")
        assert answer.text
        assert answer.usage.peer == node.role_keys()[Role.PROCESSOR]
        assert answer.rate_limit.remaining == 9
        assert {one.state for one in node.health()} == {"running"}
        assert not node.settings.home.run_path.exists()


async def test_a_serve_of_the_same_home_is_used(tmp_path):
    async with serving(tmp_path) as serve:
        run = read_run_file(serve.settings.home.run_path)
        assert run.roles == {role.value: key for role, key in serve.role_keys().items()}
        assert run.http.startswith("http://127.0.0.1:")
        assert len(run.metrics) == 1
        pretend_other_process(serve)
        async with NodeRuntime(settings(tmp_path)) as node:
            assert node.attached_to is not None
            assert node.health() == ()
            answer = await node.client.ask_whole("What is peerchat?")
            assert answer.usage.peer == serve.role_keys()[Role.PROCESSOR]
        with pytest.raises(ApiError, match="already") as caught:
            await serving(tmp_path).start()
        assert caught.value.code is ErrorCode.CONFLICT
        pretend_other_process(serve, os.getpid())
    assert not serve.settings.home.run_path.exists()


def pretend_other_process(serve, pid=None):
    """A process does not attach to itself; give the file another live one's id."""
    path = serve.settings.home.run_path
    run = read_run_file(path)
    fields = {name: getattr(run, name) for name in run.__struct_fields__}
    write_run_file(path, RunFile(**{**fields, "pid": pid or os.getppid()}))


@pytest.mark.parametrize("pid", [2**22 + 1, os.getppid()])
async def test_what_a_dead_serve_left_is_cleared(tmp_path, pid):
    home = settings(tmp_path).home
    stale = RunFile(pid=pid, mode="solo", dht="127.0.0.1:9", roles={"gateway": "00"})
    write_run_file(home.run_path, stale)
    async with NodeRuntime(settings(tmp_path)) as node:
        assert node.attached_to is None
        assert not home.run_path.exists()
        assert (await node.client.ask_whole("What is peerchat?")).text


async def test_role_keys_last(tmp_path):
    keys = []
    for _ in range(2):
        async with serving(tmp_path, roles=frozenset({Role.AUTH, Role.GATEWAY})) as one:
            keys.append(one.role_keys())
    assert keys[0] == keys[1]
    assert len(set(keys[0].values())) == 2


async def test_two_homes_meet(tmp_path, bootstrap):
    where = {"is_open": True, "bootstrap": bootstrap}
    async with (
        serving(tmp_path, "box", **where),
        NodeRuntime(settings(tmp_path, "laptop", **where)) as node,
    ):
        client = node.client
        assert client.account is None
        with pytest.raises(ApiError, match="log"):
            client.ask("hello")
        await client.register("ann@example.org", PASSWORD)
        await client.login("ann@example.org", PASSWORD)
        answer = await client.ask_whole("What is a gateway?")
        assert answer.text
        with pytest.raises(ApiError):
            await node.use_local_account()
        roles = {view.role for view in await client.peers() if view.is_reachable}
        assert roles == {Role.AUTH, Role.GATEWAY, Role.PROCESSOR}
    async with NodeRuntime(settings(tmp_path, "laptop", **where)) as node:
        assert await node.client.peers() == []


async def test_gateway_without_the_secret_says_so(tmp_path, bootstrap, caplog):
    where = {"is_open": True, "bootstrap": bootstrap}
    async with serving(tmp_path, roles=frozenset({Role.GATEWAY}), **where):
        assert "no JWT_SECRET is set" in caplog.text
        assert "open swarm" in caplog.text


async def test_solo_accepts_its_own_account_beside_a_shared_secret(tmp_path):
    async with NodeRuntime(settings(tmp_path, jwt_secret="x" * 40)) as node:
        assert node.client.account.is_local
        assert (await node.client.ask_whole("What is peerchat?")).text


async def test_a_damaged_store_is_told_and_nothing_stays(tmp_path):
    home = settings(tmp_path).home
    home.data_dir.mkdir(parents=True)
    home.store_path.write_bytes(b"no database" * 1000)
    before = threading.active_count()
    with pytest.raises(ApiError, match="Restore it") as caught:
        await NodeRuntime(settings(tmp_path)).start()
    assert caught.value.code is ErrorCode.STORE_FAILED
    assert threading.active_count() <= before + 1


# The node in its thread


class Watched:
    """A host and the states it told."""

    def __init__(self, given, **more):
        self.host = NodeHost(given, **more)
        self.states = []
        self.threads = set()
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self.host.subscribe(self._listen)

    def _listen(self, state):
        self.states.append(state)
        self.threads.add(threading.current_thread().name)
        self._loop.call_soon_threadsafe(self._changed.set)

    async def until(self, check):
        async with asyncio.timeout(30):
            while not check(self.host.state()):
                self._changed.clear()
                if check(self.host.state()):
                    break
                await self._changed.wait()
        return self.host.state()

    async def __aenter__(self):
        self.host.start()
        return self

    async def __aexit__(self, *_exception):
        await self.host.close()


async def test_host_answers_and_counts(tmp_path):
    async with Watched(settings(tmp_path)) as one:
        host = one.host
        state = await one.until(lambda s: s.phase is Phase.READY and len(s.peers) == 3)
        assert state.account.is_local
        assert state.models[0].name == "guide"
        assert all(view.is_self for view in state.peers)
        answer = host.ask("What is peerchat?")
        events = [event async for event in answer]
        assert isinstance(events[-1], Finished)
        assert events[-1].request_id == answer.request_id
        assert sum(isinstance(event, Fragment) for event in events) > 3
        state = await one.until(lambda s: s.answer_tokens > 0)
        assert (state.requests, state.failures) == (1, 0)
        assert state.rate_limit.remaining == 9
        assert one.threads == {"peerchat node"}
    assert host.state().phase is Phase.CLOSED
    with pytest.raises(ApiError) as caught:
        host.ask("x")
    assert caught.value.code is ErrorCode.STOPPED


async def test_host_stops_an_answer(tmp_path):
    async with Watched(settings(tmp_path)) as one:
        await one.until(lambda s: s.phase is Phase.READY)
        answer = one.host.ask("What is peerchat?")
        assert await anext(answer)
        await answer.aclose()
        await answer.aclose()
        assert [event async for event in answer] == []
        assert one.host.state().failures == 0
        # Its slot is free again.
        again = [event async for event in one.host.ask("What is a gateway?")]
        assert isinstance(again[-1], Finished)


async def test_host_refuses_when_nobody_is_logged_in(tmp_path):
    async with Watched(settings(tmp_path)) as one:
        await one.until(lambda s: s.phase is Phase.READY)
        await one.host.logout()
        assert one.host.state().account is None
        with pytest.raises(ApiError) as caught:
            await anext(one.host.ask("hello"))
        assert caught.value.code is ErrorCode.UNAUTHORIZED
        account = await one.host.register("ann@example.org", PASSWORD)
        assert one.host.state().account == account
        assert (await one.host.use_local_account()).is_local


async def test_host_passes_failures_on(tmp_path):
    async with Watched(settings(tmp_path)) as one:
        await one.until(lambda s: s.phase is Phase.READY)
        with pytest.raises(ApiError, match="Invalid credentials"):
            await one.host.login("ann@example.org", PASSWORD)
        with pytest.raises(ApiError) as caught:
            await anext(one.host.ask("hello", model="no such model"))
        assert caught.value.code is ErrorCode.MODEL_MISSING
        await one.until(lambda s: s.failures == 1)


async def test_host_goes_on_with_a_refused_login_as_nobody(tmp_path, bootstrap):
    where = {"is_open": True, "bootstrap": bootstrap}
    given = settings(tmp_path, "laptop", **where)
    async with serving(tmp_path, "box", **where):
        async with NodeRuntime(given) as node:
            node.client.adopt(Session("ann@example.org", "an.old.token"))
        async with Watched(given) as one:
            await one.until(lambda s: s.phase is Phase.READY and s.account is None)


async def test_host_without_a_dht_is_offline_and_tries_again(tmp_path):
    tried = threading.Semaphore(0)
    given = settings(tmp_path, is_open=True, bootstrap="127.0.0.1:9")

    def make_runtime(on_change):
        tried.release()
        return NodeRuntime(given, on_change=on_change)

    async with Watched(given, make_runtime=make_runtime, retry_min_s=0.01) as one:
        state = await one.until(lambda s: s.phase is Phase.OFFLINE)
        assert "--bootstrap" in state.problem
        for _ in range(2):
            assert await asyncio.to_thread(tried.acquire, timeout=60)
        with pytest.raises(ApiError):
            await one.host.login("a@b.org", PASSWORD)


async def test_host_with_a_damaged_store_has_failed(tmp_path):
    given = settings(tmp_path)
    given.home.data_dir.mkdir(parents=True)
    given.home.store_path.write_bytes(b"no database" * 1000)
    async with Watched(given) as one:
        state = await one.until(lambda s: s.phase is Phase.FAILED)
        assert "Restore it" in state.problem


async def test_host_never_started_closes(tmp_path):
    host = NodeHost(settings(tmp_path))
    with pytest.raises(ApiError):
        await host.refresh_peers()
    await host.close()
    assert host.state().phase is Phase.CLOSED


async def test_a_pause_that_is_saved_and_not_taken_is_shown(tmp_path, monkeypatch):
    async def not_taken(runtime, is_paused):
        ContributionFile(runtime.settings.home).set_paused(is_paused)
        raise ApiError(ErrorCode.TIMEOUT, "This is saved, but nobody took it.")

    monkeypatch.setattr(NodeRuntime, "set_paused", not_taken)
    async with Watched(settings(tmp_path)) as one:
        await one.until(lambda s: s.phase is Phase.READY)
        with pytest.raises(ApiError, match="saved"):
            await one.host.set_paused(True)
        await one.until(lambda s: s.is_paused)


async def test_a_listener_that_fails_harms_nobody(tmp_path, caplog):
    one = Watched(settings(tmp_path))

    def broken(_state):
        raise RuntimeError("broken listener")

    undo = one.host.subscribe(broken)
    async with one:
        await one.until(lambda s: s.phase is Phase.READY)
        undo()
        undo()
    assert "broken listener" in caplog.text


def test_states_are_plain_data(tmp_path):
    state = NodeHost(settings(tmp_path)).state()
    assert dataclasses.is_dataclass(state)
    assert state.phase is Phase.STARTING


def test_secrets_stay_out_of_the_logs(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)

    async def main():
        async with NodeRuntime(settings(tmp_path, jwt_secret="y" * 40)) as node:
            await node.client.register("ann@example.org", PASSWORD)
            await node.client.login("ann@example.org", PASSWORD)
            await node.client.ask_whole("a prompt that nobody else may read")
            return node.client.token, node.swarm.identity.seed.hex()

    token, seed = asyncio.run(main())
    for secret in (token, seed, PASSWORD, "y" * 40, "nobody else may read"):
        assert secret not in caplog.text
