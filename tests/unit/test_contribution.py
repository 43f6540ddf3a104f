"""What a processor's owner gives: hours, models, tokens a day; pausing by file; and how
others are told of it."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from peerchat.api import ApiError, Closed, ClosedReason, ErrorCode, PeerView, Role
from peerchat.cli.contribution import run_set_paused
from peerchat.cli.listing import model_line, peer_fields, peer_line
from peerchat.cli.output import Output
from peerchat.closed_text import closed_words, peer_words, wait_words
from peerchat.contribution import Contribution, parse_hours
from peerchat.model_replies import models_of
from peerchat.net.identity import PublicKey
from peerchat.replies import closed_of, ping_of
from peerchat.services import owner_terms
from peerchat.services.contribution_file import ContributionFile
from peerchat.services.model_messages import models_reply
from peerchat.services.processor_state import Processor
from peerchat.services.served_models import served_models
from peerchat.services.status_wire import (
    Closing,
    ModelStatus,
    Status,
    decode_status_untrusted,
    encode_status,
)
from peerchat.settings import Home, Settings
from peerchat.testing.engine import ScriptedEngine
from peerchat.tui.widgets.peers import peers_content

from .test_processor import role_of

NOON = datetime(2030, 5, 17, 12, 0).astimezone()
HOUR_S = 3600.0
KEY = "ab" * 32
PAUSED = Closed(ClosedReason.PAUSED)
IN_AN_HOUR = Closed(ClosedReason.HOURS, HOUR_S)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path, tmp_path, tmp_path / "state", tmp_path)


# The terms


@pytest.mark.parametrize(
    ("text", "open_at", "closed_at"),
    [
        ("22:00-07:00", (22, 23, 0, 6), (7, 12, 21)),
        ("09:00-17:00", (9, 12, 16), (17, 20, 0, 8)),
    ],
)
def test_hours(text, open_at, closed_at) -> None:
    hours = parse_hours(text)
    terms = Contribution(hours=hours)
    assert str(hours) == text
    for hour in open_at:
        assert terms.closed(NOON.replace(hour=hour)) is None
    for hour in closed_at:
        closed = terms.closed(NOON.replace(hour=hour))
        assert closed is not None
        left_s = (hours.begin.hour - hour) % 24 * HOUR_S
        assert closed == Closed(ClosedReason.HOURS, left_s)


@pytest.mark.parametrize("text", ["", "22-7", "24:00-01:00", "22:00", "a:b-c:d"])
def test_no_hours(text) -> None:
    with pytest.raises(ValueError, match="22:00-07:00"):
        parse_hours(text)


def test_hours_that_end_when_they_begin_are_none() -> None:
    with pytest.raises(ValueError, match=r"two different times.*none: all day"):
        parse_hours("22:00-22:00")


def test_tokens_of_a_day() -> None:
    terms = Contribution(tokens_per_day=100)
    terms.spend(60, NOON)
    assert terms.closed(NOON) is None
    terms.spend(60, NOON)
    assert terms.closed(NOON) == Closed(ClosedReason.SPENT, 12 * HOUR_S)
    assert terms.closed(NOON + timedelta(days=1)) is None


def test_a_new_day_may_begin_outside_the_hours() -> None:
    terms = Contribution(hours=parse_hours("09:00-17:00"), tokens_per_day=1)
    terms.spend(1, NOON)
    assert terms.closed(NOON) == Closed(ClosedReason.SPENT, 21 * HOUR_S)
    evening = NOON.replace(hour=20)
    assert terms.closed(evening) == Closed(ClosedReason.HOURS, 13 * HOUR_S)
    terms.is_paused = True
    assert terms.closed(NOON) == PAUSED


def test_offer() -> None:
    terms = Contribution(offer=("llama3*", "tiny"))
    names = ("llama3.2:3b", "tiny:latest", "tiny", "big")
    assert [terms.offers(name) for name in names] == [True, True, True, False]
    assert Contribution().offers("big")
    assert terms.unmatched(names) == []
    assert terms.unmatched(["tiny:latest", "big"]) == ["llama3*"]


def test_words() -> None:
    assert [wait_words(s) for s in (0, 59.5, 61, 3600, 12_000, 90_000)] == [
        *("1 s", "60 s", "2 min", "1 h", "3 h 20 min", "25 h")
    ]
    assert wait_words(1e300) == "more than 7 days"
    assert closed_words(PAUSED) == "paused by its owner"
    assert closed_words(IN_AN_HOUR) == "outside its hours, opens in 1 h"


# The home's memory


def test_the_file_lasts(home: Home) -> None:
    file = ContributionFile(home)
    assert not file.is_paused()
    file.set_paused(True)
    file.set_paused(True)
    assert ContributionFile(home).is_paused()
    file.set_paused(False)
    file.set_paused(False)
    assert not file.is_paused()
    file.write_tokens(7, NOON)
    assert file.tokens(NOON) == 7
    assert file.tokens(NOON + timedelta(days=1)) == 0
    (home.state_dir / "tokens-today").write_text("nonsense")
    assert file.tokens(NOON) == 0


def test_a_disk_that_takes_nothing_is_told_of_once(home: Home, caplog) -> None:
    file = ContributionFile(home)
    home.state_dir.parent.mkdir(parents=True, exist_ok=True)
    home.state_dir.write_text("in the way")
    for tokens in range(3):
        file.write_tokens(tokens, NOON)
        file.keep(is_paused=False)
    assert len(caplog.records) == 2  # one a file
    home.state_dir.unlink()
    file.write_tokens(7, NOON)
    assert file.tokens(NOON) == 7
    assert [one.name for one in home.state_dir.iterdir()] == ["tokens-today"]


def test_who_pauses_waits_until_the_processor_has_taken_it(home: Home) -> None:
    file = ContributionFile(home)
    assert not file.wait_taken(is_paused=True)  # nobody runs
    file.take(is_paused=False)
    with pytest.raises(ApiError, match=f"process {os.getpid()} did not") as caught:
        file.wait_taken(is_paused=True, timeout_s=0)
    assert caught.value.code is ErrorCode.TIMEOUT
    held: list[bool] = []
    waiting = threading.Thread(
        target=lambda: held.append(file.wait_taken(is_paused=True))
    )
    waiting.start()
    assert not held
    file.take(is_paused=True)
    waiting.join()
    assert held == [True]
    file.leave()
    assert not file.wait_taken(is_paused=True)


def test_who_crashed_is_not_waited_for(home: Home) -> None:
    ContributionFile(home).take(is_paused=False)
    (home.state_dir / "processor").write_text("999999999 open")
    ContributionFile(home).leave()  # not ours to remove
    assert (home.state_dir / "processor").exists()
    assert not ContributionFile(home).wait_taken(is_paused=True)


def test_of_two_processors_the_one_that_is_left_answers(home: Home) -> None:
    file = ContributionFile(home)
    taken = home.state_dir / "processor"
    file.set_paused(False)
    home.state_dir.mkdir()
    other = f"{os.getppid()} open"
    taken.write_text(other)
    file.keep(is_paused=True)
    assert taken.read_text() == other
    taken.unlink()
    file.keep(is_paused=True)
    assert file.wait_taken(is_paused=True, timeout_s=0)


@pytest.mark.parametrize("is_paused", [True, False], ids=["pause", "resume"])
def test_the_command_says_whether_it_holds(home: Home, capsys, is_paused) -> None:
    out, file = Output(is_json=False), ContributionFile(home)
    run_set_paused(Settings(home), out, is_paused=is_paused)
    assert "but no processor runs in this home" in capsys.readouterr().out
    assert file.is_paused() == is_paused
    file.take(is_paused=is_paused)
    run_set_paused(Settings(home), out, is_paused=is_paused)
    word = "paused: running answers finish" if is_paused else "resumed: prompts are"
    assert capsys.readouterr().out.startswith(word)


async def test_a_processor_takes_what_the_file_says(home: Home, monkeypatch) -> None:
    monkeypatch.setattr(owner_terms, "LOOK_EVERY_S", 0.01)
    told = asyncio.Event()
    terms = owner_terms.OwnerTerms(Settings(home), told.set)
    terms.begin()
    following = asyncio.ensure_future(terms.follow())
    file = ContributionFile(home)
    for is_paused in (True, False):
        file.set_paused(is_paused)
        assert await asyncio.to_thread(file.wait_taken, is_paused=is_paused)
        assert terms.closed == (PAUSED if is_paused else None)
        await told.wait()
        told.clear()
    following.cancel()
    terms.end()
    assert not file.wait_taken(is_paused=False)


# What others are told


def test_a_status_says_why() -> None:
    def read(status: Status) -> Closed | None:
        return decode_status_untrusted(encode_status(status)).closed

    assert read(Status([])) is None
    told = Status([], is_paused=True, closing=Closing("hours", HOUR_S))
    assert read(told) == IN_AN_HOUR
    later = Status([], is_paused=True, closing=Closing("later", float("nan")))
    assert read(later) == PAUSED
    earlier = msgspec.msgpack.encode([[], 1, 0, 0, True, True])
    assert decode_status_untrusted(earlier).closed == PAUSED


async def test_a_ping_says_why(tmp_path: Path) -> None:
    role = role_of(ScriptedEngine())
    ping = json.loads(msgspec.json.encode(await role.ping(b"", "")))
    assert "closed" not in ping
    assert ping_of(ping).closed is None
    role._terms.contribution.is_paused = True
    ping = json.loads(msgspec.json.encode(await role.ping(b"", "")))
    assert ping["closed"] == {"reason": "paused"}
    said = ping_of(ping)
    assert (said.closed, said.is_healthy) == (PAUSED, False)
    assert role.problem == "paused by its owner (peerchat resume ends it)"


def test_what_is_told_may_be_anything() -> None:
    assert closed_of({"reason": "hours", "opensInS": HOUR_S}) == IN_AN_HOUR
    assert closed_of({"reason": 7, "opensInS": "soon"}) == PAUSED
    assert closed_of("no") is None


def test_a_model_is_closed_when_all_its_processors_are() -> None:
    peers = [Processor(PublicKey(bytes([n]) * 32)) for n in range(3)]
    for peer, reason in zip(peers, ("", "paused", "hours"), strict=True):
        models = [ModelStatus("all")] + [ModelStatus("some")] * bool(reason)
        closing = Closing(reason, HOUR_S if reason == "hours" else None)
        peer.tell(Status(models, is_paused=bool(reason), closing=closing), 0)
    reply = msgspec.to_builtins(models_reply(served_models(peers)))
    found = {model.name: model for model in models_of(reply)}
    assert found["all"].closed is None
    assert found["some"].closed == IN_AN_HOUR
    assert "outside its hours, opens in 1 h" in model_line(found["some"])


def test_lists_show_who_takes_nothing() -> None:
    shut = PeerView(Role.PROCESSOR, KEY, 0.1, busy=0, slots=1, closed=IN_AN_HOUR)
    sick = PeerView(Role.PROCESSOR, KEY, 0.1, is_well=False)
    gone = PeerView(Role.PROCESSOR, KEY, is_well=False, is_reachable=False)
    well = PeerView(Role.PROCESSOR, KEY, 0.1)
    assert [peer_words(peer) for peer in (sick, gone, well)] == [
        *("its engine is down", "", "")
    ]
    assert "0/1 busy  outside its hours, opens in 1 h" in peer_line(shut)
    assert peer_fields(shut)["closed"] == {"reason": "hours", "opens_in_s": HOUR_S}
    shown = peers_content([shut, sick]).plain
    assert "outside its hours\n  opens in 1 h" in shown
    assert "its engine is down" in shown
    assert peers_content([well]).plain.count("\n") == 1
