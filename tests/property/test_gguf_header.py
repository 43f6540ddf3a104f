"""Any file is a GGUF that can be used or a `GgufError`, and never worse."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peerchat.services.engines.gguf_header import GgufError, read_header_untrusted
from tests.tiny_gguf import Shape, tiny_model

WHOLE = tiny_model().read_bytes()
HEAD = WHOLE[:12_000]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gguf") / "any.gguf"


def read(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with contextlib.suppress(GgufError):
        read_header_untrusted(path)


def test_the_tiny_model_tells_what_it_is() -> None:
    header = read_header_untrusted(tiny_model())
    assert header.architecture == "llama"
    assert header.parameters > 100_000
    assert header.quantization == "F32"
    assert header.context_tokens == 8192
    assert "tools" in header.chat_template
    assert not header.is_embedder
    assert read_header_untrusted(tiny_model(Shape(is_embedder=True))).is_embedder


@given(st.binary(max_size=400))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes(path: Path, data: bytes) -> None:
    read(path, data)
    read(path, b"GGUF" + data)
    read(path, HEAD[:24] + data)


@given(st.integers(0, len(HEAD) - 1), st.binary(min_size=1, max_size=8))
@settings(max_examples=150)
def test_damage(path: Path, at: int, damage: bytes) -> None:
    read(path, HEAD[:at] + damage + HEAD[at + len(damage) :])
    read(path, HEAD[:at])
