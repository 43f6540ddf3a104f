"""Reads the settings: flag beats environment beats `config.toml` beats default.

`load_settings` only reads. `prepare_home` makes the folders and repairs their modes;
call it before anything is written. What each option may be is in `peerchat.options`.
"""

from __future__ import annotations

import difflib
import errno
import logging
import os
import stat
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import platformdirs

from .api import ApiError, ErrorCode
from .options import OPTIONS, Option
from .sanitize import display_line
from .settings import Home, Settings
from .swarm_files import current_path, read_current

logger = logging.getLogger(__name__)

APP_TABLE = "tui"
"""The table of `config.toml` that belongs to the app; not read here."""

CONFIG_BYTES_MAX = 1024 * 1024
"""A larger `config.toml` is some other file by mistake."""

SECRET_BYTES_MIN = 32
"""RFC 7518 section 3.2: an HS256 key is at least as long as its hash."""


class ConfigError(ApiError):
    """A setting that cannot be used; says which, where it came from, what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.INVALID_REQUEST, message, status=400)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a value came from."""

    kind: str
    """``flag``, ``environment``, ``file`` or ``default``."""
    name: str
    """Such as ``--http-port``, ``PORT`` or ``/home/ann/.config/…: http_port``."""

    def __str__(self) -> str:
        return self.name


DEFAULT = Source("default", "default")


@dataclass(frozen=True, slots=True)
class Explained:
    """The settings, and where each came from."""

    settings: Settings
    sources: Mapping[str, Source]
    """By the name of the field in `Settings`, ``home`` included."""
    warnings: Sequence[str]

    def lines(self) -> list[str]:
        """One line for each setting: key, value, source; secrets are not shown."""
        shown = [f"home = {self.settings.home.config_dir} ({self.sources['home']})"]
        for option in OPTIONS:
            value = getattr(self.settings, option.field)
            text = ("(set)" if value else "") if option.is_secret else _shown(value)
            shown.append(f"{option.file_key} = {text} ({self.sources[option.field]})")
        return shown


def load_settings(
    overrides: Mapping[str, object] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    for_dht: bool = False,
) -> Settings:
    """Read all settings; warnings go to the log.

    Args:
        overrides: what the command line or the caller says, by the names of the
            fields of `Settings`; ``home`` is a path. None means not given.
        environ: instead of the process's environment.
        for_dht: the command joins no swarm (`peerchat dht`), or one that is not a
            setting yet (`peerchat swarm join`).

    Raises:
        ConfigError: a value that cannot be used, in one line.
    """
    explained = explain_settings(overrides, environ=environ, for_dht=for_dht)
    for warning in explained.warnings:
        logger.warning("%s", warning)
    return explained.settings


def explain_settings(
    overrides: Mapping[str, object] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    for_dht: bool = False,
) -> Explained:
    """Do as `load_settings` does, and tell where each value came from."""
    given = {
        key: value for key, value in (overrides or {}).items() if value is not None
    }
    _check_names(given)
    variables = os.environ if environ is None else environ
    home, home_source = find_home(given.get("home"), variables)
    in_file = read_config_file(home.config_path)
    values: dict[str, object] = {}
    sources = {"home": home_source}
    for option in OPTIONS:
        found, source = _find(option, given, variables, in_file, home.config_path)
        sources[option.field] = source
        if source is not DEFAULT:
            values[option.field] = _parse(option, found, source)
    is_asked = sources["swarm"] is not DEFAULT or values.get("is_open") or for_dht
    if not is_asked and (current := read_current(home)):
        values["swarm"] = current
        sources["swarm"] = Source("file", str(current_path(home)))
    settings = Settings(home=home, **values)  # type: ignore[arg-type]
    _check_together(settings, sources, for_dht=for_dht)
    return Explained(settings, sources, _warnings_about(settings, sources))


def find_home(
    given: object = None, environ: Mapping[str, str] | None = None
) -> tuple[Home, Source]:
    """Find the folders: ``--home``, ``PEERCHAT_HOME`` or the platform's own."""
    variables = os.environ if environ is None else environ
    if given is not None:
        return _one_folder(Path(str(given))), Source("flag", "--home")
    if folder := variables.get("PEERCHAT_HOME"):
        return _one_folder(Path(folder)), Source("environment", "PEERCHAT_HOME")
    dirs = platformdirs.PlatformDirs("peerchat", appauthor=False)
    home = Home(
        dirs.user_config_path,
        dirs.user_data_path,
        dirs.user_state_path,
        dirs.user_log_path,
    )
    return home, DEFAULT


def _one_folder(folder: Path) -> Home:
    try:
        root = folder.expanduser().absolute()
    except RuntimeError as error:
        raise ConfigError(f"Cannot use {folder} as home: {error}.") from None
    return Home(root, root / "data", root / "state", root / "logs")


