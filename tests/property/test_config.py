"""No text in the environment or in the file gives anything but settings or one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peerchat.config import ConfigError, load_settings
from peerchat.options import OPTIONS, parse_bootstrap
from peerchat.settings import Settings

VARIABLES = [name for option in OPTIONS for name in option.variables]
WORDS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["1", "0", "-1", "true", "none", "a:1", "nan", "1e9", "*", ","]),
)


def outcome(home: Path, environ: dict[str, str]) -> Settings | str:
    try:
        return load_settings({"home": home}, environ=environ)
    except ConfigError as error:
        return error.message


@given(st.dictionaries(st.sampled_from(VARIABLES), WORDS, max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_environment_gives_settings_or_one_line(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    found = outcome(tmp_path, environ)
    if isinstance(found, str):
        assert "\n" not in found
        assert any(name in found for name in environ)
    else:
        assert found.slots >= 1
        assert found.window_minutes > 0


@given(st.binary(max_size=80))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_file_gives_settings_or_names_itself(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "config.toml").write_bytes(data)
    found = outcome(tmp_path, {})
    assert isinstance(found, Settings) or "config.toml" in found


HOST = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
NODE = st.builds("{}:{}".format, HOST, st.integers(1, 65535))


@given(st.lists(NODE, min_size=1, max_size=5))
def test_bootstrap_reads_what_it_is_given(nodes: list[str]) -> None:
    assert parse_bootstrap(",".join(nodes)) == tuple(nodes)
    assert parse_bootstrap(nodes) == tuple(nodes)
    with pytest.raises(ValueError, match="HOST:PORT"):
        parse_bootstrap([*nodes, "no port"])
