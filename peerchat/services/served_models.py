"""The models of all processors as one list: what a gateway tells of its swarm.

Processors may have different models under one name. The list shows the kind that most
of them have, and of what it can do only what it can on each: a request may go to any.
No I/O.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from peerchat.api import Closed, LoadedModel, ModelDetails, ModelInfo

from .engines.base import CHAT, EMBED
from .processor_state import Processor
from .status_wire import ModelStatus

LISTED_MAX = 1000
"""Names in a swarm; sixty-four processors of an open one could tell 12 800."""


@dataclass(frozen=True, slots=True)
class _Served:
    """A model on one processor."""

    processor: Processor
    status: ModelStatus
    details: ModelDetails | None


def served_models(processors: Iterable[Processor]) -> list[ModelInfo]:
    """What those that are there serve, by name."""
    by_name: dict[str, list[_Served]] = {}
    for one in processors:
        for name, status in (one.models or {}).items():
            if name in by_name or len(by_name) < LISTED_MAX:
                served = _Served(one, status, one.details.get(name))
                by_name.setdefault(name, []).append(served)
    return [_merged(name, by_name[name]) for name in sorted(by_name)]


def _merged(name: str, all_served: Sequence[_Served]) -> ModelInfo:
    told = [one.details for one in all_served if one.details is not None]
    details = _common(told)
    abilities = details.capabilities if details else frozenset()
    return ModelInfo(
        name,
        engine=next((s.processor.engine for s in all_served if s.processor.engine), ""),
        peers=tuple(bytes(one.processor.key).hex() for one in all_served),
        context_tokens=details.context_tokens if details else None,
        is_embedder=EMBED in abilities and CHAT not in abilities,
        details=details,
        loaded=_loaded([one.status for one in all_served]),
        closed=_closed([one.processor.closed for one in all_served]),
    )


def _closed(all_closed: Sequence[Closed | None]) -> Closed | None:
    """That of the processor which opens first, if all are closed."""
    closed = [one for one in all_closed if one is not None]
    if len(closed) < len(all_closed):
        return None
    return min(closed, key=lambda one: (one.opens_in_s is None, one.opens_in_s or 0.0))


def _common(told: Sequence[ModelDetails]) -> ModelDetails | None:
    """The kind that most have; of equals the same one everywhere."""
    if not told:
        return None
    counted = Counter(map(_kind, told))
    kind = min(counted, key=lambda kind: (not any(kind), -counted[kind], kind))
    same = [one for one in told if _kind(one) == kind]
    contexts = [one.context_tokens for one in told if one.context_tokens]
    return replace(
        max(same, key=lambda one: (one.modified_s or 0.0, sorted(one.capabilities))),
        context_tokens=min(contexts, default=None),
        capabilities=_abilities(told),
    )


def _kind(model: ModelDetails) -> tuple[str, str, str, int]:
    """What tells two models under one name apart."""
    size = model.size_bytes or 0
    return model.digest, model.parameters, model.quantization, size


def _abilities(told: Sequence[ModelDetails]) -> frozenset[str]:
    """What it can do wherever the request goes; who tells nothing is not counted."""
    known = [one.capabilities for one in told if one.capabilities]
    return frozenset.intersection(*known) if known else frozenset()


def _loaded(statuses: Sequence[ModelStatus]) -> LoadedModel | None:
    """That of the processor which keeps it longest, if any has it in memory."""
    told = [one.loaded for one in statuses if one.loaded is not None]
    if not told:
        is_warm = any(one.load_s == 0 for one in statuses)
        return LoadedModel() if is_warm else None
    longest = max(told, key=lambda one: (one.kept_s is None, one.kept_s or 0.0))
    return LoadedModel(
        longest.kept_s, longest.size_bytes, longest.vram_bytes, longest.context_tokens
    )
