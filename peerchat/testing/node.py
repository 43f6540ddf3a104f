"""A scripted `api.Node`: for tests of the app, for its pictures, and to try it by hand.

Instant and deterministic: it has no thread, reads no clock, draws no chance, and
answers from scripts. ``python -m peerchat.testing.node`` opens the app in front of one.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from peerchat.api import (
    Account,
    AnswerEvent,
    ApiError,
    ErrorCode,
    Finished,
    Fragment,
    Message,
    ModelInfo,
    NodeState,
    PeerView,
    Phase,
    Progress,
    RateLimit,
    Role,
    SwarmView,
    Usage,
)

from .swarms import ScriptedSwarms

if TYPE_CHECKING:
    from peerchat.tui.widgets.metrics import History

GATEWAY_KEY = "7c1f0a52" * 8
PROCESSOR_KEY = "e94bd310" * 8
LAPTOP_KEY = "21d6c8ff" * 8
AUTH_KEY = "b05e7742" * 8

LOCAL = Account("local@localhost", is_local=True)

Step = AnswerEvent | ApiError | asyncio.Event
"""An event given at once, a failure raised, or a gate at which the answer waits."""


def usage(**changes: object) -> Usage:
    """The usage of a plausible answer."""
    base = Usage(
        model="llama3.2:3b",
        peer=PROCESSOR_KEY,
        finish_reason="stop",
        duration_s=2.4,
        first_fragment_s=0.31,
        prompt_tokens=26,
        answer_tokens=118,
        tokens_per_s=49.2,
    )
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def fragments(text: str, size: int = 4) -> list[Fragment]:
    """Text cut into fragments of the same size."""
    return [Fragment(text[i : i + size]) for i in range(0, len(text), size)]


def whole(text: str, **changes: object) -> list[Step]:
    """The steps of an answer that ends well."""
    return [
        Progress("serving", peer=PROCESSOR_KEY, model="llama3.2:3b"),
        *fragments(text),
        Finished(usage(**changes), request_id="r-1"),
    ]


def swarm_state(**changes: object) -> NodeState:
    """A node that is ready in a small open swarm, somebody logged in."""
    state = NodeState(
        phase=Phase.READY,
        mode="open",
        account=Account("ada@example.org"),
        peers=(
            PeerView(Role.GATEWAY, GATEWAY_KEY, 0.012),
            PeerView(
                Role.PROCESSOR,
                PROCESSOR_KEY,
                0.031,
                ("llama3.2:3b", "qwen2.5-coder:7b"),
                busy=1,
                slots=2,
            ),
            PeerView(Role.PROCESSOR, LAPTOP_KEY, None, ("guide",), 0, 1, is_self=True),
            PeerView(Role.AUTH, AUTH_KEY, 0.087, is_reachable=False),
        ),
        models=(
            ModelInfo("llama3.2:3b", "ollama", (PROCESSOR_KEY,), 131072),
            ModelInfo("qwen2.5-coder:7b", "ollama", (PROCESSOR_KEY,), 32768),
            ModelInfo("guide", "guide", (LAPTOP_KEY,)),
        ),
        engine="guide (no Ollama here)",
        rate_limit=RateLimit(7, 10, 42, 1.0),
        requests=3,
        answer_tokens=412,
        tokens_per_s=49.2,
        dht_nodes=23,
    )
    return dataclasses.replace(state, **changes)  # type: ignore[arg-type]


def solo_state(**changes: object) -> NodeState:
    """A node that runs everything itself, the local account in use."""
    state = NodeState(
        phase=Phase.READY,
        account=LOCAL,
        peers=tuple(
            PeerView(role, key, None, models, 0 if models else None, slots, True)
            for role, key, models, slots in (
                (Role.GATEWAY, GATEWAY_KEY, (), None),
                (Role.PROCESSOR, PROCESSOR_KEY, ("guide",), 1),
                (Role.AUTH, AUTH_KEY, (), None),
            )
        ),
        models=(ModelInfo("guide", "guide", (PROCESSOR_KEY,)),),
        engine="guide (no Ollama here)",
        rate_limit=RateLimit(10, 10, 0, 1.0),
        dht_nodes=4,
    )
    return dataclasses.replace(state, **changes)  # type: ignore[arg-type]


def private_state(**changes: object) -> NodeState:
    """A node that is ready in a private swarm which it rules, somebody logged in."""
    private = {"mode": "private", "swarm": "lab", "is_swarm_admin": True}
    return swarm_state(**{**private, **changes})


def seed_metrics(history: History) -> None:
    """Fill the metrics panel's history with a plausible minute, always the same."""
    from peerchat.tui.widgets.metrics import SAMPLES_MAX, Sample

    for second in range(SAMPLES_MAX):
        rate = 30 + 20 * ((second * 7) % 11) / 11 if second > 20 else 0
        history.samples.append(
            Sample(second % 9 == 4, second == 33, rate, 10 - second % 10)
        )


