"""Invites that let nobody in, and the door at which they are shown."""

import asyncio
import dataclasses

import pytest

from peerchat.api import ApiError
from peerchat.net.crypto.primitives import KeyPair
from peerchat.net.errors import DecodeError, NetError
from peerchat.net.rpc.client import RpcClient
from peerchat.redaction import Redactor
from peerchat.services.enrolment import CONNECTIONS_MAX
from peerchat.services.private_swarms import _check_secret
from peerchat.trust.invite import format_invite, parse_invite_untrusted

from .town import counted, until

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def refused(town, name, line, part):
    with pytest.raises(ApiError, match=part):
        await town.homes.swarms(name).join(line)
    assert list(town.homes.swarms(name).swarms()) == []


@pytest.mark.parametrize("why", ["used", "expired", "withdrawn", "unknown"])
async def test_an_invite_that_is_over(town, why, caplog):
    owner = town.homes.swarms("box")
    line, view = await owner.invite("club", expires_s=1 if why == "expired" else 60)
    invite = parse_invite_untrusted(line)
    match why:
        case "used":
            await town.homes.swarms("early").join(line)
        case "withdrawn":
            await owner.uninvite("club", view.invite_id)
        case "unknown":
            line = format_invite(dataclasses.replace(invite, code=bytes(16)))
        case "expired":
            await asyncio.sleep(1.1)
            late = dataclasses.replace(invite, expires_s=invite.expires_s + 3600)
            line = format_invite(late)
    before = counted(town.box, f"invite_{why}")
    async with town.unharmed():
        await refused(town, f"late-{why}", line, "known" if why == "unknown" else why)
    assert counted(town.box, f"invite_{why}") == before + 1
    assert f"refused: {why}" in caplog.text
    assert line not in caplog.text
    assert invite.code.hex() not in caplog.text


async def test_two_peers_at_the_same_instant(town):
    line, _ = await town.homes.swarms("box").invite("club")
    before = counted(town.box, "invite_used")
    async with town.unharmed():
        results = await asyncio.gather(
            *(town.homes.swarms(f"twin{n}").join(line) for n in range(2)),
            return_exceptions=True,
        )
    (lost,) = [one for one in results if isinstance(one, Exception)]
    assert "used already" in str(lost)
    assert counted(town.box, "invite_used") == before + 1


async def test_idle_strangers_do_not_shut_the_door(town):
    """As many as it holds connect and stay; who has an invite still comes in."""
    line, _ = await town.homes.swarms("box").invite("club")
    door = parse_invite_untrusted(line).enrol_key
    dht = await town.node()
    idle = [
        await dht.connect(door, key_pair=KeyPair.from_seed(n.to_bytes(32, "little")))
        for n in range(1, CONNECTIONS_MAX + 1)
    ]
    await town.homes.swarms("patient").join(line)
    await until(lambda: any(one.is_closed for one in idle))
    assert sum(one.is_closed for one in idle) < 8
    await dht.close()


async def test_guesses_at_the_door(town):
    """Codes that nobody gave out cost a hash, and the connection after a few."""
    line, _ = await town.homes.swarms("box").invite("club")
    invite = parse_invite_untrusted(line)
    before = counted(town.box, "invite_malformed")
    dht = await town.node()
    rpc = RpcClient(dht)
    session = await rpc.session(invite.enrol_key, hold=True)

    async def guess():
        for _ in range(20):
            await session.request("enrol", b'{"code":""}', timeout_s=5)

    with pytest.raises(NetError):
        await guess()
    assert 5 <= counted(town.box, "invite_malformed") - before <= 7
    await rpc.close()
    await dht.close()
    await town.ask()


async def test_an_admin_that_was_removed_gives_a_member_another_secret(town):
    """The home knows the swarm: what does not fit its record is not taken."""
    record = town.laptop.trust.record
    kept = town.laptop.trust.membership
    _check_secret(kept, record)
    with pytest.raises(ApiError, match="not from this swarm"):
        _check_secret(dataclasses.replace(kept, secret=bytes(32)), record)


HOSTILE = [
    "peerchat:\x1b]52;c;ZXZpbA==\x07",
    "peerchat:AAAA\x1b[31m",
    "peerchat:" + "A" * 5000,
    "\u202epeerchat:AAAA",
    "peerchat:AQAA\u0000\ud800",
    "x" * 100_000,
]


@pytest.mark.parametrize("text", HOSTILE)
async def test_a_hostile_paste_is_refused_in_inert_words(text):
    with pytest.raises(DecodeError) as caught:
        parse_invite_untrusted(text)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


async def test_a_hostile_name_and_an_invite_in_a_log(town):
    line, _ = await town.homes.swarms("box").invite("club")
    invite = parse_invite_untrusted(line)
    evil = dataclasses.replace(invite, swarm="\x1b[2J../../etc\u202egnp")
    preview = town.homes.swarms("x").read_invite(format_invite(evil))
    assert preview.swarm.isprintable()
    assert line.strip() not in Redactor().redact(f"joining by {line}")
