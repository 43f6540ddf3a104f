"""Takes fields out of a request's JSON body, and says which one is wrong.

A field that is ``null`` counts as left out, as in both APIs. Whatever is not asked for
is ignored: clients send more than anybody serves.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping, Sequence

from .errors import invalid

Body = Mapping[str, object]

NUMBER_MAX = 2**53
"""Of options; JavaScript's clients can say no larger whole number, and the wire has 64
bits."""

MODEL_CHARS_MAX = 256
STOPS_MAX = 16
"""More than any engine takes; the engine has the last word."""


def text(body: Body, name: str, *, default: str = "") -> str:
    """A text, or the default."""
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, str):
        raise invalid(f"{name} must be a text.")
    return value


def flag(body: Body, name: str, *, default: bool) -> bool:
    """Yes or no."""
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise invalid(f"{name} must be true or false.")
    return value


def objects(body: Body, name: str) -> Sequence[Mapping[str, object]]:
    """A list of objects; empty when left out."""
    value = body.get(name)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise invalid(f"{name} must be a list of objects.")
    return value


def mapping(body: Body, name: str) -> Mapping[str, object]:
    """An object; empty when left out."""
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise invalid(f"{name} must be an object.")
    return value


def model_name(body: Body) -> str:
    """The model's name; empty when left out."""
    name = text(body, "model").strip()
    if len(name) > MODEL_CHARS_MAX:
        raise invalid("model is no name of a model.")
    return name


def dimensions(body: Body) -> int | None:
    """How long vectors should be."""
    value = body.get("dimensions")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 8192:
        raise invalid("dimensions must be a whole number from 1 to 8192.")
    return value


def number(name: str, value: object, *, is_whole: bool) -> int | float:
    """An option's number; its range is the engine's business."""
    kinds = int if is_whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds):
        kind = "a whole number" if is_whole else "a number"
        raise invalid(f"{name} must be {kind}.")
    if not math.isfinite(value) or abs(value) > NUMBER_MAX:
        raise invalid(f"{name} is out of range.")
    return value


def stops(name: str, value: object) -> list[str]:
    """Where an answer ends: a text or a few of them."""
    found = [value] if isinstance(value, str) else value
    if (
        not isinstance(found, list)
        or len(found) > STOPS_MAX
        or not all(isinstance(one, str) for one in found)
    ):
        raise invalid(f"{name} must be a text, or a list of at most {STOPS_MAX} texts.")
    return [one for one in found if one]


def image(data: object, where: str) -> bytes:
    """An image out of base64."""
    try:
        if not isinstance(data, str):
            raise ValueError
        found = base64.b64decode("".join(data.split()), validate=True)
    except (ValueError, binascii.Error):
        raise invalid(f"{where} must be a file in base64.") from None
    if not found:
        raise invalid(f"{where} is empty.")
    return found
