"""Signs of work while nothing can be shown, as a call is only told when it is whole.

Without them a long call looks like a stall to gateways, who would ask somebody else.
"""

from __future__ import annotations

import time

EVERY_S = 5.0
"""A fraction of the silence that gateways bear (`settings.STALL_S`)."""


class Signs:
    """Says when the next sign is due."""

    def __init__(self) -> None:
        self._last_s = time.monotonic()

    def is_due(self) -> bool:
        """Whether there was none for a while; asking counts as giving it."""
        now_s = time.monotonic()
        if now_s - self._last_s < EVERY_S:
            return False
        self._last_s = now_s
        return True
