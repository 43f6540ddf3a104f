"""What is logged, where, and what never is."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import stat
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from peerchat import logs
from peerchat.config import find_home
from peerchat.logs import Logs, level_of, log_prompt, request_context
from peerchat.redaction import Redactor
from peerchat.settings import Settings

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJlbWFpbCI6ImEifQ.c2lnbmF0dXJl"

logger = logging.getLogger("peerchat.test")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(find_home(tmp_path, {})[0])


@pytest.fixture(autouse=True)
def levels() -> Iterator[None]:
    """Put the levels back: other tests look at the log too."""
    loggers = [logging.getLogger(name) for name in (None, "peerchat", logs.PROMPTS)]
    before = [(each.level, each.propagate) for each in loggers]
    yield
    for each, (level, propagate) in zip(loggers, before, strict=True):
        each.setLevel(level)
        each.propagate = propagate


def lines(settings: Settings, name: str) -> list[dict]:
    path = settings.home.log_dir / name
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_events_and_errors_are_json_lines(settings: Settings) -> None:
    with Logs(settings):
        logger.info("hello %s", "world", extra={"peer": "abcd", "count": 3})
        logger.debug("not at this level")
        try:
            raise ValueError("broken")
        except ValueError:
            logger.exception("it failed")
    first, second = lines(settings, "event.log")
    assert first["message"] == "hello world"
    assert first["level"] == "INFO"
    assert first["logger"] == "peerchat.test"
    assert (first["peer"], first["count"]) == ("abcd", 3)
    assert "T" in first["timestamp"]
    assert "traceback" not in first
    assert "ValueError: broken" in second["traceback"]
    assert lines(settings, "error.log") == [second]
    assert not (settings.home.log_dir / "prompt.log").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")
def test_log_files_are_private(settings: Settings) -> None:
    with Logs(settings):
        logger.info("hello")
    path = settings.home.log_dir / "event.log"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_people_get_one_inert_line(settings: Settings) -> None:
    stream = io.StringIO()
    with Logs(settings, stream=stream):
        logger.warning("peer says %s", "\x1b[31mred\nforged line")
        try:
            raise ValueError("broken \x1b]0;title\x07")
        except ValueError:
            logger.exception("it failed")
    first, second = stream.getvalue().splitlines()
    assert first.endswith("warning test: peer says red forged line")
    assert second.endswith("error test: it failed: ValueError: broken ]0;title")


def test_debugging_shows_tracebacks(settings: Settings) -> None:
    stream = io.StringIO()
    with Logs(settings, stream=stream, verbosity=1):
        try:
            raise ValueError("broken")
        except ValueError:
            logger.debug("it failed", exc_info=True)
    assert "Traceback (most recent call last)" in stream.getvalue()


async def test_the_request_id_follows_its_tasks(settings: Settings) -> None:
    async def work() -> None:
        await asyncio.sleep(0)
        logger.info("inside")

    with Logs(settings):
        async with asyncio.TaskGroup() as group:
            with request_context("request-1"):
                group.create_task(work())
            with request_context("request-2"):
                logger.info("other")
        logger.info("outside")
    found = {r["message"]: r.get("request_id") for r in lines(settings, "event.log")}
    assert found == {"inside": "request-1", "other": "request-2", "outside": None}


def test_secrets_are_hidden_everywhere(settings: Settings) -> None:
    secret = "the secret of this swarm"
    stream = io.StringIO()
    with Logs(replace(settings, jwt_secret=secret), stream=stream):
        logger.info("token %s", TOKEN)
        logger.info("settings: %r", {"password": "hunter2 and more", "slots": 1})
        logger.info("extra", extra={"header": f"Bearer {TOKEN}", "who": [secret]})
        try:
            raise ValueError(f"cannot use {secret}")
        except ValueError:
            logger.exception("failed")
    told = stream.getvalue()
    told += (settings.home.log_dir / "event.log").read_text()
    told += (settings.home.log_dir / "error.log").read_text()
    for hidden in (TOKEN, secret, "hunter2"):
        assert hidden not in told
    assert "'slots': 1" in told


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"x {TOKEN} y", "x [hidden] y"),
        ("Authorization: Bearer abc.def", "Authorization: [hidden] [hidden]"),
        ('{"password":"a\\"b c","email":"x"}', '{"password":[hidden],"email":"x"}'),
        ("password='two words' ok", "password=[hidden] ok"),
        ("PEERCHAT_PASSWORD=pw next", "PEERCHAT_PASSWORD=[hidden] next"),
        ("jwt_secret = s3cr3t", "jwt_secret = [hidden]"),
        ("passwd: not a GGUF file", "passwd: not a GGUF file"),
        ("password: must have 8 characters", "password: must have 8 characters"),
        ("password: not", "password: [hidden]"),
        ("password=not a secret", "password=[hidden] a secret"),
        ("answer_tokens=12 and max_tokens: 4", "answer_tokens=12 and max_tokens: 4"),
        ("key 4f2a is a public key: 99", "key 4f2a is a public key: 99"),
        ("no password was given", "no password was given"),
    ],
)
def test_what_looks_like_a_secret_is_hidden(text: str, shown: str) -> None:
    assert Redactor().redact(text) == shown


def test_short_secrets_are_not_taken() -> None:
    redactor = Redactor()
    redactor.learn("ab", "", "long enough", "long enough and longer")
    assert redactor.redact("about long enough and longer") == "about [hidden]"


def test_prompts_are_logged_only_when_switched_on(settings: Settings) -> None:
    with Logs(settings):
        log_prompt("a private prompt", "its answer")
    folder = settings.home.log_dir
    written = "".join(path.read_text() for path in folder.iterdir())
    assert "private" not in written
    with Logs(replace(settings, prompt_log=True)):
        log_prompt("a private prompt", "its answer", model="m")
    (record,) = lines(settings, "prompt.log")
    assert (record["prompt"], record["answer"]) == ("a private prompt", "its answer")
    assert [path.name for path in folder.iterdir()] == ["prompt.log"]


def test_logs_rotate(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "LOG_BYTES_MAX", 2000)
    monkeypatch.setattr(logs, "LOG_FILES_MAX", 2)
    with Logs(settings):
        for number in range(100):
            logger.info("line %d", number)
    files = sorted(path.name for path in settings.home.log_dir.glob("event.log*"))
    assert files == ["event.log", "event.log.1", "event.log.2"]
    assert all(
        path.stat().st_size <= 2000 for path in settings.home.log_dir.glob("event.log*")
    )


def test_a_log_that_cannot_be_written_stops_nothing(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.home.log_dir.parent.mkdir(parents=True, exist_ok=True)
    settings.home.log_dir.write_text("in the way")
    stream = io.StringIO()
    with Logs(settings, stream=stream):
        logger.info("first")
        logger.info("second")
    assert len(stream.getvalue().splitlines()) == 2
    complaints = capsys.readouterr().err
    assert complaints.count("cannot write") == 1
    assert "Traceback" not in complaints


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_stops_nothing(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.home.log_dir.mkdir(parents=True)
    (settings.home.log_dir / "event.log").symlink_to("/dev/full")
    with Logs(settings):
        for number in range(3):
            logger.error("line %d", number)
    assert "No space left" in capsys.readouterr().err
    assert len(lines(settings, "error.log")) == 3


def test_closing_ends_logging_and_may_be_repeated(settings: Settings) -> None:
    kept = Logs(settings).start()
    logger.info("kept")
    kept.close()
    kept.close()
    logger.info("not kept")
    assert [r["message"] for r in lines(settings, "event.log")] == ["kept"]


@pytest.mark.parametrize(
    ("name", "verbosity", "level"),
    [
        ("info", 0, logging.INFO),
        ("info", 1, logging.DEBUG),
        ("info", 9, logging.DEBUG),
        ("info", -1, logging.WARNING),
        ("info", -9, logging.ERROR),
        ("error", 1, logging.WARNING),
    ],
)
def test_verbosity_moves_the_level(name: str, verbosity: int, level: int) -> None:
    assert level_of(name, verbosity) == level
