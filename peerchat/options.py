"""Every setting once: its flag, its environment variables, its key, how it is read.

`peerchat.config` looks the values up; here is only what each may be. A parser takes
what a flag, the environment or TOML gives, and raises ValueError with the rest of the
sentence "KEY must be …".
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from .api import Role
from .contribution import Hours, parse_hours
from .settings import ENGINES
from .swarm_files import NO_SWARM, parse_swarm_name

Parser = Callable[[object], object]

LOG_LEVELS = ("debug", "info", "warning", "error")
PROMPT_BYTES_CEILING = 1024 * 1024
"""No prompt limit above the largest body that the bridge takes."""

REGISTRATIONS = ("open", "approval", "invite")
BCRYPT_COST_MIN = 10
"""Below it a stolen store is guessed through in days."""
BCRYPT_COST_MAX = 15
"""About three seconds a password; every step above doubles it."""

_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?")


@dataclass(frozen=True, slots=True)
class Option:
    """One setting.

    Attributes:
        field: its name in `peerchat.settings.Settings`.
        parse: reads a value from wherever it comes.
        flag: on the command line; empty for those that have none.
        variables: in the environment, the strongest first.
        key: in `config.toml`; the field's name when empty.
    """

    field: str
    parse: Parser
    flag: str = ""
    variables: tuple[str, ...] = ()
    key: str = ""
    is_secret: bool = False

    @property
    def file_key(self) -> str:
        return self.key or self.field


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a text that is not empty")
    return value.strip()


def _switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word in ("1", "true", "yes", "on"):
        return True
    if word in ("0", "false", "no", "off"):
        return False
    raise ValueError("true or false")


def _whole(low: int, high: int) -> Parser:
    def parse(value: object) -> int:
        wanted = ValueError(f"a whole number from {low} to {high}")
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise wanted
        try:
            number = int(value)
        except ValueError:
            raise wanted from None
        if not low <= number <= high:
            raise wanted
        return number

    return parse


def _number(low: float, high: float) -> Parser:
    def parse(value: object) -> float:
        wanted = ValueError(f"a number from {low:g} to {high:g}")
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise wanted
        try:
            number = float(value)
        except ValueError:
            raise wanted from None
        if not low <= number <= high:  # also false for NaN
            raise wanted
        return number

    return parse


def _one_of(*words: str) -> Parser:
    def parse(value: object) -> str:
        word = str(value).strip().lower()
        if word not in words:
            raise ValueError("one of: " + ", ".join(words))
        return word

    return parse


def _items(value: object) -> list[str]:
    """Split what may be a comma-separated text or a list of texts."""
    parts: Iterable[object]
    if isinstance(value, str):
        parts = value.split(",")
    elif isinstance(value, Iterable):
        parts = value
    else:
        raise ValueError("a list, or texts separated by commas")
    return [text for part in parts if (text := str(part).strip())]


def parse_bootstrap(value: object) -> tuple[str, ...]:
    """Read ``[IP@]HOST:PORT[,…]``; ``none`` gives no node at all.

    Raises:
        ValueError: with what it must be instead.
    """
    items = _items(value)
    if [item.lower() for item in items] == ["none"]:
        return ()
    wanted = "HOST:PORT or IP@HOST:PORT, separated by commas, or 'none'"
    for item in items:
        address, _, port = item.rpartition(":")
        ip, at, host = address.rpartition("@")
        if not _HOST.fullmatch(host) or not port.isascii() or not port.isdigit():
            raise ValueError(wanted)
        if not 0 < int(port) < 65536:
            raise ValueError(f"{wanted}; {port} is not a port")
        if at and not _is_ipv4(ip):
            raise ValueError(f"{wanted}; {ip!r} is not an IPv4 address")
    if not items:
        raise ValueError(wanted)
    return tuple(items)


def _is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def _swarm(value: object) -> str:
    text = _text(value).lower()
    return "" if text == NO_SWARM else parse_swarm_name(text)


def _http_url(value: object) -> str:
    text = _text(value)
    wanted = "a URL such as http://127.0.0.1:8080/v1"
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise ValueError(wanted) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        raise ValueError(wanted)
    return text


def _database_url(value: object) -> str:
    """Read a URL; what is wrong with it is said without showing its password."""
    text = _text(value)
    wanted = "a URL such as postgresql+asyncpg://user:password@host/database"
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise ValueError(wanted) from None
    if parts.scheme not in ("postgresql", "postgresql+asyncpg"):
        raise ValueError(wanted)
    if not parts.path.strip("/"):
        raise ValueError(wanted)
    return "postgresql+asyncpg" + text[len(parts.scheme) :]


def _roles(value: object) -> frozenset[Role]:
    words = [word.lower() for word in _items(value)]
    if "all" in words:
        return frozenset(Role)
    try:
        return frozenset(Role(word) for word in words)
    except ValueError:
        raise ValueError("of: auth, gateway, processor, bridge, all") from None


def _host(value: object) -> str:
    text = _text(value)
    try:
        ipaddress.ip_address(text)
    except ValueError:
        if not _HOST.fullmatch(text):
            raise ValueError("an IP address or a host name") from None
    return text


def _networks(value: object) -> tuple[str, ...]:
    try:
        return tuple(str(ipaddress.ip_network(item)) for item in _items(value))
    except ValueError:
        raise ValueError("IP addresses or networks such as 10.0.0.0/8") from None


def _origins(value: object) -> tuple[str, ...]:
    found = []
    for item in _items(value):
        parts = urlsplit(item)
        has_more = parts.path.strip("/") or parts.query or parts.fragment
        if item != "*" and (not parts.scheme or not parts.netloc or has_more):
            raise ValueError("origins such as https://example.org:8443, or *")
        found.append(item.rstrip("/").lower())
    return tuple(found)


def _hosts(value: object) -> tuple[str, ...]:
    hosts = _items(value)
    for host in hosts:
        if host != "*" and not _HOST.fullmatch(host):
            raise ValueError("host names without a port, or *")
    return tuple(host.lower() for host in hosts)


def _names(value: object) -> tuple[str, ...]:
    return tuple(_items(value))


def _hours(value: object) -> Hours:
    return parse_hours(_text(value))


_PORT = _whole(0, 65535)

OPTIONS: tuple[Option, ...] = (
    Option("bootstrap", parse_bootstrap, "--bootstrap", ("PEERCHAT_BOOTSTRAP",)),
    Option("is_open", _switch, "--open", ("PEERCHAT_OPEN",), "open"),
    Option("swarm", _swarm, "--swarm", ("PEERCHAT_SWARM",)),
    Option(
        "swarm_refresh_s",
        _number(1, 24 * 3600),
        variables=("PEERCHAT_SWARM_REFRESH_S",),
    ),
    Option(
        "registration",
        _one_of(*REGISTRATIONS),
        "--registration",
        ("PEERCHAT_REGISTRATION",),
    ),
    Option(
        "database_url",
        _database_url,
        variables=("PEERCHAT_DATABASE_URL",),
        is_secret=True,
    ),
    Option(
        "bcrypt_cost",
        _whole(BCRYPT_COST_MIN, BCRYPT_COST_MAX),
        variables=("PEERCHAT_BCRYPT_COST",),
    ),
    Option("roles", _roles, "--role", ("PEERCHAT_ROLES",)),
    Option("http_host", _host, "--http-host", ("PEERCHAT_HTTP_HOST",)),
    Option("http_port", _PORT, "--http-port", ("PEERCHAT_HTTP_PORT", "PORT")),
    Option("ollama_port", _PORT, "--ollama-port", ("PEERCHAT_OLLAMA_PORT",)),
    Option("metrics_host", _host, "--metrics-host", ("PEERCHAT_METRICS_HOST",)),
    Option("metrics_port", _PORT, "--metrics-port", ("PEERCHAT_METRICS_PORT",)),
    Option("engine", _one_of(*ENGINES), "--engine", ("PEERCHAT_ENGINE",)),
    Option("engine_url", _http_url, "--engine-url", ("PEERCHAT_ENGINE_URL",)),
    Option("engine_key", _text, variables=("PEERCHAT_ENGINE_KEY",), is_secret=True),
    Option("model_file", _text, "--model-file", ("PEERCHAT_MODEL_FILE",)),
    Option("model", _text, "--model", ("PEERCHAT_MODEL",)),
    Option(
        "max_requests",
        _whole(1, 1_000_000),
        "--max-requests",
        ("PEERCHAT_MAX_REQUESTS", "MAX_REQUESTS_PER_INTERVAL"),
    ),
    Option(
        "window_minutes",
        _number(0.01, 60 * 24 * 31),
        "--window-minutes",
        ("PEERCHAT_WINDOW_MINUTES", "RESET_INTERVAL_MINUTE"),
    ),
    Option("slots", _whole(1, 1024), "--slots", ("PEERCHAT_SLOTS",)),
    Option("offer", _names, "--offer", ("PEERCHAT_OFFER",)),
    Option("share_models", _switch, variables=("PEERCHAT_SHARE_MODELS",)),
    Option("hours", _hours, "--hours", ("PEERCHAT_HOURS",)),
    Option(
        "tokens_per_day",
        _whole(1, 10**12),
        "--tokens-per-day",
        ("PEERCHAT_TOKENS_PER_DAY",),
    ),
    Option("stall_s", _number(1, 3600), variables=("PEERCHAT_STALL_S",)),
    Option(
        "jwt_secret",
        _text,
        variables=("PEERCHAT_JWT_SECRET", "JWT_SECRET"),
        is_secret=True,
    ),
    Option(
        "prompt_bytes_max",
        _whole(1, PROMPT_BYTES_CEILING),
        variables=("PEERCHAT_PROMPT_BYTES_MAX",),
    ),
    Option("ollama_host", _text, variables=("PEERCHAT_OLLAMA_HOST", "OLLAMA_HOST")),
    Option("log_level", _one_of(*LOG_LEVELS), "-v/-q", ("PEERCHAT_LOG",), "log"),
    Option("prompt_log", _switch, variables=("PEERCHAT_PROMPT_LOG",)),
    Option("trusted_proxies", _networks, variables=("PEERCHAT_TRUSTED_PROXIES",)),
    Option("allowed_origins", _origins, variables=("PEERCHAT_ALLOWED_ORIGINS",)),
    Option("allowed_hosts", _hosts, variables=("PEERCHAT_ALLOWED_HOSTS",)),
    Option("dht_host", _host, "--host", ("PEERCHAT_DHT_HOST",)),
    Option("dht_port", _PORT, "--port", ("PEERCHAT_DHT_PORT",)),
)
"""All but ``home``, which says where the file with the others is."""
