"""Which options of a prompt reach an engine: an allow-list with ranges.

Everything else is dropped on purpose. ``num_ctx``, ``num_gpu``, ``num_batch`` and their
like make Ollama unload the model and load it again for everybody, and ``keep_alive``
sticks to the loaded model (ollama/server/sched.go, ``needsReload``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from .base import invalid_request

NUM_PREDICT_DEFAULT = 4096
"""Always sent: without it Ollama goes on for ten times the context."""

NUM_PREDICT_MAX = 16384
"""Longest answer in tokens, thinking included; one caller holds a slot so long."""

STOPS_MAX = 8
STOP_CHARS_MAX = 64
SEED_MAX = 2**31 - 1
THINK_LEVELS = frozenset({"low", "medium", "high"})


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What was asked for, checked; None leaves it to the engine."""

    num_predict: int = NUM_PREDICT_DEFAULT
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: Sequence[str] | None = None
    think: bool | str | None = None
    """False asks a thinking model to answer at once; True is its default anyway, and
    ``low``, ``medium`` and ``high`` are for models that know them."""
    min_p: float | None = None
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    tool_choice: str | None = None
    """``auto``, ``none``, ``required`` or the name of a function."""


def engine_options(options: Mapping[str, object]) -> EngineOptions:
    """Take what is allowed; ``max_tokens`` and ``max_completion_tokens`` are other
    names of ``num_predict``, ``reasoning_effort`` of ``think``.

    Raises:
        ApiError: INVALID_REQUEST when an allowed option has a wrong type or range.
    """
    asked = {name: value for name, value in options.items() if value is not None}
    longest = asked.get("max_tokens", asked.get("max_completion_tokens"))
    asked.setdefault("num_predict", NUM_PREDICT_DEFAULT if longest is None else longest)
    return EngineOptions(
        num_predict=_num_predict(asked["num_predict"]),
        temperature=_optional(asked, "temperature", _number(0, 2)),
        top_p=_optional(asked, "top_p", _number(0, 1)),
        top_k=_optional(asked, "top_k", _integer(0, 1000)),
        seed=_optional(asked, "seed", _seed),
        stop=_optional(asked, "stop", _stop),
        think=_think(asked.get("think", asked.get("reasoning_effort"))),
        min_p=_optional(asked, "min_p", _number(0, 1)),
        repeat_penalty=_optional(asked, "repeat_penalty", _number(0, 2)),
        presence_penalty=_optional(asked, "presence_penalty", _number(-2, 2)),
        frequency_penalty=_optional(asked, "frequency_penalty", _number(-2, 2)),
        tool_choice=_optional(asked, "tool_choice", _short),
    )


def _optional(
    asked: Mapping[str, object], name: str, check: Callable[[str, object], T]
) -> T | None:
    return check(name, asked[name]) if name in asked else None


def _number(low: float, high: float) -> Callable[[str, object], float]:
    def check(name: str, value: object) -> float:
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
            or not low <= value <= high
        ):
            raise invalid_request(
                f"The option {name} must be a number from {low} to {high}."
            )
        return float(value)

    return check


def _integer(low: int, high: int) -> Callable[[str, object], int]:
    def check(name: str, value: object) -> int:
        if (
            isinstance(value, bool)
            or not isinstance(value, int)
            or not low <= value <= high
        ):
            raise invalid_request(
                f"The option {name} must be a whole number from {low} to {high}."
            )
        return value

    return check


def _seed(name: str, value: object) -> int:
    """Folded rather than refused: clients draw more bits than engines take."""
    number = _integer(-(2**53), 2**53)(name, value)
    return number if abs(number) <= SEED_MAX else number & SEED_MAX


def _num_predict(value: object) -> int:
    """Capped rather than refused: clients send what other servers allow; Ollama's
    negative values mean no limit."""
    number = _integer(-(2**53), 2**53)("num_predict", value)
    if number == 0:
        raise invalid_request("The option num_predict must be at least 1.")
    return min(number, NUM_PREDICT_MAX) if number > 0 else NUM_PREDICT_MAX


def _think(value: object) -> bool | str | None:
    if value is False or value == "none":
        return False
    return value if isinstance(value, str) and value in THINK_LEVELS else None


def _short(name: str, value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= STOP_CHARS_MAX:
        raise invalid_request(
            f"The option {name} must be a text of 1 to {STOP_CHARS_MAX} characters."
        )
    return value


def _stop(name: str, value: object) -> list[str]:
    stops = [value] if isinstance(value, str) else value
    if (
        not isinstance(stops, list | tuple)
        or len(stops) > STOPS_MAX
        or not all(isinstance(s, str) and 0 < len(s) <= STOP_CHARS_MAX for s in stops)
    ):
        raise invalid_request(
            f"The option {name} must be at most {STOPS_MAX} texts of 1 to "
            f"{STOP_CHARS_MAX} characters."
        )
    return list(stops)
