"""Where settings come from, which wins, and what is said when one is wrong."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from peerchat.api import Role
from peerchat.config import (
    ConfigError,
    explain_settings,
    find_home,
    load_settings,
    prepare_home,
)
from peerchat.contribution import parse_hours
from peerchat.options import OPTIONS
from peerchat.settings import Settings

# field, flag's value, variable, its text, the file's line, and the three results
PRECEDENCE = [
    ("swarm", "flag", "PEERCHAT_SWARM", "env", 'swarm = "file"', "flag", "env", "file"),
    (
        "swarm_refresh_s",
        1,
        "PEERCHAT_SWARM_REFRESH_S",
        "2.5",
        "swarm_refresh_s = 3",
        1,
        2.5,
        3,
    ),
    (
        "registration",
        "open",
        "PEERCHAT_REGISTRATION",
        "approval",
        'registration = "invite"',
        "open",
        "approval",
        "invite",
    ),
    (
        "database_url",
        "postgresql://u:p@a/x",
        "PEERCHAT_DATABASE_URL",
        "postgresql+asyncpg://b/x",
        'database_url = "postgresql+asyncpg://c:5433/x"',
        "postgresql+asyncpg://u:p@a/x",
        "postgresql+asyncpg://b/x",
        "postgresql+asyncpg://c:5433/x",
    ),
    ("stall_s", 1, "PEERCHAT_STALL_S", "2.5", "stall_s = 3", 1, 2.5, 3),
    (
        "offer",
        "a",
        "PEERCHAT_OFFER",
        "b,c*",
        'offer = ["d"]',
        ("a",),
        ("b", "c*"),
        ("d",),
    ),
    ("tokens_per_day", 1, "PEERCHAT_TOKENS_PER_DAY", "2", "tokens_per_day=3", 1, 2, 3),
    (
        "hours",
        "22:00-07:00",
        "PEERCHAT_HOURS",
        "01:00-02:30",
        'hours = "08:00-09:00"',
        parse_hours("22:00-07:00"),
        parse_hours("01:00-02:30"),
        parse_hours("08:00-09:00"),
    ),
    ("bcrypt_cost", 10, "PEERCHAT_BCRYPT_COST", "11", "bcrypt_cost=13", 10, 11, 13),
    ("is_open", True, "PEERCHAT_OPEN", "0", "open = true", True, False, True),
    ("http_host", "::1", "PEERCHAT_HTTP_HOST", "b", 'http_host = "c"', "::1", "b", "c"),
    ("http_port", 1, "PORT", "2", "http_port = 3", 1, 2, 3),
    ("http_port", 1, "PEERCHAT_HTTP_PORT", "2", "http_port = 3", 1, 2, 3),
    ("ollama_port", 1, "PEERCHAT_OLLAMA_PORT", "2", "ollama_port = 3", 1, 2, 3),
    ("metrics_host", "a", "PEERCHAT_METRICS_HOST", "b", 'metrics_host="c"', *"abc"),
    ("metrics_port", 1, "PEERCHAT_METRICS_PORT", "2", "metrics_port = 3", 1, 2, 3),
    (
        "engine",
        "guide",
        "PEERCHAT_ENGINE",
        "ollama",
        'engine = "llama"',
        "guide",
        "ollama",
        "llama",
    ),
    (
        "share_models",
        True,
        "PEERCHAT_SHARE_MODELS",
        "off",
        "share_models = true",
        True,
        False,
        True,
    ),
    ("model", "a", "PEERCHAT_MODEL", "b", 'model = "c"', "a", "b", "c"),
    ("max_requests", 1, "MAX_REQUESTS_PER_INTERVAL", "2", "max_requests=3", 1, 2, 3),
    ("max_requests", 1, "PEERCHAT_MAX_REQUESTS", "2", "max_requests = 3", 1, 2, 3),
    (
        "window_minutes",
        1,
        "RESET_INTERVAL_MINUTE",
        "2.5",
        "window_minutes = 3",
        1,
        2.5,
        3,
    ),
    (
        "window_minutes",
        1,
        "PEERCHAT_WINDOW_MINUTES",
        "2",
        "window_minutes = 3",
        1,
        2,
        3,
    ),
    ("slots", 1, "PEERCHAT_SLOTS", "2", "slots = 3", 1, 2, 3),
    ("jwt_secret", "a", "JWT_SECRET", "b", 'jwt_secret = "c"', "a", "b", "c"),
    ("jwt_secret", "a", "PEERCHAT_JWT_SECRET", "b", 'jwt_secret = "c"', "a", "b", "c"),
    (
        "prompt_bytes_max",
        1,
        "PEERCHAT_PROMPT_BYTES_MAX",
        "2",
        "prompt_bytes_max=3",
        1,
        2,
        3,
    ),
    (
        "engine_url",
        "http://a/v1",
        "PEERCHAT_ENGINE_URL",
        "http://b",
        'engine_url = "https://c:1"',
        "http://a/v1",
        "http://b",
        "https://c:1",
    ),
    ("engine_key", "a", "PEERCHAT_ENGINE_KEY", "b", 'engine_key="c"', "a", "b", "c"),
    ("model_file", "a", "PEERCHAT_MODEL_FILE", "b", 'model_file="c"', "a", "b", "c"),
    ("ollama_host", "a", "OLLAMA_HOST", "b", 'ollama_host = "c"', "a", "b", "c"),
    (
        "ollama_host",
        "a",
        "PEERCHAT_OLLAMA_HOST",
        "b",
        'ollama_host = "c"',
        "a",
        "b",
        "c",
    ),
    (
        "log_level",
        "debug",
        "PEERCHAT_LOG",
        "ERROR",
        'log="info"',
        "debug",
        "error",
        "info",
    ),
    (
        "prompt_log",
        True,
        "PEERCHAT_PROMPT_LOG",
        "off",
        "prompt_log=true",
        True,
        False,
        True,
    ),
    ("dht_host", "a", "PEERCHAT_DHT_HOST", "b", 'dht_host = "c"', "a", "b", "c"),
    ("dht_port", 0, "PEERCHAT_DHT_PORT", "2", "dht_port = 3", 0, 2, 3),
    (
        "roles",
        ["all"],
        "PEERCHAT_ROLES",
        "auth, gateway",
        'roles = ["bridge"]',
        frozenset(Role),
        frozenset({Role.AUTH, Role.GATEWAY}),
        frozenset({Role.BRIDGE}),
    ),
    (
        "bootstrap",
        "none",
        "PEERCHAT_BOOTSTRAP",
        "a:1,1.2.3.4@b:2",
        'bootstrap = ["c:3"]',
        (),
        ("a:1", "1.2.3.4@b:2"),
        ("c:3",),
    ),
    (
        "trusted_proxies",
        ["10.0.0.0/8"],
        "PEERCHAT_TRUSTED_PROXIES",
        "::1",
        'trusted_proxies = ["127.0.0.1"]',
        ("10.0.0.0/8",),
        ("::1/128",),
        ("127.0.0.1/32",),
    ),
    (
        "allowed_origins",
        "*",
        "PEERCHAT_ALLOWED_ORIGINS",
        "https://A.example/",
        'allowed_origins = ["http://b:8080"]',
        ("*",),
        ("https://a.example",),
        ("http://b:8080",),
    ),
    (
        "allowed_hosts",
        "a.example",
        "PEERCHAT_ALLOWED_HOSTS",
        "*",
        'allowed_hosts = ["b"]',
        ("a.example",),
        ("*",),
        ("b",),
    ),
]


def write_config(home: Path, text: str) -> None:
    home.mkdir(exist_ok=True)
    (home / "config.toml").write_text(text)


@pytest.mark.parametrize(
    ("field", "flag", "variable", "text", "line", "by_flag", "by_env", "by_file"),
    PRECEDENCE,
)
def test_flag_beats_environment_beats_file_beats_default(
    tmp_path: Path,
    field: str,
    flag: object,
    variable: str,
    text: str,
    line: str,
    by_flag: object,
    by_env: object,
    by_file: object,
) -> None:
    def value(overrides: dict[str, object], environ: dict[str, str]) -> object:
        given = {"home": tmp_path, **overrides}
        settings = load_settings(given, environ=environ, for_dht=True)
        return getattr(settings, field)

    assert value({}, {}) == getattr(Settings(find_home()[0]), field)
    write_config(tmp_path, line)
    assert value({}, {}) == by_file
    assert value({}, {variable: "  "}) == by_file
    assert value({}, {variable: text}) == by_env
    assert value({field: flag}, {variable: text}) == by_flag
    assert value({field: None}, {variable: text}) == by_env


def test_every_option_has_its_row() -> None:
    assert {option.field for option in OPTIONS} == {row[0] for row in PRECEDENCE}
    variables = {name for option in OPTIONS for name in option.variables}
    assert variables == {row[2] for row in PRECEDENCE}


def test_our_variable_beats_the_one_of_the_nodejs_workers(tmp_path: Path) -> None:
    environ = {"PEERCHAT_HTTP_PORT": "8080", "PORT": "3001"}
    assert load_settings({"home": tmp_path}, environ=environ).http_port == 8080


def test_each_value_tells_where_it_came_from(tmp_path: Path) -> None:
    write_config(tmp_path, 'model = "m"')
    secret = "hush-" * 8
    explained = explain_settings(
        {"home": tmp_path, "slots": 2}, environ={"PORT": "1", "JWT_SECRET": secret}
    )
    sources = {key: str(source) for key, source in explained.sources.items()}
    assert sources["home"] == "--home"
    assert sources["slots"] == "--slots"
    assert sources["http_port"] == "PORT"
    assert sources["model"] == f"{tmp_path / 'config.toml'}: model"
    assert sources["engine"] == "default"
    lines = "\n".join(explained.lines())
    assert "http_port = 1 (PORT)" in lines
    assert "jwt_secret = (set) (JWT_SECRET)" in lines
    assert secret not in lines
    assert secret not in repr(explained.settings)


def test_a_short_secret_is_warned_of(tmp_path: Path) -> None:
    explained = explain_settings({"home": tmp_path}, environ={"JWT_SECRET": "short"})
    assert "JWT_SECRET" in explained.warnings[0]
    assert "short and" not in explained.warnings[0]


@pytest.mark.parametrize(
    ("overrides", "environ", "words"),
    [
        ({}, {"PORT": "http"}, ["http_port", "PORT", "whole number"]),
        ({"http_port": 70000}, {}, ["--http-port", "65535", "70000"]),
        ({"slots": 0}, {}, ["--slots", "from 1"]),
        ({"slots": True}, {}, ["--slots", "whole number"]),
        ({"window_minutes": float("nan")}, {}, ["--window-minutes"]),
        ({"log_level": "loud"}, {}, ["debug, info, warning, error"]),
        ({"roles": ["cook"]}, {}, ["--role", "gateway", "cook"]),
        ({"bootstrap": "host"}, {}, ["--bootstrap", "HOST:PORT"]),
        ({"bootstrap": "host:0"}, {}, ["0 is not a port"]),
        ({"bootstrap": "x@host:1"}, {}, ["'x' is not an IPv4 address"]),
        ({"bootstrap": ","}, {}, ["HOST:PORT"]),
        ({"bootstrap": "a:1"}, {}, ["--bootstrap", "--open"]),
        ({}, {"PEERCHAT_BOOTSTRAP": "a:1"}, ["PEERCHAT_BOOTSTRAP", "--open"]),
        ({"is_open": True, "swarm": "x"}, {}, ["--open", "--swarm", "exclude"]),
        ({"swarm": "../x"}, {}, ["--swarm", "letters"]),
        ({"swarm": "current"}, {}, ["--swarm", "another name"]),
        ({"bcrypt_cost": 9}, {}, ["bcrypt_cost", "10 to 15"]),
        ({"registration": "x"}, {}, ["open, approval, invite"]),
        ({"database_url": "mysql://a:hidden@b/c"}, {}, ["postgresql+asyncpg://"]),
        ({"is_open": "perhaps"}, {}, ["open", "true or false"]),
        ({"trusted_proxies": "proxy"}, {}, ["trusted_proxies", "10.0.0.0/8"]),
        ({"allowed_origins": "example.org"}, {}, ["https://"]),
        ({"allowed_hosts": "a:80"}, {}, ["without a port"]),
        ({"http_host": "two words"}, {}, ["host name"]),
        ({"engine": ""}, {}, ["--engine", "auto, ollama, openai, llama, guide"]),
        ({"engine": "foo"}, {}, ["--engine", "auto, ollama, openai, llama, guide"]),
        ({"nonsense": 1}, {}, ["nonsense"]),
    ],
)
def test_a_wrong_value_is_named(
    tmp_path: Path,
    overrides: dict[str, object],
    environ: dict[str, str],
    words: list[str],
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings({"home": tmp_path, **overrides}, environ=environ)
    assert "\n" not in caught.value.message
    for word in words:
        assert word in caught.value.message


def test_a_wrong_secret_is_not_repeated(tmp_path: Path) -> None:
    write_config(tmp_path, "jwt_secret = 9173")
    with pytest.raises(ConfigError) as caught:
        load_settings({"home": tmp_path}, environ={})
    assert "9173" not in str(caught.value)


def test_bootstrap_joins_what_it_can(tmp_path: Path) -> None:
    def bootstrap(**given: object) -> object:
        for_dht = bool(given.pop("for_dht", False))
        overrides = {"home": tmp_path, **given}
        return load_settings(overrides, environ={}, for_dht=for_dht).bootstrap

    assert bootstrap() is None
    assert bootstrap(bootstrap="none") == ()
    assert bootstrap(bootstrap="a:1", is_open=True) == ("a:1",)
    assert bootstrap(bootstrap="a:1", swarm="s") == ("a:1",)
    assert bootstrap(bootstrap="a:1", for_dht=True) == ("a:1",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max_request = 3", ["max_request (did you mean max_requests?)"]),
        ("home = '/x'\nzebra = 1", ["home", "zebra", "Remove"]),
        ("slots = \n", ["not valid TOML", "line 1"]),
        ("slots = [1]", ["slots (from", "config.toml"]),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, words: list[str]) -> None:
    write_config(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_settings({"home": tmp_path}, environ={})
    for word in [str(tmp_path), *words]:
        assert word in caught.value.message


def test_the_table_of_the_app_is_left_to_it(tmp_path: Path) -> None:
    write_config(tmp_path, 'slots = 4\n[tui]\ntheme = "dark"')
    assert load_settings({"home": tmp_path}, environ={}).slots == 4


def test_a_binary_file_is_no_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_settings({"home": tmp_path}, environ={})


def test_a_home_of_ones_own_holds_everything(tmp_path: Path) -> None:
    by_flag = find_home(tmp_path / "a", {"PEERCHAT_HOME": str(tmp_path / "b")})[0]
    by_variable = find_home(None, {"PEERCHAT_HOME": str(tmp_path / "b")})[0]
    assert by_flag.config_path == tmp_path / "a" / "config.toml"
    assert by_flag.log_dir == tmp_path / "a" / "logs"
    assert by_variable.store_path.is_relative_to(tmp_path / "b")
    platform = find_home(None, {})[0]
    assert "peerchat" in str(platform.config_dir)


posix_only = pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")


@posix_only
def test_folders_and_secrets_are_private(tmp_path: Path) -> None:
    home = find_home(tmp_path / "new" / "home", {})[0]
    assert prepare_home(home) == []
    folders = (home.config_dir, home.data_dir, home.state_dir, home.log_dir)
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}
    assert prepare_home(home) == []

    home.data_dir.chmod(0o755)
    home.seed_path.write_bytes(b"seed")
    home.seed_path.chmod(0o644)
    warnings = prepare_home(home)
    assert len(warnings) == 2
    assert str(home.data_dir) in warnings[0]
    assert "0755" in warnings[0]
    assert stat.S_IMODE(home.seed_path.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.data_dir.stat().st_mode) == 0o700


@posix_only
def test_a_folder_that_others_need_stays_open_to_them(tmp_path: Path) -> None:
    shared = tmp_path / "like-tmp"
    shared.mkdir()
    shared.chmod(0o1777)
    home = find_home(shared, {})[0]
    assert prepare_home(home) == []
    assert stat.S_IMODE(shared.stat().st_mode) == 0o1777
    assert stat.S_IMODE(home.data_dir.stat().st_mode) == 0o700


def test_an_unusable_home_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError) as caught:
        prepare_home(find_home(tmp_path / "file", {})[0])
    assert str(tmp_path / "file") in caught.value.message
    assert "--home" in caught.value.message


def test_a_file_for_a_home_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match="--home"):
        load_settings({"home": tmp_path / "file"}, environ={})


@posix_only
@pytest.mark.skipif(not getattr(os, "geteuid", int)(), reason="root may write anywhere")
def test_a_home_without_write_permission_is_one_clear_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="permission denied"):
        prepare_home(find_home(tmp_path / "home", {})[0])
