"""Names of models: Ollama's have a tag, and people leave ``:latest`` out."""

from __future__ import annotations

from collections.abc import Collection

_LATEST = ":latest"


def served_name(wanted: str, names: Collection[str]) -> str | None:
    """The one of the names that is meant; None when it is none of them."""
    short = short_name(wanted)
    meant = (wanted, f"{short}{_LATEST}", short)
    return next((name for name in meant if name in names), None)


def short_name(name: str) -> str:
    """The same for all names of a model."""
    return name.removesuffix(_LATEST)


def is_same_model(one: str, other: str) -> bool:
    """Whether two names mean one model."""
    return served_name(one, (other,)) is not None
