"""The simulator itself: virtual time, seeded fate of datagrams."""

import asyncio

import pytest

from peerchat.net.identity import Address
from peerchat.testing.loop import SimulationStalled, run_virtual
from peerchat.testing.network import Link, SimNetwork


def trace(seed: int, link: Link, count: int = 200) -> list[tuple[float, bytes]]:
    async def main() -> list[tuple[float, bytes]]:
        network = SimNetwork(seed, link)
        a, b = network.host("1.1.1.1"), network.host("2.2.2.2")
        got: list[tuple[float, bytes]] = []
        target = await b.datagrams.bind(
            "0.0.0.0",
            7,
            lambda _, batch: got.extend((b.clock.now(), data) for data, _ in batch),
        )
        source = await a.datagrams.bind("0.0.0.0", 0, lambda *_: None)
        for index in range(count):
            source.send(index.to_bytes(2, "big"), target.address)
        await asyncio.sleep(3600)
        return got

    return run_virtual(main)


def test_time_jumps_and_a_seed_replays():
    link = Link(loss=0.2, duplicate=0.2)
    assert trace(7, link) == trace(7, link)
    assert trace(7, link) != trace(8, link)


def test_loss_and_copies_happen():
    got = [data for _, data in trace(1, Link(loss=0.3, duplicate=0.3))]
    assert len(set(got)) < 200
    assert len(got) > len(set(got))


def test_wide_delays_reorder_and_narrow_ones_do_not():
    wide = [data for _, data in trace(1, Link(0.001, 0.5))]
    narrow = [data for _, data in trace(1, Link(0.01, 0.01))]
    assert wide != sorted(wide)
    assert narrow == sorted(narrow)


def test_hosts_that_are_down_or_cut_off_hear_nothing():
    async def main() -> list[bytes]:
        network = SimNetwork(1)
        a, b = network.host("1.1.1.1"), network.host("2.2.2.2")
        got: list[bytes] = []
        await b.datagrams.bind(
            "", 7, lambda _, batch: got.extend(data for data, _ in batch)
        )
        source = await a.datagrams.bind("", 0, lambda *_: None)
        to = Address("2.2.2.2", 7)
        network.take_down("2.2.2.2")
        source.send(b"down", to)
        await asyncio.sleep(1)
        network.bring_up("2.2.2.2")
        network.cut("1.1.1.1", "2.2.2.2")
        source.send(b"cut", to)
        await asyncio.sleep(1)
        network.mend("1.1.1.1", "2.2.2.2")
        source.send(b"through", to)
        await asyncio.sleep(1)
        return got

    assert run_virtual(main) == [b"through"]


def test_waiting_for_ever_is_an_error_not_a_hang():
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(SimulationStalled):
        run_virtual(main)
