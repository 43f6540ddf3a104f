"""What the app, the command line and the client library share with the node.

Only data, errors and protocols: no I/O, nothing of the network, so that the app can
sit in front of a node in this process or, one day, in another. Every string that came
from another peer has been through `peerchat.sanitize` before it is put in here.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


class Role(enum.StrEnum):
    """What a peer can do for others."""

    AUTH = "auth"
    GATEWAY = "gateway"
    PROCESSOR = "processor"
    BRIDGE = "bridge"


class ErrorCode(enum.StrEnum):
    """Why something did not work, for programs; the message is for people."""

    INVALID_REQUEST = "invalid_request"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    CONFLICT = "conflict"
    RATE_LIMITED = "rate_limited"
    NO_AUTH = "no_auth"
    NO_GATEWAY = "no_gateway"
    NO_PROCESSOR = "no_processor"
    BUSY = "busy"
    ENGINE_DOWN = "engine_down"
    ENGINE_FAILED = "engine_failed"
    MODEL_MISSING = "model_missing"
    PEER_LOST = "peer_lost"
    TIMEOUT = "timeout"
    DHT_UNREACHABLE = "dht_unreachable"
    STORE_FAILED = "store_failed"
    STOPPED = "stopped"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A user's allowance at a gateway; the contract's ``rateLimitInfo``."""

    remaining: int
    max_requests: int
    reset_s: int
    window_minutes: float


class ApiError(Exception):
    """A refusal or failure with one line that says what to do.

    Attributes:
        status: the HTTP-like status of the contract (400, 401, 409, 429, 503, …).
        retry_after_s: set when trying again later is the remedy.
        is_partial: text came before the failure, and nobody could go on with it.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        status: int = 500,
        retry_after_s: int | None = None,
        rate_limit: RateLimit | None = None,
        request_id: str = "",
        is_partial: bool = False,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.retry_after_s = retry_after_s
        self.rate_limit = rate_limit
        self.request_id = request_id
        self.is_partial = is_partial


@dataclass(frozen=True, slots=True)
class Usage:
    """What an answer cost and who gave it; unknown figures are None."""

    model: str
    peer: str
    """Public key of the processor, hex; empty when a hop did not tell."""
    finish_reason: str
    """``stop``, ``length``, ``tool_calls`` or ``cancelled``."""
    duration_s: float
    first_fragment_s: float | None = None
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    tokens_per_s: float | None = None
    continued: int = 0
    """How many times another processor went on with the answer."""
    is_partial: bool = False
    """The answer lacks its end."""
    queue_s: float | None = None
    """Waited for a free slot."""
    load_s: float | None = None
    """The engine loaded the model for so long."""
    path: str = ""
    """``direct``, ``relayed`` or ``self``; empty when nobody told."""


@dataclass(frozen=True, slots=True)
class Fragment:
    """The next piece of an answer's text."""

    text: str
    is_thinking: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a request stands before, or between, fragments."""

    state: str
    """``queued``, ``loading``, ``serving`` or ``retrying``."""
    position: int | None = None
    peer: str = ""
    model: str = ""
    estimate_s: float | None = None
    """Expected wait from now."""
    reason: str = ""
    """Why this peer, in a few words."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function that the model wants called; the asker calls it, nobody else."""

    call_id: str
    name: str
    arguments: str
    """JSON text as the model wrote it; it need not fit the function's schema."""


@dataclass(frozen=True, slots=True)
class ToolCalls:
    """Calls of the answer; a later event of this kind brings more of them."""

    calls: tuple[ToolCall, ...]


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Vectors of texts; as an event of an answer, the next ones in order."""

    model: str
    vectors: tuple[bytes, ...]
    """Each is float32, little-endian."""
    prompt_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Hop:
    """One step on a request's way."""

    role: str
    """``client``, ``gateway``, ``processor`` or ``engine``."""
    peer: str
    """Public key, hex; empty for this process."""
    what: str
    """One word: ``sent``, ``queued``, ``chosen``, ``admitted``, ``first``, …"""
    at_s: float
    """Since the request began at that hop's observer."""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of an answer that ended well."""

    usage: Usage
    request_id: str = ""
    rate_limit: RateLimit | None = None
    receipt: bytes = b""
    """The processor's signed statement about the answer; empty without one."""
    hops: tuple[Hop, ...] = ()


