"""What `peerchat ask` prints, and `peerchat verify` over it."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

import pytest

from peerchat.api import ApiError, Finished, Fragment, Hop, Progress, Usage
from peerchat.cli.ask import print_answer, usage_line
from peerchat.cli.output import Output
from peerchat.cli.receipt import hop_line, run_verify
from peerchat.net.crypto.primitives import KeyPair
from peerchat.services import receipts

PAIR = KeyPair.from_seed(bytes(32))


def sealed(answer: str) -> bytes:
    statement = receipts.Statement(
        1, "r1", bytes(32), receipts.answer_hash(answer), "tiny", 3, 2, 10**12, "stop"
    )
    return receipts.seal(statement, PAIR)


class Answer:
    request_id = "r1"

    def __init__(self, *events) -> None:
        self.events = events

    async def __aiter__(self):
        for event in self.events:
            yield event

    async def aclose(self) -> None:
        pass


async def printed(capsys, receipt: bytes) -> str:
    usage = Usage("tiny", "ab" * 32, "stop", 1.0)
    answer = Answer(
        Progress("queued", 2, estimate_s=3.0),
        Fragment("thought", is_thinking=True),
        Fragment("be"),
        Fragment("cause"),
        Finished(usage, "r1", receipt=receipt),
    )
    await print_answer(answer, Output(is_json=True))
    return capsys.readouterr().out


async def test_what_ask_printed_is_verified(capsys, tmp_path: Path) -> None:
    path = tmp_path / "answer.jsonl"
    path.write_text(await printed(capsys, sealed("because")))
    run_verify(str(path), Output(is_json=True))
    said = json.loads(capsys.readouterr().out)
    assert (said["valid"], said["is_answer_checked"]) == (True, True)
    assert said["peer"] == PAIR.public_key.hex()
    run_verify(str(path), Output(is_json=False))
    assert "tiny" in capsys.readouterr().out


async def test_another_answer_is_not(capsys, tmp_path: Path) -> None:
    path = tmp_path / "answer.jsonl"
    path.write_text(await printed(capsys, sealed("why not")))
    with pytest.raises(ApiError, match="another answer"):
        run_verify(str(path), Output(is_json=False))


@pytest.mark.parametrize(
    "text", ["", "???", "{}", "{", '{"event":"done"}', "AAAA", '{"receipt":"AAAA"}']
)
def test_what_is_no_receipt(text, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text(text)
    with pytest.raises(ApiError, match="does not hold"):
        run_verify(str(path), Output(is_json=False))


def test_a_receipt_alone(capsys, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text(base64.b64encode(sealed("because")).decode() + "\n")
    run_verify(str(path), Output(is_json=True))
    assert not json.loads(capsys.readouterr().out)["is_answer_checked"]


def test_lines_for_people() -> None:
    hop = Hop("gateway", "ab" * 32, "chosen", 0.0123, "idle")
    assert hop_line(hop) == "    0.012 s  gateway   chosen     abababab  idle"
    usage = Usage("m", "ab" * 32, "stop", 1.0, continued=1, path="direct")
    assert usage_line(usage) == "m · 1.0 s · peer abababab (direct) · continued 1x"


@pytest.mark.parametrize("is_terminal", [True, False], ids=["terminal", "file"])
async def test_a_place_in_the_queue_is_one_line_that_changes(
    capsys, monkeypatch, is_terminal
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    usage = Usage("m", "", "stop", 1.0)
    events = [
        Progress("queued", 1, estimate_s=2.0),
        Progress("queued", 1, estimate_s=1.0),
        Progress("serving"),
        Fragment("yes"),
        Finished(usage),
    ]
    await print_answer(Answer(*events), Output(is_json=False))
    shown = capsys.readouterr()
    assert shown.out == "yes\n"
    if not is_terminal:
        assert shown.err == ""
        return
    lines = shown.err.split("\r\x1b[K")
    assert lines[:3] == [
        "",
        "queued at place 1, about 2 s",
        "queued at place 1, about 1 s",
    ]
    assert lines[3].splitlines() == ["m · 1.0 s"]
