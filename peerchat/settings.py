"""The settings of one peerchat process, after flag, environment, file and default.

Only the shape; `peerchat.config` reads them from where they come from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from .api import Role
from .contribution import Hours

PROMPT_BYTES_MAX = 256 * 1024
"""Longest prompt, in bytes of UTF-8, that any hop accepts by default."""

SWARM_REFRESH_S = 120.0
"""Between two looks at the swarm record: how long a revoked peer goes on at most."""

BCRYPT_COST = 12

ENGINES = ("auto", "ollama", "openai", "llama", "guide")

STALL_S = 20.0
"""No fragment for so long while another processor is free: it goes on."""


OPEN_WARNING = (
    "open swarm: anyone may announce a gateway, an auth peer or a processor, and would "
    "see the passwords and prompts that are sent to it"
)
"""What is not protected there; told at every start."""


@dataclass(frozen=True, slots=True)
class Home:
    """Where one user's peerchat keeps its files; folders are made with mode 0700."""

    config_dir: Path
    data_dir: Path
    state_dir: Path
    log_dir: Path

    @property
    def config_path(self) -> Path:
        return self.config_dir / "config.toml"

    @property
    def store_path(self) -> Path:
        """Accounts, limits and secrets: SQLite."""
        return self.data_dir / "peerchat.db"

    @property
    def seed_path(self) -> Path:
        """32 bytes: the peer's identity seed, mode 0600."""
        return self.data_dir / "identity.seed"

    @property
    def swarms_dir(self) -> Path:
        """A folder for each private swarm: see `peerchat.swarm_files`."""
        return self.data_dir / "swarms"

    @property
    def models_dir(self) -> Path:
        """GGUF files that were pulled."""
        return self.data_dir / "models"

    @property
    def session_path(self) -> Path:
        """Who is logged in, and the token: JSON, mode 0600."""
        return self.state_dir / "session.json"

    @property
    def run_path(self) -> Path:
        """What a running `peerchat serve` says of itself: JSON, mode 0600."""
        return self.state_dir / "serve.json"


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set; immutable."""

    home: Home
    bootstrap: tuple[str, ...] | None = None
    """``[ip@]host:port`` each; empty: a DHT of its own here; None: the public nodes."""
    is_open: bool = False
    swarm: str = ""
    """Name of a private swarm of this home; empty: none."""
    swarm_refresh_s: float = SWARM_REFRESH_S
    registration: str = "open"
    """Who may make an account: ``open``, ``approval`` or ``invite``."""
    database_url: str = field(default="", repr=False)
    """PostgreSQL that several machines share; empty: SQLite of this home."""
    bcrypt_cost: int = BCRYPT_COST
    roles: frozenset[Role] = field(default_factory=frozenset)
    http_host: str = "127.0.0.1"
    http_port: int = 3000
    ollama_port: int | None = None
    """Ollama's API on a port of its own, where callers of this machine need no token
    as long as ``http_host`` is loopback; None: only on the bridge's."""
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = None
    engine: str = "auto"
    engine_url: str = ""
    """Of an OpenAI-compatible server, such as ``http://127.0.0.1:8080/v1``."""
    engine_key: str = field(default="", repr=False)
    """What that server wants as a bearer token."""
    model_file: str = ""
    """GGUF file for the embedded llama.cpp."""
    model: str = ""
    max_requests: int = 10
    window_minutes: float = 1.0
    slots: int = 1
    offer: tuple[str, ...] = ()
    """Models that the processor gives, ``*`` allowed; empty: all of its engine."""
    share_models: bool | None = None
    """The processor gives its model files to members of the swarm; None: in private
    swarms."""
    hours: Hours | None = None
    """When the processor takes prompts; None: always."""
    tokens_per_day: int | None = None
    """Of answers that the processor gives from midnight to midnight; None: no cap."""
    stall_s: float = STALL_S
    """A gateway lets another processor go on after so long without a fragment."""
    jwt_secret: str = field(default="", repr=False)
    prompt_bytes_max: int = PROMPT_BYTES_MAX
    ollama_host: str = ""
    log_level: str = "info"
    prompt_log: bool = False
    trusted_proxies: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    dht_host: str = "0.0.0.0"
    dht_port: int = 49737

    @property
    def is_solo(self) -> bool:
        """No swarm is named: everything runs on loopback in this process."""
        return not self.is_open and not self.swarm

    @property
    def mode(self) -> str:
        """``solo``, ``open`` or ``private``, as far as settings say."""
        if self.swarm:
            return "private"
        return "open" if self.is_open else "solo"