def read_config_file(path: Path) -> dict[str, object]:
    """Read `config.toml`; no file is an empty one.

    Raises:
        ConfigError: it cannot be read or parsed, or has keys that do not exist.
    """
    try:
        with path.open("rb") as file:
            data = file.read(CONFIG_BYTES_MAX + 1)
    except FileNotFoundError:
        return {}
    except NotADirectoryError as error:
        raise _unusable(path.parent, error) from None
    except OSError as error:
        raise ConfigError(
            f"Cannot read {path}: {_reason(error)}. Make it a file that you may read, "
            "or move it away."
        ) from None
    if len(data) > CONFIG_BYTES_MAX:
        raise ConfigError(f"{path} is over 1 MiB; that is no configuration file.")
    try:
        table: dict[str, object] = tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.") from None
    table.pop(APP_TABLE, None)
    known = {option.file_key for option in OPTIONS}
    unknown = sorted(table.keys() - known)
    if unknown:
        hints = [_with_hint(display_line(key, 40), known) for key in unknown[:10]]
        raise ConfigError(f"{path} has unknown keys: {', '.join(hints)}. Remove them.")
    return table


def _with_hint(key: str, known: set[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f"{key} (did you mean {close[0]}?)" if close else key


def _check_names(given: Mapping[str, object]) -> None:
    unknown = sorted(given.keys() - {field.name for field in fields(Settings)})
    if unknown:
        raise ConfigError(f"There is no setting named {', '.join(unknown)}.")


def _find(
    option: Option,
    given: Mapping[str, object],
    environ: Mapping[str, str],
    in_file: Mapping[str, object],
    path: Path,
) -> tuple[object, Source]:
    """Find an option's value; an empty environment variable counts as unset."""
    if option.field in given:
        return given[option.field], Source("flag", option.flag or option.field)
    for variable in option.variables:
        if value := environ.get(variable, "").strip():
            return value, Source("environment", variable)
    if option.file_key in in_file:
        return in_file[option.file_key], Source("file", f"{path}: {option.file_key}")
    return None, DEFAULT


def _parse(option: Option, value: object, source: Source) -> object:
    try:
        return option.parse(value)
    except ValueError as error:
        got = "" if option.is_secret else f", not {value!r:.80}"
        raise ConfigError(
            f"{option.file_key} (from {source}) must be {error}{got}."
        ) from None


def _check_together(
    settings: Settings, sources: Mapping[str, Source], *, for_dht: bool
) -> None:
    if for_dht:
        return
    if settings.bootstrap and settings.is_solo:
        raise ConfigError(
            f"bootstrap (from {sources['bootstrap']}) needs a swarm to join: name one "
            "with --swarm (peerchat swarm create, or join), add --open for the open "
            "one, or leave bootstrap out to stay on this machine."
        )
    if settings.is_open and settings.swarm:
        raise ConfigError(
            f"open (from {sources['is_open']}) and swarm (from {sources['swarm']}) "
            "exclude each other: an open swarm has no name. Leave one out."
        )


def _warnings_about(settings: Settings, sources: Mapping[str, Source]) -> list[str]:
    secret = settings.jwt_secret
    if secret and len(secret.encode()) < SECRET_BYTES_MIN:
        return [
            f"jwt_secret (from {sources['jwt_secret']}) is shorter than "
            f"{SECRET_BYTES_MIN} bytes and can be guessed: use a longer one."
        ]
    return []


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, tuple | frozenset):
        return ",".join(sorted(map(str, value))) or "none"
    return str(value)


def prepare_home(home: Home) -> list[str]:
    """Make the folders with mode 0700, and repair laxer modes of what is in them.

    Returns:
        What was repaired, a line each, for the log.

    Raises:
        ConfigError: a folder cannot be made or written to.
    """
    repaired: list[str] = []
    folders = (home.config_dir, home.data_dir, home.state_dir, home.log_dir)
    for folder in (*folders, *_swarm_dirs(home)):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not _is_shared(folder):
                repaired += _tighten(folder, 0o700)
        except OSError as error:
            raise _unusable(folder, error) from None
        if not os.access(folder, os.W_OK | os.X_OK):
            raise _unusable(folder, PermissionError(errno.EACCES, "Permission denied"))
    for path in _secret_paths(home):
        if path.is_file():
            try:
                repaired += _tighten(path, 0o600)
            except OSError as error:
                raise _unusable(path, error) from None
    return repaired


def _is_shared(folder: Path) -> bool:
    """Whether others need a folder: ``--home /tmp`` must not close it to them.

    What peerchat keeps inside has folders and modes of its own.
    """
    is_sticky = bool(folder.stat().st_mode & stat.S_ISVTX)
    return is_sticky or Path.home().is_relative_to(folder)


def _swarm_dirs(home: Home) -> list[Path]:
    found = [path for path in home.swarms_dir.glob("*") if path.is_dir()]
    return [home.swarms_dir, *found] if home.swarms_dir.is_dir() else []


def _secret_paths(home: Home) -> tuple[Path, ...]:
    store = home.store_path
    return (
        *home.swarms_dir.glob("*/*"),
        home.config_path,
        store,
        store.with_name(store.name + "-wal"),
        store.with_name(store.name + "-shm"),
        home.seed_path,
        home.session_path,
        home.run_path,
    )


def _tighten(path: Path, mode: int) -> list[str]:
    """Take away what others may do with a file; Windows has no such modes."""
    if sys.platform == "win32":
        return []
    before = stat.S_IMODE(path.stat().st_mode)
    if not before & ~mode & 0o777:
        return []
    path.chmod(before & mode)
    return [f"{path} was open to others (mode {before:04o}); now {before & mode:04o}."]


def _unusable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"Cannot use {path}: {_reason(error)}. Make it yours to write, or name another "
        "folder with --home."
    )


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