AnswerPart = Fragment | ToolCalls | Embeddings
"""What an answer consists of: once one came, nobody may begin it anew."""

AnswerEvent = AnswerPart | Progress | Finished


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat, as context for the next prompt."""

    role: str
    """``system``, ``user``, ``assistant`` or ``tool``."""
    content: str
    images: tuple[bytes, ...] = ()
    """PNG or JPEG files, as they are on disk."""
    tool_calls: tuple[ToolCall, ...] = ()
    """Of an ``assistant``."""
    tool_call_id: str = ""
    """Of a ``tool``: the call that this is the result of."""
    tool_name: str = ""


@dataclass(frozen=True, slots=True)
class PromptRequest:
    """A prompt on its way to an engine, the same on every hop."""

    prompt: str
    request_id: str
    model: str | None = None
    history: tuple[Message, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)
    """Options an engine may honour; only those on its allow-list are passed on."""
    images: tuple[bytes, ...] = ()
    """Of the prompt: PNG or JPEG files."""
    tools: tuple[Mapping[str, object], ...] = ()
    """As OpenAI writes them: ``{"type": "function", "function": {…}}``."""
    response_format: Mapping[str, object] | str | None = None
    """``json`` for any JSON, or a JSON schema that the answer has to fit."""
    prefix: str = ""
    """What was already said of this answer: only what follows it is wanted."""
    prefix_thinking: str = ""
    deadline_s: float | None = None
    """Seconds left from now; each hop subtracts what it used."""
    is_raw: bool = False
    """The prompt goes on as it stands: no chat template, no history."""
    suffix: str = ""
    """With `is_raw`: what comes after the gap to fill."""
    inputs: tuple[str, ...] = ()
    """Texts to embed; the answer is `Embeddings` then, and all of the above is empty
    but model and options."""
    dimensions: int | None = None
    """Of each vector; only with `inputs`."""


@dataclass(frozen=True, slots=True)
class EmbedRequest:
    """Texts that an engine makes vectors of."""

    inputs: tuple[str, ...]
    request_id: str
    model: str | None = None
    dimensions: int | None = None


class Answer(Protocol):
    """A running answer: iterate for its events; raises `ApiError` when it fails."""

    request_id: str

    def __aiter__(self) -> AsyncIterator[AnswerEvent]: ...

    async def aclose(self) -> None:
        """Stop: closes the request on every hop. Idempotent, also after the end."""


@dataclass(frozen=True, slots=True)
class Account:
    """Who is logged in."""

    email: str
    is_local: bool = False
    """Made without asking on first run; lives only in this home."""
    is_pending: bool = False
    """Just made, and waits for an admin's approval: it cannot log in yet."""


@dataclass(frozen=True, slots=True)
class ModelDetails:
    """What is known of a model; empty and None where the engine does not tell."""

    name: str
    family: str = ""
    """The architecture, such as ``llama``."""
    parameters: str = ""
    """Such as ``3.2B``."""
    quantization: str = ""
    """Such as ``Q4_K_M``."""
    size_bytes: int | None = None
    context_tokens: int | None = None
    """How much it is given to read at once."""
    capabilities: frozenset[str] = frozenset()
    """In the words of `peerchat.services.engines.base`."""
    modified_s: float | None = None
    """Unix time."""
    digest: str = ""
    """SHA-256 of what it is made of, hex."""
    families: tuple[str, ...] = ()
    """With those of its parts, such as ``clip`` for images."""
    file_format: str = ""
    """Such as ``gguf``."""
    vector_length: int | None = None
    """Numbers that a token is to it."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in the memory of a processor; None where the engine does not tell."""

    kept_s: float | None = None
    """It stays for so long if nobody asks for it."""
    size_bytes: int | None = None
    """In memory, all told."""
    vram_bytes: int | None = None
    """Of that, on graphics cards."""
    context_tokens: int | None = None
    """That it was loaded for."""


