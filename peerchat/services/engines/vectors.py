"""Vectors as bytes: float32, little-endian, on whatever machine this is."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence


def packed(numbers: Sequence[float]) -> bytes:
    """A vector for the wire."""
    values = array("f", numbers)
    if sys.byteorder == "big":
        values.byteswap()
    return values.tobytes()


def unpacked(vector: bytes) -> list[float]:
    """The numbers of a vector from the wire."""
    values = array("f")
    values.frombytes(vector)
    if sys.byteorder == "big":
        values.byteswap()
    return values.tolist()
