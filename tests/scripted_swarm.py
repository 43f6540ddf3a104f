"""A swarm whose peers answer by script: what the client and the bridge stand on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from peerchat.api import (
    AnswerEvent,
    ApiError,
    ErrorCode,
    Finished,
    Fragment,
    PromptRequest,
    Role,
    Usage,
)
from peerchat.net.errors import PeerUnreachable
from peerchat.net.identity import PublicKey

Reply = Callable[[dict], object]

UNKNOWN_METHOD = ApiError(ErrorCode.INTERNAL, "The peer refused it.", status=502)
"""What a peer of an earlier version, or a Node.js worker, answers with."""

TOKEN = "header.claims.signature"
LIMIT = {
    "remainingRequests": 9,
    "maxRequests": 10,
    "nextResetInSeconds": 60,
    "windowDurationMinutes": 1,
}


def key(number: int) -> PublicKey:
    return PublicKey(bytes([number]) * 32)


def finished(**extra: object) -> Finished:
    usage = Usage("model", key(9).hex(), "stop", 1.0, answer_tokens=2)
    return Finished(usage, **extra)


class ScriptedAnswer:
    """Gives its steps in order; an exception is raised, an event is waited for."""

    def __init__(self, request: PromptRequest, steps: Sequence[object]) -> None:
        self.request = request
        self.request_id = request.request_id
        self.steps = list(steps)
        self.is_silent = False
        self.is_closed = asyncio.Event()
        self.is_waiting = asyncio.Event()

    def __aiter__(self) -> AsyncIterator[AnswerEvent]:
        return self

    async def __anext__(self) -> AnswerEvent:
        while self.steps and not self.is_closed.is_set():
            step = self.steps.pop(0)
            if isinstance(step, Exception):
                raise step
            if isinstance(step, asyncio.Event):
                self.is_waiting.set()
                await self._wait(step)
                continue
            return step
        raise StopAsyncIteration

    async def _wait(self, event: asyncio.Event) -> None:
        waits = [asyncio.ensure_future(e.wait()) for e in (event, self.is_closed)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def aclose(self) -> None:
        self.is_closed.set()


class ScriptedPeer:
    """Replies to methods from a table; what is not in it cannot be reached."""

    def __init__(self, role: Role, **methods: Reply | object) -> None:
        self.role = role
        self.methods = methods
        self.calls: list[tuple[str, object]] = []
        self.steps: Sequence[object] = (Fragment("Hello"), Fragment(" you"), finished())
        self.answers: list[ScriptedAnswer] = []
        self.tokens: list[str] = []
        self.was_asked = asyncio.Event()


class ScriptedSwarm:
    """Peers by key; `find` gives those that were not dropped, as a `Swarm` does."""

    def __init__(self, **peers: ScriptedPeer) -> None:
        self.peers = {key(i + 1): peer for i, peer in enumerate(peers.values())}
        self.dropped: list[PublicKey] = []
        self.looks = 0
        """Times that `find` was called since somebody was dropped."""
        self.find_error: Exception | None = None
        self.unreachable: dict[PublicKey, asyncio.Event] = {}
        """Peers that say nothing, and when that is known."""
        self.reached: list[PublicKey] = []

    async def find(self, role: Role, *, max_age_s: float = 300) -> list[PublicKey]:
        self.looks += 1
        if self.find_error is not None:
            raise self.find_error
        return [
            k
            for k, peer in self.peers.items()
            if peer.role is role and k not in self.dropped
        ]

    def drop(self, role: Role, key: PublicKey) -> None:
        self.dropped.append(key)
        self.looks = 0

    async def request(
        self,
        key: PublicKey,
        method: str,
        body: object,
        timeout_s: float,
        *,
        role: Role = Role.GATEWAY,
    ) -> object:
        peer = self.peers[key]
        peer.calls.append((method, body))
        reply = peer.methods.get(method, PeerUnreachable("no packet gets through"))
        if callable(reply):
            reply = reply(body)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def ask(self, key: PublicKey, request: PromptRequest, token: str) -> ScriptedAnswer:
        peer = self.peers[key]
        peer.tokens.append(token)
        peer.was_asked.set()
        peer.answers.append(answer := ScriptedAnswer(request, peer.steps))
        return answer

    def is_connected(self, key: PublicKey) -> bool:
        return key not in self.unreachable

    async def reach(self, key: PublicKey) -> None:
        self.reached.append(key)
        if key in self.unreachable:
            await self.unreachable[key].wait()
            raise PeerUnreachable("no packet gets through")

    def is_self(self, key: PublicKey) -> bool:
        return key == next(iter(self.peers))


def healthy(service: str, **extra: object) -> dict:
    return {"status": "healthy", "timestamp": 1, "service": service, **extra}


def gateway(**methods: object) -> ScriptedPeer:
    """A gateway where everything goes well for `TOKEN`."""
    working = {
        "ping": healthy("gateway"),
        "models": UNKNOWN_METHOD,
        "register": lambda body: {
            "success": True,
            "status": 201,
            "message": "User registered successfully",
            "email": body["data"]["email"],
        },
        "login": lambda body: {
            "success": True,
            "status": 200,
            "email": body["data"]["email"],
            "key": TOKEN,
            "rateLimitInfo": LIMIT,
        },
        "verifySession": lambda body: (
            {
                "success": True,
                "status": 200,
                "valid": True,
                "email": "ann@example.org",
                "rateLimitInfo": LIMIT,
            }
            if body["meta"]["key"] == TOKEN
            else {
                "success": False,
                "status": 401,
                "valid": False,
                "message": "Unauthorized: Invalid or expired token",
            }
        ),
    }
    return ScriptedPeer(Role.GATEWAY, **{**working, **methods})
