"""Which engine a processor runs: ``--engine auto|ollama|openai|llama|guide``."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from dataclasses import dataclass

from peerchat.services.models.store import ModelStore, model_files
from peerchat.settings import ENGINES, Settings

from . import ollama_probe
from .base import Engine, invalid_request
from .guide import GuideEngine


@dataclass(frozen=True, slots=True)
class Choice:
    """An engine and why it is the one."""

    engine: Engine
    reason: str
    """One line for the log, the status and the app."""


async def choose_engine(settings: Settings) -> Choice:
    """Pick the engine; takes two seconds when Ollama's machine does not answer.

    ``auto`` takes Ollama when it answers and has a local model, else the server of
    ``engine_url``, else the embedded llama.cpp when there is a model file, else the
    guide. One that is asked for may be down: prompts then get ENGINE_DOWN until it is
    up.

    Raises:
        ApiError: INVALID_REQUEST for an engine that does not exist, or lacks what it
            needs.
    """
    if settings.engine == "guide":
        return Choice(GuideEngine(), "guide: asked for; no language model answers")
    if settings.engine == "auto":
        return await _first_that_is_up(settings)
    make = _MAKERS.get(settings.engine)
    if make is None:
        raise invalid_request(
            f"There is no engine {settings.engine!r}: use {', '.join(ENGINES)}."
        )
    if settings.engine == "ollama":
        make = await _ollama_maker()
    engine = make(settings)
    health = await engine.health()
    state = "" if health.is_up else "asked for, and down now: "
    return Choice(engine, f"{engine.name}: {state}{health.detail}")


async def _first_that_is_up(settings: Settings) -> Choice:
    makers: list[Callable[[Settings], Engine]] = []
    problems: list[str] = []
    ollama_url = ollama_probe.url_of(settings.ollama_host)
    if await ollama_probe.answers(ollama_url):
        makers.append(await _ollama_maker())
    else:
        problems.append(ollama_probe.is_down_text(ollama_url))
    if settings.engine_url:
        makers.append(_openai)
    if model_files(settings):
        makers.append(_llama)
    for make in makers:
        engine = make(settings)
        health = await engine.health()
        if health.is_up or (settings.model and await _has_models(engine)):
            return Choice(engine, f"{engine.name}: {health.detail}")
        problems.append(health.detail)
        await engine.close()
    why = "; ".join(problems)
    return Choice(GuideEngine(), f"guide: {why}, then start peerchat again")


async def _ollama_maker() -> Callable[[Settings], Engine]:
    """Imports what the engine needs while the loop of the node goes on."""
    await asyncio.to_thread(importlib.import_module, "peerchat.services.engines.ollama")
    return _ollama


def _ollama(settings: Settings) -> Engine:
    from .ollama import OllamaEngine

    return OllamaEngine(host=settings.ollama_host, model=settings.model)


def _openai(settings: Settings) -> Engine:
    from .openai import OpenAiEngine

    if not settings.engine_url:
        raise invalid_request(
            "The engine openai needs the URL of its server: --engine-url "
            "http://127.0.0.1:8080/v1."
        )
    return OpenAiEngine(
        url=settings.engine_url, key=settings.engine_key, model=settings.model
    )


def _llama(settings: Settings) -> Engine:
    from peerchat.services.models.shelf import known_sha256

    from .llama import LlamaEngine

    store = ModelStore(settings.home.models_dir)
    return LlamaEngine(
        model_files(settings),
        model=settings.model,
        slots=settings.slots,
        digest_of=lambda name, path: known_sha256(store, name, path),
    )


_MAKERS: dict[str, Callable[[Settings], Engine]] = {
    "ollama": _ollama,
    "openai": _openai,
    "llama": _llama,
}


async def _has_models(engine: Engine) -> bool:
    """Whether it serves anything: a wrong --model must be told, not papered over."""
    try:
        return bool(await engine.models())
    except Exception:
        return False
