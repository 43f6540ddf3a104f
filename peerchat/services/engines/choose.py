"""Which engine a processor runs: ``--engine auto|ollama|guide``."""

from __future__ import annotations

from dataclasses import dataclass

from peerchat.settings import Settings

from .base import Engine, invalid_request
from .guide import GuideEngine

ENGINES = ("auto", "ollama", "guide")


@dataclass(frozen=True, slots=True)
class Choice:
    """An engine and why it is the one."""

    engine: Engine
    reason: str
    """One line for the log, the status and the app."""


async def choose_engine(settings: Settings) -> Choice:
    """Pick the engine; takes two seconds when Ollama's machine does not answer.

    ``auto`` takes Ollama when it answers and has a local model, else the guide. With
    ``ollama`` the engine may be down: prompts then get ENGINE_DOWN until it is up.

    Raises:
        ApiError: INVALID_REQUEST for an engine that does not exist.
    """
    if settings.engine == "guide":
        return Choice(GuideEngine(), "guide: asked for; no language model answers")
    if settings.engine not in ENGINES:
        raise invalid_request(
            f"There is no engine {settings.engine!r}: use {', '.join(ENGINES)}."
        )
    # The ollama package takes a third of a second to import.
    from .ollama import OllamaEngine

    engine = OllamaEngine(host=settings.ollama_host, model=settings.model)
    health = await engine.health()
    if settings.engine == "ollama":
        state = "" if health.is_up else "asked for, and down now: "
        return Choice(engine, f"ollama: {state}{health.detail}")
    if health.is_up:
        return Choice(engine, f"ollama: {health.detail}")
    if settings.model and await _has_models(engine):
        return Choice(engine, f"ollama: {health.detail}")
    await engine.close()
    return Choice(GuideEngine(), f"guide: {health.detail}, then start peerchat again")


async def _has_models(engine: Engine) -> bool:
    """Whether it serves anything: a wrong --model must be told, not papered over."""
    try:
        return bool(await engine.models())
    except Exception:
        return False
