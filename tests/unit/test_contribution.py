"""What a processor's owner gives: hours, models, tokens a day; pausing by file."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from peerchat.contribution import Contribution, parse_hours
from peerchat.services.contribution_file import ContributionFile
from peerchat.settings import Home

NOON = datetime(2030, 5, 17, 12, 0).astimezone()


@pytest.mark.parametrize(
    ("text", "open_at", "closed_at"),
    [
        ("22:00-07:00", (22, 23, 0, 6), (7, 12, 21)),
        ("09:00-17:00", (9, 12, 16), (17, 20, 0, 8)),
        ("00:00-00:00", (0, 12, 23), ()),
    ],
)
def test_hours(text, open_at, closed_at) -> None:
    terms = Contribution(hours=parse_hours(text))
    for hour in open_at:
        assert terms.closed_because(NOON.replace(hour=hour)) == ""
    for hour in closed_at:
        assert text in terms.closed_because(NOON.replace(hour=hour))


@pytest.mark.parametrize("text", ["", "22-7", "24:00-01:00", "22:00", "a:b-c:d"])
def test_no_hours(text) -> None:
    with pytest.raises(ValueError, match="22:00-07:00"):
        parse_hours(text)


def test_tokens_of_a_day() -> None:
    terms = Contribution(tokens_per_day=100)
    terms.spend(60, NOON)
    assert terms.closed_because(NOON) == ""
    terms.spend(60, NOON)
    assert "used up" in terms.closed_because(NOON)
    assert terms.closed_because(NOON + timedelta(days=1)) == ""


def test_offer() -> None:
    terms = Contribution(offer=("llama3*", "tiny"))
    names = ("llama3.2:3b", "tiny:latest", "tiny", "big")
    assert [terms.offers(name) for name in names] == [True, True, True, False]
    assert Contribution().offers("big")


def test_the_file_lasts(tmp_path: Path) -> None:
    home = Home(tmp_path, tmp_path, tmp_path / "state", tmp_path)
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
    (tmp_path / "state" / "tokens-today").write_text("nonsense")
    assert file.tokens(NOON) == 0