class ClosedReason(enum.StrEnum):
    """Why a processor takes nothing new."""

    PAUSED = "paused"
    HOURS = "hours"
    """It is not the time of day that its owner set."""
    SPENT = "spent"
    """The tokens of its day are used up."""


@dataclass(frozen=True, slots=True)
class Closed:
    """A processor takes nothing new: its owner wants it so."""

    reason: ClosedReason
    opens_in_s: float | None = None
    """Until it takes prompts again; None when nobody knows."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model that the swarm serves."""

    name: str
    engine: str = ""
    peers: tuple[str, ...] = ()
    """Public keys, hex, of the processors that have it."""
    context_tokens: int | None = None
    is_embedder: bool = False
    """It only gives vectors, and does not chat."""
    details: ModelDetails | None = None
    """Of the kind that most processors have; None when nobody tells."""
    loaded: LoadedModel | None = None
    """Some processor has it in memory."""
    closed: Closed | None = None
    """None of its processors takes anything new; of the one that opens first."""


@dataclass(frozen=True, slots=True)
class PeerView:
    """A peer found by lookup, for the peers panel and ``peerchat peers``."""

    role: Role
    key: str
    """Public key, hex."""
    rtt_s: float | None = None
    models: tuple[str, ...] = ()
    busy: int | None = None
    slots: int | None = None
    is_self: bool = False
    """Runs in this very process."""
    is_reachable: bool = True
    is_well: bool = True
    """It says that it can do its work."""
    closed: Closed | None = None
    """A processor that takes nothing new."""


class Phase(enum.StrEnum):
    """How far the node is; each has its own words in the app."""

    STARTING = "starting"
    CONNECTING = "connecting"
    READY = "ready"
    OFFLINE = "offline"
    """The DHT cannot be reached; tried again with growing delay."""
    FAILED = "failed"
    """Cannot run at all (store damaged, port taken); ``NodeState.problem`` says why."""
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class RoleHealth:
    """A role that this process runs."""

    role: Role
    state: str
    """``starting``, ``running``, ``restarting`` or ``stopped``."""
    restarts: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class NodeState:
    """Everything the panels show; immutable, replaced as a whole."""

    phase: Phase = Phase.STARTING
    problem: str = ""
    mode: str = "solo"
    """``solo``, ``open`` or ``private``."""
    swarm: str = ""
    """Name of the private swarm."""
    is_swarm_admin: bool = False
    """May invite others into it."""
    account: Account | None = None
    peers: tuple[PeerView, ...] = ()
    models: tuple[ModelInfo, ...] = ()
    roles: tuple[RoleHealth, ...] = ()
    engine: str = ""
    """The engine of this process and why it was chosen; empty without one."""
    rate_limit: RateLimit | None = None
    requests: int = 0
    """Prompts sent by this process since it started."""
    failures: int = 0
    answer_tokens: int = 0
    tokens_per_s: float = 0.0
    """Of the newest answer."""
    dht_nodes: int = 0
    bootstrap: str = ""
    """``host:port`` that others can bootstrap from, when there is one."""
    is_paused: bool = False
    """This home's processor takes nothing new."""


@dataclass(frozen=True, slots=True)
class SwarmView:
    """A private swarm that this home belongs to."""

    name: str
    is_current: bool
    is_owner: bool
    """This home holds the root key."""
    is_admin: bool
    """May invite and certify others."""
    roles: tuple[str, ...] = ()
    """What this peer may serve there."""
    not_after_s: int = 0
    """Until when its certificate is valid, Unix time."""
    root: str = ""
    """The swarm's root public key, hex."""


