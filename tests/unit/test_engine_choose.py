"""Which engine is taken, and the line that says why."""

from __future__ import annotations

import asyncio
import shutil
import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from peerchat.api import ApiError, ErrorCode
from peerchat.services.engines.choose import choose_engine
from peerchat.settings import Home, Settings
from peerchat.testing.ollama_behaviour import Behaviour
from peerchat.testing.ollama_stub import OllamaStub
from peerchat.testing.openai_stub import OpenAiStub
from tests.tiny_gguf import tiny_model

HERE = Home(Path(), Path(), Path(), Path())


def settings(engine: str, host: str, model: str = "") -> Settings:
    return Settings(HERE, engine=engine, ollama_host=host, model=model)


@pytest.fixture
def nobody() -> str:
    """An address where nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


async def test_auto_takes_ollama_when_it_has_a_model() -> None:
    async with OllamaStub() as stub:
        choice = await choose_engine(settings("auto", stub.url))
        assert choice.engine.name == "ollama"
        assert choice.reason.startswith("ollama: ")
        assert stub.url in choice.reason
        await choice.engine.close()


async def test_auto_takes_the_guide_when_ollama_has_only_remote_models() -> None:
    async with OllamaStub({"x:cloud": Behaviour(remote_host="https://x")}) as stub:
        choice = await choose_engine(settings("auto", stub.url))
        assert choice.engine.name == "guide"
        assert "ollama pull" in choice.reason


async def test_auto_takes_the_guide_when_ollama_is_down(nobody: str) -> None:
    choice = await choose_engine(settings("auto", nobody))
    assert choice.engine.name == "guide"
    assert "does not answer" in choice.reason


async def test_auto_does_not_hide_a_wrong_model() -> None:
    async with OllamaStub() as stub:
        choice = await choose_engine(settings("auto", stub.url, "mistral"))
        assert choice.engine.name == "ollama"
        assert "mistral" in choice.reason
        await choice.engine.close()


async def test_ollama_asked_for_stays_though_down(nobody: str) -> None:
    choice = await choose_engine(settings("ollama", nobody))
    assert choice.engine.name == "ollama"
    assert "down now" in choice.reason
    assert "ollama serve" in choice.reason
    await choice.engine.close()


async def test_auto_takes_a_server_that_was_named(nobody: str) -> None:
    async with OpenAiStub({"m": ["x"]}, key="k") as stub:
        asked = settings("auto", nobody)
        asked = replace(asked, engine_url=stub.url, engine_key="k")
        choice = await choose_engine(asked)
        assert choice.engine.name == "openai"
        assert stub.url in choice.reason
        await choice.engine.close()


async def test_auto_takes_a_model_file_when_nothing_else_is_up(nobody: str) -> None:
    asked = replace(settings("auto", nobody), model_file=str(tiny_model()))
    choice = await choose_engine(asked)
    assert choice.engine.name == "llama"
    assert "tiny" in choice.reason
    await choice.engine.close()


async def test_a_pulled_model_is_served(tmp_path: Path, nobody: str) -> None:
    home = Home(tmp_path, tmp_path, tmp_path, tmp_path)
    home.models_dir.mkdir()
    shutil.copy(tiny_model(), home.models_dir / "pulled.gguf")
    choice = await choose_engine(replace(settings("auto", nobody), home=home))
    assert [one.name for one in await choice.engine.models()] == ["pulled"]
    await choice.engine.close()


async def test_a_bad_model_file_leaves_the_guide_and_says_why(
    tmp_path: Path, nobody: str
) -> None:
    (tmp_path / "bad.gguf").write_text("no model")
    asked = replace(settings("auto", nobody), model_file=str(tmp_path / "bad.gguf"))
    choice = await choose_engine(asked)
    assert choice.engine.name == "guide"
    assert "does not begin with GGUF" in choice.reason


async def test_openai_without_a_url_is_refused(nobody: str) -> None:
    with pytest.raises(ApiError, match="--engine-url"):
        await choose_engine(settings("openai", nobody))


async def test_guide_asked_for_looks_for_nothing(nobody: str) -> None:
    choice = await choose_engine(settings("guide", nobody))
    assert choice.engine.name == "guide"
    assert "asked for" in choice.reason


async def test_an_unknown_engine_is_refused(nobody: str) -> None:
    with pytest.raises(ApiError) as caught:
        await choose_engine(settings("gpt", nobody))
    assert caught.value.code is ErrorCode.INVALID_REQUEST
    assert "auto, ollama, openai, llama, guide" in caught.value.message


@pytest.mark.parametrize("has_ollama", [False, True])
async def test_only_who_has_ollama_pays_for_its_package(
    nobody: str, has_ollama: bool
) -> None:
    program = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from peerchat.services.engines.choose import choose_engine\n"
        "from peerchat.settings import Home, Settings\n"
        "home = Home(Path(), Path(), Path(), Path())\n"
        "asked = Settings(home, engine='auto', ollama_host=sys.argv[1])\n"
        "choice = asyncio.run(choose_engine(asked))\n"
        "print(choice.engine.name, 'ollama' in sys.modules, 'pydantic' in sys.modules)"
    )
    async with OllamaStub() as stub:
        host = stub.url if has_ollama else nobody
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program, host), stdout=asyncio.subprocess.PIPE
        )
        said, _ = await process.communicate()
    assert said.split() == (
        [b"ollama", b"True", b"True"] if has_ollama else [b"guide", b"False", b"False"]
    )
