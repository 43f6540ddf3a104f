"""How one prompt to the Ollama stub is answered, and the stub's JSON."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from .ollama_behaviour import Behaviour

Piece = Callable[[str, str], dict[str, Any]]


@dataclass
class StubAnswer:
    """One prompt that holds a slot."""

    request: web.Request
    body: dict[str, Any]
    behaviour: Behaviour
    piece: Piece
    name: str
    began_s: float
    load_ns: int = 0

    async def run(self) -> web.StreamResponse:
        behaviour = self.behaviour
        if behaviour.is_silent:
            await asyncio.get_running_loop().create_future()
        if self.body.get("stream") is False:
            await asyncio.sleep(behaviour.delay_s * len(behaviour.fragments))
            return json_response(self.final("".join(behaviour.fragments)))
        response = ndjson()
        is_thinking_wanted = self.body.get("think") is not False
        for text in behaviour.thinking if is_thinking_wanted else ():
            await self.write(response, self.part("", text))
        limit = self.limit()
        for call in self.calls():
            await self.write(response, call)
        for count, text in enumerate(self.fragments()[:limit]):
            if await self.misbehave(response, count):
                return response
            await asyncio.sleep(behaviour.delay_s)
            await self.write(response, self.part(text, ""))
        if not await self.misbehave(response, len(behaviour.fragments)):
            await self.write(response, self.final(behaviour.final_content))
        return response

    def calls(self) -> list[dict[str, Any]]:
        """Function calls come whole, each in a line without text."""
        if not self.body.get("tools"):
            return []
        lines = []
        for index, (name, arguments) in enumerate(self.behaviour.calls):
            line = self.part("", "")
            function = {"index": index, "name": name, "arguments": arguments}
            line["message"]["tool_calls"] = [{"id": f"c{index}", "function": function}]
            lines.append(line)
        return lines

    def fragments(self) -> list[str]:
        """What is left to say: a last message of the assistant, or the end of a raw
        prompt, is gone on with."""
        fragments = list(self.behaviour.fragments)
        messages = self.body.get("messages") or [{}]
        begun = messages[-1].get("content", "")
        if messages[-1].get("role") != "assistant":
            return fragments
        whole = "".join(fragments)
        if not whole.startswith(begun):
            return fragments
        rest: list[str] = []
        at = 0
        for fragment in fragments:
            rest.append(fragment[max(0, len(begun) - at) :])
            at += len(fragment)
        return [fragment for fragment in rest if fragment]

    async def misbehave(self, response: web.StreamResponse, count: int) -> bool:
        """Do what is planned after so many fragments; True ends the answer."""
        behaviour = self.behaviour
        if count == behaviour.stall_after:
            await asyncio.get_running_loop().create_future()
        if count == behaviour.drop_after and self.request.transport is not None:
            self.request.transport.abort()
            return True
        if count == behaviour.error_after:
            await self.write(response, {"error": behaviour.error_text})
            return True
        if count == behaviour.garbage_after:
            await response.write(b'{"model": nonsense\n')
            return True
        return count == behaviour.end_after

    async def write(self, response: web.StreamResponse, line: dict[str, Any]) -> None:
        """Headers go out with the first line and not before."""
        if not response.prepared:
            await response.prepare(self.request)
        await response.write(line_bytes(line))

    async def nothing_to_say(self) -> web.StreamResponse:
        """An empty prompt only loads or unloads the model."""
        is_unload = self.body.get("keep_alive") == 0
        self.behaviour.is_loaded = not is_unload
        line = self.part("", "") | {
            "done": True,
            "done_reason": "unload" if is_unload else "load",
        }
        if self.body.get("stream") is False:
            return json_response(line)
        response = ndjson()
        await self.write(response, line)
        return response

    def limit(self) -> int | None:
        limit = (self.body.get("options") or {}).get("num_predict", -1)
        return limit if limit >= 0 else None

    def part(self, text: str, thinking: str) -> dict[str, Any]:
        head = {"model": self.body["model"], "created_at": rfc3339(now())}
        return head | self.piece(text, thinking) | {"done": False}

    def final(self, text: str) -> dict[str, Any]:
        behaviour = self.behaviour
        limit = self.limit()
        is_cut = limit is not None and limit < len(behaviour.fragments)
        count = limit if is_cut else len(behaviour.fragments)
        prompt_words = len(json.dumps(self.body).split())
        # encoding/json with omitempty: figures of 0 are not sent.
        figures = present(
            total_duration=ns_since(self.began_s),
            load_duration=self.load_ns,
            prompt_eval_count=prompt_words,
            prompt_eval_duration=1_000_000,
            eval_count=count,
            eval_duration=(count or 0) * 10_000_000,
        )
        reason = "length" if is_cut else behaviour.done_reason
        line = self.part(text, "") | {"done": True, "done_reason": reason} | figures
        if "response" in line and not self.body.get("raw"):
            line["context"] = [1, 2, 3]
        return line


def present(**fields: Any) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value}


def go_json(value: object) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode()


def line_bytes(value: dict[str, Any]) -> bytes:
    return go_json(value) + b"\n"


def json_response(value: dict[str, Any], status: int = 200) -> web.Response:
    return web.Response(
        body=go_json(value),
        status=status,
        content_type="application/json",
        charset="utf-8",
    )


def ndjson() -> web.StreamResponse:
    return web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})


def now() -> datetime:
    return datetime.now(UTC)


def rfc3339(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%S.%f000Z")


def ns_since(began_s: float) -> int:
    return int((time.monotonic() - began_s) * 1e9)
