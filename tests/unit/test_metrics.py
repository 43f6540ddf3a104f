"""What roles count, and that Prometheus can read it."""

from __future__ import annotations

import asyncio
import logging
import socket
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from peerchat.api import ApiError, ErrorCode, Role
from peerchat.config import find_home
from peerchat.services.metrics import RoleMetrics
from peerchat.services.metrics_http import MetricsEndpoints, exposition
from peerchat.settings import Settings


def samples(*metrics: RoleMetrics) -> dict[str, float]:
    """Every sample of the text, by ``name{label=value,…}`` in order of label."""
    text = exposition(metrics)[0].decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
            key = f"{sample.name}{{{labels}}}"
            assert key not in found
            found[key] = sample.value
    return found


def test_outcomes_are_counted_by_their_code() -> None:
    metrics = RoleMetrics(Role.GATEWAY)
    with metrics.request("login"):
        assert (
            samples(metrics)["peerchat_requests_in_flight{method=login,role=gateway}"]
            == 1
        )
    with pytest.raises(ApiError), metrics.request("login"):
        raise ApiError(ErrorCode.NO_AUTH, "none")
    with pytest.raises(asyncio.CancelledError), metrics.request("prompt"):
        raise asyncio.CancelledError
    with pytest.raises(ZeroDivisionError), metrics.request("prompt"):
        raise ZeroDivisionError
    with metrics.request("login") as request:
        request.outcome = "unauthorized"
    found = samples(metrics)
    outcomes = {
        key: value
        for key, value in found.items()
        if key.startswith("peerchat_requests_total")
    }
    assert outcomes == {
        "peerchat_requests_total{method=login,outcome=ok,role=gateway}": 1,
        "peerchat_requests_total{method=login,outcome=no_auth,role=gateway}": 1,
        "peerchat_requests_total{method=login,outcome=unauthorized,role=gateway}": 1,
        "peerchat_requests_total{method=prompt,outcome=cancelled,role=gateway}": 1,
        "peerchat_requests_total{method=prompt,outcome=error,role=gateway}": 1,
    }
    assert found["peerchat_requests_in_flight{method=login,role=gateway}"] == 0
    assert found["peerchat_request_seconds_count{method=login,role=gateway}"] == 3


def test_tokens_refusals_and_restarts_are_counted() -> None:
    metrics = RoleMetrics(Role.PROCESSOR)
    assert samples(metrics)["peerchat_rate_limited_total{role=processor}"] == 0
    metrics.tokens(12)
    metrics.tokens(None)
    metrics.tokens(5, kind="prompt")
    metrics.limited()
    metrics.restarted()
    metrics.first_fragment(0.2)
    found = samples(metrics)
    assert found["peerchat_tokens_total{kind=answer,role=processor}"] == 12
    assert found["peerchat_tokens_total{kind=prompt,role=processor}"] == 5
    assert found["peerchat_rate_limited_total{role=processor}"] == 1
    assert found["peerchat_restarts_total{role=processor}"] == 1
    assert found["peerchat_first_fragment_seconds_count{role=processor}"] == 1


def test_a_counter_of_one_role_is_there_from_the_start() -> None:
    metrics = RoleMetrics(Role.BRIDGE)
    count = metrics.counter("gateway_changes", "Of gateways.")
    assert samples(metrics)["peerchat_gateway_changes_total{role=bridge}"] == 0
    count()
    assert samples(metrics)["peerchat_gateway_changes_total{role=bridge}"] == 1


@dataclass(frozen=True)
class Streams:
    opened: int
    is_ephemeral: bool


@dataclass(frozen=True)
class Statistics:
    requests: int
    streams: Streams
    by_command: dict[str, int]
    name: str = "not a number"


class Source:
    is_broken = False

    def statistics(self) -> Statistics:
        if self.is_broken:
            raise RuntimeError("not started")
        return Statistics(7, Streams(2, True), {"ping": 3})


def test_statistics_are_read_when_asked_for() -> None:
    metrics, source = RoleMetrics(Role.BRIDGE), Source()
    source.is_broken = True
    metrics.watch(source)
    assert not any("peerchat_dht_" in key for key in samples(metrics))
    source.is_broken = False
    dht = {k: v for k, v in samples(metrics).items() if "peerchat_dht" in k}
    assert dht == {
        "peerchat_dht_requests{role=bridge}": 7,
        "peerchat_dht_streams_opened{role=bridge}": 2,
        "peerchat_dht_streams_is_ephemeral{role=bridge}": 1,
        "peerchat_dht_by_command_ping{role=bridge}": 3,
    }


def test_a_broken_gauge_spoils_nothing_else() -> None:
    metrics = RoleMetrics(Role.GATEWAY)
    queue = [1, 2, 3]
    metrics.gauge("queue", "Prompts waiting.", lambda: len(queue))
    metrics.gauge("broken", "Raises.", lambda: 1 / 0)
    found = samples(metrics)
    assert found["peerchat_queue{role=gateway}"] == 3
    assert (
        found["peerchat_broken{role=gateway}"] != found["peerchat_queue{role=gateway}"]
    )


def test_every_name_has_the_prefix() -> None:
    names = samples(RoleMetrics(Role.AUTH))
    assert names
    assert all(name.startswith("peerchat_") for name in names)


def test_several_roles_make_one_text_without_doubles() -> None:
    roles = [RoleMetrics(role) for role in Role]
    for metrics in roles:
        metrics.tokens(1)
    found = samples(*roles)
    tokens = [key for key in found if key.startswith("peerchat_tokens_total")]
    assert len(tokens) == 4
    text = exposition(roles)[0].decode().splitlines()
    types = [line for line in text if line.startswith("# TYPE")]
    assert len(types) == len(set(types))


async def fetch(url: str) -> tuple[int, str, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, response.headers["Content-Type"], await response.text()


async def test_one_port_serves_all_roles(tmp_path: Path) -> None:
    settings = Settings(find_home(tmp_path)[0], metrics_port=0)
    endpoints = MetricsEndpoints(settings)
    roles = [RoleMetrics(Role.AUTH), RoleMetrics(Role.GATEWAY)]
    (url,) = await endpoints.start(roles)
    try:
        status, content_type, text = await fetch(url)
    finally:
        await endpoints.close()
    assert status == 200
    assert content_type.startswith("text/plain")
    assert 'role="auth"' in text
    assert 'role="gateway"' in text
    with pytest.raises(aiohttp.ClientConnectionError):
        await fetch(url)


async def test_a_taken_port_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = Settings(find_home(tmp_path)[0], metrics_port=port)
        endpoints = MetricsEndpoints(settings)
        with caplog.at_level(logging.WARNING):
            assert await endpoints.start([RoleMetrics(Role.AUTH)]) == []
        await endpoints.close()
    assert str(port) in caplog.text
    assert "--metrics-port" in caplog.text
