"""`peerchat verify` over what answers are kept as."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from peerchat.api import (
    ApiError,
    Finished,
    Fragment,
    Message,
    Progress,
    PromptRequest,
    Usage,
)
from peerchat.cli.ask import print_answer
from peerchat.cli.options import Invocation
from peerchat.cli.output import Output
from peerchat.cli.verify import Given, run_verify
from peerchat.config import load_settings
from peerchat.net.crypto.primitives import KeyPair
from peerchat.services import receipts
from tests.scripted_swarm import ScriptedAnswer

PAIR = KeyPair.from_seed(bytes(32))
KEY = PAIR.public_key.hex()
ASKED = PromptRequest("why?", "r1")
USAGE = Usage("tiny:latest", KEY, "stop", 1.0, prompt_tokens=3, answer_tokens=2)


def sealed(answer: str, asked: PromptRequest = ASKED, **changes: object) -> bytes:
    fields: dict[str, object] = {
        "version": 1,
        "request_id": "r1",
        "request_hash": receipts.request_hash(asked),
        "answer_hash": receipts.answer_hash(answer),
        "model": "tiny:latest",
        "prompt_tokens": 3,
        "answer_tokens": 2,
        "finished_at_ms": 10**12,
        "finish_reason": "stop",
        **changes,
    }
    return receipts.seal(receipts.Statement(**fields), PAIR)  # type: ignore[arg-type]


def in_text(receipt: bytes) -> str:
    return base64.b64encode(receipt).decode()


def answer_of(*events) -> ScriptedAnswer:
    return ScriptedAnswer(PromptRequest("why?", "r1"), events)


async def printed(capsys, receipt: bytes, usage: Usage = USAGE) -> str:
    answer = answer_of(
        Progress("queued", 2, estimate_s=3.0),
        Fragment("thought", is_thinking=True),
        Fragment("be"),
        Fragment("cause"),
        Finished(usage, "r1", receipt=receipt),
    )
    await print_answer(answer, Output(is_json=True))
    return capsys.readouterr().out


class Command:
    """`peerchat verify` in a home of its own, solo."""

    def __init__(self, folder: Path, capsys) -> None:
        self._folder = folder
        self._capsys = capsys
        self._settings = load_settings({"home": folder / "home"}, environ={})
        self.problem = ""

    def file(self, name: str, text: str) -> str:
        path = self._folder / name
        path.write_text(text)
        return str(path)

    async def __call__(self, text: str, prompt: str = "", request: str = "") -> dict:
        """What became of each claim."""
        given = Given(
            self.file("answer", text),
            self.file("prompt", prompt) if prompt else None,
            self.file("request", request) if request else None,
        )
        call = Invocation({}, 0, Output(is_json=True))
        self.problem = ""
        try:
            await run_verify(self._settings, call, given)
        except ApiError as error:
            self.problem = error.message
        out = self._capsys.readouterr().out
        self.said = json.loads(out) if out else {}
        return {one["claim"]: one["verdict"] for one in self.said.get("claims", ())}


@pytest.fixture
def verify(tmp_path: Path, capsys) -> Command:
    return Command(tmp_path, capsys)


async def test_what_ask_printed_is_verified(verify: Command, capsys) -> None:
    text = await printed(capsys, sealed("because"))
    found = await verify(text, "why?\n")
    assert not verify.problem
    assert verify.said["valid"]
    assert verify.said["peer"] == KEY
    # Nobody knows the key: solo, no swarm vouches for it.
    unchecked = [name for name, verdict in found.items() if verdict != "holds"]
    assert unchecked == ["signer"]
    assert (await verify(text))["request"] == "not checked"
    assert verify.said["valid"]


@pytest.mark.parametrize(
    ("claim", "receipt", "changes"),
    [
        ("answer", {"answer_hash": receipts.answer_hash("why not")}, {}),
        ("request id", {"request_id": "r2"}, {}),
        ("peer", {}, {"peer": "ab" * 32}),
        ("model", {}, {"model": "large"}),
        ("end", {}, {"finish_reason": "length"}),
        ("prompt tokens", {}, {"prompt_tokens": 4}),
        ("answer tokens", {}, {"answer_tokens": 999}),
        ("answer tokens", {"answer_tokens": None}, {}),
        ("time", {"finished_at_ms": 2**53}, {}),
    ],
)
async def test_each_claim_can_fail(
    verify: Command, capsys, claim: str, receipt: dict, changes: dict
) -> None:
    usage = replace(USAGE, **changes)
    found = await verify(await printed(capsys, sealed("because", **receipt), usage))
    assert [name for name, verdict in found.items() if verdict == "fails"] == [claim]
    assert verify.problem.endswith(f": {claim}.")
    assert not verify.said["valid"]


async def test_another_prompt_is_told(verify: Command, capsys) -> None:
    text = await printed(capsys, sealed("because"))
    assert (await verify(text, "why not?"))["request"] == "fails"
    assert verify.problem


async def test_a_continued_answer_is_signed_in_part(verify: Command, capsys) -> None:
    receipt = sealed("cause", prefix_chars=2)
    usage = replace(USAGE, continued=1, answer_tokens=7)
    found = await verify(await printed(capsys, receipt, usage))
    assert (found["answer"], found["answer tokens"]) == ("holds", "holds")
    says = {one["claim"]: one["says"] for one in verify.said["claims"]}
    assert says["answer"].startswith("the last 5 of 7 characters")
    assert says["answer tokens"].startswith("2 of 7")
    fewer = replace(usage, answer_tokens=1)
    found = await verify(await printed(capsys, receipt, fewer))
    assert found["answer tokens"] == "fails"


async def test_what_stands_beside_a_receipt_writes_no_lines_of_its_own(
    verify: Command, capsys
) -> None:
    forged = "x\nholds        signer         certified\x1b[8m"
    usage = replace(USAGE, peer=forged, model=forged, finish_reason=forged)
    assert await verify(await printed(capsys, sealed("because"), usage))
    for claim in verify.said["claims"]:
        assert claim["says"].isprintable()


async def test_what_was_put_before_an_answer_is_not_called_signed(
    verify: Command,
) -> None:
    body = {"text": "Yes. No.", "receipt": in_text(sealed("No.")), "starts_at": -5}
    assert (await verify(json.dumps(body)))["answer"] == "holds"
    says = {one["claim"]: one["says"] for one in verify.said["claims"]}
    assert says["answer"].endswith("and nobody signed them")


EXTRA = {"request_id": "r1", "peer": KEY, "continued": 0, "partial": False}
"""What the bridge adds to an answer, beside the receipt."""


def openai_whole(extra: dict) -> str:
    body = {
        "model": "tiny",
        "choices": [{"message": {"content": "because"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
        "peerchat": extra,
    }
    return json.dumps(body, indent=2)


def openai_stream(extra: dict) -> str:
    bodies = [
        *({"choices": [{"delta": {"content": piece}}]} for piece in ("be", "cause")),
        {"choices": [{"delta": {}}], "usage": None, "model": "tiny", "peerchat": extra},
    ]
    lines = "".join(f"data: {json.dumps(body)}\n\n" for body in bodies)
    return f": queued 1\n\n{lines}data: [DONE]\n\n"


def ollama_stream(extra: dict) -> str:
    head = {"model": "tiny", "done": False}
    bodies = [
        {**head, "message": {"role": "assistant", "content": "", "thinking": "hm"}},
        *({**head, "message": {"content": piece}} for piece in ("be", "cause")),
        {
            "model": "tiny",
            "message": {"content": ""},
            "done": True,
            "prompt_eval_count": 3,
            "eval_count": 2,
            "peerchat": extra,
        },
    ]
    return "\n".join(map(json.dumps, bodies))


def ollama_whole(extra: dict) -> str:
    return json.dumps({"model": "tiny", "response": "because", "peerchat": extra})


def own_stream(extra: dict) -> str:
    return (
        'event: fragment\ndata: {"text": "hm", "thinking": true}\n\n'
        'event: fragment\ndata: {"text": "because"}\n\n'
        f"event: done\ndata: {json.dumps({'requestId': 'r1', **extra})}\n\n"
    )


@pytest.mark.parametrize(
    "form", [openai_whole, openai_stream, ollama_stream, ollama_whole, own_stream]
)
async def test_answers_of_the_bridge(verify: Command, form: Callable) -> None:
    extra = {**EXTRA, "receipt": in_text(sealed("because"))}
    found = await verify(form(extra))
    assert not verify.problem
    assert [found[name] for name in ("answer", "request id", "peer")] == ["holds"] * 3
    await verify(form({**extra, "receipt": in_text(sealed("so"))}))
    assert "answer" in verify.problem


SYSTEM = Message("system", "be brief")


@pytest.mark.parametrize(
    ("asked", "body"),
    [
        (
            PromptRequest("why?", "", history=(SYSTEM,)),
            {
                "model": "tiny",
                "messages": [
                    {"role": "system", "content": "be brief"},
                    {"role": "user", "content": "why?"},
                ],
            },
        ),
        (
            PromptRequest("why?", "", history=(SYSTEM,)),
            {"system": "be brief", "prompt": "why?"},
        ),
        (PromptRequest("why?", "", is_raw=True), {"prompt": "why?"}),
        (ASKED, {"query": "why?"}),
        (ASKED, {"model": "tiny", "prompt": "why?"}),
        (PromptRequest("", "", inputs=("a", "b")), {"input": ["a", "b"]}),
    ],
)
async def test_requests_to_the_bridge(
    verify: Command, asked: PromptRequest, body: dict
) -> None:
    receipt = in_text(sealed("because", asked))
    found = await verify(receipt, request=json.dumps(body))
    assert found["request"] == "holds"
    other = {
        key: [] if key == "messages" else f"{value}!" for key, value in body.items()
    }
    await verify(receipt, request=json.dumps({**other, "prompt": "how?"}))
    assert verify.problem


async def test_what_the_asker_began_is_not_shown(verify: Command) -> None:
    turns = [
        {"role": "user", "content": "why?"},
        {"role": "assistant", "content": "It is "},
    ]
    request = json.dumps({"model": "tiny", "messages": turns})
    extra = {**EXTRA, "continued": 1}
    # "be" came from a processor that was lost; "cause" is what is signed.
    extra["receipt"] = in_text(sealed("cause", prefix_chars=len("It is be")))
    found = await verify(openai_whole(extra), request=request)
    assert (found["answer"], found["request"]) == ("holds", "holds")
    extra["receipt"] = in_text(sealed("because", prefix_chars=len("It is ")))
    assert (await verify(openai_whole(extra)))["answer"] == "holds"


async def test_what_is_shown_may_begin_elsewhere(verify: Command) -> None:
    given = {**EXTRA, "starts_at": len("It is "), "continued": 1}
    given["receipt"] = in_text(sealed("cause", prefix_chars=len("It is be")))
    assert (await verify(openai_whole(given)))["answer"] == "holds"
    echoed = {**EXTRA, "starts_at": -len("be"), "receipt": in_text(sealed("cause"))}
    assert (await verify(openai_whole(echoed)))["answer"] == "holds"
    says = {one["claim"]: one["says"] for one in verify.said["claims"]}
    assert says["answer"].startswith("all 5 characters; the 2 before them")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("\n", "empty"),
        ("???", "not base64"),
        ("{}", "no receipt"),
        ("[1]", "no receipt"),
        ("{", "line 1 is no JSON"),
        ('{"event":"done"}\n{', "line 2 is no JSON"),
        ("[" * 100_000, "no JSON"),
        ("AAAA", "not a receipt"),
        ('{"receipt":"AAAA"}', "not a receipt"),
        ('{"receipt":"ä"}', "not base64"),
        (in_text(sealed("because")[:-1] + b"\0"), "does not hold"),
    ],
)
async def test_what_is_no_receipt(verify: Command, text: str, why: str) -> None:
    assert not await verify(text)
    assert why in verify.problem


@pytest.mark.parametrize(
    "body", ["", "[]", "{}", '{"messages":[{"role":"cook"}]}', '{"input":5}']
)
async def test_what_is_no_request(verify: Command, body: str) -> None:
    assert not await verify(in_text(sealed("because")), request=body or " ")
    assert "request cannot be read" in verify.problem


async def test_a_receipt_alone(verify: Command) -> None:
    found = await verify(in_text(sealed("because")) + "\n")
    assert found["answer"] == "not checked"
    assert not verify.said["is_answer_checked"]


def test_files_that_exclude_each_other() -> None:
    assert "not both" in Given("a", "b", "c").problem
    assert "standard input" in Given("-", "-").problem
    assert not Given("a", "-").problem
