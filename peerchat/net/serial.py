"""Serial numbers of 32 bits that wrap around (RFC 1982).

A machine counts with plain integers that never wrap and converts at its edge:
`unwrap` finds the integer nearest to one it knows, `wrap` gives the wire's 32 bits.
"""

from __future__ import annotations

SERIAL_BITS = 32

SERIAL_MASK = (1 << SERIAL_BITS) - 1

_HALF = 1 << (SERIAL_BITS - 1)


def unwrap(serial: int, reference: int) -> int:
    """The integer closest to ``reference`` whose low 32 bits are ``serial``.

    May be negative when ``reference`` is small and ``serial`` lies just below it.
    """
    return reference + ((serial - reference + _HALF) & SERIAL_MASK) - _HALF


def wrap(number: int) -> int:
    """The 32 bits that go on the wire."""
    return number & SERIAL_MASK
