"""What `peerchat swarm` reads and says before it does anything."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from peerchat.api import ApiError
from peerchat.cli.main import app, main
from peerchat.cli.passphrase import given_passphrase
from peerchat.cli.swarm_work import parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("24h", 86400), ("7d", 604800), (" 2W ", 1209600)],
)
def test_durations(text: str, seconds: float):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "24", "0h", "-1h", "1.5h", "h", "1y", "9" * 9 + "d"]
)
def test_what_is_no_duration(text: str):
    with pytest.raises(ValueError, match="such as 30m"):
        parse_duration(text)


def test_a_passphrase_comes_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("PEERCHAT_PASSPHRASE", raising=False)
    assert given_passphrase(None) is None
    monkeypatch.setenv("PEERCHAT_PASSPHRASE", "from the environment")
    assert given_passphrase(None) == "from the environment"
    file = tmp_path / "passphrase"
    file.write_text(" with spaces \nsecond line\n")
    assert given_passphrase(file) == " with spaces "
    monkeypatch.setattr("sys.stdin", io.StringIO("piped\n"))
    assert given_passphrase(Path("-")) == "piped"
    file.write_text("\n")
    with pytest.raises(ApiError, match="no passphrase"):
        given_passphrase(file)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    for name in ("PEERCHAT_SWARM", "PEERCHAT_OPEN", "PEERCHAT_PASSPHRASE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))

    def call(*args: str) -> tuple[int, str, str]:
        argv = ["peerchat", "swarm", *args, "--home", str(tmp_path)]
        monkeypatch.setattr("sys.argv", argv)
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return call


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("show",), 1, "no swarm is in use"),
        (("invite",), 1, "no swarm is in use"),
        (("invite", "--expires", "soon"), 2, "such as 30m"),
        (("grant", "abcd"), 2, "--role"),
        (("join", "peerchat:x"), 1, "cut short"),
        (("join", ""), 1, "not an invite"),
        (("join", "x", "--file", "y"), 2, "not both"),
        (("join", "--file", "/nowhere/at/all"), 1, "cannot read"),
        (("use", "team"), 1, "in no swarm named team"),
        (("restore", "/nowhere/at/all"), 1, "no file"),
        (("frobnicate",), 2, "frobnicate"),
    ],
)
def test_errors_are_one_line_that_says_what_to_do(command, args, code, words):
    ended, out, err = command(*args)
    assert ended == code
    assert out == ""
    assert words in err
    assert len(err.strip().splitlines()) == 1


def test_an_invite_alone_stands_on_standard_output(command):
    assert command("create", "team")[0] == 0
    code, out, err = command("invite", "--role", "processor", "--uses", "2")
    assert code == 0
    assert out.startswith("peerchat:")
    assert out.count("\n") == 1
    assert "2 uses left" in err
    assert "peerchat serve" in err
    assert out.strip() not in err
    listed = command("invites")[1]
    assert "open" in listed
    assert out.strip() not in listed


def test_secrets_are_shown_only_on_request(command):
    import json

    command("create", "team")
    plain = json.loads(command("show", "--json")[1])
    assert "topic_key" not in plain
    shown = json.loads(command("show", "--worker", "--json")[1])
    assert len(bytes.fromhex(shown["topic_key"])) == 32
    assert len(bytes.fromhex(shown["capability"])) == 32
    assert shown["topic_key"] not in command("show")[1]


def test_every_command_is_there():
    names = {group.name for group in app.registered_groups}
    names |= {group.typer_instance.info.name for group in app.registered_groups}
    assert "swarm" in names