class ScriptedAnswer:
    """An answer that gives its steps, and remembers that it was closed."""

    def __init__(self, request_id: str, steps: Iterable[Step], delay_s: float) -> None:
        self.request_id = request_id
        self.is_closed = False
        self._steps = steps
        self._delay_s = delay_s

    async def __aiter__(self) -> AsyncIterator[AnswerEvent]:
        for step in self._steps:
            if isinstance(step, asyncio.Event):
                await step.wait()
            elif isinstance(step, ApiError):
                raise step
            else:
                if self._delay_s:
                    await asyncio.sleep(self._delay_s)
                yield step

    async def aclose(self) -> None:
        self.is_closed = True


@dataclass(frozen=True, slots=True)
class Asked:
    """One call of `ScriptedNode.ask`."""

    prompt: str
    model: str | None
    history: tuple[Message, ...]
    answer: ScriptedAnswer


@dataclass(eq=False)
class ScriptedNode:
    """A node whose state and answers the test decides.

    Attributes:
        script: one list of steps for each prompt; past its end, `fallback` answers.
        login_error: raised by login and register when set.
        close_gate: when set, `close` waits for it.
        password_error: raised by what changes a password or ends sessions, when set.
    """

    current: NodeState = field(default_factory=swarm_state)
    script: deque[Iterable[Step]] = field(default_factory=deque)
    fallback: Callable[[str], Iterable[Step]] = lambda prompt: whole(f"You: {prompt}")
    delay_s: float = 0.0
    login_error: ApiError | None = None
    local_error: ApiError | None = None
    password_error: ApiError | None = None
    close_gate: asyncio.Event | None = None
    private_swarms: ScriptedSwarms = field(default_factory=ScriptedSwarms)
    is_started: bool = False
    is_closed: bool = False
    asked: list[Asked] = field(default_factory=list)
    accounts: list[tuple[str, str, str]] = field(default_factory=list)
    """What was called with what: email and password, or old password and new one."""
    codes: list[str] = field(default_factory=list)
    """The registration codes that came."""
    refreshes: int = 0
    _listeners: list[Callable[[NodeState], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.private_swarms.enter = self._enter_swarm

    def start(self) -> None:
        self.is_started = True

    def state(self) -> NodeState:
        return self.current

    def subscribe(self, listener: Callable[[NodeState], None]) -> Callable[[], None]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def change(self, **changes: object) -> None:
        """Replace parts of the state and tell everybody who listens."""
        self.current = dataclasses.replace(self.current, **changes)  # type: ignore[arg-type]
        for listener in tuple(self._listeners):
            listener(self.current)

    async def register(self, email: str, password: str, code: str = "") -> Account:
        self.codes.append(code)
        return self._enter("register", email, password)

    async def login(self, email: str, password: str) -> Account:
        return self._enter("login", email, password)

    async def change_password(self, old: str, new: str) -> None:
        self.accounts.append(("password", old, new))
        if self.password_error is not None:
            raise self.password_error

    async def logout_everywhere(self) -> None:
        if self.password_error is not None:
            raise self.password_error
        self.change(account=None)

    async def use_local_account(self) -> Account:
        if self.local_error is not None:
            raise self.local_error
        self.change(account=LOCAL)
        return LOCAL

    async def logout(self) -> None:
        self.change(account=None)

    def ask(
        self,
        prompt: str,
        *,
        model: str | None = None,
        history: Sequence[Message] = (),
    ) -> ScriptedAnswer:
        steps = self.script.popleft() if self.script else self.fallback(prompt)
        answer = ScriptedAnswer(f"r-{len(self.asked) + 1}", steps, self.delay_s)
        self.asked.append(Asked(prompt, model, tuple(history), answer))
        self.change(requests=self.current.requests + 1)
        return answer

    async def refresh_peers(self) -> Sequence[PeerView]:
        self.refreshes += 1
        return self.current.peers

    async def set_paused(self, is_paused: bool) -> None:
        self.change(is_paused=is_paused)

    async def close(self) -> None:
        if self.close_gate is not None:
            await self.close_gate.wait()
        self.is_closed = True

    def _enter_swarm(self, view: SwarmView | None) -> None:
        self.change(
            mode="private" if view else "solo",
            swarm=view.name if view else "",
            is_swarm_admin=view.is_admin if view else False,
            account=None,
        )

    def _enter(self, what: str, email: str, password: str) -> Account:
        self.accounts.append((what, email, password))
        if self.login_error is not None:
            raise self.login_error
        account = Account(email)
        self.change(account=account)
        return account


SAMPLE_ANSWER = """\
A **HyperDHT** lets two peers find each other by public key, and then talk over one \
encrypted stream. Three steps:

1. The server *announces* its key at the nodes closest to its hash.
2. The client looks the key up and sends a handshake through one of them.
3. Both open a UDX stream; every byte on it is encrypted end to end.

```python
connection = await dht.connect(public_key)
async for event in client.ask("Why is the sky blue?"):
    print(event.text, end="")
```

| part | does |
|---|---|
| gateway | checks tokens, limits users |
| processor | runs the model |
"""


def _demo_steps(prompt: str) -> Iterable[Step]:
    """An answer for the demonstration; a few words in the prompt make it fail."""
    for word, error in _DEMO_ERRORS.items():
        if word in prompt.lower():
            return [error]
    return [
        Progress("queued", position=1),
        Progress("serving", peer=PROCESSOR_KEY, model="llama3.2:3b"),
        *[Fragment(f"{word} ", is_thinking=True) for word in prompt.split()[:40]],
        *fragments(SAMPLE_ANSWER),
        Finished(usage(), request_id="r-1"),
    ]


_DEMO_ERRORS = {
    "limit": ApiError(
        ErrorCode.RATE_LIMITED, "Rate limit exceeded", status=429, retry_after_s=15
    ),
    "nobody": ApiError(ErrorCode.NO_PROCESSOR, "No processor in this swarm answers"),
    "down": ApiError(ErrorCode.ENGINE_DOWN, "Ollama at 127.0.0.1:11434 is not there"),
}


def main() -> None:
    """Open the app in front of a scripted node."""
    from peerchat.tui.app import PeerchatApp

    parser = argparse.ArgumentParser(description="The app with a scripted node.")
    parser.add_argument(
        "--state", choices=("solo", "open", "private", "login", "offline")
    )
    parser.add_argument("--delay", type=float, default=0.02, help="seconds a fragment")
    arguments = parser.parse_args()
    states = {
        "open": swarm_state(),
        "private": private_state(),
        "login": swarm_state(account=None),
        "offline": swarm_state(
            phase=Phase.OFFLINE, problem="No bootstrap node answers"
        ),
    }
    state = states.get(arguments.state, solo_state(account=None))
    node = ScriptedNode(state, fallback=_demo_steps, delay_s=arguments.delay)
    PeerchatApp(node).run()


if __name__ == "__main__":
    main()