@dataclass(frozen=True, slots=True)
class InviteView:
    """An invite of this home, without its secret parts."""

    invite_id: str
    name: str
    """For whom, in the inviter's words."""
    roles: tuple[str, ...]
    uses_left: int
    expires_s: int
    state: str
    """``open``, ``used``, ``expired`` or ``withdrawn``."""


@dataclass(frozen=True, slots=True)
class InvitePreview:
    """What an invite says of itself before it is used; not yet proven by anyone."""

    swarm: str
    root: str
    """The swarm's root public key, hex."""
    expires_s: int


@dataclass(frozen=True, slots=True)
class MemberView:
    """A peer that this home certified."""

    peer: str
    """The peer's identity key, hex."""
    name: str
    roles: tuple[str, ...]
    serial: str
    """Of its newest certificate, hex."""
    not_after_s: int
    is_revoked: bool = False


class Swarms(Protocol):
    """Private swarms, for the app; raises `ApiError`."""

    async def swarms(self) -> Sequence[SwarmView]: ...

    async def create_swarm(self, name: str, passphrase: str = "") -> SwarmView:
        """Make a swarm that this home owns, and go into it."""

    async def read_invite(self, line: str) -> InvitePreview:
        """Read an invite without using it or asking anybody."""

    async def join_swarm(self, line: str) -> SwarmView:
        """Redeem an invite, and go into its swarm."""

    async def use_swarm(self, name: str) -> None:
        """Leave what runs now and join another one; empty: solo."""

    async def invite(
        self,
        *,
        roles: Sequence[str] = (),
        uses: int = 1,
        expires_s: float = 24 * 3600.0,
        name: str = "",
    ) -> str:
        """One line that lets somebody in."""

    async def invites(self) -> Sequence[InviteView]: ...

    async def withdraw_invite(self, invite_id: str) -> None: ...

    async def members(self) -> Sequence[MemberView]: ...

    async def revoke_member(self, peer: str, passphrase: str = "") -> None:
        """Cut a peer off, now and for good; needs the root key.

        Raises:
            ApiError: ``UNAUTHORIZED`` when the root key is locked and the passphrase
                is missing or wrong: ask for it and try again.
        """


class Node(Protocol):
    """The node as the app sees it.

    Called from the app's thread; the node itself runs in its own thread with its own
    loop. Coroutines are awaited on the app's loop and raise `ApiError`.
    """

    def start(self) -> None:
        """Begin in the background and return at once."""

    def state(self) -> NodeState:
        """The newest state; cheap, never blocks."""

    def subscribe(self, listener: Callable[[NodeState], None]) -> Callable[[], None]:
        """Hear of every new state, **on the node's thread**; returns the undo."""

    @property
    def private_swarms(self) -> Swarms:
        """Create, join, invite, revoke."""

    async def register(self, email: str, password: str, code: str = "") -> Account:
        """Make an account and log in; some swarms want a registration code."""

    async def login(self, email: str, password: str) -> Account: ...

    async def change_password(self, old: str, new: str) -> None:
        """Also ends every older session, but not this one."""

    async def logout_everywhere(self) -> None:
        """End every session of this account, this one too."""

    async def use_local_account(self) -> Account:
        """Go on as the local user; only in solo mode."""

    async def logout(self) -> None: ...

    def ask(
        self,
        prompt: str,
        *,
        model: str | None = None,
        history: Sequence[Message] = (),
    ) -> Answer: ...

    async def refresh_peers(self) -> Sequence[PeerView]: ...

    async def set_paused(self, is_paused: bool) -> None:
        """Let this home's processor take nothing new, or take it again; running
        answers finish. Also that of a `peerchat serve` of the home."""

    async def close(self) -> None:
        """Withdraw announcements, stop the thread. Ends within 15 s."""
